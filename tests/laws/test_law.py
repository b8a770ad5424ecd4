"""The list of laws: each can do what it is listed with, and no more; `fit --help` and docs/laws.md have the list."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.law import ABILITIES, LAWS, describe_laws, fit_law, predicts_losses
from tests.laws.synthetic import ddo_table

DOCS = Path(__file__).parents[2] / "docs" / "laws.md"
TABLE = ddo_table(noise=0.01, repeats=2, scales=(10_000, 20_000, 40_000, 80_000, 160_000))


@pytest.mark.parametrize("name", LAWS)
def test_a_law_can_do_what_it_is_listed_with(name):
    law, abilities = fit_law(name, TABLE), LAWS[name].abilities
    assert law.name == name
    assert predicts_losses(law) == ("losses" in abilities)
    assert bool(law.draws(2, np.random.default_rng(0))) == ("intervals" in abilities)
    if predicts_losses(law) and "tokens" in abilities:
        beyond = 10 * TABLE.domain_tokens.max(axis=0)
        assert (law.predict(beyond) < law.predict(beyond / 3)).all()


@pytest.mark.parametrize("name", LAWS)
def test_a_law_takes_held_out_domains_if_it_is_listed_with_them(name):
    held_out = replace(TABLE, validation_domains=["a", "b", "law"])
    if "held-out domains" in LAWS[name].abilities:
        assert fit_law(name, held_out).validation_domains == ["a", "b", "law"]
    else:
        with pytest.raises(UserError, match="'law'"):
            fit_law(name, held_out)


def test_the_list_for_people_has_every_law_and_ability():
    text = describe_laws()
    for name, entry in LAWS.items():
        assert re.search(rf"^  {name} +{re.escape(entry.formula)}$", text, re.M)
        assert f"{entry.source}. {', '.join(entry.abilities)}" in text
        assert set(entry.abilities) <= set(ABILITIES)
    for ability, meaning in ABILITIES.items():
        assert re.search(rf"^  {ability} +{meaning}$", text, re.M)


def test_help_of_a_fit_ends_with_the_list(tmp_path):
    command = [sys.executable, "-m", "autoscale_exp.fit", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.endswith(describe_laws())


def test_the_table_in_the_docs_is_the_list():
    rows = [
        f"| `{name}` | {entry.formula} | "
        + re.sub(r"([^;\s][^;]*), arXiv (\d+\.\d+)", r"[\1](https://arxiv.org/abs/\2)", entry.source)
        + f" | {', '.join(entry.abilities)} |"
        for name, entry in LAWS.items()
    ]
    found = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if re.match(r"\| `\w+` \|", line)]
    assert found == rows
