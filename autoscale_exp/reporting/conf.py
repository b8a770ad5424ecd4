"""The `published` section: the numbers of a published study, to be shown beside those of one's own."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class PublishedConf:
    """Numbers of a published study of the method `autoscale`; what it does not tell is left out."""

    source: str = MISSING  # where they are from
    model: str = MISSING  # that it trained
    target: int = MISSING  # token budget of its target runs
    domains: list[str] = MISSING  # the order of `weights`
    weights: dict[int, list[float]] = field(default_factory=dict)  # the method's, by token budget
    # by domain how the objective changes, as a share, with fewer and with more of its tokens
    effects: dict[str, list[float]] = field(default_factory=dict)
    savings: dict[str, float] = field(default_factory=dict)  # of tokens, as a share, against uniform and best baseline
    scores: dict[str, float] = field(default_factory=dict)  # by task the gain over uniform, as a share
