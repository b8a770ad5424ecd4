"""The `import_runs` job: a run table from others' files, a sweep's folder, a W&B project or a filled-in design."""

import logging
from pathlib import Path

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.base.job import job
from autoscale_exp.base.loggers import is_of_wandb
from autoscale_exp.config import ImportRunsConf
from autoscale_exp.runs.imports import (
    Choice,
    join_design,
    join_olmix,
    join_regmix,
    read_wandb_export,
    table_of_wandb_runs,
)
from autoscale_exp.runs.record import read_records
from autoscale_exp.runs.run_sheet import parse_run_table
from autoscale_exp.runs.sweep_folder import remarks_on
from autoscale_exp.runs.table import format_run_table

log = logging.getLogger(__name__)

SOURCES = ("regmix", "olmix", "sweep", "wandb", "design")
NEEDS = {
    "regmix": ("mixtures", "losses", "tokens"),
    "olmix": ("mixtures", "losses", "tokens"),
    "sweep": ("folder",),
    "wandb": (),  # one of project and table
    "design": ("folder",),
}


@job("import_runs")
def main(conf: ImportRunsConf) -> None:
    """Writes `output`, with the checks of a fit."""
    if conf.source not in SOURCES:
        raise UserError(f"source is '{conf.source}'; allowed are {', '.join(SOURCES)}")
    missing = [key for key in NEEDS[conf.source] if getattr(conf, key) is None]
    if missing:
        raise UserError(f"source={conf.source} needs {' and '.join(f'{key}=...' for key in missing)}")
    if conf.source == "wandb" and (conf.project is None) == (conf.table is None):
        raise UserError("source=wandb needs project=<entity/project> or table=<CSV of its table view>, one of the two")
    if conf.source not in ("regmix", "olmix") and (conf.domains or conf.validation_domains):
        raise UserError("domains and validation_domains choose columns, which only source=regmix and source=olmix have")
    if conf.source == "sweep":
        records = read_records(Path(str(conf.folder)))
        for remark in remarks_on(Path(str(conf.folder)), records):
            log.warning("'%s': %s", conf.folder, remark)
        text = format_run_table(records)
    elif conf.source == "design":
        text = join_design(Path(str(conf.folder)))
    elif conf.source == "wandb" and conf.table is not None:
        text = table_of_wandb_runs(read_wandb_export(Path(conf.table)))
    elif conf.source == "wandb":
        import wandb  # takes seconds, and asks for an account

        try:
            runs = list(wandb.Api().runs(conf.project))
        except Exception as error:
            if not is_of_wandb(error) and not isinstance(error, ValueError):
                raise
            raise UserError(f"project is '{conf.project}', which W&B does not give: {first_line(error)}") from None
        text = table_of_wandb_runs(runs)
    else:
        join = join_regmix if conf.source == "regmix" else join_olmix
        choice = Choice(conf.domains, conf.validation_domains)
        text = join(Path(str(conf.mixtures)), Path(str(conf.losses)), int(conf.tokens or 0), choice)
    table = parse_run_table(text, conf.source)
    atomic.write_text(Path(conf.output), text)
    log.info("domains: %s", ", ".join(table.domains))
    log.info("validation domains: %s", ", ".join(table.validation_domains))
    log.info("%d runs in '%s'", len(table.runs), conf.output)


if __name__ == "__main__":
    main()
