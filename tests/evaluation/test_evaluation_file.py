import json
import statistics
from pathlib import Path

import pytest

from autoscale_exp.base.errors import DivergedError, UserError
from autoscale_exp.evaluation.evaluation_file import Evaluation, carry_out, missing_seeds


class Measured:
    def __init__(self) -> None:
        self.seeds: list[int | None] = []

    def __call__(self, seed: int | None) -> dict:
        self.seeds.append(seed)
        return {"metrics": {"accuracy": 0.5 + 0.1 * (seed or 0)}, "examples": 7}


def evaluation(name="glue/rte", seeds=(0, 1), measure=None, headline=None, **settings) -> Evaluation:
    shown = headline or {"accuracy": True}
    return Evaluation(name, {"lr": 1e-5, **settings}, list(seeds), shown, measure or Measured())


def test_every_seed_is_kept_with_mean_and_standard_deviation(tmp_path: Path):
    entry = carry_out(evaluation(seeds=(0, 1, 5)), tmp_path / "evaluation.json")
    assert [value["seed"] for value in entry["values"]] == [0, 1, 5]
    assert entry["mean"]["accuracy"] == pytest.approx(0.7)
    assert entry["std"]["accuracy"] == pytest.approx(statistics.stdev([0.5, 0.6, 1.0]))
    assert entry["values"][0]["examples"] == 7


def test_tasks_are_merged_into_one_file(tmp_path: Path):
    path = tmp_path / "evaluation.json"
    first = carry_out(evaluation("glue/rte"), path)
    carry_out(evaluation("glue/wnli", lr=1.0), path)
    assert set(json.loads(path.read_text())["tasks"]) == {"glue/rte", "glue/wnli"}
    assert json.loads(path.read_text())["tasks"]["glue/rte"] == first


def test_what_is_measured_is_not_measured_again_and_new_seeds_are_added(tmp_path: Path):
    path = tmp_path / "evaluation.json"
    measured = Measured()
    carry_out(evaluation(seeds=(0, 1), measure=measured), path)
    entry = carry_out(evaluation(seeds=(1, 2, 0), measure=measured), path)
    carry_out(evaluation(seeds=(0,), measure=measured), path)
    assert measured.seeds == [0, 1, 2]
    assert [value["seed"] for value in entry["values"]] == [0, 1, 2]


def test_a_seed_that_two_processes_measure_at_the_same_time_counts_once(tmp_path: Path):
    path = tmp_path / "evaluation.json"

    def meanwhile(seed):
        carry_out(evaluation(seeds=(0, 1)), path)
        return Measured()(seed)

    entry = carry_out(evaluation(seeds=(0, 1), measure=meanwhile), path)
    assert [value["seed"] for value in entry["values"]] == [0, 1]
    assert entry["mean"]["accuracy"] == pytest.approx(0.55)


def test_an_interrupted_evaluation_keeps_its_finished_seeds(tmp_path: Path):
    def interrupted(seed):
        if seed == 1:
            raise KeyboardInterrupt
        return Measured()(seed)

    path = tmp_path / "evaluation.json"
    with pytest.raises(KeyboardInterrupt):
        carry_out(evaluation(seeds=(0, 1), measure=interrupted), path)
    assert missing_seeds(evaluation(seeds=(0, 1)), path) == [1]


def test_other_settings_are_an_error_that_names_the_keys(tmp_path: Path):
    path = tmp_path / "evaluation.json"
    carry_out(evaluation(epochs=3, data={"train": "abc"}), path)
    with pytest.raises(
        ValueError, match=r"glue/rte with other settings \(epochs: 3, not 4; data.train: abc, not xyz\)"
    ):
        missing_seeds(evaluation(epochs=4, data={"train": "xyz"}), path)


def test_a_metric_that_is_not_finite_is_not_written(tmp_path: Path):
    path = tmp_path / "evaluation.json"
    with pytest.raises(DivergedError, match="accuracy of glue/rte is nan with seed 0"):
        carry_out(evaluation(measure=lambda seed: {"metrics": {"accuracy": float("nan")}}), path)
    assert not path.exists()


@pytest.mark.parametrize("content", ['{"tasks": {', "[]", '{"tasks": []}', '{"tasks": {"squad": {"values": []}}}'])
def test_a_damaged_file_is_an_error(content, tmp_path: Path):
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(UserError, match="is damaged; delete it"):
        missing_seeds(evaluation(), tmp_path / "evaluation.json")


def test_a_headline_can_be_chosen_from_what_was_measured(tmp_path: Path):
    chosen = evaluation(headline=lambda metrics: dict.fromkeys(metrics, False))
    assert carry_out(chosen, tmp_path / "evaluation.json")["headline"] == {"accuracy": False}


@pytest.mark.parametrize(
    ("headline", "message"),
    [
        ({"f1": True}, r"glue/rte gave no f1 that a report could show, but accuracy; leave"),
        (lambda _: {}, r"glue/rte gave no metric that"),
    ],
)
def test_without_its_headline_metric_nothing_is_written(headline, message, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        carry_out(evaluation(headline=headline), tmp_path / "evaluation.json")
    assert not (tmp_path / "evaluation.json").exists()
