"""The own-data example of the README, as written there, on little text and with a thousandth of the tokens."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
WORDS = {
    "web": "the a page link shop price of and buy now free order cheap click here news more read",
    "books": "he she it was had been upon when then said old night house door never again long looked",
    "code": "def return if else for while in range len print self import x y z i = == ( ) [ ] : + -",
}


def own_data_commands():
    section = (ROOT / "README.md").read_text().split("\n## Your own data\n")[1].split("\n## ")[0]
    block = re.search(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert block
    return block[1].replace("\\\n", " ").splitlines()


def with_a_thousandth_of_the_tokens(command):
    return re.sub(r"\d{1,3}(_000){2,}", lambda number: f"{int(number[0]) // 1000:_}", command)


@pytest.fixture
def folder(tmp_path):
    """Two files and a folder of text files, each domain with some 2M characters."""
    rng = np.random.default_rng(0)
    text = {domain: [" ".join(rng.choice(words.split(), 250)) for _ in range(2000)] for domain, words in WORDS.items()}
    for domain in ("web", "books"):
        lines = (json.dumps({"text": each}) + "\n" for each in text[domain])
        (tmp_path / "FOLDER").mkdir(exist_ok=True)
        (tmp_path / "FOLDER" / f"{domain}.jsonl").write_text("".join(lines))
    (tmp_path / "FOLDER" / "code").mkdir()
    for index, each in enumerate(text["code"]):
        (tmp_path / "FOLDER" / "code" / f"{index}.txt").write_text(each)
    return tmp_path


@pytest.mark.slow
def test_the_own_data_example_of_the_readme_runs_as_written(folder):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in own_data_commands():
        small = with_a_thousandth_of_the_tokens(command)
        done = subprocess.run(
            ["bash", "-c", small], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{small}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    search = folder / "outputs" / "mine"
    assert len(list(search.glob("runs/*/result.json"))) == 16
    assert (search / "fit" / "mixtures" / "10K.yaml").is_file()
    summary = json.loads((search / "summary.json").read_text())
    assert summary["target_tokens"] == 10_000
    assert {name: len(values) for name, values in summary["final"].items()} == {"uniform": 2, "fitted": 2}
    assert (search / "report.html").is_file()


def test_only_token_budgets_are_made_smaller():
    command = 'train "design.scales=[1_000_000,3_000_000]" data.seq_len=1024 token_budget=10_000_000'
    small = 'train "design.scales=[1_000,3_000]" data.seq_len=1024 token_budget=10_000'
    assert with_a_thousandth_of_the_tokens(command) == small
