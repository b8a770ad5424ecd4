"""Downstream scores of target runs, by task and mixture, and which differences exceed the noise."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.versioned import differing_keys
from autoscale_exp.evaluation.evaluation_file import EVALUATION, read_evaluation
from autoscale_exp.runs.record import is_recorded, read_record

CONFIDENCE = 0.95


@dataclass(frozen=True)
class EvaluatedRun:
    """A finished run, and the evaluation of its model.

    Attributes:
        run: name of the run.
        mixture: name of its mixture.
        tasks: the tasks in its evaluation.json.
    """

    run: str
    mixture: str
    tasks: dict[str, Any]


@dataclass(frozen=True)
class Score:
    """One mixture's score on one task.

    Attributes:
        values: one per run, averaged over seeds of fine-tuning; for a single run, one per seed. Empty for a mean over
            tasks if no run or seed has all of them.
        best: whether the score is better than those of all other mixtures by more than the noise.
    """

    values: list[float]
    best: bool

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        """Standard deviation of the values; None for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def text(self) -> str:
        """Mean and standard deviation, as text."""
        if not self.values:
            return "incomplete"
        return f"{self.mean:.4f}" + ("" if self.std is None else f" ± {self.std:.4f}")


Table = dict[str, dict[str, Score]]


def read_evaluated_runs(folder: Path, names: Collection[str]) -> list[EvaluatedRun]:
    """Reads the runs of these names under `folder` that have an evaluation.json, sorted by folder.

    Raises:
        UserError: two runs were evaluated on a task with different settings, and cannot be compared.
    """
    paths = [path for path in sorted(folder.glob(f"runs/*/{EVALUATION}")) if is_recorded(path.parent)]
    records = {path: read_record(path.parent) for path in paths}
    runs = [EvaluatedRun(r.run, r.mixture, read_evaluation(path)) for path, r in records.items() if r.run in names]
    first: dict[str, tuple[str, Any]] = {}
    for run in runs:
        for task, entry in run.tasks.items():
            settings = {key: value for key, value in entry["settings"].items() if key != "weights"}
            name, expected = first.setdefault(task, (run.run, settings))
            if differences := differing_keys(expected, settings):
                raise UserError(
                    f"{task} was measured of run '{name}' with other settings than of run '{run.run}' "
                    f"({'; '.join(differences)}); delete the entry from the {EVALUATION} of one and evaluate it again"
                )
    return runs


def downstream_table(runs: Sequence[EvaluatedRun]) -> Table:
    """Makes a table of scores by task and metric, then by mixture, with the mean of GLUE if it has several tasks."""
    directions: dict[tuple[str, str], bool] = {}
    by_mixture: dict[str, list[EvaluatedRun]] = {}
    for run in runs:
        by_mixture.setdefault(run.mixture, []).append(run)
        for task, entry in run.tasks.items():
            directions |= {(task, metric): better for metric, better in entry["headline"].items()}
    table = {}
    for (task, metric), higher in directions.items():
        measured = {mixture: _with_any(own, [task]) for mixture, own in by_mixture.items()}
        values = {
            m: [metrics[metric] for metrics in _by_unit(own, task).values()] for m, own in measured.items() if own
        }
        table[f"{task} {metric}"] = _row(values, higher)
    glue = list(dict.fromkeys(task for task, _ in directions if task.startswith("glue/")))
    if len(glue) > 1:
        measured = {mixture: _with_any(own, glue) for mixture, own in by_mixture.items()}
        means = {mixture: _means_over_tasks(own, glue) for mixture, own in measured.items() if own}
        table[f"glue, mean of {len(glue)} tasks"] = _row(means, True)
    return table


def _with_any(runs: Sequence[EvaluatedRun], tasks: Sequence[str]) -> list[EvaluatedRun]:
    return [run for run in runs if any(task in run.tasks for task in tasks)]


def _by_unit(runs: Sequence[EvaluatedRun], task: str) -> dict[str, dict[str, float]]:
    """The metrics of a task by run; or by seed of fine-tuning, if there is only one run to take them from."""
    if len(runs) == 1:
        values = runs[0].tasks[task]["values"] if task in runs[0].tasks else []
        return {str(value["seed"]): value["metrics"] for value in values}
    return {run.run: run.tasks[task]["mean"] for run in runs if task in run.tasks}


def _means_over_tasks(runs: Sequence[EvaluatedRun], tasks: Sequence[str]) -> list[float]:
    """The mean over tasks, each that of its headline, of every run, or seed, that has all of them."""
    headlines = {task: run.tasks[task]["headline"] for run in runs for task in tasks if task in run.tasks}
    of_tasks = [
        {unit: fmean(metrics[m] for m in headlines[task]) for unit, metrics in _by_unit(runs, task).items()}
        for task in tasks
    ]
    common = [unit for unit in of_tasks[0] if all(unit in values for values in of_tasks)]
    return [fmean(values[unit] for values in of_tasks) for unit in common]


def _row(values: dict[str, list[float]], higher_is_better: bool) -> dict[str, Score]:
    sign = 1 if higher_is_better else -1
    return {
        mixture: Score(own, len(values) > 1 and all(exceeds(own, v, sign) for m, v in values.items() if m != mixture))
        for mixture, own in values.items()
    }


def exceeds(values: Sequence[float], others: Sequence[float], sign: int) -> bool:
    """Whether `values` are better on average and Welch's 95 % interval of the difference of means excludes zero.

    Without a spread of both that can be estimated, which takes two values that differ, nothing can be told: False.

    Args:
        values: values of one mixture.
        others: values of another mixture.
        sign: 1 if higher is better, -1 if lower is.
    """
    if min(len(values), len(others)) < 2:
        return False
    variances = [float(np.var(v, ddof=1)) / len(v) for v in (values, others)]
    if sum(variances) == 0:
        return False
    freedom = sum(variances) ** 2 / sum(u**2 / (len(v) - 1) for u, v in zip(variances, (values, others), strict=True))
    margin = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(sum(variances))
    return bool(sign * (np.mean(values) - np.mean(others)) > margin)
