"""The `reweighting` section: methods that set domain weights while a run trains. conf/reweighting has the values."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class ReweightingConf:
    """A method that sets domain weights from the losses of the run."""

    name: str = MISSING  # in results and run names, in place of the mixture's


@dataclass
class DoremiConf(ReweightingConf):
    """Group DRO on the excess loss over a reference run; `mixture` says which rows are drawn. See doremi.py."""

    reference: str | None = None  # folder of a finished run with save_model=true
    step_size: float = MISSING  # of the exponentiated gradient ascent on the weights
    smoothing: float = MISSING  # share of the uniform mixture in the weights after each step


@dataclass
class DogeConf(ReweightingConf):
    """Agreement of the domains' gradients; `mixture` says which rows are drawn. See doge.py."""

    mu: float = MISSING  # how strongly weights are held near those of the step before; less moves them faster
    largest_score: float = MISSING  # of a domain in a step; higher ones count as this


@dataclass
class AdoConf(ReweightingConf):
    """Power laws of the domains' losses steer the mixture, which starts as `mixture` says. See ado.py."""

    num_intervals: int = MISSING  # of the run; the laws are fitted anew, and the mixture is changed, after each
    ignored_intervals: int = MISSING  # at the start, whose losses are not fitted; the first law comes one later
    policy_rate: float = MISSING  # share of the preferred mixture in the next step's, beside its running mean
    history_rate: float = MISSING  # share of the last step's mixture in the history that gets credit
    credit_exponent: float = MISSING  # of the history
    least_weight: float = MISSING  # of any domain in the preferred mixture
