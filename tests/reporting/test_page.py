import re
from dataclasses import replace

import pytest

from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective, FittedMixture
from autoscale_exp.report import summarise
from autoscale_exp.reporting.downstream import Score
from autoscale_exp.reporting.page import render_page
from autoscale_exp.reporting.searches import Searches
from autoscale_exp.reporting.target_runs import group_by_budget, objective_of_fit
from autoscale_exp.reporting.verdicts import objective_label, objective_weights
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


SEARCHES = Searches({".": [run("base", [3.0], points=[40])]}, {"fitted": ["."]})


def summarised(*targets, downstream=None):
    budgets = group_by_budget(targets, objective_of_fit(FIT, "fit"))
    return budgets, summarise(SEARCHES, FIT, budgets, "uniform", downstream or {})


def rendered(*targets, downstream=None, remarks=()):
    budgets, summary = summarised(*targets, downstream=downstream)
    return render_page(SEARCHES, FIT, None, budgets, "uniform", summary, downstream or {}, remarks=remarks)


def rows_of(page, first_cell):
    rows = [re.findall("<td>(.*?)</td>", row, re.DOTALL) for row in re.findall("<tr>(.*?)</tr>", page, re.DOTALL)]
    return [row for row in rows if row and row[0] == first_cell]


@pytest.fixture(scope="module")
def page():
    return rendered(run("uniform", [4, 3, 2.5, 2.0]), run("ours", [3, 2.2, 1.8, 1.6]))


def test_the_tokens_of_proxy_runs_stand_under_their_domains(page):
    (row,) = rows_of(page, "base_seed0")
    assert re.search(
        r"<th>run</th><th>seed</th><th>b<br>tokens</th><th>a<br>tokens</th>\s*<th>loss, nats<br>a</th>", page
    )
    assert row == ["base_seed0", "0", "289", "111", "3.0000", "4.0000"]


def seeds(mixture, curve, *shifts):
    return [run(mixture, [value + shift for value in curve], seed) for seed, shift in enumerate(shifts)]


SAVINGS = re.compile("sooner|fewer tokens|saved by|[+−]\\d+ %", re.IGNORECASE)


@pytest.mark.parametrize(
    ("curve", "answer", "sentence"),
    [
        (
            [3, 2.2, 1.8, 1.6],
            "Train on ours (b 67 %, a 33 %): after 0.4K tokens its mean loss is 15.8 %",
            "ours gets where uniform ends with 37 % fewer tokens",
        ),
        (
            [3, 1.9, 2.4, 2.5],
            "Train on uniform: after 0.4K tokens ours is worse",
            "uniform gets where ours ends with 25 %",
        ),
    ],
)
def test_a_difference_beyond_the_noise_says_who_gets_where_with_fewer_tokens(curve, answer, sentence):
    page = rendered(*seeds("uniform", [4, 3, 2.5, 2.0], 0, 0.01), *seeds("ours", curve, 0, 0.02))
    assert f'<p class="lead">{answer}' in page
    assert sentence in page


@pytest.mark.parametrize("shifts", [[0], [0, 0.5]])
def test_nothing_is_saved_within_the_noise(shifts):
    targets = [*seeds("uniform", [4, 3, 2.5, 2.0], *shifts), *seeds("ours", [3, 2.2, 1.8, 1.9], *shifts[::-1])]
    assert not SAVINGS.search(rendered(*targets))


def test_an_answer_stands_first():
    page = rendered(*seeds("uniform", [4, 3, 2.5, 2.0], 0, 0.2), *seeds("ours", [3, 2.2, 1.8, 1.9], 0.1, 0.0))
    assert re.search(
        r"<body>\s*<h1>[^<]*</h1>\s*<p class=\"lead\">Undecided: ours cannot be told apart from uniform", page
    )


def test_a_single_validation_tells_nothing_of_the_way_there():
    uniform, ours = (
        [run(n, [end], s, [400]) for s, end in enumerate(ends)]
        for n, ends in (("uniform", [2.0, 2.01]), ("ours", [1.0, 1.02]))
    )
    page = rendered(*uniform, *ours)
    assert "ours is better than uniform" in page
    assert not SAVINGS.search(page)


def test_the_cost_of_a_target_run_is_the_median():
    targets = [*seeds("uniform", [4, 3, 2.5, 2.0], 0, 0, 0), *seeds("ours", [3, 2.2, 1.8, 1.6], 0, 0.1, 0)]
    targets = [replace(record, seconds=s) for record, s in zip(targets, [1, 2, 3, 5, 9, 100], strict=True)]
    (row,) = rows_of(rendered(*targets), "a target run")
    assert row == ["a target run", "median of 6 runs", "0.00M tokens", "4 s"]


def test_the_weights_of_every_mixture_are_shown():
    targets = [run("uniform", [4, 3, 2.5, 2.0]), run("natural", [3, 2.2, 1.8, 1.6])]
    targets[1] = replace(targets[1], requested_weights={"a": 0.123, "b": 0.877})
    page = rendered(*targets)
    assert ["uniform", "66.7 %", "33.3 %"] in rows_of(page, "uniform")
    assert ["natural", "87.7 %", "12.3 %"] in rows_of(page, "natural")


def test_every_other_mixture_has_a_speedup_of_its_own_in_the_summary():
    targets = [run("uniform", [4, 3, 2.5, 2.0]), run("b", [3, 2.2, 1.8, 1.6]), run("autoscale", [5, 4, 3, 2.5])]
    _, summary = summarised(*targets)
    assert summary["speedup_vs_uniform"] == pytest.approx({"b": 1 - 250 / 400, "autoscale": -(1 - 300 / 400)})
    assert summary["weights"] == {"a": 0.3, "b": 0.7}
    assert {name: entry["verdict"] for name, entry in summary["difference_vs_uniform"].items()} == {
        "b": "open",
        "autoscale": "open",
    }
    assert all(entry["within_noise"] for entry in summary["difference_vs_uniform"].values())


def test_a_mean_that_no_run_has_all_tasks_of_is_shown_as_incomplete():
    downstream = {"glue, mean of 2 tasks": {"uniform": Score([0.5, 0.7], False), "ours": Score([], False)}}
    page = rendered(run("uniform", [4, 3, 2.5, 2.0]), run("ours", [3, 2.2, 1.8, 1.6]), downstream=downstream)
    (row,) = rows_of(page, "glue, mean of 2 tasks")
    assert [cell.split("<br>")[0] for cell in row[1:]] == ["0.6000 ± 0.1414", "incomplete"]


def at(budget, mixture, ends):
    points = [budget // 2, budget]
    return [run(mixture, [9, end], seed, points) for seed, end in enumerate(ends)]


def test_savings_are_shown_off_curves_and_off_finished_runs_and_net_of_the_search():
    """Saved are 1 - 1/4 by finished runs, of 400 tokens; the search of 400 tokens is one target run."""
    small = [*at(100, "uniform", [4.0, 4.01]), *at(100, "fitted", [1.8, 1.81])]
    budgets, summary = summarised(*small, *at(400, "uniform", [1.8, 1.81]), *at(400, "fitted", [1.5, 1.51]))
    saving = summary["savings_vs_uniform"]["fitted"]
    assert (saving["search_tokens"], saving["is_bound"]) == (400, False)
    assert saving["annealed"] == pytest.approx(0.75)
    assert saving["charged"] == pytest.approx({"1": 0.75 - 1, "10": 0.75 - 0.1})
    assert summary["final_by_budget"]["100"]["fitted"] == pytest.approx([2.3, 2.31])
    page = render_page(SEARCHES, FIT, None, budgets, "uniform", summary, {})
    row = rows_of(page, "fitted")[0]
    assert [cell.split("<br>")[0] for cell in row[5:]] == ["+75 %", "0.4K", "−25 %", "+65 %"]
    assert page.count("<svg") == 4


def test_ten_rivals_are_compared_in_a_table_and_a_figure():
    targets = [target for k in range(10) for target in seeds(f"rival{k}", [4, 3, 2.5, 2 - k / 100], 0, 0.01 * k)]
    page = rendered(*seeds("uniform", [4, 3, 2.5, 2.0], 0, 0.01), *targets)
    assert all(len(rows_of(page, f"rival{k}")[0]) == 5 for k in range(10))
    assert page.count("<svg") == 4
    assert "Each in a sentence" in page


def test_remarks_stand_above_the_comparison():
    page = rendered(run("uniform", [4, 3, 2.5, 2.0]), run("ours", [3, 2.2, 1.8, 1.6]), remarks=["ours is odd"])
    assert page.index("ours is odd.") < page.index("<table>")


def test_unequal_weights_of_an_objective_are_shown():
    objective = FitObjective("mean_perplexity", "perplexity", {"a": 0.2, "b": 0.8})
    assert objective_label(objective) == "weighted perplexity"
    assert objective_weights(objective) == "a 20 %, b 80 %"
    assert objective_label(replace(objective, weights={"a": 0.5, "b": 0.5})) == "mean perplexity"
    assert objective_weights(replace(objective, aggregate="worst")) == ""


def test_tokens_that_differ_between_seeds_are_said_to_be_of_the_first():
    targets = [*seeds("uniform", [4, 3, 2.5, 2.0], 0, 0.2), *seeds("ours", [3, 2.2, 1.8, 1.9], 0.1, 0.0)]
    assert "exactly these; epochs" in rendered(*targets)
    targets[-1] = replace(targets[-1], tokens={"a": 1, "b": 399})
    assert "exactly these, in the run of the first seed; epochs" in rendered(*targets)
