import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.autoscale.ddo import check_design, find_design, fit_response
from autoscale_exp.laws.autoscale.law import AutoscaleLaw
from autoscale_exp.laws.law import own_domains
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds, power_law_optimum
from autoscale_exp.runs.table import RunTable, select_runs
from tests.laws.autoscale.authors import DOMAINS, ddo_runs
from tests.laws.synthetic import ddo_table, true_losses

NO_BOUNDS = (0.0, 1.0)


def fitted(table, objective, bounds):
    return AutoscaleLaw.fit(table, own_domains(table.domains, table.validation_domains)).responses(objective, bounds)


def authors_law(reduced, metric):
    objective = make_objective("mean", metric, None, DOMAINS)
    return fitted(ddo_runs(reduced), objective, make_bounds(0.2 / 7, 1.0, DOMAINS))


@pytest.mark.parametrize(
    ("reduced", "metric", "expected", "tolerance"),
    [
        (1 / 5, "perplexity", [1.62475, 0.2, 1.27415, 1.17980, 1.85190, 0.63716, 0.23224], 1e-4),
        (1 / 3, "perplexity", [1.501, 0.2, 1.247, 1.177, 1.666, 0.758, 0.452], 1e-3),
        (1 / 5, "loss", [1.173, 0.607, 0.765, 1.195, 1.352, 1.086, 0.823], 1e-3),
    ],
)
def test_optimum_on_the_authors_runs_is_theirs(reduced, metric, expected, tolerance):
    law = authors_law(reduced, metric)
    optimum = law.scale_optimum(law.scales[0])
    np.testing.assert_allclose(optimum.weights * 7, expected, atol=tolerance)
    assert optimum.kkt_residual < 1e-9


def test_parameters_on_the_authors_runs_are_theirs():
    scale = authors_law(1 / 5, "perplexity").scales[0]
    offset = [2.6659, 6.6162, 2.6736, 2.4631, 2.5184, 2.8900, 3.3192]
    exponent = [1.2492, 1.4360, 1.5363, 1.8287, 1.1859, 1.9536, 1.9267]
    floor = [0.8027, 0.9458, 0.8645, 0.8969, 0.7750, 0.9296, 0.9403]
    np.testing.assert_allclose(scale.offset, offset, atol=1e-4)
    np.testing.assert_allclose(scale.exponent, exponent, atol=1e-4)
    np.testing.assert_allclose(scale.floor, floor, atol=1e-4)


def test_the_objective_decides_the_answer():
    perplexity = authors_law(1 / 5, "perplexity")
    loss = authors_law(1 / 5, "loss")
    github = DOMAINS.index("github")
    assert perplexity.scale_optimum(perplexity.scales[0]).active_bounds == ["github: lower 0.02857"]
    assert loss.scale_optimum(loss.scales[0]).weights[github] > 0.08


@settings(max_examples=40, deadline=None)
@given(offset=st.floats(0.3, 5), exponent=st.floats(0.3, 2.5), floor=st.floats(0.1, 0.9))
def test_a_response_without_noise_is_met_at_three_points_and_recovered_from_five(offset, exponent, floor):
    def curve(x, parameters):
        return (parameters[0] + x) ** -parameters[1] + parameters[2]

    truth = (offset, exponent, floor)
    three, five = np.array([1 / 3, 1.0, 3.0]), np.array([0.05, 1 / 3, 1.0, 3.0, 20.0])
    np.testing.assert_allclose(curve(three, fit_response(three, curve(three, truth))), curve(three, truth), atol=1e-8)
    np.testing.assert_allclose(fit_response(five, curve(five, truth))[:3], truth, rtol=1e-4)


def test_a_domain_that_does_not_help_has_no_exponent():
    assert fit_response(np.array([1 / 3, 1.0, 3.0]), np.array([0.99, 1.0, 1.01]))[1] == 0


def test_optimum_is_the_best_of_a_grid():
    offset, exponent = np.array([1.0, 0.5, 2.0]), np.array([0.8, 1.5, 0.6])
    unit = np.array([100.0, 50.0, 200.0])
    bounds = make_bounds([0.05, 0.1, 0.0], [0.8, 0.5, 1.0], list("abc"))
    tokens, residual = power_law_optimum(offset, exponent, unit, 400.0, bounds)
    steps = np.linspace(0, 1, 401)
    grid = np.array([(a, b, 1 - a - b) for a, b in itertools.product(steps, steps) if a + b <= 1])
    allowed = grid[((grid >= bounds.lower - 1e-12) & (grid <= bounds.upper + 1e-12)).all(axis=1)]
    values = ((offset + allowed * 400 / unit) ** -exponent).sum(axis=1)
    assert ((offset + tokens / unit) ** -exponent).sum() <= values.min() + 1e-9
    np.testing.assert_allclose(tokens / 400, allowed[values.argmin()], atol=5e-3)
    assert residual < 1e-9


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.integers(2, 12))
def test_optimum_meets_budget_and_bounds_and_stationarity(data, size):
    draw = lambda low, high: np.array(data.draw(st.lists(st.floats(low, high), min_size=size, max_size=size)))  # noqa: E731
    offset, exponent, unit = draw(0.0, 10), draw(0.05, 3), draw(1.0, 1e6)
    lower, upper = draw(0, 0.9 / size), draw(1.1 / size, 1)
    bounds = make_bounds(lower.tolist(), upper.tolist(), [str(i) for i in range(size)])
    budget = data.draw(st.floats(10, 1e9))
    tokens, residual = power_law_optimum(offset, exponent, unit, budget, bounds)
    assert tokens.sum() == pytest.approx(budget, rel=1e-9)
    assert (tokens >= lower * budget * (1 - 1e-9)).all()
    assert (tokens <= upper * budget * (1 + 1e-9)).all()
    assert residual < 1e-6


def test_permuting_domains_permutes_the_answer():
    table, order = ddo_runs(1 / 5), np.array([3, 0, 6, 1, 5, 2, 4])
    names = [DOMAINS[i] for i in order]
    permuted = RunTable(table.runs, names, names, table.domain_tokens[:, order], table.losses[:, order])
    law = fitted(permuted, make_objective("mean", "perplexity", None, names), make_bounds(0.2 / 7, 1.0, names))
    expected = authors_law(1 / 5, "perplexity")
    np.testing.assert_allclose(
        law.scale_optimum(law.scales[0]).weights, expected.scale_optimum(expected.scales[0]).weights[order], atol=1e-6
    )


def test_order_of_rows_does_not_matter():
    shuffled = select_runs(ddo_runs(1 / 5), np.random.default_rng(0).permutation(15))
    law = fitted(shuffled, make_objective("mean", "perplexity", None, DOMAINS), make_bounds(0.2 / 7, 1.0, DOMAINS))
    expected = authors_law(1 / 5, "perplexity")
    np.testing.assert_allclose(
        law.scale_optimum(law.scales[0]).weights, expected.scale_optimum(expected.scales[0]).weights, atol=1e-6
    )


def test_a_missing_run_is_named():
    table = ddo_runs(1 / 5)
    incomplete = select_runs(table, np.array([r for r, run in enumerate(table.runs) if run != "books_x3"]))
    with pytest.raises(UserError, match=r"'books' has 1.*choose another law"):
        fitted(incomplete, make_objective("mean", "loss", None, DOMAINS), make_bounds(*NO_BOUNDS, DOMAINS))


def test_a_base_run_is_found_however_often_it_is_repeated():
    table = ddo_table(scales=(30_000,), repeats=9)
    base, varied = find_design(table, np.arange(len(table.runs)))
    assert [table.runs[r] for r in base] == ["base_30000", *(f"base{r}_30000" for r in range(1, 10))]
    assert [len(of_domain) for of_domain in varied] == [2, 2, 2]


def test_a_run_that_differs_in_two_domains_is_named():
    table, mixed = ddo_table(scales=(30_000,)), [30_000.0, 30_000.0, 10_000.0]
    table = replace(
        table,
        runs=[*table.runs, "mixed"],
        domain_tokens=np.vstack([table.domain_tokens, mixed]),
        losses=np.vstack([table.losses, true_losses(np.array(mixed))]),
        scales=[*table.scales, "30000"],
    )
    message = "cannot use run 'mixed' of scale 30000: it differs from the base run 'base_30000' in more than one domain"
    with pytest.raises(UserError, match=message):
        check_design(table, np.arange(len(table.runs)))


def test_a_base_run_without_a_domain_is_named():
    table = ddo_table(scales=(30_000,))
    tokens = table.domain_tokens.copy()
    tokens[:5, 2] = 0.0
    with pytest.raises(UserError, match=r"scale 30000 the base run 'base_30000' has none of 'c'"):
        check_design(replace(table, domain_tokens=tokens), np.arange(7))


def test_an_objective_that_no_domain_moves_has_no_optimum():
    nothing, unit = np.zeros(3), np.ones(3)
    with pytest.raises(UserError, match=r"no domain's tokens change the objective .* every mixture is as good; train"):
        power_law_optimum(nothing, nothing, unit, 100.0, make_bounds(0.0, 1.0, list("abc")))
