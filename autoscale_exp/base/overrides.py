"""Overrides as people type them on the command line, and what to type if Hydra's grammar cannot read one."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

# A mapping by domain replaces the one in a config file. For this it is passed as a text; Hydra would merge mappings.
# A text may also have names that Hydra's grammar cannot express.
MAPPINGS_BY_DOMAIN = (
    "mixture.weights",
    "objective.weights",
    "objective.prior",
    "bounds.lower",
    "bounds.upper",
    "bounds.unique_tokens",
)
_OVERRIDE = re.compile(r"(\+{0,2})([^\W\d][^=\s]*)=(.*)", re.DOTALL)
_ESCAPED = re.compile(r"[\\()\[\]{}:=, \t]")  # what Hydra's grammar can escape in a key of a mapping


def readable(arguments: Sequence[str]) -> list[str]:
    """Rewrites the arguments of a command so that Hydra reads them as they are meant.

    `~` at the start of a value is the home folder. A value that is no list, mapping or choice, and that Hydra cannot
    read, is taken as a text, so a path with brackets or non-Latin letters needs no quotes. A value with `=` needs
    quotes, as it may be two overrides that were quoted together. A mapping by domain becomes a text.
    """
    return [_readable(argument) for argument in arguments]


def _readable(argument: str) -> str:
    match = _OVERRIDE.fullmatch(argument)
    if match is None:
        return argument
    plus, key, value = match.groups()
    home = os.path.expanduser("~")
    value = re.sub(r"(^|[\[,]\s*)~(?=/|$|\s*[,\]])", lambda m: m[1] + home, value)
    if key in MAPPINGS_BY_DOMAIN and (choices := _choices_of_mappings(value)):
        return f"{'++' * bool(plus)}{key}={','.join(map(_quoted, choices))}"
    is_plain = value[:1] not in ("[", "{", "'", '"') and not re.search(r"[,=]|^\w+\(", value)
    if is_plain and not _is_read(f"{key}={value}") and _is_read(f"{key}={_quoted(value)}"):
        value = _quoted(value)
    return f"{plus}{key}={value}"


def _choices_of_mappings(value: str) -> list[str]:
    """The mappings that a value consists of, usually one; none if it is something else."""
    choices = [choice.strip() for choice in _split(value, ",")]
    return choices if all(choice.startswith("{") and choice.endswith("}") for choice in choices) else []


def describe_unreadable(override: str, reason: str) -> str:
    """The message for an override that Hydra's grammar refuses, with what to type instead.

    Args:
        override: the override as typed.
        reason: what Hydra says.
    """
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return f"'{override}' cannot be read; an override is key=value, as in seed=1"
    plus, key, value = match.groups()
    for start, end in ("[]", "{}"):
        if value.startswith(start) and not value.rstrip().endswith(end):
            return f"{key} is '{value}', which has no {end} at its end"
    unread = f"{key} is '{value}', which Hydra cannot read ({reason})"
    path, fixed = _with_readable_key(key, _fixed(value))
    if not _is_read(f"{path}={fixed}"):
        return f"{unread}; write it in a YAML in conf/, names in quotes"
    typed = shlex.quote(f"{plus}{path}={fixed}")
    if "," in value and value[0] not in "[{":
        listed = shlex.quote(f"{plus}{path}={_fixed(f'[{value}]')}")
        return f"{unread}; write a list as {listed}, a text as {typed}"
    return f"{unread}; quote it, as in {typed}"


def quoted_override(override: str) -> str:
    """An override whose value is a text, as one types it in a shell."""
    key, _, value = override.partition("=")
    return shlex.quote(f"{key}={_quoted(value)}")


def dotted_override(section: str, name: str, key: str, value: str) -> str:
    """An override of `key` in the entry `name` of a section, as one types it in a shell, for any name."""
    path, value = _with_readable_key(f"{section}.{name}.{key}", value)
    typed = f"++{path}={value}"
    return shlex.quote(typed) if re.search(r"[\s{}\\'\"]", typed) else typed


def override_of(key: str, value: Any) -> str:
    """An override in Hydra's grammar that sets a key to a number, text, list, mapping or None."""
    path, written = _with_readable_key(key, _written(value))
    return f"{path}={written}"


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{_escaped(str(name))}:{_written(item)}' for name, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str):
        return value if value and _is_read(f"x={value}") and _value_of(value) == value else _quoted(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _value_of(text: str) -> Any:
    return OverridesParser.create().parse_override(f"x={text}").value()


def _with_readable_key(key: str, value: str) -> tuple[str, str]:
    """The part of a key that Hydra can read, and the value inside mappings for the rest of the key."""
    names = key.split(".")
    if _is_read(f"{key}=1"):
        return key, value
    for length in range(len(names) - 1, 0, -1):
        value = f"{{{_escaped(names[length])}: {value}}}"
        if _is_read(f"{'.'.join(names[:length])}=1"):
            return ".".join(names[:length]), value
    return key, value


def _fixed(value: str) -> str:
    """A value with quotes and escapes where Hydra's grammar wants them."""
    value = value.strip()
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(_fixed(item) for item in _split(value[1:-1], ','))}]"
    if value.startswith("{") and value.endswith("}"):
        pairs = (item.partition(":") for item in _split(value[1:-1], ","))
        return f"{{{','.join(f'{_escaped(name.strip())}:{_fixed(item)}' for name, _, item in pairs)}}}"
    return value if _is_read(f"x={value}") else _quoted(value)


def _split(text: str, separator: str) -> Iterator[str]:
    """Yields the pieces of a text between separators outside of brackets and quotes."""
    depth, quote, start = 0, "", 0
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in ")}]":
            depth = max(0, depth - 1)
        elif letter == separator and not depth:
            yield text[start:index]
            start = index + 1
    yield text[start:]


def _quoted(text: str) -> str:
    return QuotedString(text=text, quote=Quote.double).with_quotes()


def _escaped(name: str) -> str:
    return name if _is_read(f"x={{{name}:1}}") else _ESCAPED.sub(lambda m: "\\" + m[0], name)


def _is_read(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True
