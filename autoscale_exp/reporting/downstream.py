"""What the target runs are worth downstream: scores by task and mixture, and which differences exceed the noise."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from autoscale_exp.data.store import differing_keys
from autoscale_exp.evaluation.record import EVALUATION, read_evaluation
from autoscale_exp.runs.record import RESULT

CONFIDENCE = 0.95


@dataclass(frozen=True)
class EvaluatedRun:
    """A finished run and what was measured of its model.

    Attributes:
        run: its name.
        mixture: its mixture's name.
        tasks: of its evaluation.json.
    """

    run: str
    mixture: str
    tasks: dict[str, Any]


@dataclass(frozen=True)
class Score:
    """One mixture's score on one task.

    Attributes:
        values: one per run, its seeds of fine-tuning averaged; of a single run, one per seed.
        best: whether it is better than that of every other mixture by more than the noise.
    """

    values: list[float]
    best: bool

    @property
    def mean(self) -> float:
        """Over the values."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        """Standard deviation of the values; None for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


Table = dict[str, dict[str, Score]]


def read_evaluated_runs(folder: Path) -> list[EvaluatedRun]:
    """The runs under `folder` that have an evaluation.json, sorted by folder.

    Raises:
        ValueError: two were evaluated on a task with different settings, so that they cannot be compared.
    """
    runs = []
    for path in sorted(folder.glob(f"runs/*/{EVALUATION}")):
        if (path.parent / RESULT).exists():
            result = json.loads((path.parent / RESULT).read_text(encoding="utf-8"))
            runs.append(EvaluatedRun(result["run"], result["mixture"], read_evaluation(path)))
    first: dict[str, tuple[str, Any]] = {}
    for run in runs:
        for task, entry in run.tasks.items():
            settings = {key: value for key, value in entry["settings"].items() if key != "weights"}
            name, expected = first.setdefault(task, (run.run, settings))
            if differences := differing_keys(expected, settings):
                raise ValueError(
                    f"{task} was measured of run '{name}' with other settings than of run '{run.run}' "
                    f"({'; '.join(differences)}); delete the entry from the {EVALUATION} of one and evaluate it again"
                )
    return runs


def downstream_table(runs: Sequence[EvaluatedRun]) -> Table:
    """Scores by task and metric, then by mixture; with more than one task of GLUE also their mean."""
    directions: dict[tuple[str, str], bool] = {}
    for run in runs:
        for task, entry in run.tasks.items():
            directions |= {(task, metric): better for metric, better in entry["headline"].items()}
    values = {key: {m: _values(runs, m, *key) for m in dict.fromkeys(r.mixture for r in runs)} for key in directions}
    table = {
        f"{task} {metric}": _row({m: list(v.values()) for m, v in values[task, metric].items() if v}, higher)
        for (task, metric), higher in directions.items()
    }
    glue = [by_mixture for (task, _), by_mixture in values.items() if task.startswith("glue/")]
    if len(glue) > 1:
        means = {mixture: _common_means([by_mixture[mixture] for by_mixture in glue]) for mixture in glue[0]}
        table[f"glue, mean of {len(glue)} metrics"] = _row({m: v for m, v in means.items() if v}, True)
    return table


def _values(runs: Sequence[EvaluatedRun], mixture: str, task: str, metric: str) -> dict[str, float]:
    """A mixture's values of a metric: by run, or by seed of fine-tuning if only one run has any."""
    measured = [run for run in runs if run.mixture == mixture and task in run.tasks]
    if len(measured) == 1:
        return {str(value["seed"]): value["metrics"][metric] for value in measured[0].tasks[task]["values"]}
    return {run.run: run.tasks[task]["mean"][metric] for run in measured}


def _common_means(of_tasks: list[dict[str, float]]) -> list[float]:
    """The mean over tasks of each run, or seed, that has all of them."""
    common = [unit for unit in of_tasks[0] if all(unit in values for values in of_tasks)]
    return [float(np.mean([values[unit] for values in of_tasks])) for unit in common]


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
        values: of one mixture.
        others: of another.
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
