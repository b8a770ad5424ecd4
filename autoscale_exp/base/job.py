"""The entry point of a job. It gives the job a typed config, and ends it with one line at a mistake or a signal."""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoscale_exp.base.atomic import FULL
from autoscale_exp.base.config_errors import BROKEN_FILE, describe, describe_no_option, unknown_key, without_schema
from autoscale_exp.base.errors import UserError, first_line, refusal
from autoscale_exp.base.help import asked_for_help, describe_job
from autoscale_exp.base.overrides import readable
from autoscale_exp.base.processes import ProcessDied
from autoscale_exp.base.stopping import SIGNALS, Stopped, handle_signals, restore_signals, stop_at

_PACKAGE = Path(__file__).parent.parent
# Looked for in the package first, so that a stranger's site-packages/conf is never picked up.
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


def starts_anew() -> str:
    """What a stopped job leaves behind if it writes its results at the end."""
    return "the same command starts anew"


def job(
    config_name: str, kept: Callable[[], str] = starts_anew, more_help: Callable[[], str] = lambda: ""
) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Makes a function of a typed config the entry point of a job, with the root config conf/<config_name>.yaml.

    An error that the user caused (a config that does not compose, or a `UserError`) ends the job with one line and
    exit code 2. In a multirun the function handles the errors of a run, because the other runs go on. Ctrl-C and
    SIGTERM end the job with one line and exit code 130 or 143. `--help` prints the job's groups and keys. Hydra gets
    the arguments as `readable` makes them.

    Args:
        config_name: name of the root config.
        kept: says what the job leaves behind, once a signal has stopped it.
        more_help: text that `--help` ends with.
    """

    def decorate(function: Callable[[Any], None]) -> Callable[[], None]:
        begun = False

        @hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)
        @functools.wraps(function)
        def run(composed: Any) -> None:
            nonlocal begun
            begun = True
            with user_errors():
                function(to_typed(composed))

        @functools.wraps(function)
        def entry() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises exceptions instead of printing pages of them
            nonlocal begun
            begun = False
            sys.argv[1:] = readable(sys.argv[1:])
            with _stopped_in_one_line(kept), user_errors(), _errors_before(lambda: begun):
                overrides = asked_for_help()
                if overrides is None:
                    with _mistakes_of_a_sweep(config_name):
                        run()
                    return
                purpose = (sys.modules[function.__module__].__doc__ or "").splitlines()[0].partition(": ")[2]
                sys.stdout.write(describe_job(CONF_DIR, config_name, purpose, overrides) + more_help())

        return entry

    return decorate


@contextmanager
def _mistakes_of_a_sweep(config_name: str) -> Iterator[None]:
    """Tells what is wrong with the config of a sweep, where Hydra complains of an override's choices.

    Hydra reads off the config whether it is of a sweep, and takes one that does not compose for that of a single run.
    """
    try:
        yield
    except HydraException as error:
        if "Ambiguous value" in str(error):
            GlobalHydra.instance().clear()
            overrides = OverridesParser.create().parse_overrides([a for a in sys.argv[1:] if not a.startswith("-")])
            with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
                plain = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
                hydra.compose(config_name, plain, return_hydra_config=True)
        raise


@contextmanager
def _errors_before(begun: Callable[[], bool]) -> Iterator[None]:
    """Turns errors before the job begins, while Hydra reads defaults lists and makes the job's folder, into UserErrors.

    Launchers also raise such errors later, for a worker that was killed or a Slurm job that was lost.
    """
    try:
        yield
    except RuntimeError as error:
        if type(error).__module__.split(".")[0] not in ("joblib", "submitit") and not isinstance(error, ProcessDied):
            raise
        reason = first_line(error).partition(". ")[0]
        raise UserError(
            f"the launcher has lost a job ({reason}); what is finished stays, and the same command goes on"
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL:  # Hydra writes a config for every run of a sweep
            raise UserError(
                f"the disk is full ({refusal(error)}); free some space and run the same command again"
            ) from None
        if begun():
            raise
        if str(error).startswith("Config group override must be"):
            raise UserError(describe_no_option(error)) from None
        if type(error) is ValueError and "default" in str(error):
            raise UserError(f"{error}; write a list, as in defaults: [/schema/files@_here_, _self_]") from None
        refused = error.__cause__ if isinstance(error, ValueError) else error  # logging wraps an OSError
        if not isinstance(refused, OSError) or refused.filename is None:
            raise
        raise UserError(
            f"the job's folder '{refused.filename}' cannot be made or written: {refusal(refused)}; give another one "
            "(output_dir, or data.store for prepare)"
        ) from None


@contextmanager
def _stopped_in_one_line(kept: Callable[[], str]) -> Iterator[None]:
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    handle_signals(stop_at)
    try:
        yield
    except Stopped as stopped:
        handle_signals(lambda *_: None)  # the end is near
        line = kept()
        if os.environ.get("LOCAL_RANK", "0") == "0":  # the first process of a run on several devices speaks for all
            sys.stderr.write(f"stopped: {line}\n")
        logging.disable()  # libraries would log about the signal at exit
        handlers = dict.fromkeys(SIGNALS, signal.SIG_DFL)
        raise SystemExit(stopped.code) from None
    finally:
        restore_signals(handlers)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns errors that the user caused into one line and exit code 2."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, *BROKEN_FILE, UserError) as error:
        sys.stderr.write(f"error: {describe(error)}\n")
        raise SystemExit(2) from None


def to_typed(composed: Any) -> Any:
    """Converts a composed config to its dataclass.

    In texts that start with ~/, this becomes the home folder.

    Raises:
        UserError: a key was added to a section that does not have it, a section has no schema, or a value is missing or
            cannot be resolved.
    """
    try:
        typed = _at_home(OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise UserError(describe(error)) from None
    _check_keys(typed, "")
    return typed


def _at_home(value: Any) -> Any:
    """A value with the home folder in place of ~, in all its fields."""
    if isinstance(value, str):
        return os.path.expanduser(value) if value == "~" or value.startswith("~/") else value
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    if isinstance(value, dict):
        return {key: _at_home(item) for key, item in value.items()}
    if is_dataclass(value):
        for key, item in vars(value).items():
            setattr(value, key, _at_home(item))
    return value


def _check_keys(value: Any, path: str) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_keys(item, f"{path}{index}.")
    if is_dataclass(value):
        known = [field.name for field in fields(value)]
        for key, item in vars(value).items():
            if key not in known:
                raise UserError(unknown_key(path + key, known))
            if reason := without_schema(item, path + key):
                raise UserError(reason)
            _check_keys(item, f"{path}{key}.")
