"""How many runs a law needs, before there are any."""

import numpy as np

from autoscale_exp.laws.law import law_class
from autoscale_exp.laws.parametric.parametric_law import ParametricLaw
from autoscale_exp.laws.parametric.trees import LEAST_RUNS, LightGbmLaw
from autoscale_exp.laws.pooled.pooled_transfer import FEWEST_RUNS


def fewest_runs(name: str, domains: list[str], validation_domains: list[str], *, scaled: bool) -> int:
    """The number of runs below which a law refuses a table of them.

    Args:
        name: of the law.
        domains: K training domains.
        validation_domains: V of them.
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
    own = np.array([domains.index(v) if v in domains else -1 for v in validation_domains])
    none = np.empty((len(own), 0))
    unfitted = law(
        domains,
        validation_domains,
        own,
        unit=1.0,
        scaled=scaled,
        params=None,
        unique_tokens=None,
        reference_params=None,
        parameters=none,
        covariance=none,
        lower=none,
        upper=none,
        run_noise=none,
        diagnostics={},
    )
    return unfitted.num_free()
