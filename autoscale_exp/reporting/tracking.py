"""What fits and reports log: numbers, tables and, at W&B, files as artifacts that show their origin."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoscale_exp.base.hashing import file_sha256
from autoscale_exp.base.labels import budget_label
from autoscale_exp.base.loggers import LoggedRun, open_logger
from autoscale_exp.base.wandb_runs import (
    X_AXIS,
    log_artifact,
    log_pictures,
    log_table,
    mixture_artifact,
    use_artifact,
)
from autoscale_exp.laws.fit_file import FIT, Fit
from autoscale_exp.laws.law_file import LAW
from autoscale_exp.reporting.comparison import Difference
from autoscale_exp.reporting.savings import Saving
from autoscale_exp.reporting.target_runs import MixtureRuns
from autoscale_exp.runs.identity import logged_id
from autoscale_exp.runs.record import RECORD, RunRecord, read_record
from autoscale_exp.runs.sweep_folder import group_of

FIGURES = ("weights.png", "responses.png")


def log_fit(conf: dict[str, Any], folder: Path, fit: Fit, source: Path) -> None:
    """Logs a written fit: the mixture at each scale and target against tokens, and its files.

    Args:
        conf: the `logger` section.
        folder: folder of the fit.
        fit: the fit.
        source: what was fitted: the folder of a sweep, a run table or a table of optima.
    """
    records = sorted(source.glob(f"runs/*/{RECORD}"))
    group = group_of(source, read_record(records[0].parent).experiment) if records else source.stem
    with open_logger(conf, folder, LoggedRun(f"{fit.law} {fit.objective.name}", group, "fit")) as logger:
        settings = {"law": fit.law, "objective": fit.objective.name, "domains": fit.domains, "source": source.name}
        logger.log_hyperparams(settings)
        for path in records:
            _use_run(logger, read_record(path.parent), path)
        if not records:
            use_artifact(logger, f"table-{file_sha256(source)[:8]}", "runs", [source])
        found = sorted([*fit.scales, *fit.targets], key=lambda mixture: mixture.tokens)
        for step, mixture in enumerate(found):
            weights = {f"mixture/{domain}": weight for domain, weight in mixture.weights.items()}
            logger.log_metrics({X_AXIS: mixture.tokens, **weights}, step=step)
        rows = [[m.tokens, m.runs or 0, m.objective_value, m.verdict, *m.weights.values()] for m in found]
        log_table(logger, "mixtures", ["tokens", "runs", "objective", "verdict", *fit.domains], rows)
        files = _files_of_fit(folder)
        log_pictures(logger, files[1:])
        log_artifact(logger, f"fit-{file_sha256(files[0])[:8]}", "fit", files)
        log_artifact(logger, f"law-{file_sha256(folder / LAW)[:8]}", "law", [folder / LAW])
        for target in fit.targets:
            path = folder / "mixtures" / f"{budget_label(target.tokens)}.yaml"
            log_artifact(logger, mixture_artifact(path), "mixture", [path])


def log_report(
    conf: dict[str, Any],
    folder: Path,
    fit_folder: Path,
    targets: Path,
    mixtures: Mapping[str, MixtureRuns],
    differences: Mapping[str, Difference],
    savings: Mapping[str, Saving],
) -> None:
    """Logs a written report: the comparison at the largest budget as a table and numbers, and its files.

    Args:
        conf: the `logger` section.
        folder: folder of the report.
        fit_folder: folder of its fit.
        targets: folder of the target runs.
        mixtures: target runs at the largest budget by mixture, the reference first.
        differences: differences from the reference, by mixture.
        savings: savings against the reference, by mixture.
    """
    records = [record for mixture in mixtures.values() for record in mixture.records]
    group = group_of(targets, records[0].experiment)
    with open_logger(conf, folder, LoggedRun("comparison", group, "report")) as logger:
        for record in records:
            _use_run(logger, record, targets / "runs" / record.run / RECORD)
        use_artifact(logger, f"fit-{file_sha256(fit_folder / FIT)[:8]}", "fit", _files_of_fit(fit_folder))
        metrics: dict[str, float] = {X_AXIS: records[0].token_budget}
        rows = []
        for name, mixture in mixtures.items():
            difference, saving = differences.get(name), savings.get(name)
            metrics[f"final/{name}"] = float(mixture.final.mean())
            if saving is not None and saving.share is not None:
                metrics[f"saved_tokens/{name}"] = saving.share
            rows.append(
                [
                    name,
                    len(mixture.records),
                    float(mixture.final.mean()),
                    difference and difference.mean,
                    *((difference and difference.interval) or (None, None)),
                    difference.verdict if difference else "reference",
                    saving and saving.share,
                ]
            )
        logger.log_metrics(metrics, step=0)
        log_table(logger, "comparison", COMPARISON, rows)
        files = [folder / name for name in ("summary.json", "report.html")]
        log_artifact(logger, f"report-{file_sha256(files[0])[:8]}", "report", files)


COMPARISON = ("mixture", "seeds", "objective", "difference", "low", "high", "verdict", "saved_tokens")


def _files_of_fit(folder: Path) -> list[Path]:
    """fit.json and the existing figures."""
    return [folder / FIT, *(folder / name for name in FIGURES if (folder / name).exists())]


def _use_run(logger: Any, record: RunRecord, path: Path) -> None:
    id = logged_id(record.fingerprint, record.experiment, record.run)
    use_artifact(logger, f"run-{id}", "run", [path])
