"""Imports go one way: a part knows the parts below it, and none above."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "autoscale_exp"
# From the ground up; jobs, one file each, stand on top.
LAYERS = [
    "base",
    "mixture",
    "runs",
    "data",
    "lm",
    "reweighting",
    "laws",
    "evaluation",
    "reporting",
    "resolvers",
    "config",
    "training",
    "studies",
]
PURE = {"torch", "hydra", "pytorch_lightning", "transformers", "datasets", "wandb"}


def imports_of(path):
    """Modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def files_of(layer):
    place = PACKAGE / layer
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


@pytest.mark.parametrize("layer", LAYERS)
def test_no_part_imports_one_above_it(layer):
    above = {*LAYERS[LAYERS.index(layer) + 1 :], *({path.stem for path in PACKAGE.glob("*.py")} - set(LAYERS))}
    above -= {"__init__"}
    imported = {(path.name, name) for path in files_of(layer) for name in imports_of(path)}
    assert not {
        (file, name) for file, name in imported if name.startswith("autoscale_exp.") and name.split(".")[1] in above
    }


@pytest.mark.parametrize("layer", ["laws", "mixture", "runs"])
def test_laws_mixtures_and_runs_know_no_training_stack(layer):
    imported = {(path.name, name.split(".")[0]) for path in files_of(layer) for name in imports_of(path)}
    assert not {(file, name) for file, name in imported if name in PURE}
