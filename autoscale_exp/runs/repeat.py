"""The command that repeats a finished run with another seed, read from the run's folder."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

# Overrides that a repeated run replaces; it keeps all others.
OWN = r"\+*(seed|run_name|hydra\.mode|hydra/launcher|hydra\.launcher\..*)="


def repeat_command(sweep: Path, run: str, name: str, seed: int) -> str | None:
    """Returns the command that trains a run of a sweep again, with another seed and a folder of its own beside it.

    Args:
        sweep: folder of the sweep.
        run: name of the finished run.
        name: name of the new run.
        seed: seed in the new run's record.

    Returns:
        The command; None if the run's folder does not tell how it was started.
    """
    folder = sweep / "runs" / run
    overrides, conf = read_yaml(folder / ".hydra" / "overrides.yaml"), read_yaml(folder / ".hydra" / "config.yaml")
    record = read_yaml(folder / "result.json")  # JSON is YAML
    if not isinstance(overrides, list) or not isinstance(conf, dict) or not isinstance(record, dict):
        return None
    kept = [override for override in overrides if not re.match(OWN, override)]
    if conf.get("output_dir") != str(sweep):
        kept = [override for override in kept if not re.match(r"\+*output_dir=", override)] + [f"output_dir={sweep}"]
    offset = record["seed"] - conf["seed"]  # above 0 for a repeat of the design's base run
    added = [f"seed={seed - offset}", f"run_name={name}", "hydra.mode=RUN"]
    return shlex.join(["python", "-m", "autoscale_exp.train", *kept, *added])


def read_yaml(path: Path) -> Any:
    """Reads a YAML file; None if there is none that can be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
