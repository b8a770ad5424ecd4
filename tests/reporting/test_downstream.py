import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autoscale_exp.base.errors import UserError
from autoscale_exp.reporting.downstream import EvaluatedRun, downstream_table, exceeds, read_evaluated_runs
from autoscale_exp.runs.record import write_record
from tests.runs.records import make_record


def entry(values, metric="accuracy", higher=True, **settings):
    numbers = [value for _, value in values]
    return {
        "settings": settings,
        "headline": {metric: higher},
        "values": [{"seed": seed, "metrics": {metric: value}} for seed, value in values],
        "mean": {metric: float(np.mean(numbers))},
    }


def run(name, mixture, **tasks):
    return EvaluatedRun(name, mixture, {task.replace("_", "/"): of for task, of in tasks.items()})


samples = st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=2, max_size=6).filter(
    lambda v: np.ptp(v) > 0.01
)


@given(samples, samples)
def test_a_difference_exceeds_the_noise_if_welchs_test_says_so(values, others):
    test = stats.ttest_ind(values, others, equal_var=False)
    assert exceeds(values, others, 1) == (test.pvalue < 0.05 and test.statistic > 0)
    assert exceeds(values, others, -1) == (test.pvalue < 0.05 and test.statistic < 0)


def test_without_a_spread_nothing_exceeds_it():
    assert not exceeds([1.0], [0.0, 0.1], 1)
    assert not exceeds([1.0, 1.0], [0.0, 0.0], 1)


def test_fine_tuning_seeds_are_averaged_before_runs_are():
    table = downstream_table(
        [
            run("a0", "a", glue_rte=entry([(0, 0.5), (1, 0.7)])),
            run("a1", "a", glue_rte=entry([(0, 0.8), (1, 0.8)])),
        ]
    )
    score = table["glue/rte accuracy"]["a"]
    assert score.values == pytest.approx([0.6, 0.8])
    assert score.std == pytest.approx(np.std([0.6, 0.8], ddof=1))


def test_of_a_single_run_the_fine_tuning_seeds_count():
    table = downstream_table([run("a0", "a", glue_rte=entry([(0, 0.5), (1, 0.7)]))])
    assert table["glue/rte accuracy"]["a"].values == [0.5, 0.7]


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_is_marked_in_the_metrics_direction_and_only_beyond_the_noise(higher):
    def table(*of_a):
        runs = [run(f"a{i}", "a", task=entry([(None, v)], higher=higher)) for i, v in enumerate(of_a)]
        runs += [run(f"b{i}", "b", task=entry([(None, v)], higher=higher)) for i, v in enumerate((0.5, 0.52, 0.48))]
        return {name: score.best for name, score in downstream_table(runs)["task accuracy"].items()}

    assert table(0.9, 0.92, 0.88) == {"a": higher, "b": not higher}
    assert table(0.51, 0.53, 0.49) == {"a": False, "b": False}
    assert table(0.9) == {"a": False, "b": False}


def test_the_mean_of_glue_is_over_the_tasks_of_each_run():
    runs = [
        run(f"{mixture}{seed}", mixture, glue_rte=entry([(0, x + seed)]), glue_cola=entry([(0, y)]))
        for mixture, x, y in (("a", 0.2, 0.6), ("b", 0.1, 0.3))
        for seed in (0, 1)
    ]
    row = downstream_table(runs)["glue, mean of 2 tasks"]
    assert row["a"].values == pytest.approx([0.4, 0.9])
    assert row["b"].values == pytest.approx([0.2, 0.7])


def test_a_task_with_two_metrics_counts_once_in_the_mean_of_glue():
    mnli = {
        "settings": {},
        "headline": {"accuracy_matched": True, "accuracy_mismatched": True},
        "values": [{"seed": 0, "metrics": {"accuracy_matched": 0.5, "accuracy_mismatched": 0.7, "loss": 9.0}}],
        "mean": {"accuracy_matched": 0.5, "accuracy_mismatched": 0.7, "loss": 9.0},
    }
    table = downstream_table([run("a0", "a", glue_rte=entry([(0, 0.2)]), glue_mnli=mnli)])
    assert table["glue, mean of 2 tasks"]["a"].values == pytest.approx([(0.2 + 0.6) / 2])


def test_the_mean_of_glue_is_over_runs_even_where_one_alone_has_a_task():
    runs = [
        run("a0", "a", glue_rte=entry([(0, 0.2), (1, 0.4)]), glue_cola=entry([(0, 0.5), (1, 0.7)])),
        run("a1", "a", glue_rte=entry([(0, 0.9)])),
    ]
    assert downstream_table(runs)["glue, mean of 2 tasks"]["a"].values == pytest.approx([(0.3 + 0.6) / 2])


def test_a_mixture_whose_runs_have_different_tasks_has_an_incomplete_mean():
    runs = [
        run("a0", "a", glue_rte=entry([(0, 0.2)])),
        run("a1", "a", glue_cola=entry([(0, 0.5)])),
        run("b0", "b", glue_cola=entry([(0, 0.5)])),
        run("c0", "c", glue_rte=entry([(0, 0.5), (1, 0.6)]), glue_cola=entry([(0, 0.5), (1, 0.6)])),
    ]
    row = downstream_table(runs)["glue, mean of 2 tasks"]
    assert {name: score.text for name, score in row.items()} == {
        "a": "incomplete",
        "b": "incomplete",
        "c": "0.5500 ± 0.0707",
    }
    assert not any(score.best for score in row.values())


def test_a_mixture_that_was_not_evaluated_on_a_task_has_no_score():
    runs = [run("a0", "a", squad=entry([(0, 0.5)]), other=entry([(0, 0.1)])), run("b0", "b", squad=entry([(0, 0.6)]))]
    assert set(downstream_table(runs)["other accuracy"]) == {"a"}
    assert downstream_table([]) == {}


def test_runs_evaluated_with_different_settings_are_not_compared(tmp_path: Path):
    for name, epochs in (("a", 3), ("b", 4)):
        folder = tmp_path / "runs" / name
        write_record(folder, make_record(name, mixture=name))
        tasks = {"tasks": {"squad": entry([(0, 0.5)], weights=name, epochs=epochs)}}
        (folder / "evaluation.json").write_text(json.dumps(tasks))
    with pytest.raises(UserError, match=r"squad was measured of run 'a' .* of run 'b' \(epochs: 3, not 4\)"):
        read_evaluated_runs(tmp_path, ["a", "b"])
    assert [run.run for run in read_evaluated_runs(tmp_path, ["b", "c"])] == ["b"]  # the only one to be reported
