"""The whole job by its commands, from text to the report, on little text: the own-data example of the README with a
thousandth of its tokens, then on its token store the paper's study as experiment=paper_gpt2_smoke has it."""

import csv
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from autoscale_exp.runs.table import write_run_table
from tests.warm_python import WarmPython

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
WORDS = {
    "web": "the a page link shop price of and buy now free order cheap click here news more read",
    "books": "he she it was had been upon when then said old night house door never again long looked",
    "code": "def return if else for while in range len print self import x y z i = == ( ) [ ] : + -",
}
SEQ_LEN = 64  # what data=local has
RIVALS = ["uniform", "natural", "doremi", "mixing_law", "regmix", "fitted", "autoscale"]  # of paper_gpt2_smoke
PAPER = [
    "python -m autoscale_exp.study experiment=paper_gpt2_smoke store=outputs/stores/mine",
    "'design.scales=[1_000,2_000,2_600]'",  # whose search pays for a swarm of 46, of which LightGBM needs 45
    "'token_budgets=[10_000]'",
    """'+evaluations.perplexity=["task=perplexity","logger=csv"]'""",
]


def own_data_command() -> str:
    section = (ROOT / "README.md").read_text().split("\n## Your own data\n")[1].split("\n## ")[0]
    block = re.search(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert block
    (command,) = block[1].replace("\\\n", " ").splitlines()
    return with_a_thousandth_of_the_tokens(command)


def with_a_thousandth_of_the_tokens(command: str) -> str:
    return re.sub(r"\d{1,3}(_000){2,}", lambda number: f"{int(number[0]) // 1000:_}", command)


def run(cwd: Path, command: str) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files and a folder of text files, each domain with some 2M characters."""
    folder = tmp_path_factory.mktemp("pipeline")
    rng = np.random.default_rng(0)
    text = {domain: [" ".join(rng.choice(words.split(), 250)) for _ in range(2000)] for domain, words in WORDS.items()}
    (folder / "FOLDER" / "code").mkdir(parents=True)
    for domain in ("web", "books"):
        lines = (json.dumps({"text": each}) + "\n" for each in text[domain])
        (folder / "FOLDER" / f"{domain}.jsonl").write_text("".join(lines))
    for index, each in enumerate(text["code"]):
        (folder / "FOLDER" / "code" / f"{index}.txt").write_text(each)
    return folder


@pytest.fixture(scope="module")
def as_in_the_readme(folder: Path) -> dict[str, bytes]:
    """The files of the study as the README has it."""
    run(folder, own_data_command())
    outputs = folder / "outputs" / "mine"
    return {str(path.relative_to(outputs)): path.read_bytes() for path in outputs.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def outputs(as_in_the_readme: dict[str, bytes], folder: Path) -> Path:
    run(folder, " ".join(PAPER))
    return folder / "outputs" / "paper_gpt2_smoke"


def test_the_example_of_the_readme_runs_as_written(as_in_the_readme):
    assert len([name for name in as_in_the_readme if re.fullmatch(r"runs/[^/]+/result\.json", name)]) == 16
    assert {"fit/mixtures/10K.yaml", "report.html"} <= set(as_in_the_readme)
    summary = json.loads(as_in_the_readme["summary.json"])
    assert summary["target_tokens"] == 10_000
    assert {name: len(values) for name, values in summary["final"].items()} == {"uniform": 2, "fitted": 2}


def test_only_token_budgets_are_made_smaller():
    command = 'train "design.scales=[1_000_000,3_000_000]" data.seq_len=1024 token_budget=10_000_000'
    small = 'train "design.scales=[1_000,3_000]" data.seq_len=1024 token_budget=10_000'
    assert with_a_thousandth_of_the_tokens(command) == small


def test_the_study_of_the_paper_trains_what_every_rival_needs(outputs):
    runs = {
        folder: {path.parent.name for path in (outputs / folder / "runs").glob("*/result.json")}
        for folder in (".", "swarm", "doremi", "targets")
    }
    assert {folder: len(names) for folder, names in runs.items()} == {".": 21, "swarm": 46, "doremi": 2, "targets": 7}
    assert runs["targets"] == {f"{rival}_10K_seed42" for rival in RIVALS}
    for fit in ("fit", "autoscale", "swarm/mixing_law", "swarm/lightgbm"):
        assert (outputs / fit / "mixtures" / "10K.yaml").is_file()


def test_a_finished_study_does_nothing_when_asked_again_and_tells_the_commands_of_its_stages(outputs, folder):
    before = {path: path.stat().st_mtime_ns for path in outputs.rglob("*") if path.suffix in (".json", ".html", ".csv")}
    told = run(folder, " ".join(PAPER))
    assert "to do: 0 runs" in told
    assert {path: path.stat().st_mtime_ns for path in before} == before
    commands = re.findall(r"^  python -m autoscale_exp\.(\w+) (.*)$", told, re.M)
    trained, fitted = ["train"] * 4, ["fit"] * 4
    assert [job for job, _ in commands] == [*trained, *fitted, "train", "evaluate", "report"]
    fit = outputs / "fit" / "fit.json"
    written = json.loads(fit.read_text())
    run(folder, f"python -m autoscale_exp.fit {commands[6][1]}")
    assert json.loads(fit.read_text()) == written


def test_every_file_of_the_contract_is_there(outputs):
    for name in ("runs.csv", "fit/fit.json", "fit/law.json", "fit/weights.png", "summary.json", "report.html"):
        assert (outputs / name).stat().st_size > 0
    assert len(list(csv.DictReader((outputs / "runs.csv").open()))) == 3 * (2 * 3 + 1)


def test_the_mixture_trained_is_the_one_fitted(outputs):
    fitted = yaml.safe_load((outputs / "fit" / "mixtures" / "10K.yaml").read_text())
    result = json.loads((outputs / "targets" / "runs" / "fitted_10K_seed42" / "result.json").read_text())
    for domain, weight in zip(fitted["domains"], fitted["weights"], strict=True):
        assert result["tokens"][domain] == pytest.approx(10_000 * weight, abs=SEQ_LEN)
    assert sum(result["tokens"].values()) == pytest.approx(10_000, abs=SEQ_LEN)


def test_the_summary_adds_up(outputs):
    summary = json.loads((outputs / "summary.json").read_text())
    tables = [outputs / name / "runs.csv" for name in (".", "swarm", "doremi")]
    rows = [row for table in tables for row in csv.DictReader(table.open())]
    assert set(summary) == {
        "objective",
        "scales",
        "target_tokens",
        "weights",
        "final",
        "final_by_budget",
        "downstream",
        "speedup_vs_uniform",
        "savings_vs_uniform",
        "difference_vs_uniform",
        "predictions",
        "requested_weights",
        "answer",
        "brute_force",
        "optima",
        "target_seconds",
        "search_tokens",
        "search_seconds",
        "seconds",
    }
    assert {name: len(values) for name, values in summary["final"].items()} == dict.fromkeys(RIVALS, 1)
    tokens = sum(int(value) for row in rows for key, value in row.items() if key.startswith("tokens."))
    assert summary["search_tokens"] == tokens
    assert summary["seconds"] > summary["search_seconds"] > 0


def test_evaluations_are_reported_beside_what_training_measured(outputs):
    downstream = json.loads((outputs / "summary.json").read_text())["downstream"]
    for domain in WORDS:
        row = downstream[f"perplexity/mine perplexity.{domain}"]
        assert set(row) == set(RIVALS)
        for mixture, (value,) in row.items():
            result = outputs / "targets" / "runs" / f"{mixture}_10K_seed42" / "result.json"
            assert math.log(value) == pytest.approx(json.loads(result.read_text())["losses"][domain], abs=1e-6)
    assert "Downstream" in (outputs / "report.html").read_text()


def test_the_report_is_one_file_that_loads_nothing(outputs):
    page = (outputs / "report.html").read_text()
    assert page.count("<svg") == 7
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "<script" not in page
    for heading in ("Weights against scale", "Target runs", "Beside the published study", "Tokens and epochs", "Cost"):
        assert heading in page


def test_the_next_runs_that_a_fit_names_are_trained_by_their_commands(outputs, folder, warm_python: WarmPython):
    *_, target = json.loads((outputs / "fit" / "fit.json").read_text())["targets"]
    folders = {proposed["run"]: outputs / "runs" / proposed["run"] for proposed in target["next_runs"]}
    first = target["next_runs"][0]
    assert not any(path.exists() for path in folders.values())
    python, option, module, *of_first = shlex.split(first["command"])
    assert (python, option, module) == ("python", "-m", "autoscale_exp.train")
    search, fit = os.path.relpath(outputs, folder), os.path.relpath(outputs / "fit", folder)
    of_all = ["experiment=next_runs", f"search={search}", f"design.path={fit}/next_runs/10K.csv"]
    try:
        warm_python.run("autoscale_exp.train", of_first, folder)
        assert [name for name, path in folders.items() if path.exists()] == [first["run"]]
        warm_python.run("autoscale_exp.train", of_all, folder)
        for proposed in target["next_runs"]:
            record = json.loads((folders[proposed["run"]] / "result.json").read_text())
            assert record["seed"] == proposed["seed"]
            assert record["token_budget"] == proposed["token_budget"]
            for domain, tokens in proposed["domain_tokens"].items():
                assert record["tokens"][domain] == pytest.approx(tokens, abs=SEQ_LEN)
        again = [f"runs={search}", "target_tokens=[10_000]", "num_draws=4", "output_dir=again"]
        warm_python.run("autoscale_exp.fit", again, folder)
    finally:
        for path in folders.values():
            shutil.rmtree(path, ignore_errors=True)  # the other tests know the search without them
        write_run_table(outputs)


def test_a_report_without_its_parts_says_what_is_missing(outputs, refused):
    line = refused("report", f"search={outputs}", "fit=nowhere")
    assert line == "fit is 'nowhere', which has no fit.json; run `python -m autoscale_exp.fit` first"
