import csv
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.laws.objective import Objective
from autoscale_exp.reporting.conf import PublishedConf
from autoscale_exp.reporting.downstream import Score
from autoscale_exp.reporting.page import render_published
from autoscale_exp.reporting.published import beside, effects_of
from autoscale_exp.reporting.searches import Searches
from autoscale_exp.reporting.target_runs import NamedObjective, group_by_budget
from tests.runs.records import make_curve, make_record

GOLDEN = Path(__file__).parent.parent / "laws" / "autoscale" / "golden"
OBJECTIVE = NamedObjective(Objective("sum", "loss", np.ones(2)), ["a", "b"])


def published(name: str) -> PublishedConf:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return to_typed(compose("report", [f"published={name}", "search=somewhere"])).published


def test_the_weights_are_those_of_the_authors_tables():
    numbers = published("autoscale_gpt2_large")
    with (GOLDEN / "ddo_optima_gpt2_large.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "AutoScale notebook"]
    amounts = []
    for row in rows:
        multiples = np.array([float(row[f"multiple_of_uniform.{domain}"]) for domain in numbers.domains])
        np.testing.assert_allclose(numbers.weights[int(row["tokens"])], multiples / 7, atol=6e-5)
        amounts.append(multiples / 7 * float(row["tokens"]))
    further = amounts[1] ** 2 / amounts[0]  # the authors' step
    np.testing.assert_allclose(numbers.weights[5_000_000_000], further / further.sum(), atol=6e-5)
    assert further.sum() == pytest.approx(5_000_000_000, rel=2e-4)


def test_the_effects_are_those_of_the_authors_runs():
    with (GOLDEN / "ddo_gpt2_large_1.2B_perplexity.csv").open() as file:
        mean = {row["run"]: float(row["perplexity.mean"]) for row in csv.DictReader(file)}
    for domain, (less, more) in published("autoscale_gpt2_large").effects.items():
        assert less == pytest.approx(mean[f"{domain}_reduced"] / mean["base"] - 1, abs=6e-5)
        assert more == pytest.approx(mean[f"{domain}_x3"] / mean["base"] - 1, abs=6e-5)


def run(name: str, a: int, b: int, loss: float, **changes):
    return make_record(name, tokens={"a": a, "b": b}, losses={"a": loss, "b": 1.0}, **changes)


def test_effects_are_of_the_runs_that_change_one_domain():
    runs = [
        run("base_1K", 600, 600, 3.0),
        run("a_x3_1K", 1800, 600, 2.6),
        run("a_x0.333_1K", 200, 600, 3.2),
        run("b_x3_1K", 600, 1800, 2.9),  # its other run is missing
        run("swarm000_1K", 400, 800, 1.0),
        run("base_seed1_1K", 600, 600, 9.0, seed=1),
    ]
    assert effects_of(runs, 1000, OBJECTIVE) == {"a": [pytest.approx(0.05), pytest.approx(-0.1)]}
    assert effects_of(runs, 2000, OBJECTIVE) == {}


def records():
    """Runs of 1,000 tokens; autoscale is after 500 of them where uniform ends, and after 800 where natural does."""
    curves = {"uniform": (3.0, 2.0), "natural": (2.2, 1.4), "autoscale": (2.0, 1.0)}
    for name, (half, end) in curves.items():
        points = make_curve([500, 1000], [{"a": half, "b": 0.0}, {"a": end, "b": 0.0}])
        losses = {"a": end, "b": 0.0}
        yield make_record(name, mixture=name, tokens={"a": 500, "b": 500}, losses=losses, validation_curve=points)


def test_savings_and_scores_stand_beside_the_published_ones():
    numbers = PublishedConf("a paper", "a model", 1000, ["a", "b"], savings={"uniform": 0.38, "best baseline": 0.28})
    numbers.scores = {"glue": 0.087, "squad": 0.059}
    downstream = {
        "glue/cola mcc": {"uniform": Score([0.5], False), "autoscale": Score([0.9], False)},
        "glue, mean of 2 tasks": {"uniform": Score([0.5], False), "autoscale": Score([0.55], False)},
    }
    found = beside(numbers, None, group_by_budget([*records()], OBJECTIVE), Searches({}, {}), OBJECTIVE, downstream)
    assert found.note == "Published: a model, 1K tokens; here 1K parameters and 1K tokens."
    assert found.tables["Tokens saved by the published method"][1] == [
        ["against uniform", "+38 %", "+50 %"],
        ["against best baseline", "+28 %", "+20 % (natural)"],
    ]
    assert found.tables["Scores against uniform"][1] == [
        ["glue", "+8.7 %", "+10.0 % (glue, mean of 2 tasks)"],
        ["squad", "+5.9 %", "not evaluated"],
    ]


@pytest.mark.parametrize(
    ("scores", "here"),
    [
        ({"glue/cola mcc": (0.0, 0.1)}, "not known (glue/cola mcc)"),
        ({"glue/rte accuracy": (0.5, 0.6)}, "+20.0 % (glue/rte accuracy)"),
        ({"glue/rte accuracy": (0.5, 0.6), "glue, mean of 2 tasks": (None, 0.6)}, "not evaluated"),
        ({"gluey accuracy": (0.5, 0.6)}, "not evaluated"),
    ],
)
def test_a_gain_that_cannot_be_told_is_not_and_the_score_is_named(scores, here):
    numbers = PublishedConf("a paper", "a model", 1000, ["a", "b"], scores={"glue": 0.087})
    downstream = {
        task: {
            name: Score([] if value is None else [value], False)
            for name, value in zip(("uniform", "autoscale"), pair, strict=True)
        }
        for task, pair in scores.items()
    }
    found = beside(numbers, None, group_by_budget([*records()], OBJECTIVE), Searches({}, {}), OBJECTIVE, downstream)
    assert found.tables["Scores against uniform"][1] == [["glue", "+8.7 %", here]]


def test_numbers_of_another_scale_are_said_to_be_so_and_all_are_on_the_page():
    numbers = published("autoscale_gpt2_large")
    searches = Searches({".": [run("base_1K", 600, 600, 3.0)]}, {})
    found = beside(numbers, None, group_by_budget([*records()], OBJECTIVE), searches, OBJECTIVE, {})
    assert "differ in scale or data" in found.note
    page = render_published(numbers, found, None)
    assert page.count("<tr>") == 3 + 7 + 7 + 2  # headings, domains, savings
    assert page.count("<svg") == 1
    assert "arXiv 2407.20177" in page
