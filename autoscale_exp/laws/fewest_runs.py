"""How many runs a law needs, for plans made before any run."""

from autoscale_exp.laws.law import law_class, own_domains
from autoscale_exp.laws.parametric.parametric_law import ParametricLaw
from autoscale_exp.laws.parametric.trees import LEAST_RUNS, LightGbmLaw
from autoscale_exp.laws.pooled.pooled_transfer import FEWEST_RUNS


def fewest_runs(name: str, domains: list[str], validation_domains: list[str], *, scaled: bool) -> int:
    """Returns the smallest number of runs that a law accepts.

    Args:
        name: the law's key in LAWS.
        domains: (K,) training domains.
        validation_domains: (V,) validation domains.
        scaled: whether the runs differ in total tokens.

    Raises:
        UserError: there is no such law.
    """
    law = law_class(name)
    if name == "autoscale":
        return 2 * len(domains) + 1  # a base run, and per domain one with more and one with less
    if issubclass(law, LightGbmLaw):
        return LEAST_RUNS
    if not issubclass(law, ParametricLaw):
        return FEWEST_RUNS
    own = own_domains(domains, validation_domains)
    return law.unfitted(domains, validation_domains, own, scaled=scaled).num_free()
