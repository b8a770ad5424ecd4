"""Numbers by domain in a config: a list in the order of the domains, or a mapping by name."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import yaml

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import whole_number

_PAIR = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^,]*?)\s*:\s*([^,:]*?)\s*(?:,|$)""")


def in_order(value: Any, domains: Sequence[str], *, key: str, others: float | None = None) -> list[float]:
    """Returns the numbers in the order of the domains.

    Args:
        value: a list, a mapping, or the text of a mapping such as '{web: .5, Wikipedia (en): .5}'.
        domains: (K,) names.
        key: the name of the numbers in the config.
        others: number for domains that a mapping leaves out; None if it must name all.

    Returns:
        (K,) numbers from a mapping. A list is returned as it is, whatever its length.

    Raises:
        UserError: a mapping has a name that is no domain or lacks one, or an entry is no number.
    """
    if isinstance(value, str):
        value = _mapping_of(value, key)
    if isinstance(value, list | tuple):
        numbers, names = list(value), [*domains, *map(str, range(len(domains), len(value)))]
    elif isinstance(value, Mapping):
        named = {_name_of(name, domains): number for name, number in value.items()}
        if unknown := [name for name in named if name not in domains]:
            raise UserError(f"{key} names {_listed(unknown)}; the domains are {', '.join(domains)}")
        missing = [domain for domain in domains if domain not in named]
        if missing and others is None:
            raise UserError(f"{key} does not name {_listed(missing)}; give each of {', '.join(domains)} a number")
        numbers, names = [named.get(domain, others) for domain in domains], list(domains)
    else:
        raise UserError(
            f"{key} is {value}; give a list in the order of {', '.join(domains)}, or {{<domain>: <number>}}"
        )
    for name, number in zip(names, numbers, strict=False):
        if isinstance(number, bool) or not isinstance(number, int | float):
            meant = whole_number(str(number))
            remedy = "" if meant is None else f"; a whole number is written out, as in {meant:_}"
            raise UserError(f"{key} of '{name}' is {number!r}, which is no number{remedy}")
    return numbers


def mapping_text(numbers: Mapping[str, Any]) -> str:
    """The text of a mapping from names to numbers that `in_order` can read, whatever characters the names have."""
    pairs = (f"{json.dumps(str(name), ensure_ascii=False)}: {number}" for name, number in numbers.items())
    return f"{{{', '.join(pairs)}}}"


def _mapping_of(text: str, key: str) -> dict[str, Any]:
    """Parses the text of a mapping; names with commas or colons must be in quotes."""
    body = re.fullmatch(r"\s*\{(.*)\}\s*", text, re.DOTALL)
    pairs: list[tuple[str, str]] = []
    end = 0
    while body is not None and end < len(body[1].rstrip()):
        pair = _PAIR.match(body[1], end)
        if pair is None:
            body = None
            break
        pairs.append((pair[1], pair[2]))
        end = pair.end()
    if body is None:
        raise UserError(f"{key} is '{text}'; write it as {{<domain>: <number>, ...}}, a name with commas in quotes")
    numbers: dict[str, Any] = {}
    for quoted, number in pairs:
        name = yaml.safe_load(quoted) if quoted[:1] in ("'", '"') else quoted
        if name in numbers:
            raise UserError(f"{key} names '{name}' twice; give one number per domain")
        numbers[name] = number
        with suppress(ValueError):
            numbers[name] = int(number) if re.fullmatch(r"[\d_]+", number) else float(number)
    return numbers


def _name_of(key: Any, domains: Sequence[str]) -> str:
    """The name that a key of a YAML mapping stands for. YAML reads an unquoted no as False, and 2024 as a number."""
    if str(key) in domains:
        return str(key)
    meant = [domain for domain in domains if not isinstance(key, str) and _reading(domain) == key]
    return meant[0] if len(meant) == 1 else str(key)


def _reading(name: str) -> Any:
    """What YAML reads a name without quotes as."""
    with suppress(ValueError):
        return float(name)
    with suppress(yaml.YAMLError):
        return yaml.safe_load(name)
    return name


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
