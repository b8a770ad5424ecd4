"""JSON files that other programs read. Each has one module that owns it and a format number, and is always whole."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError, refusal

Schema = TypeVar("Schema")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]  # converts the content of one format to the next


def write_versioned(path: Path, content: Any, number: int) -> None:
    """Writes a dataclass, or plain JSON, with its format number, as a whole file."""
    body = content if isinstance(content, dict) else asdict(content)
    atomic.write_json(path, {"format": number, **body})


def read_versioned(
    path: Path, number: int, remedy: str, upgrades: Mapping[int, Upgrade] | None = None
) -> dict[str, Any]:
    """Reads the content, without the number, of a file of format `number` or one that can be upgraded to it.

    Args:
        path: path of the file. A file without a number has format 1.
        number: the format that this version writes.
        remedy: what the user can do if the file cannot be used.
        upgrades: functions that convert a format to the next, by its number.

    Raises:
        UserError: the file cannot be read, is no JSON object, or has another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {refusal(error)}; {remedy}") from None
    except ValueError as error:
        raise UserError(f"'{path}' is damaged ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"'{path}' is damaged: it holds no JSON object; {remedy}")
    found = content.pop("format", 1)
    while found != number and found in (upgrades or {}):
        content, found = (upgrades or {})[found](content), found + 1
    if found != number:
        raise UserError(f"'{path}' has format {found}, but this version reads format {number}; {remedy}")
    return content


def parse(path: Path, content: dict[str, Any], schema: type[Schema], remedy: str) -> Schema:
    """Parses the content of a file into a dataclass. All keys must be there, with their types; others are left out.

    Raises:
        UserError: a key is missing or has a value of another type; the message names the first.
    """
    try:
        return _adapter(schema).validate_python(content)  # type: ignore[arg-type]  # mypy: a class has no hash
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"'{path}' is damaged: {key}: {first['msg'][:1].lower()}{first['msg'][1:]}; {remedy}") from None


@cache  # it takes much longer to make than to use, and a sweep reads all its records after every run
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def read_if_there(path: Path, number: int, schema: type[Schema], remedy: str) -> Schema:
    """Reads the content of a file into a dataclass; without a file, the dataclass has its defaults.

    Raises:
        UserError: the file is damaged or of another format.
    """
    return parse(path, read_versioned(path, number, remedy), schema, remedy) if path.exists() else schema()


def differing_keys(stored: Any, asked: Any, prefix: str = "") -> list[str]:
    """Keys at which two nested mappings differ, each as 'key: stored value, not asked value'."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        differences = []
        for key in dict.fromkeys([*stored, *asked]):
            name = f"{prefix}.{key}" if prefix else key
            differences += differing_keys(stored.get(key), asked.get(key), name)
        return differences
    return [] if stored == asked else [f"{prefix}: {stored}, not {asked}"]
