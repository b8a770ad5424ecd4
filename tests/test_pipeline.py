"""The whole job by its command, from text to the report: the own-data example of the README, with a thousandth of its
tokens."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
WORDS = {
    "web": "the a page link shop price of and buy now free order cheap click here news more read",
    "books": "he she it was had been upon when then said old night house door never again long looked",
    "code": "def return if else for while in range len print self import x y z i = == ( ) [ ] : + -",
}


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
