"""The entry point of a job: Hydra's composed config as a typed one, and a user's mistakes in one line."""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import hydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from autoscale_exp.config import CONF_DIR, to_typed, unknown_key
from autoscale_exp.errors import first_line

_UNKNOWN_KEY = (ConfigAttributeError, ConfigKeyError)


def job(config_name: str) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Makes a function of a typed config the entry point of a job.

    `config_name` is a file under conf/. Jobs with keys named like groups have theirs in conf/standalone/, where there
    are no groups.

    An error that the user caused (a config that does not compose, `ValueError`, `OSError`, a loss that is not finite)
    ends the job with one line and exit code 2. Inside a multirun errors of a run are the function's business, because
    the other runs go on.
    """

    def decorate(function: Callable[[Any], None]) -> Callable[[], None]:
        path = CONF_DIR / config_name

        @hydra.main(version_base="1.3", config_path=str(path.parent), config_name=path.name)
        @functools.wraps(function)
        def run(composed: Any) -> None:
            with _user_errors():
                function(to_typed(composed))

        @functools.wraps(function)
        def entry() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands exceptions on instead of printing pages of them
            with _user_errors():
                run()

        return entry

    return decorate


@contextmanager
def _user_errors() -> Iterator[None]:
    """Turns errors that the user caused into one line and exit code 2."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError, OSError, FloatingPointError) as error:
        sys.stderr.write(f"error: {describe(error)}\n")
        raise SystemExit(2) from None


def describe(error: BaseException) -> str:
    """The part of a message that is for the user; Hydra and omegaconf add where in their code it came up."""
    message = re.sub(r"^\w+ raised while resolving interpolation: ", "", first_line(error))
    if isinstance(error, MissingMandatoryValue | InterpolationToMissingValueError):
        key = error.full_key or re.sub(r".*[mM]issing mandatory value: ", "", message)
        return f"{key} is not set; give it a value, as in {key}=..."
    if re.match("Ambiguous value|.*not a ListConfig|Cannot merge DictConfig with ListConfig", message):
        return f"{message}; a list is written [a,b], also one of a single value"
    if isinstance(error, MissingConfigException) and error.options:
        return f"{message}; there are {', '.join(error.options)}"
    if isinstance(error, ConfigCompositionException) and isinstance(
        error.__cause__, ConfigAttributeError | ConfigKeyError
    ):
        return _describe_unknown_key(error.__cause__)
    if isinstance(error, HydraException) and error.__cause__ is not None:
        return f"{message} {describe(error.__cause__)}"
    return message


def _describe_unknown_key(error: Any) -> str:
    if not is_dataclass(error.object_type):  # a mapping that may get any key
        section, _, key = error.full_key.rpartition(".")
        return f"{section} has no '{key}' yet; put a + before the key to add it, as in +{error.full_key}=..."
    return unknown_key(error.full_key, (key for key in error.parent_node if key != "hydra"))
