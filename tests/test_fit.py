"""What a fit refuses before it reads the runs, or with them."""

import csv
import logging
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from autoscale_exp import fit
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.base.labels import budget_label
from autoscale_exp.config import TrainConf
from autoscale_exp.fit import tell_of_runs
from autoscale_exp.laws import solution
from autoscale_exp.laws.fit_file import read_fit
from autoscale_exp.laws.law import fit_law
from autoscale_exp.lm.size import size_of
from autoscale_exp.reporting import explorer, figures
from autoscale_exp.runs.record import write_record
from autoscale_exp.training.plan import plan_run
from tests.laws.synthetic import DOMAINS, ddo_table
from tests.runs.records import make_record, started


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
        (["optima=a.csv", "objectives=[mean_loss]"], "objectives is given with optima, whose objective is unknown; "),
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


def composed(*overrides: str) -> TrainConf:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        conf = to_typed(compose("train", [*overrides]))
    assert isinstance(conf, TrainConf)
    return conf


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["law=linear"], "next_models is given, but law.name=linear takes no model sizes; choose pooled_transfer or "),
        ([], "next_models is given, but 'runs.csv' is no sweep's folder, whose token store tells how large models are"),
    ],
)
def test_models_of_new_runs_that_nothing_is_known_of_are_refused(overrides, message, refused, run_table: Path):
    asked = [f"runs={run_table.name}", "next_models=[gpt2]", "output_dir=out", *overrides]
    assert refused("fit", *asked).startswith(message)


def test_runs_of_models_of_several_sizes_are_proposed_with_commands_that_train_them(store, tmp_path: Path, monkeypatch):
    """A search of a narrow GPT-2, and new runs of the one in conf/model."""
    search = tmp_path / "search"
    table, typed = ddo_table(noise=0.01), ["model=gpt2_tiny", "model.n_embd=16", "trainer.accelerator=cpu"]

    def size(*overrides: str) -> int:
        return size_of(composed(*overrides, "token_budget=9").model, store.vocab_size, store.seq_len, half=False).params

    text = dict.fromkeys(store.domains, 10**6)
    for run, tokens, losses in zip(table.runs, table.domain_tokens.tolist(), table.losses.tolist(), strict=True):
        budget = 30_000 if sum(tokens) < 60_000 else 100_000
        record = {
            "scale": budget_label(budget),
            "token_budget": budget,
            "params": size(*typed),
            "store": str(store.folder),
            "tokens": dict(zip(store.domains, map(round, tokens), strict=True)),
            "unique_tokens": text,
            "pool_tokens": text,
            "losses": dict(zip(store.validation_domains, losses, strict=True)),
        }
        started(search, run, typed, {"experiment": "search"}, **record)
    asked = [f"runs={search}", "target_tokens=[300_000]", "num_draws=8", "num_next_runs=2"]
    asked += ["next_models=[gpt2_tiny]", "next_scales=[16_000]", "hydra/job_logging=none"]
    monkeypatch.setattr(sys, "argv", ["fit", *asked])
    monkeypatch.setattr(figures, "save_fit_figures", lambda *_: None)
    monkeypatch.setattr(explorer, "write_explorer", lambda *_: None)
    fit.main()
    (target,) = read_fit(search / "fit", "fit").targets
    tiny = size("model=gpt2_tiny")
    assert {run.params for run in target.next_runs} == {tiny}
    for run in target.next_runs:
        overrides = [o for o in shlex.split(run.command)[3:] if not o.startswith("hydra.mode")]
        plan = plan_run(composed(*overrides), store)
        assert plan.spec.run == run.run
        assert plan.conf.model.n_embd == 64
        assert plan.sampler.num_rows * store.seq_len == pytest.approx(16_000, abs=3 * store.seq_len)
        with pytest.raises(UserError, match=f"proposed for a model of {tiny} parameters, but model 'gpt2_tiny' has"):
            plan_run(composed(*overrides, "model.n_layer=2"), store)


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
