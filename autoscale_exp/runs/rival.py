"""The `rivals` section: each is one way to choose a mixture, made of commands of the other jobs."""

from dataclasses import dataclass, field


@dataclass
class RivalConf:
    """How a rival finds its mixture, as overrides of other jobs, and what its target runs are.

    In overrides, $folder is the study's folder, $target its token budget, $search_tokens the tokens of the study's own
    search, $scale its smallest scale, and $num_runs how many runs of that scale $search_tokens pay for.
    """

    search: str | None = None  # folder, in the study's, of a search that rivals may share; null: the study's own
    design: list[str] = field(default_factory=list)  # of `train`, the design of the search in that folder
    fit: list[str] | None = None  # of `fit` to the search's runs; null: none is fitted
    trainings: dict[str, list[str]] = field(default_factory=dict)  # of `train`, single runs by name, in this order
    target: list[str] = field(default_factory=list)  # of `train`, for the target runs; empty: mixture=<the rival>
