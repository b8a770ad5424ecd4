from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import autoscale_exp.config  # noqa: F401  registers what a run's config refers to
from autoscale_exp.laws.fit_file import FitObjective, write_fit
from autoscale_exp.mixture.weights import write_mixture_file
from autoscale_exp.reporting.mixture_files import fit_of, found_in, mixture_file, remarks_on
from autoscale_exp.reporting.target_runs import group_by_budget, objective_of_fit
from autoscale_exp.runs.record import write_record
from tests.reporting.test_page import FIT, run

FITTED = "${mixture_of_search:${search},fit,${token_budget}}"


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """A search whose fit offers .3 and .7, and target runs of uniform and of the fitted mixture."""
    write_fit(tmp_path / "fit", FIT)
    write_mixture_file(tmp_path / "fit" / "mixtures" / "0.4K.yaml", ["b", "a"], np.array([0.7, 0.3]), 400, "a test")
    for mixture, path in (("uniform", None), ("fitted", FITTED)):
        folder = tmp_path / "targets" / "runs" / f"{mixture}_seed0"
        record = replace(run(mixture, [4, 3, 2.5, 2.0]), requested_weights={"a": 0.3, "b": 0.7})
        write_record(folder, record)
        (folder / ".hydra").mkdir()
        conf = {"search": str(tmp_path), "token_budget": 400, "mixture": {"path": path}}
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(conf))
    return tmp_path


def targets(**weights):
    objective = objective_of_fit(FIT, "fit")
    shares = {"uniform": 0.3, "fitted": 0.3} | weights
    records = [
        replace(run(name, [4, 3, 2.5, 2.0]), requested_weights={"a": share, "b": 1 - share})
        for name, share in shares.items()
    ]
    (mixtures,) = group_by_budget(records, objective).values()
    return mixtures


def test_the_file_and_the_fit_of_a_target_run_are_found(search: Path):
    mixtures = targets()
    file = mixture_file(search / "targets", mixtures["fitted"].records[0])
    assert file == search / "fit" / "mixtures" / "0.4K.yaml"
    assert fit_of(file) == search / "fit"
    assert mixture_file(search / "targets", mixtures["uniform"].records[0]) is None
    assert mixture_file(search / "nowhere", mixtures["fitted"].records[0]) is None
    assert fit_of(Path("my.yaml")) is None


def test_mixtures_of_fits_in_a_search_were_found_with_it(search: Path):
    assert found_in(search, search / "targets", targets()) == ["fitted"]
    assert found_in(search, search / "nowhere", targets(other=0.3)) == ["fitted"]


def test_nothing_is_said_of_the_mixture_that_the_fit_offers(search: Path):
    assert remarks_on(search / "targets", targets(), FIT.objective) == []


def test_a_mixture_found_for_another_objective_is_named(search: Path):
    news = FitObjective("news", "loss", {"a": 0.9, "b": 0.1})
    (remark,) = remarks_on(search / "targets", targets(), news)
    assert remark.startswith("fitted was found for another objective, mean_loss, than this report judges by; ")


def test_a_fit_that_was_made_again_since_is_told_of(search: Path):
    (remark,) = remarks_on(search / "targets", targets(fitted=0.31), FIT.objective)
    assert remark.startswith("fitted was trained on other weights than '")
    (search / "fit" / "mixtures" / "0.4K.yaml").unlink()
    (remark,) = remarks_on(search / "targets", targets(), FIT.objective)
    assert remark.endswith("which the fit there no longer offers")
