"""The law's curve beside the runs of a DDO design, domain by domain."""

from collections.abc import Sequence

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.laws.autoscale.ddo import find_design
from autoscale_exp.laws.fit_file import Response
from autoscale_exp.laws.law import LossLaw
from autoscale_exp.laws.objective import Objective
from autoscale_exp.runs.table import RunTable


def responses_of(
    law: LossLaw, table: RunTable, groups: Sequence[Int64Array], objective: Objective
) -> list[list[Response]]:
    """Per scale and domain the proxy runs' points and the law's curve; empty where the runs hold no DDO design."""
    responses = []
    for rows in groups:
        base, varied = find_design(table, rows)
        if not all(varied):
            return []
        base_tokens, level = table.domain_tokens[base[0]], float(objective(table.losses[base]).mean())
        of_scale = []
        for i, domain in enumerate(law.domains):

            def curve(
                x: FloatArray, base_tokens: FloatArray = base_tokens, level: float = level, i: int = i
            ) -> FloatArray:
                tokens = np.tile(base_tokens, (len(x), 1))
                tokens[:, i] *= x
                return objective(law.predict(tokens)) / level

            points = [
                (float(table.domain_tokens[r, i] / base_tokens[i]), float(objective(table.losses[r]) / level))
                for r in [*base, *varied[i]]
            ]
            of_scale.append(Response.of(domain, sorted(points), curve))
        responses.append(of_scale)
    return responses
