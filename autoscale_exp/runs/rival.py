"""The `rivals` section. A rival is a way to choose a mixture, made of commands of the other jobs."""

from dataclasses import dataclass, field


@dataclass
class RivalConf:
    """How a rival finds its mixture, and its target runs, as overrides of other jobs.

    In overrides, $folder is the study's folder and $target its token budget. $search_tokens are the tokens of its own
    search, which a rival may spend, and $half_search_tokens are half of them. $scale is the search's smallest
    scale, and $num_runs is how many runs of this scale $search_tokens pay for, besides a base run.
    """

    search: str | None = None  # folder in that of the study, for a search that rivals may share; null: the study's own
    design: list[str] = field(default_factory=list)  # overrides of `train` for the design of that search
    fit: list[str] | None = None  # overrides of `fit` to the search's runs; null: no fit
    trainings: dict[str, list[str]] = field(default_factory=dict)  # of `train`, for single runs by name, in order
    # Overrides of `train` for target runs. Empty: mixture=<the rival>, or the fit's mixtures if there is no such option
    target: list[str] = field(default_factory=list)
