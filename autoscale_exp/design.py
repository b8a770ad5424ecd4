"""The `design` job: the proxy runs of a design as files for another trainer, and a table to fill in with results."""

import logging
from pathlib import Path

import numpy as np

from autoscale_exp.base import atomic
from autoscale_exp.base.by_domain import in_order
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.base.ranges import LARGEST_SEED, check_range
from autoscale_exp.config import DesignJobConf
from autoscale_exp.mixture.weights import resolve_weights
from autoscale_exp.runs.design import RunRequest
from autoscale_exp.runs.designs import design_runs
from autoscale_exp.runs.trainer_files import (
    DESIGN,
    RESULTS,
    TRAINERS,
    Batches,
    ProxyRun,
    design_table,
    files_of,
    proxy_run,
    results_table,
)

log = logging.getLogger(__name__)

DDO_TOLERANCE = 1e-3  # laws.autoscale.ddo takes tokens within this for unchanged
BY_SIZE = ("natural", "temperature", "unimax")  # kinds of mixture that depend on the domains' sizes


@job("design")
def main(conf: DesignJobConf) -> None:
    """Writes the runs, design.csv and results.csv."""
    if conf.format not in TRAINERS:
        raise UserError(f"format is '{conf.format}'; allowed are {', '.join(TRAINERS)}")
    check_range({"seq_len": conf.seq_len, "batch_rows": conf.batch_rows, "max_epochs": conf.max_epochs}, 1)
    check_range({"seed": conf.seed}, 0, LARGEST_SEED)
    if len(conf.domains) < 2 or len(set(conf.domains)) < len(conf.domains):
        raise UserError(f"domains is {conf.domains}; give the names of at least two, each once")
    if conf.design.match_repetition is not None:
        raise UserError(
            f"design.match_repetition is {conf.design.match_repetition}, but the files for {conf.format} cannot limit "
            "a run to a part of a domain's text; leave it out"
        )
    paths = conf.paths or conf.domains
    if len(paths) != len(conf.domains) or len(set(paths)) < len(paths):
        raise UserError(f"paths is {paths}; give one for each of the {len(conf.domains)} domains, in their order")
    folder = Path(conf.output_dir)
    if (folder / RESULTS).exists():
        raise UserError(f"output_dir is '{folder}', which has a {RESULTS} already; give another folder, or delete that")
    runs = proxy_runs(conf)
    for name, text in files_of(conf.format, runs, dict(zip(conf.domains, paths, strict=True))).items():
        atomic.write_text(folder / name, text)
    atomic.write_text(folder / DESIGN, design_table(runs))
    atomic.write_text(folder / RESULTS, results_table(runs, conf.validation_domains or conf.domains))
    if (worst := max(run.rounding for run in runs)) > DDO_TOLERANCE:
        log.warning(
            "whole steps of %s tokens change the tokens of runs by up to %.1f %%, so that law=autoscale, which looks "
            "for runs that differ in one domain, cannot take them; with smaller batches or larger scales it can",
            f"{conf.seq_len * conf.batch_rows:,}",
            100 * worst,
        )
    log.info("%d runs for %s in '%s': %s", len(runs), conf.format, folder, TRAINERS[conf.format].use)
    log.info(
        "next: train them, fill in '%s', then python -m autoscale_exp.import_runs source=design folder=%s "
        "output=%s/runs.csv",
        folder / RESULTS,
        folder,
        folder,
    )


def proxy_runs(conf: DesignJobConf) -> list[ProxyRun]:
    """Makes all runs of the design, in whole steps.

    Raises:
        UserError: the mixture depends on sizes that are not given, or the domains have too little text.
    """
    domains, batches = conf.domains, Batches(conf.seq_len, conf.batch_rows)
    sizes = None
    if conf.unique_tokens is not None:
        sizes = np.asarray(in_order(conf.unique_tokens, domains, key="unique_tokens"), dtype=float)
        if len(sizes) != len(domains) or not (sizes > 0).all():
            raise UserError(f"unique_tokens is {conf.unique_tokens}; give a positive number of tokens per domain")
    elif conf.mixture.kind in BY_SIZE:
        raise UserError(
            f"mixture is '{conf.mixture.name}', which follows from the sizes of the domains; give unique_tokens=[...], "
            "the tokens that each has"
        )
    runs = []
    for spec in design_runs(conf.design, RunRequest(domains, conf.token_budget, conf.mixture.name, conf.seed)):
        rows = [] if sizes is None else [int(size) for size in sizes // conf.seq_len]
        base = resolve_weights(conf.mixture, domains, rows, spec.token_budget / conf.seq_len)
        limits = np.full(len(domains), np.inf) if sizes is None else conf.max_epochs * sizes
        weights = spec.weights(base, limits / spec.token_budget)
        run = proxy_run(spec, weights, domains, conf.seed, batches, conf.max_epochs)
        for domain, tokens, limit in zip(domains, run.tokens.values(), limits.tolist(), strict=True):
            if tokens > limit:
                raise UserError(
                    f"run '{run.run}' asks for {tokens:,.0f} tokens of '{domain}', more than max_epochs "
                    f"{conf.max_epochs} of its text; lower design.scales, or raise max_epochs"
                )
        runs.append(run)
    return runs


if __name__ == "__main__":
    main()
