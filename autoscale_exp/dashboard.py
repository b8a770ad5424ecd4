"""The `dashboard` job: a study's workspace and report at W&B, or their content as a file."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.base.job import job
from autoscale_exp.base.loggers import is_of_wandb
from autoscale_exp.config import DashboardConf
from autoscale_exp.laws.fit_file import FIT, read_fit
from autoscale_exp.runs.record import read_records
from autoscale_exp.runs.sweep_folder import group_of

log = logging.getLogger(__name__)


@job("dashboard")
def main(conf: DashboardConf) -> None:
    """Saves both pages at W&B, or writes them to `output`."""
    sweep = Path(conf.sweep)
    records = read_records(sweep)
    fit = read_fit(Path(conf.fit), "fit") if (Path(conf.fit) / FIT).exists() else None
    path = sweep / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if find_spec("wandb_workspaces") is None:
        raise UserError(
            "dashboard needs the package wandb-workspaces, which is not installed; run `pip install "
            "'autoscale_exp[dashboard]'`"
        )
    from autoscale_exp.reporting import dashboard

    study = dashboard.Study.of(records[0], group_of(sweep, records[0].experiment), fit, summary)
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
    log.info("workspace '%s' and its report are saved in %s/%s", study.group, conf.entity, conf.project)


if __name__ == "__main__":
    main()
