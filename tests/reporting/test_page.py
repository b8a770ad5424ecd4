import re

import pytest

from autoscale_exp.report import summarise
from autoscale_exp.reporting.comparison import group_by_mixture, objective_of_fit
from autoscale_exp.reporting.downstream import Score
from autoscale_exp.reporting.page import render_page

POINTS = [100, 200, 300, 400]
FIT = {
    "law": "autoscale",
    "objective": {"name": "mean_loss", "metric": "loss", "weights": {"b": 0.5, "a": 0.5}},
    "domains": ["b", "a"],
    "scales": [],
    "targets": [],
    "diagnostics": {"notes": []},
}
for budget, part in ((40, "scales"), (400, "targets")):
    FIT[part] = [{"tokens": budget, "weights": {"a": 0.3, "b": 0.7}, "interval": None, "active_bounds": []}]


def run(mixture, curve, seed=0, points=POINTS):
    """A result.json of losses that domain a has and b exceeds by one."""
    losses = [{"a": value, "b": value + 1} for value in curve]
    return {
        "run": f"{mixture}_seed{seed}",
        "mixture": mixture,
        "seed": seed,
        "token_budget": points[-1],
        "tokens": {"a": 111, "b": 289},
        "epochs": {"a": 0.1, "b": 0.2},
        "losses": losses[-1],
        "validation_curve": [{"tokens": t, "losses": of} for t, of in zip(points, losses, strict=True)],
        "model": "gpt2_tiny",
        "params": 1000,
        "seconds": 2.0,
        "tokens_per_second": 200.0,
        "versions": {},
        "git_commit": None,
        "finished": "2026-01-01T00:00:00Z",
    }


def rendered(*targets, downstream=None):
    mixtures = group_by_mixture(targets, objective_of_fit(FIT, "fit"))
    search = [run("probe", [3.0], points=[40])]
    summary = summarise(search, FIT, mixtures, "uniform", downstream or {})
    return render_page(search, FIT, None, mixtures, "uniform", summary, downstream or {})


def rows_of(page, first_cell):
    rows = [re.findall("<td>(.*?)</td>", row, re.DOTALL) for row in re.findall("<tr>(.*?)</tr>", page, re.DOTALL)]
    return [row for row in rows if row and row[0] == first_cell]


@pytest.fixture(scope="module")
def page():
    return rendered(run("uniform", [4, 3, 2.5, 2.0]), run("ours", [3, 2.2, 1.8, 1.6]))


def test_the_tokens_of_probes_stand_under_their_domains(page):
    (row,) = rows_of(page, "probe_seed0")
    assert re.search(r"<th>run</th><th>seed</th><th>b<br>tokens</th><th>a<br>tokens</th>\s*<th>loss<br>a</th>", page)
    assert row == ["probe_seed0", "0", "289", "111", "3.0000", "4.0000"]


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
    summary = summarise([run("probe", [3.0], points=[40])], FIT, mixtures, "uniform", {})
    assert summary["speedup_vs_uniform"] == pytest.approx({"b": 1 - 250 / 400, "autoscale": -(1 - 300 / 400)})
    assert summary["weights"] == {"a": 0.3, "b": 0.7}


def test_a_mean_that_no_run_has_all_tasks_of_is_shown_as_incomplete():
    downstream = {"glue, mean of 2 tasks": {"uniform": Score([0.5, 0.7], False), "ours": Score([], False)}}
    page = rendered(run("uniform", [4, 3, 2.5, 2.0]), run("ours", [3, 2.2, 1.8, 1.6]), downstream=downstream)
    (row,) = rows_of(page, "glue, mean of 2 tasks")
    assert [cell.split("<br>")[0] for cell in row[1:]] == ["0.6000 ± 0.1414", "incomplete"]
