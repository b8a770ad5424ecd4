"""A linear law: the baseline that every other law must beat.

    L_v(r, N) = b_v + sum_i t_vi (r_i - 1/K) + s_v log N,   r_i = n_i / N,  N = sum_i n_i in units of the median run

Source: a common baseline (RegMix, arXiv 2407.01492, calls it linear regression). Its ridge penalty is RIDGE, a prior so
wide that it decides only what the runs leave open. The fit is robust. The term in log N is there if the runs differ in
N. Limits: the best mixture is a corner; losses fall without end.
"""

from typing import ClassVar

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.parametric.parametric_law import NO_SCALE_NOTE, Parameter, ParametricLaw, Terms, Values
from autoscale_exp.laws.parametric.terms import by_log_tokens, split_tokens

RIDGE = Parameter(0.0, 10.0, -1e3, 1e3)  # nats


class LinearLaw(ParametricLaw):
    """Linear in the domain weights and in the log of total tokens."""

    name: ClassVar[str] = "linear"
    num_redundant: ClassVar[int] = 1  # domain weights sum to 1
    budget_note: ClassVar[str] = NO_SCALE_NOTE

    def layout(self) -> dict[str, Parameter]:
        """Level b, slopes t, and budget slope s where the runs differ in total tokens."""
        parameters = {"level": RIDGE, "rate": RIDGE._replace(per_domain=True)}
        return parameters | {"budget_rate": RIDGE} if self.scaled else parameters

    def formula(self, values: Values, tokens: FloatArray) -> Terms:
        """See the module's formula."""
        weights, log_total = split_tokens(tokens)
        centred = weights - 1 / len(self.domains)
        losses = values["level"] + (values["rate"] * centred).sum(axis=2)
        shape = (*losses.shape, len(self.domains))
        derivatives = {"level": np.ones_like(losses), "rate": np.broadcast_to(centred, shape)}
        by_total = np.zeros_like(losses)
        if self.scaled:
            losses = losses + values["budget_rate"] * log_total
            derivatives["budget_rate"] = np.broadcast_to(log_total, losses.shape)
            by_total = by_total + values["budget_rate"]
        return losses, derivatives, by_log_tokens(values["rate"] * weights, by_total, weights)
