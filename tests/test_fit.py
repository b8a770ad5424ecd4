"""What a fit refuses before it reads the runs, or with them."""

import csv
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscale_exp import fit
from autoscale_exp.fit import tell_of_runs
from autoscale_exp.laws import solution
from autoscale_exp.laws.fit_file import read_fit
from autoscale_exp.laws.law import fit_law
from autoscale_exp.runs.record import write_record
from tests.laws.synthetic import DOMAINS, ddo_table
from tests.runs.records import make_record


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "give either runs=<runs.csv or sweep folder> or optima=<optima.csv>, one of the two"),
        (["runs=.", "optima=b.csv"], "give either runs=<runs.csv or sweep folder> or optima=<optima.csv>"),
        (["runs=.", "target_tokens=[9,0]"], "target_tokens[1] is 0; it must lie between 1 and "),
        (["runs=.", "target_tokens=[10000000000000000000]"], "target_tokens[0] is 10000000000000000000; it must"),
        (["runs=.", "uncertainty=some"], "uncertainty is 'some'; allowed are intervals and none"),
        (["runs=.", "num_draws=-1"], "num_draws is -1; it must be at least 0"),
        (["runs=.", "seed=-1"], "seed is -1; it must lie between 0 and 4294967295"),
        (["runs=a.csv"], "runs is 'a.csv', which does not exist"),
        (["optima=a.csv"], "optima is 'a.csv', which does not exist"),
        (["optima=a.csv", "target_params=9"], "target_params is given with optima, which tell of no model size; give "),
        (["runs=.", "target_params=0"], "target_params is 0; it must be at least 1"),
        (["optima=a.csv", "objectives=[mean_loss]"], "objectives is given with optima, whose objective nobody knows; "),
    ],
)
def test_a_request_that_cannot_be_is_refused(overrides, message, refused, tmp_path: Path):
    assert refused("fit", *overrides, f"output_dir={tmp_path}").startswith(message)


@pytest.mark.parametrize(
    "group", ["{domains: a, upper: 0.5}", "{domains: [a], upper: half}", "{domains: [a]}", "{domains: 3, upper: 0.5}"]
)
def test_a_group_that_is_not_written_as_one_is_refused(group, refused, tmp_path: Path):
    write_record(tmp_path / "runs" / "run", make_record())
    line = refused("fit", "runs=.", "output_dir=out", "law=transfer", f"+bounds.groups.web={group}")
    assert line.startswith("bounds.groups.web is {")
    assert line.endswith("; give it as {domains: [...], upper: <share>}")


def test_what_a_fit_reads_is_told(caplog):
    caplog.set_level(logging.INFO)
    tell_of_runs(replace(ddo_table(), validation_domains=["a", "index"]))
    assert caplog.messages == ["14 runs: 7 at 30000, 7 at 100000", "domains: a, b, c", "validation domains: a, index"]
    caplog.clear()
    tell_of_runs(replace(ddo_table(), scales=None))
    assert caplog.messages[0] == "14 runs: 7 at 30K, 7 at 100K"
    caplog.clear()
    tell_of_runs(replace(ddo_table(), params=np.repeat([1e6, 4e6], 7)))
    assert caplog.messages[0] == "14 runs: 7 at 30000 of 1M parameters, 7 at 100000 of 4M parameters"


@pytest.fixture
def run_table(tmp_path: Path) -> Path:
    table = ddo_table()
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "scale", *(f"tokens.{d}" for d in DOMAINS), *(f"loss.{d}" for d in DOMAINS)])
        assert table.scales is not None
        for rows in zip(table.runs, table.scales, table.domain_tokens.tolist(), table.losses.tolist(), strict=True):
            writer.writerow([*rows[:2], *rows[2], *rows[3]])
    return path


def test_several_objectives_are_solved_with_one_fit_of_the_law(run_table: Path, monkeypatch, caplog):
    fitted = []

    def counted(name, table):
        fitted.append(len(table.runs))
        return fit_law(name, table)

    monkeypatch.setattr(solution, "fit_law", counted)
    monkeypatch.chdir(run_table.parent)
    asked = ["objective=mean_perplexity", "objectives=[mean_loss,worst_loss]", "target_tokens=[300_000]"]
    settings = ["num_draws=4", "bounds.lower=0.05", "hydra/job_logging=none"]
    monkeypatch.setattr(sys, "argv", ["fit", "runs=runs.csv", "output_dir=out", *asked, *settings])
    caplog.set_level("INFO", logger="autoscale_exp")
    fit.main()
    assert fitted == [len(ddo_table().runs)]
    found = {folder: read_fit(run_table.parent / "out" / folder, "fit") for folder in ("", "mean_loss", "worst_loss")}
    assert {folder: (f.objective.name, f.objective.metric) for folder, f in found.items()} == {
        "": ("mean_perplexity", "perplexity"),
        "mean_loss": ("mean_loss", "loss"),
        "worst_loss": ("worst_loss", "loss"),
    }
    for folder, of_objective in found.items():
        assert (run_table.parent / "out" / folder / "mixtures" / "0.3M.yaml").is_file()
        assert (run_table.parent / "out" / folder / "law.json").is_file()
        assert min(of_objective.targets[0].weights.values()) >= 0.05 - 1e-9  # what else was typed is for all


def test_an_objective_named_twice_is_refused(refused, tmp_path: Path):
    write_record(tmp_path / "runs" / "run", make_record())
    line = refused("fit", "runs=.", "output_dir=out", "objectives=[mean_loss,mean_loss]")
    assert line == "objectives names 'mean_loss' twice; name each of them once"


def test_a_target_below_the_smallest_scale_ends_the_job_before_any_work(run_table: Path, refused):
    line = refused("fit", f"runs={run_table}", "output_dir=out", "target_tokens=[9_000]")
    assert line.startswith("target_tokens[0] is 9_000, below the smallest scale of the runs, 30_000 tokens; ")


def test_a_fit_of_another_objective_into_the_same_folder_is_refused_before_any_work(
    run_table: Path, refused, monkeypatch
):
    asked = ["fit", f"runs={run_table}", "output_dir=out", "law=linear", "num_draws=0", "hydra/job_logging=none"]
    monkeypatch.chdir(run_table.parent)
    monkeypatch.setattr(sys, "argv", [*asked, "objective=mean_loss", "target_tokens=[400_000]"])
    fit.main()
    line = refused(*asked[:-1], "objective=mean_loss", "objective.name=mine", "objective.weights={a: .5, b: .5}")
    assert line.startswith("output_dir is 'out', which holds the fit of law linear, objective mean_loss; this one is ")
    monkeypatch.setattr(sys, "argv", [*asked, "objective=mean_loss", "target_tokens=[2_000_000]"])
    fit.main()
    found = read_fit(run_table.parent / "out", "fit")
    assert [target.tokens for target in found.targets] == [2_000_000, 400_000]
    assert any(note.startswith("target 2M is 20 times the largest scale, 100K; ") for note in found.diagnostics.notes)
