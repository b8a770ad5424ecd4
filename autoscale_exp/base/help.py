"""The text of `--help`: the groups of a job with their choices, and its keys, one line each.

A key's line is its comment in the schema, where the field's meaning and unit are written once.
"""

import ast
import inspect
import io
import re
import sys
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from autoscale_exp.base.composing import compose

GROUPS = """Choose an option of a group with group=option; the first is the default. Options change the keys:
`--help {example}` lists those of {example}."""
SEVERAL = "Of `rivals` several are chosen: rivals=[uniform,fitted]."
KEYS = "Set a key with key=value. `--hydra-help` lists Hydra's own flags."


def describe_job(conf_dir: Path, job: str, purpose: str, overrides: Sequence[str]) -> str:
    """Makes the help of a job.

    Args:
        conf_dir: folder of its root config <job>.yaml and of the groups.
        job: name of the job.
        purpose: a sentence on what it does.
        overrides: groups and keys that were given with --help.
    """
    with initialize_config_dir(str(conf_dir), version_base="1.3"):
        conf = compose(job, [*overrides])
    groups = list(_groups(conf_dir, job))
    width = max((len(name) for name, _ in groups), default=0)
    lines = [f"python -m autoscale_exp.{job}: {purpose}", ""]
    choices = {name: options for name, options in groups if len(options) > 1}
    if choices:  # the choice of a design changes most of the keys
        group = "design" if "design" in choices else next(iter(choices))
        lines.append(GROUPS.format(example=f"{group}={choices[group][1]}"))
    lines += [SEVERAL] * ("rivals" in choices) + [KEYS, ""]
    lines += ["Groups", *(f"  {name:<{width}}  {' | '.join(options)}" for name, options in groups), ""] * bool(groups)
    keys = list(_keys(conf, "", ""))
    width = min(48, max(len(key) for key, _ in keys))
    return "\n".join([*lines, "Keys", *(f"  {key:<{width}}  {text}".rstrip() for key, text in keys), ""])


def _groups(conf_dir: Path, job: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the groups in a job's defaults list with their options; null is one if it is the default."""
    defaults = yaml.safe_load((conf_dir / f"{job}.yaml").read_text(encoding="utf-8"))["defaults"]
    for entry in defaults:
        if not isinstance(entry, dict) or " " in (group := next(iter(entry))):
            continue  # a schema, or an override of Hydra's own groups
        paths = sorted((conf_dir / group).glob("*.yaml"))
        if group == "experiment":
            paths = [path for path in paths if is_experiment_of(path, job)]
        options, chosen = [path.stem for path in paths] + ["null"] * (entry[group] is None), entry[group] or "null"
        first = chosen if isinstance(chosen, list) else [chosen]
        yield group, sorted(options, key=lambda option: (option not in first, option))


def is_experiment_of(path: Path, job: str) -> bool:
    """Whether an experiment file is for a job, as the command in its comment says."""
    command = rf"python -m autoscale_exp\.{job} experiment={path.stem}\b"
    return bool(re.search(command, path.read_text(encoding="utf-8")))


def _keys(section: DictConfig, prefix: str, of_section: str) -> Iterator[tuple[str, str]]:
    """Yields key=value and comment of every key, also of nested sections. Keys of an open section have its comment."""
    schema = OmegaConf.get_type(section)
    comments = _comments(schema) if is_dataclass(schema) else dict.fromkeys(map(str, section), of_section)
    for key in section:
        node: Any = section._get_node(key)
        name, comment = f"{prefix}{key!s}", comments.get(str(key), "")
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing() and len(node):
            yield from _keys(node, f"{name}.", comment)
        else:
            yield f"{name}={_shown(node)}", comment


def _shown(node: Any) -> str:
    """A value as one would type it."""
    if OmegaConf.is_config(node) and not node._is_none() and not node._is_missing():
        value = OmegaConf.to_container(node, resolve=False)
    else:
        value = node._value()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return "{}" if isinstance(value, dict) else str(value)


@cache
def _comments(schema: type) -> dict[str, str]:
    """The comment of each field of a dataclass and its bases: on its line, or in the lines above."""
    comments: dict[str, str] = {}
    for cls in reversed(schema.__mro__[:-1]):
        source = textwrap.dedent(inspect.getsource(cls))
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        by_line = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
        body = ast.parse(source).body[0]
        assert isinstance(body, ast.ClassDef)
        for field in body.body:
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            within = [by_line[n] for n in range(field.lineno, (field.end_lineno or 0) + 1) if n in by_line]
            above: list[str] = []
            while (line := field.lineno - 1 - len(above)) in by_line and not _has_code(source, line):
                above.insert(0, by_line[line])
            comments[field.target.id] = " ".join([*above, *within])
    return comments


def _has_code(source: str, line: int) -> bool:
    return not source.splitlines()[line - 1].lstrip().startswith("#")


def asked_for_help() -> list[str] | None:
    """The overrides on the command line if --help is there, else None."""
    arguments = sys.argv[1:]
    if not {"--help", "-h"} & set(arguments):
        return None
    return [argument for argument in arguments if not argument.startswith("-")]
