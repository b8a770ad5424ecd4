"""The `reweighting` section: methods that set domain weights while a run trains. conf/reweighting has the values."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class ReweightingConf:
    """A method that sets domain weights from the losses of the run."""

    name: str = MISSING  # name in results and run names, in place of the mixture's


@dataclass
class DoremiConf(ReweightingConf):
    """Group DRO on the excess loss over a reference run. Rows are drawn as `mixture` says. See doremi.py."""

    reference: str | None = None  # folder of a finished run with save_model=true
    step_size: float = MISSING  # step size of the exponentiated gradient ascent on the weights
    smoothing: float = MISSING  # share of the uniform mixture in the weights after each step


@dataclass
class DogeConf(ReweightingConf):
    """Agreement of the domains' gradients. Rows are drawn as `mixture` says. See doge.py."""

    mu: float = MISSING  # how strongly weights stay near those of the last step; a smaller mu moves them faster
    largest_score: float = MISSING  # a domain's higher scores count as this


@dataclass
class AdoConf(ReweightingConf):
    """Power laws of the domains' losses steer the mixture, which starts as `mixture` says. See ado.py."""

    num_intervals: int = MISSING  # intervals of the run, after each of which laws are fitted and the mixture changes
    ignored_intervals: int = MISSING  # first intervals, whose losses are not fitted; the first law comes after one more
    policy_rate: float = MISSING  # share of the preferred mixture in the next step's; the rest is its running mean
    history_rate: float = MISSING  # share of the last step's mixture in the history that gets credit
    credit_exponent: float = MISSING  # exponent of the history
    least_weight: float = MISSING  # smallest weight of a domain in the preferred mixture
