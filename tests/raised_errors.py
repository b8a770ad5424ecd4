"""Every error for the user that the package can make is made by some test.

While tests run, `UserError` notes which line of the package made it. After the whole suite has passed, a place that
made none fails the session. A selection of tests is not checked. Errors in forked processes count; those of commands
that a test starts anew do not.
"""

import ast
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import autoscale_exp
from autoscale_exp.base.errors import UserError

ROOT = Path(autoscale_exp.__file__).parent.parent
NOTES = "AUTOSCALE_RAISED_ERRORS"  # names, in the environment, the file that all processes of the suite append to
UNTESTED = pytest.StashKey[list[str]]()


class Site(NamedTuple):
    """A place of the package that makes an error for the user."""

    file: Path
    lines: range
    message: str


def sites() -> Iterator[Site]:
    for file in sorted(Path(autoscale_exp.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("UserError", "DivergedError"):
                yield Site(file, range(node.lineno, node.end_lineno + 1), ast.unparse(node.args[0])[:70])


def untested(notes: str) -> list[str]:
    """The sites that no line of `notes` lies in."""
    raised = {tuple(line.rsplit(":", 1)) for line in notes.splitlines()}
    return [
        f"{site.file.relative_to(ROOT)}:{site.lines[0]}: {site.message}"
        for site in sites()
        if not any((str(site.file), str(line)) in raised for line in site.lines)
    ]


def is_whole(config: pytest.Config) -> bool:
    """Whether all tests are asked for."""
    selecting = ("file_or_dir", "keyword", "markexpr", "deselect", "ignore", "ignore_glob", "collectonly")
    return not any(getattr(config.option, name) for name in selecting)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        handle, os.environ[NOTES] = tempfile.mkstemp()
        os.close(handle)
    init = UserError.__init__

    def noting(self: UserError, *args: object) -> None:
        caller = sys._getframe(1)
        with open(os.environ[NOTES], "a") as notes:
            notes.write(f"{caller.f_code.co_filename}:{caller.f_lineno}\n")
        init(self, *args)

    UserError.__init__ = noting  # type: ignore[method-assign]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    if hasattr(config, "workerinput"):
        return
    notes = Path(os.environ.pop(NOTES))
    if exitstatus == pytest.ExitCode.OK and is_whole(config):
        config.stash[UNTESTED] = untested(notes.read_text())
        session.exitstatus = pytest.ExitCode.TESTS_FAILED if config.stash[UNTESTED] else exitstatus
    notes.unlink()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for site in config.stash.get(UNTESTED, []):
        terminalreporter.write_line(f"no test raises {site}", red=True)
