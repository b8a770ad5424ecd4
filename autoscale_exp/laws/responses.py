"""The response of the objective to one domain's tokens: the runs of a DDO design, and the law's curve."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.laws.autoscale.ddo import find_design
from autoscale_exp.laws.fit_file import Response
from autoscale_exp.laws.law import LossLaw, predict_runs
from autoscale_exp.laws.objective import Objective
from autoscale_exp.runs.table import RunTable, select_runs


def responses_of(
    law: LossLaw, table: RunTable, groups: Sequence[Int64Array], objective: Objective
) -> list[list[Response]]:
    """Returns a response per scale and domain.

    There are none if the runs of some scale hold no DDO design, or if its base run lacks a domain, whose tokens have no
    multiples then.
    """
    responses = []
    for rows in groups:
        base, varied = find_design(table, rows)
        base_tokens, level = table.domain_tokens[base[0]], float(objective(table.losses[base]).mean())
        if not all(varied) or not base_tokens.all():
            return []
        of_scale = []
        for i, domain in enumerate(law.domains):
            points = [
                (float(table.domain_tokens[r, i] / base_tokens[i]), float(objective(table.losses[r]) / level))
                for r in [*base, *varied[i]]
            ]
            curve = partial(_relative_objective, law, objective, select_runs(table, np.array(base[:1])), level, i)
            of_scale.append(Response.of(domain, sorted(points), curve))
        responses.append(of_scale)
    return responses


def _relative_objective(
    law: LossLaw, objective: Objective, base: RunTable, level: float, index: int, multiples: FloatArray
) -> FloatArray:
    """(X,) objective over `level` of the one run in `base`, but with (X,) multiples of its tokens of domain `index`."""
    runs = select_runs(base, np.zeros(len(multiples), dtype=np.int64))
    runs.domain_tokens[:, index] *= multiples
    return objective(predict_runs(law, runs)) / level
