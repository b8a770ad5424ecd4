import importlib.metadata
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.preparation import environment
from autoscale_exp.data.preparation.environment import (
    dependency_closure,
    separate_code_and_prose,
    write_environment_corpus,
)

SOURCE = '''\
# Copyright 2020. All rights reserved.
"""What the module is for.

At length."""

import os  # the system

#: How many.
COUNT = "# not a comment"  # noqa


class Box:
    """A box."""

    def open(self):
        """Opens it.

        Wide.
        """
        # Slowly.
        return """not a
docstring"""

    async def shut(self):
        "Shuts it."
'''

CODE = '''\
import os
COUNT = "# not a comment"
class Box:
    def open(self):
        return """not a
docstring"""
    async def shut(self):'''

PROSE = """\
What the module is for.

At length.

the system
How many.
noqa
A box.

Opens it.

Wide.

Slowly.
Shuts it.
"""


def test_docstrings_and_comments_are_prose_and_the_rest_is_code():
    assert separate_code_and_prose(SOURCE) == (CODE, PROSE)


def test_code_without_prose_is_unchanged():
    assert separate_code_and_prose("a = 1\nb = [\n    2,\n]") == ("a = 1\nb = [\n    2,\n]", "")


@pytest.mark.parametrize("source", ["def f(:", "print 'python 2'", "x = '\0'", "  indented"])
def test_source_that_does_not_parse_gives_nothing(source):
    assert separate_code_and_prose(source) == ("", "")


def test_empty_source_gives_nothing():
    assert separate_code_and_prose("") == ("", "")


def test_the_closure_has_what_its_roots_need_with_versions():
    closure = dependency_closure(["hydra-core"])
    assert {"hydra-core", "omegaconf", "packaging", "pyyaml"} <= set(closure)
    assert closure == {name: importlib.metadata.version(name) for name in closure}
    assert list(closure) == sorted(closure)


def test_the_closure_has_no_extras_and_nothing_else_that_is_installed():
    assert "pytest" not in dependency_closure(["hydra-core"])
    assert set(dependency_closure(["packaging"])) == {"packaging"}


def test_names_are_normalised_and_unknown_ones_skipped():
    assert dependency_closure(["PyYAML", "no-such-package-at-all"]) == dependency_closure(["pyyaml"])
    assert dependency_closure(["Hydra_Core"]) == dependency_closure(["hydra-core", "hydra.core"])


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "ROOT_PACKAGES", ("hydra-core",))
    write_environment_corpus(["python", "prose"], 20_000, tmp_path / "store" / "text")
    return tmp_path / "store" / "text"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def edit_packages(folder: Path, edit: Callable[[dict[str, str]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest["identity"]["packages"])
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_corpus_notes_the_versions_of_python_and_of_the_packages_it_is_from(corpus: Path):
    packages = json.loads((corpus / "manifest.json").read_text())["identity"]["packages"]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert packages == {"python": python, **dependency_closure(["hydra-core"])}


def test_a_corpus_from_the_same_packages_is_left_as_it_is(corpus: Path):
    before = contents(corpus)
    write_environment_corpus(["python", "prose"], 20_000, corpus)
    assert contents(corpus) == before
    edit_packages(corpus, lambda packages: packages.pop("python"))  # as they were written at first
    before = contents(corpus)
    write_environment_corpus(["python", "prose"], 20_000, corpus)
    assert contents(corpus) == before


def test_a_corpus_of_fewer_characters_from_the_same_packages_is_written_anew(corpus: Path):
    before = contents(corpus)
    write_environment_corpus(["python", "prose"], 5_000, corpus)
    assert all(len(contents(corpus)[name][0]) < len(content) for name, (content, _) in before.items())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda packages: packages.update(omegaconf="0.1"), r"omegaconf: 0.1, not [\d.]+"),
        (lambda packages: packages.update(python="3.1"), r"python: 3.1, not 3.\d+"),
        (lambda packages: packages.update(gone="1.0"), r"gone: 1.0, not None"),
        (
            lambda packages: packages.update(dict.fromkeys("abcde", "1")),
            r"a: 1, not None; b: 1, not None; c: 1, not None; and 2 more",
        ),
    ],
)
def test_a_corpus_from_other_packages_is_an_error_that_names_them_and_stays_as_it_is(edit, message, corpus: Path):
    edit_packages(corpus, edit)
    before = contents(corpus)
    remedy = re.escape(f"delete the store's folder '{corpus.parent}' or set data.store to another one")
    with pytest.raises(UserError, match=rf"text' holds text from other packages .*\({message}\); {remedy}"):
        write_environment_corpus(["python", "prose"], 20_000, corpus)
    assert contents(corpus) == before


def test_a_domain_that_there_is_no_text_of_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"data.domains names 'poems'; data=environment has python, "):
        write_environment_corpus(["python", "poems"], 1000, tmp_path)
