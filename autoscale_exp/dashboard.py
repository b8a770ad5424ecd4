"""The `dashboard` job: a study's workspace and report at W&B, or their content as a file."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.base.job import job
from autoscale_exp.base.loggers import is_of_wandb
from autoscale_exp.config import DashboardConf
from autoscale_exp.laws.fit_file import read_fit
from autoscale_exp.runs.record import RECORD, RunRecord, read_records
from autoscale_exp.runs.study_file import read_study
from autoscale_exp.runs.sweep_folder import group_of

log = logging.getLogger(__name__)


@job("dashboard")
def main(conf: DashboardConf) -> None:
    """Saves both pages at W&B, or writes them to `output`."""
    sweep = Path(conf.sweep)
    groups, record = read_groups(sweep)
    fit = None if conf.fit is None else read_fit(Path(conf.fit), "fit")
    summary = read_summary(sweep / "summary.json")
    if find_spec("wandb_workspaces") is None:
        raise UserError(
            "dashboard needs the package wandb-workspaces, which is not installed; run `pip install "
            "'autoscale_exp[dashboard]'`"
        )
    from autoscale_exp.reporting import dashboard

    study = dashboard.Study(
        name=sweep.resolve().name,
        groups=groups,
        domains=list(record.tokens),
        validation_domains=list(record.losses),
        fit=fit,
        comparison=None if summary is None else dashboard.Comparison(**summary),
    )
    if conf.offline:
        pages = (dashboard.workspace(study, "", conf.project), dashboard.report(study, "", conf.project))
        names = ("workspace", "report")
        content = {name: dashboard.as_json(page) for name, page in zip(names, pages, strict=True)}
        atomic.write_json(Path(conf.output), content)
        log.info("workspace and report written to '%s'; offline=false saves them at W&B", conf.output)
        return
    if conf.entity is None:
        raise UserError("entity is not set; pages at W&B belong to one: give entity=<user or team>")
    try:
        dashboard.workspace(study, conf.entity, conf.project).save()
        dashboard.report(study, conf.entity, conf.project).save()
    except Exception as error:
        if not is_of_wandb(error) and not isinstance(error, ValueError):
            raise
        raise UserError(
            f"W&B does not take the pages of project '{conf.entity}/{conf.project}': {first_line(error)}; check entity "
            "and project, and `wandb login`"
        ) from None
    log.info("workspace '%s' and its report are saved in %s/%s", study.name, conf.entity, conf.project)


def read_groups(sweep: Path) -> tuple[list[str], RunRecord]:
    """Reads which groups the runs of a sweep or study are logged in, and the record of one of the runs.

    Raises:
        UserError: no run is finished, or a record is damaged.
    """
    searches = read_study(sweep).searches.values()
    places = dict.fromkeys([".", *(place for own in searches for place in own), "targets"])
    folders = [sweep / place for place in places if any((sweep / place).glob(f"runs/*/{RECORD}"))]
    first = {folder: read_records(folder)[0] for folder in folders or [sweep]}
    groups = dict.fromkeys(group_of(folder, record.experiment) for folder, record in first.items())
    return list(groups), next(iter(first.values()))


def read_summary(path: Path) -> dict[str, Any] | None:
    """Reads the answer of a report, its target and its mixtures from its summary.json; None without one.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        return {key: summary[key] for key in ("answer", "target_tokens")} | {"mixtures": list(summary["final"])}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"'{path}' is damaged; run `python -m autoscale_exp.report` again, or delete it") from None


if __name__ == "__main__":
    main()
