import importlib.metadata

import pytest

from autoscale_exp.data.environment import dependency_closure, separate_code_and_prose

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
