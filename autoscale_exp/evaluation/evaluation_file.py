"""evaluation.json: all that was measured of one model, merged task by task. Imports no torch.

{"tasks": {"glue/rte": {"settings": {...}, "headline": {"accuracy": true},
                        "values": [{"seed": 0, "metrics": {"accuracy": ...}, ...}, ...],
                        "mean": {"accuracy": ...}, "std": {"accuracy": ...}, "versions": {...}, "finished": ...}}}
"""

import json
import logging
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import DivergedError, UserError
from autoscale_exp.base.versioned import differing_keys

log = logging.getLogger(__name__)

EVALUATION = "evaluation.json"
KEYS = {"settings", "headline", "values", "mean"}  # that others read of an entry


@dataclass(frozen=True)
class Evaluation:
    """One task to measure, checked.

    Attributes:
        name: name of the task, unique in evaluation.json.
        settings: what the values depend on beside the seed.
        seeds: the seeds to measure with; [None] if nothing is drawn.
        headline: the metrics that a report shows, each with whether higher is better; or a function that finds them, if
            only the measurement tells which metrics there are.
        measure: a function from a seed to {"metrics": {name: value}} and whatever else is worth keeping.
    """

    name: str
    settings: dict[str, Any]
    seeds: Sequence[int | None]
    headline: dict[str, bool] | Callable[[Iterable[str]], dict[str, bool]]
    measure: Callable[[int | None], dict[str, Any]]

    def headline_of(self, metrics: Iterable[str]) -> dict[str, bool]:
        """Returns the headline of a measurement that has `metrics`.

        Raises:
            UserError: a metric of the headline is not among them, or none was chosen.
        """
        measured = list(metrics)
        headline = self.headline(measured) if callable(self.headline) else self.headline
        missing = [metric for metric in headline if metric not in measured]
        if missing or not headline:
            raise UserError(
                f"{self.name} gave no {missing[0] if missing else 'metric'} that a report could show, but "
                f"{', '.join(measured) or 'nothing'}; leave this task out"
            )
        return headline


def read_evaluation(path: Path) -> dict[str, Any]:
    """Reads the tasks of an evaluation.json by name; none if it does not exist.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        tasks: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        damaged = any(KEYS - entry.keys() for entry in tasks.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        damaged = True
    if damaged:
        raise UserError(f"'{path}' is damaged; delete it")
    return tasks


def missing_seeds(evaluation: Evaluation, path: Path) -> list[int | None]:
    """Returns the seeds that are not measured yet.

    Raises:
        UserError: the task was measured with other settings; the message names the keys that differ.
    """
    entry = read_evaluation(path).get(evaluation.name)
    if entry is None:
        return list(evaluation.seeds)
    if differences := differing_keys(entry["settings"], json.loads(json.dumps(evaluation.settings))):
        raise UserError(
            f"'{path}' holds {evaluation.name} with other settings ({'; '.join(differences)}); give those settings, "
            f"choose another output_dir, or delete the entry '{evaluation.name}' from that file"
        )
    return [seed for seed in evaluation.seeds if seed not in [value["seed"] for value in entry["values"]]]


def carry_out(evaluation: Evaluation, path: Path) -> dict[str, Any]:
    """Measures what is missing, writes it after every seed, and returns the task's entry in evaluation.json.

    Raises:
        UserError: see `missing_seeds`; or a metric of the headline was not measured.
        DivergedError: a metric is not finite.
    """
    seeds = missing_seeds(evaluation, path)
    if not seeds:
        log.info("%s is measured already", evaluation.name)
    for seed in seeds:
        started = time.perf_counter()
        value = {"seed": seed, **evaluation.measure(seed)}
        value["seconds"] = round(time.perf_counter() - started, 2)
        for metric, number in value["metrics"].items():
            if not math.isfinite(number):
                raise DivergedError(
                    f"{metric} of {evaluation.name} is {number} with seed {seed}; train the model again"
                )
        headline = evaluation.headline_of(value["metrics"])
        _add(evaluation, headline, value, path)
        shown = ", ".join(f"{metric} {value['metrics'][metric]:.4f}" for metric in headline)
        log.info("%s%s: %s", evaluation.name, "" if seed is None else f", seed {seed}", shown)
    return read_evaluation(path)[evaluation.name]


def _add(evaluation: Evaluation, headline: dict[str, bool], value: dict[str, Any], path: Path) -> None:
    """Merges one measurement into the file, unless another process has measured the same meanwhile."""
    atomic.make_folder(path.parent)
    with FileLock(path.with_suffix(".lock")):  # other tasks of the model may be measured at the same time
        tasks = read_evaluation(path)
        if value["seed"] not in missing_seeds(evaluation, path):
            return
        values = [*tasks.get(evaluation.name, {"values": []})["values"], value]
        numbers = {metric: [v["metrics"][metric] for v in values] for metric in value["metrics"]}
        tasks[evaluation.name] = {
            "settings": evaluation.settings,
            "headline": headline,
            "values": values,
            "mean": {metric: statistics.fmean(of) for metric, of in numbers.items()},
            "std": {metric: statistics.stdev(of) if len(of) > 1 else None for metric, of in numbers.items()},
            "versions": _versions(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        atomic.write_json(path, {"tasks": tasks})


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("autoscale_exp", "torch", "transformers", "tokenizers", "datasets", "lm-eval"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # an extra
            continue
    return versions
