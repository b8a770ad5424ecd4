"""The `published` section: the numbers of a published study, to show beside one's own."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class PublishedConf:
    """Numbers of a published study of the method `autoscale`, as far as it gives them."""

    source: str = MISSING  # source of the numbers
    model: str = MISSING  # the model that it trained
    target: int = MISSING  # token budget of the target runs
    domains: list[str] = MISSING  # the order of `weights`
    weights: dict[int, list[float]] = field(default_factory=dict)  # weights of the method, by token budget
    # by domain, changes of the objective with fewer and with more of its tokens, as shares
    effects: dict[str, list[float]] = field(default_factory=dict)
    savings: dict[str, float] = field(default_factory=dict)  # share of tokens saved, against uniform and best baseline
    scores: dict[str, float] = field(default_factory=dict)  # by task, the gain over uniform as a share
