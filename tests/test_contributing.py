"""The worked examples of CONTRIBUTING.md, in a copy of the checkout: files written, lines added, commands run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
# A path alone on its line says which file the next blocks are; a block of bash is run.
PIECE = re.compile(r"^`(?P<path>[\w./]+)`$|^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    kind: str
    path: str
    body: str


def blocks(text):
    path = ""
    for match in PIECE.finditer(text):
        path = match["path"] or path
        if match["kind"]:
            yield Block(match["kind"], path, match["body"])


def add_lines(file, diff):
    """Applies a diff that has lines to find, which begin with a space, and lines to add, unless they are there."""
    lines = diff.splitlines(keepends=True)
    assert all(line[0] in " +" for line in lines)
    found = "".join(line[1:] for line in lines if line[0] == " ")
    text, made = file.read_text(), "".join(line[1:] for line in lines)
    if made not in text:
        assert text.count(found) == 1, f"{file} has {text.count(found)} times\n{found}"
        file.write_text(text.replace(found, made))


def write(file, body):
    """Writes a file, which may be there as it is; another of its name would be lost."""
    assert not file.exists() or file.read_text() == body, f"{file} is there already; the example needs another name"
    file.write_text(body)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout in which CONTRIBUTING.md was followed from top to bottom, maybe not for the first time."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("autoscale_exp", "conf", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for block in blocks((ROOT / "CONTRIBUTING.md").read_text()):
        if block.kind == "bash":
            command = ["bash", "-euo", "pipefail", "-c", block.body]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{block.body}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        elif block.kind == "diff":
            add_lines(folder / block.path, block.body)
        else:
            write(folder / block.path, block.body)
    return folder


def test_the_domain_set_is_prepared(checkout):
    manifest = json.loads((checkout / "outputs/stores/kitchen/manifest.json").read_text())
    assert list(manifest["domains"]) == ["recipes", "reviews", "code"]


def test_the_design_trains_a_base_run_and_one_without_each_domain(checkout):
    runs = (checkout / "outputs/train/ablation/runs").glob("*/result.json")
    tokens = {path.parent.name: json.loads(path.read_text())["tokens"] for path in runs}
    assert set(tokens) == {"base_6.4K", "no_recipes_6.4K", "no_reviews_6.4K", "no_code_6.4K"}
    base = tokens["base_6.4K"]
    assert sum(base.values()) == 6_400
    for domain in base:
        assert tokens[f"no_{domain}_6.4K"] == base | {domain: 0}


def test_the_law_is_fitted_and_gives_a_mixture(checkout):
    fit = json.loads((checkout / "outputs/train/ablation/log_tokens/fit.json").read_text())
    assert fit["law"] == "log_tokens"
    (target,) = fit["targets"]
    assert target["converged"]
    assert sum(target["weights"].values()) == pytest.approx(1)


def test_the_model_trains_on_the_fitted_mixture(checkout):
    fit = json.loads((checkout / "outputs/train/ablation/log_tokens/fit.json").read_text())
    result = json.loads((checkout / "outputs/train/narrow/runs/fitted_20K_seed0/result.json").read_text())
    assert result["model"] == "gpt2_narrow"
    for domain, weight in fit["targets"][0]["weights"].items():
        assert result["tokens"][domain] == pytest.approx(20_000 * weight, abs=16)


def test_every_command_of_the_page_is_run():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    run = "".join(block.body for block in blocks(text) if block.kind == "bash")
    assert run.count("python -m autoscale_exp") == text.count("python -m autoscale_exp") - 1  # one in a YAML's comment


@pytest.mark.parametrize("kind", ["yaml", "python", "diff", "bash"])
def test_each_kind_of_block_is_found(kind):
    assert any(block.kind == kind for block in blocks((ROOT / "CONTRIBUTING.md").read_text()))


def test_lines_are_added_after_those_found_once(tmp_path):
    file = tmp_path / "laws.py"
    file.write_text("LAWS = {\n    1,\n}\n")
    add_lines(file, " LAWS = {\n+    0,\n")
    assert file.read_text() == "LAWS = {\n    0,\n    1,\n}\n"
    with pytest.raises(AssertionError, match="has 0 times"):
        add_lines(file, " DESIGNS = {\n+    0,\n")


def test_a_page_that_was_followed_can_be_followed_again(tmp_path):
    file = tmp_path / "laws.py"
    write(file, "LAWS = {\n    1,\n}\n")
    write(file, "LAWS = {\n    1,\n}\n")
    with pytest.raises(AssertionError, match="is there already"):
        write(file, "LAWS = {}\n")
    for _ in range(2):
        add_lines(file, "     1,\n+    2,\n")
    assert file.read_text() == "LAWS = {\n    1,\n    2,\n}\n"
