import re

import pytest

from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective, FittedMixture
from autoscale_exp.report import summarise
from autoscale_exp.reporting.comparison import group_by_mixture, objective_of_fit
from autoscale_exp.reporting.downstream import Score
from autoscale_exp.reporting.page import render_page
from tests.runs.records import make_curve, make_record

POINTS = [100, 200, 300, 400]


def fitted(budget):
    return FittedMixture(budget, {"a": 0.3, "b": 0.7}, {}, None, [], None, "given", None)


FIT = Fit(
    law="autoscale",
    objective=FitObjective("mean_loss", "loss", {"b": 0.5, "a": 0.5}),
    domains=["b", "a"],
    scales=[fitted(40)],
    targets=[fitted(400)],
    diagnostics=Diagnostics(notes=[]),
)


def run(mixture, curve, seed=0, points=POINTS):
    """A record of losses that domain a has and b exceeds by one."""
    losses = [{"a": value, "b": value + 1} for value in curve]
    return make_record(
        f"{mixture}_seed{seed}",
        mixture=mixture,
        seed=seed,
        token_budget=points[-1],
        tokens={"a": 111, "b": 289},
        losses=losses[-1],
        validation_curve=make_curve(points, losses),
    )


def rendered(*targets, downstream=None):
    mixtures = group_by_mixture(targets, objective_of_fit(FIT, "fit"))
    search = [run("base", [3.0], points=[40])]
    summary = summarise(search, FIT, mixtures, "uniform", downstream or {})
    return render_page(search, FIT, None, mixtures, "uniform", summary, downstream or {})


def rows_of(page, first_cell):
    rows = [re.findall("<td>(.*?)</td>", row, re.DOTALL) for row in re.findall("<tr>(.*?)</tr>", page, re.DOTALL)]
    return [row for row in rows if row and row[0] == first_cell]


@pytest.fixture(scope="module")
def page():
    return rendered(run("uniform", [4, 3, 2.5, 2.0]), run("ours", [3, 2.2, 1.8, 1.6]))


def test_the_tokens_of_proxy_runs_stand_under_their_domains(page):
    (row,) = rows_of(page, "base_seed0")
    assert re.search(r"<th>run</th><th>seed</th><th>b<br>tokens</th><th>a<br>tokens</th>\s*<th>loss<br>a</th>", page)
    assert row == ["base_seed0", "0", "289", "111", "3.0000", "4.0000"]


@pytest.mark.parametrize(
    ("curve", "sentence"),
    [
        ([3, 2.2, 1.8, 1.6], "ours ends 16.0% below uniform and reaches where uniform ends with 38% fewer tokens"),
        ([3, 1.9, 2.4, 2.5], "ours ends 20.0% above uniform, which gets where ours ends with 25% fewer tokens"),
        ([4, 3, 2.5, 2.0], "ours ends 0.0% above uniform, which gets where ours ends with 0% fewer tokens"),
    ],
)
def test_a_verdict_says_who_gets_where_with_fewer_tokens(curve, sentence):
    page = rendered(run("uniform", [4, 3, 2.5, 2.0]), run("ours", curve))
    assert f"{sentence}; with one seed each" in page


def test_a_verdict_of_a_single_validation_is_of_the_end_alone():
    page = rendered(run("uniform", [2.0], points=[400]), run("ours", [1.0], points=[400]))
    assert "ours ends 40.0% below uniform; with one seed each" in page
    assert "sooner" not in page
    assert "saved by" not in page


def test_every_other_mixture_has_a_speedup_of_its_own_in_the_summary():
    targets = [run("uniform", [4, 3, 2.5, 2.0]), run("b", [3, 2.2, 1.8, 1.6]), run("autoscale", [5, 4, 3, 2.5])]
    mixtures = group_by_mixture(targets, objective_of_fit(FIT, "fit"))
    summary = summarise([run("base", [3.0], points=[40])], FIT, mixtures, "uniform", {})
    assert summary["speedup_vs_uniform"] == pytest.approx({"b": 1 - 250 / 400, "autoscale": -(1 - 300 / 400)})
    assert summary["weights"] == {"a": 0.3, "b": 0.7}


def test_a_mean_that_no_run_has_all_tasks_of_is_shown_as_incomplete():
    downstream = {"glue, mean of 2 tasks": {"uniform": Score([0.5, 0.7], False), "ours": Score([], False)}}
    page = rendered(run("uniform", [4, 3, 2.5, 2.0]), run("ours", [3, 2.2, 1.8, 1.6]), downstream=downstream)
    (row,) = rows_of(page, "glue, mean of 2 tasks")
    assert [cell.split("<br>")[0] for cell in row[1:]] == ["0.6000 ± 0.1414", "incomplete"]
