"""The job `design`: its files, as the trainers' own rules read them, and the way back into a fit."""

import csv
import json
import runpy
import shlex
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml

from autoscale_exp import design, fit, import_runs

DOMAINS = ["web", "code"]
ASKED = ["domains=[web,code]", "seq_len=16", "batch_rows=8", "output_dir=out", "design.scales=[3840,11520]"]


def run_job(module, monkeypatch, *overrides):
    monkeypatch.setattr(sys, "argv", ["job", *overrides, "hydra/job_logging=none"])
    module.main()


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def designed(monkeypatch, tmp_path):
    def written(form, *overrides):
        monkeypatch.chdir(tmp_path)
        run_job(design, monkeypatch, *ASKED, f"format={form}", *overrides)
        return tmp_path / "out"

    return written


def megatron(text):
    """As argparse takes the arguments, and Megatron-LM pairs those of --data-path."""
    words = shlex.split(text)
    options = dict(zip(words[:8:2], words[1:8:2], strict=True))
    assert words[8] == "--data-path"
    weights = {path: float(weight) for weight, path in zip(words[9::2], words[10::2], strict=True)}
    return int(options["--train-iters"]), int(options["--global-batch-size"]), int(options["--seed"]), weights


def nemo(text):
    content = yaml.safe_load(text)
    blend = content["dataset"]["data_path"]
    assert all(isinstance(part, str) for part in blend)
    weights = {path: float(weight) for weight, path in zip(blend[::2], blend[1::2], strict=True)}
    return content["train"]["train_iters"], content["train"]["global_batch_size"], content["rng"]["seed"], weights


def olmo(text):
    content = yaml.safe_load(text)
    weights = {source["paths"][0]: source["target_ratio"] for source in content["source_list"]["sources"]}
    rows = content["global_batch_size"] // 16
    return content["requested_tokens"] // content["global_batch_size"], rows, content["seed"], weights


@pytest.mark.parametrize(
    ("form", "suffix", "read"), [("megatron", "args", megatron), ("nemo", "yaml", nemo), ("olmo", "yaml", olmo)]
)
def test_each_run_has_its_steps_seed_and_weights_in_a_file(form, suffix, read, designed):
    folder = designed(form, "paths=[/data/web_text,/data/code_text]")
    planned = table(folder / "design.csv")
    assert [run["run"] for run in planned][:4] == ["base_3.84K", "base_seed1_3.84K", "web_x3_3.84K", "web_x0.333_3.84K"]
    for run in planned:
        steps, rows, seed, weights = read((folder / f"{run['run']}.{suffix}").read_text())
        tokens = np.array([float(run[f"tokens.{domain}"]) for domain in DOMAINS])
        assert (steps, rows, seed) == (int(run["steps"]), 8, int(run["seed"]))
        assert tokens.sum() == pytest.approx(steps * 8 * 16)
        assert list(weights) == ["/data/web_text", "/data/code_text"]
        assert list(weights.values()) == pytest.approx(tokens / tokens.sum())
    tripled = next(run for run in planned if run["run"] == "web_x3_11.52K")
    assert float(tripled["tokens.web"]) / float(tripled["tokens.code"]) == pytest.approx(3)
    assert float(tripled["tokens.web"]) == pytest.approx(3 * 5760)


def test_the_module_for_torchtitan_has_a_config_for_each_run(designed, monkeypatch):
    """With stand-ins for torchtitan's classes, which take the same arguments."""
    folder = designed("torchtitan")
    stand_ins = {
        "base_config": {"base_config": lambda: SimpleNamespace(training=SimpleNamespace(), debug=SimpleNamespace())},
        "torchtitan.hf_datasets.text_datasets": {
            "HFDataSource": SimpleNamespace,
            "InterleavedHuggingFaceTextDataLoader": SimpleNamespace(Config=SimpleNamespace),
        },
    }
    for name in ("torchtitan", "torchtitan.hf_datasets", *stand_ins):
        module = ModuleType(name)
        vars(module).update(stand_ins.get(name, {}))
        monkeypatch.setitem(sys.modules, name, module)
    names = runpy.run_path(str(folder / "proxy_runs.py"))
    for run in table(folder / "design.csv"):
        config = names["__getattr__"](run["run"])()
        assert (config.training.steps, config.debug.seed) == (int(run["steps"]), int(run["seed"]))
        assert (config.training.global_batch_size, config.training.seq_len) == (8, 16)
        total = sum(float(run[f"tokens.{domain}"]) for domain in DOMAINS)
        weights = {source.dataset: source.weight for source in config.dataloader.sources}
        assert weights == pytest.approx({domain: float(run[f"tokens.{domain}"]) / total for domain in DOMAINS})
    with pytest.raises(AttributeError):
        names["__getattr__"]("another")


def test_what_the_trainer_reports_comes_back_as_a_fit(designed, monkeypatch):
    folder = designed("megatron")
    results = table(folder / "results.csv")
    assert all(row[column] == "" for row in results for column in ("tokens", "loss.web", "loss.code"))
    planned = {run["run"]: run for run in table(folder / "design.csv")}
    with (folder / "results.csv").open("w") as file:
        writer = csv.DictWriter(file, results[0])
        writer.writeheader()
        for row in results:
            web, code = (float(planned[row["run"]][f"tokens.{domain}"]) for domain in DOMAINS)
            row |= {"tokens": web + code, "loss.web": 2 + 9 * web**-0.3, "loss.code": 2 + 9 * (4 * code) ** -0.3}
            writer.writerow(row)
    run_job(import_runs, monkeypatch, "source=design", "folder=out", "output=runs.csv")
    run_job(
        fit,
        monkeypatch,
        "runs=runs.csv",
        "law=autoscale",
        "objective=mean_loss",
        "target_tokens=[11520]",
        "output_dir=fit",
        "num_draws=0",
        "uncertainty=none",
    )
    (target,) = json.loads((folder.parent / "fit" / "fit.json").read_text())["targets"]
    # 9 w^-.3 + 9 (4 c)^-.3 is least where w^-1.3 = 4^-.3 c^-1.3
    assert target["weights"]["web"] == pytest.approx(1 / (1 + 4 ** (-0.3 / 1.3)), abs=0.01)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["format=jax"], "format is 'jax'; allowed are megatron, nemo, olmo, torchtitan"),
        (["format=olmo", "domains=[web]"], "domains is ['web']; give the names of at least two, each once"),
        (["format=olmo", "design.match_repetition=9000"], "design.match_repetition is 9000, but the files for olmo"),
        (["format=olmo", "paths=[a]"], "paths is ['a']; give one for each of the 2 domains, in their order"),
        (
            ["format=olmo", "batch_rows=1000"],
            "run 'base_3.84K' has 3,840 tokens, less than half of a step of 16,000; lower",
        ),
        (["format=olmo", "seq_len=0"], "seq_len is 0; it must be at least 1"),
        (["format=olmo", "mixture=natural"], "mixture is 'natural', which follows from the sizes of the domains; give"),
        (["format=olmo", "unique_tokens=[500]"], "unique_tokens is [500]; give a positive number of tokens per domain"),
        (["format=olmo", "unique_tokens=[9000,500]"], "run 'code_x3_3.84K' asks for"),
    ],
)
def test_a_design_that_cannot_be_is_refused(overrides, message, refused, tmp_path):
    assert refused("design", *ASKED, *overrides).startswith(message)
    assert not (tmp_path / "out" / "results.csv").exists()


def test_a_table_that_may_be_filled_in_already_stays(designed, refused):
    folder = designed("olmo")
    before = (folder / "results.csv").read_text()
    assert refused("design", *ASKED, "format=olmo").startswith("output_dir is 'out', which has a results.csv already;")
    assert (folder / "results.csv").read_text() == before


def test_steps_that_blur_the_design_are_warned_of(designed, capsys):
    designed("olmo", "design.scales=[4000]")
    assert "whole steps of 128 tokens change the tokens of runs by up to 0.8 %, so that" in capsys.readouterr().out
