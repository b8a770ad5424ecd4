from dataclasses import replace

import numpy as np
import pytest

from autoscale_exp.laws.law import fit_law
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.responses import responses_of
from autoscale_exp.runs.table import RunTable, scales_of
from tests.laws.synthetic import DOMAINS, ddo_table

OBJECTIVE = make_objective("mean_loss", "loss", None, DOMAINS)


def responses_under_the_default_law(table):
    return responses_of(fit_law("pooled_transfer", table), table, scales_of(table), OBJECTIVE)


def test_curves_are_those_of_the_models_of_each_scale():
    small, large = ddo_table(scales=(100_000,)), ddo_table(scales=(100_000,))
    table = RunTable(
        runs=[f"{run}_{size}" for size in ("small", "large") for run in small.runs],
        domains=DOMAINS,
        validation_domains=DOMAINS,
        domain_tokens=np.concatenate([small.domain_tokens, large.domain_tokens]),
        losses=np.concatenate([small.losses + 1.0, large.losses]),
        scales=small.scales + large.scales,
        params=np.repeat([1e6, 1e7], len(small.runs)),
    )
    for of_scale in responses_under_the_default_law(table):
        for response in of_scale:
            multiples, values = np.array(response.curve).T
            assert np.interp(1.0, multiples, values) == pytest.approx(1.0, abs=0.01)


def test_a_base_run_without_a_domain_has_no_multiples():
    table = ddo_table(scales=(100_000,))
    tokens = table.domain_tokens.copy()
    tokens[:, 2] = np.where(np.arange(7) < 5, 0.0, tokens[:, 2])
    assert responses_under_the_default_law(replace(table, domain_tokens=tokens)) == []
