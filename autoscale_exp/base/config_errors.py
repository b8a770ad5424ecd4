"""Messages for mistakes in the config, in its files or on the command line: one line with what is allowed."""

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from traceback import walk_tb
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import MarkedYAMLError
from yaml.reader import ReaderError

from autoscale_exp.base.errors import first_line
from autoscale_exp.base.labels import whole_number
from autoscale_exp.base.overrides import describe_unreadable, quoted_override

BROKEN_FILE = (MarkedYAMLError, ReaderError, UnicodeDecodeError)  # what is raised of a file that is no YAML
LAUNCHERS = "hydra/launcher=local, gpus or slurm"
LIST = "a list is written [a,b], also one of a single value"


def describe(error: BaseException) -> str:
    """The part of a message that is for the user. Hydra and omegaconf add where in their code it came up."""
    message = re.sub(r"^\w+ raised while resolving interpolation: ", "", first_line(error))
    if isinstance(error, BROKEN_FILE):
        return _describe_broken_file(error)
    if isinstance(error, MissingMandatoryValue | InterpolationToMissingValueError):
        missing = re.sub(r".*[mM]issing mandatory value: ", "", message)
        key = missing if isinstance(error, InterpolationToMissingValueError) else error.full_key or missing
        types = _keys(error.object_type) if is_dataclass(error.object_type) else {}
        written = "[a,b]" if str(types.get(error.key)).startswith("list") else "..."
        return f"{key} is not set; give it a value, as in {key}={written}"
    if isinstance(error, InterpolationKeyError):
        return f"{message}; a value of the config names it in ${{...}}: correct the name there"
    if isinstance(error, OverrideParseException):
        return describe_unreadable(error.override, message)
    if ambiguous := re.match("Ambiguous value for argument '(.*)'$", message):
        key, _, value = ambiguous[1].partition("=")
        if (number := whole_number(value)) is not None:
            return f"{message}; a whole number is written out, as in {key}={number:_}"
        quoted = quoted_override(ambiguous[1])
        return f"{message}; {LIST}; a text is quoted, as in {quoted}; hydra.mode=MULTIRUN runs the job for each"
    if re.match(".*not a ListConfig|Cannot merge DictConfig with ListConfig", message):
        return f"{message}; {_as_list(error)}"
    if isinstance(error, MissingConfigException) and "'schema/" in message:
        return f"{message.rstrip('.')}; there are {', '.join(_schemas())}"
    if refused := re.search("Value '(.*)' of type .* could not be converted to Integer", message):
        return f"{message}; a whole number is written out, as in {_written_out(refused[1])}"
    if unknown := re.search(r"Could not load '(.*)/.*'\.$", message):  # one of several choices of a group
        options = _local(error, "repo").get_group_options(unknown[1])  # which Hydra does not tell
        return f"{message.rstrip('.')}; there are {', '.join(options)}"
    if isinstance(error, MissingConfigException) and error.options:
        return f"{message}; there are {', '.join(error.options)}"
    if isinstance(error, ConfigCompositionException) and isinstance(
        error.__cause__, ConfigAttributeError | ConfigKeyError
    ):
        return _describe_unknown_key(error.__cause__)
    if isinstance(error.__context__, OmegaConfBaseException) and (
        composed := re.match(r"In '(.*)': \w+ raised while composing config:$", message)
    ):
        return f"In '{composed[1]}': {_describe_in_file(composed[1], error.__context__)}"
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        target = re.sub(r".*?'(.*?)'.*", r"\1", message)
        if message.startswith("Error locating"):
            return f"_target_ is '{target}', which cannot be found; give the full name of a class"
        return f"{target} does not take its section of the config: {describe(error.__cause__)}; correct that section"
    if isinstance(error, HydraException) and error.__cause__ is not None:
        return f"{message} {describe(error.__cause__)}"
    return message


def describe_no_option(error: BaseException) -> str:
    """The message for a value, such as null, that names no option of a group."""
    override = _local(error, "override")
    group = override.key_or_group
    options = _local(error, "repo").get_group_options(group)
    return f"{override.input_line} names no option; there are {', '.join(options)}, and ~{group} leaves it out"


def _written_out(value: str) -> str:
    """The whole number that 1e6 or 2.5M stands for, as it is typed; some other one if that is none."""
    return f"{whole_number(value) or 2_500_000:_}"


def _as_list(error: Any) -> str:
    """How to type a list of the single value that an error refuses."""
    key, value = getattr(error, "full_key", None), getattr(error, "value", None)
    if not key or not isinstance(value, int | float | str):
        return LIST
    number = whole_number(str(value))
    return f"{LIST}, as in {key}=[{value if number is None else f'{number:_}'}]"


def _local(error: BaseException, name: str) -> Any:
    """A variable of the functions that an error came through; None if none has it."""
    frames = (frame.f_locals for frame, _ in walk_tb(error.__traceback__))
    return next((of[name] for of in frames if name in of), None)


def _describe_broken_file(error: Any) -> str:
    if isinstance(error, UnicodeDecodeError):
        path = _local(error, "full_path") or "a file"  # which Hydra does not tell
        read = error.object[: error.start].decode(errors="replace").rpartition("\n")[2]
        return f"'{path}' is no YAML in UTF-8, from after '{read}' on; save it as UTF-8"
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # a character that YAML does not allow
        return f"'{error.name}' is no YAML: {first_line(error)}"
    return f"'{mark.name}', line {mark.line + 1}, is no YAML: {', '.join(filter(None, (error.context, error.problem)))}"


def unknown_key(path: str, known: Iterable[str]) -> str:
    """The message for a key that its section does not have."""
    return f"{path} is not known; allowed there are {', '.join(known)}"


def _describe_unknown_key(error: Any) -> str:
    section, _, key = error.full_key.rpartition(".")
    if section == "hydra.launcher":
        known = ", ".join(name for name in error.parent_node if name != "_target_") or "none"
        return f"{error.full_key} is not known; keys of this launcher: {known}; choose another with {LAUNCHERS}"
    if not is_dataclass(error.object_type):  # a mapping that takes any key
        return f"{section} has no '{key}' yet; put ++ before the key to add it, as in ++{error.full_key}=..."
    return unknown_key(error.full_key, (key for key in error.parent_node if key != "hydra"))


def _describe_in_file(config: str, error: Any) -> str:
    """Key, value and what is allowed, for a mistake in the file of a config such as `data/local`."""
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        if error.full_key == config.partition("/")[0]:
            return "its keys are those of the whole job, so its first line must be # @package _global_"
        schemas = [name for name, schema in _schemas_below(error.object_type) if error.key in _keys(schema)]
        return _describe_unknown_key(error) + (f"; allowed with {_line_of(schemas)}" if schemas else "")
    if "could not be converted to Integer" in first_line(error) and (number := whole_number(str(error.value))):
        return f"{error.full_key} is {error.value!r}; a whole number is written out, as in {number:_}"
    types = _keys(error.object_type) if is_dataclass(error.object_type) else {}
    if error.key not in types:
        reason = first_line(error).partition(". value: ")[0]
        return f"{reason}; a section has lines of key: value, and its defaults name a schema of its group; {LIST}"
    allowed = inspect.formatannotation(types[error.key])
    written = f"; {LIST}" if allowed.startswith("list") else ""
    return f"{error.full_key} is {error.value!r}; it must be of type {allowed}{written}"


def without_schema(section: object, path: str) -> str | None:
    """The message for a section whose file does not say which of several schemas it has; None if it does."""
    registered = [schema for _, schema in _schemas_below(object)]
    schemas = [name for name, _ in _schemas_below(type(section))]
    if type(section) in registered or not schemas:
        return None
    return f"{path} has no schema; begin its file with {_line_of(schemas)}"


def _line_of(schemas: list[str]) -> str:
    others = f", or {', '.join(schemas[1:])} in the place of {schemas[0]}" if schemas[1:] else ""
    return f"the line defaults: [/schema/{schemas[0]}@_here_, _self_]{others}"


def _keys(schema: Any) -> dict[str, Any]:
    """The keys of a schema, with their types."""
    return {field.name: field.type for field in fields(schema)}


def _schemas_below(base: Any) -> Iterator[tuple[str, type]]:
    """Yields name and dataclass of the schemas that are subclasses of `base`, without itself."""
    for name, schema in _schema_types(tuple(_schemas())):
        if schema is not None and schema is not base and issubclass(schema, base):
            yield name, schema


@cache
def _schema_types(names: tuple[str, ...]) -> list[tuple[str, type | None]]:
    """Name and dataclass of schemas, cached, as Hydra's store copies what it loads, which takes a while."""
    return [(n, OmegaConf.get_type(ConfigStore.instance().load(f"schema/{n}.yaml").node)) for n in names]


def _schemas() -> list[str]:
    return [name.removesuffix(".yaml") for name in ConfigStore.instance().list("schema")]
