"""The `report` job: a search, its fit and its target runs as summary.json, a terminal table and one HTML page."""

import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.config import ReportConf
from autoscale_exp.laws.fit_file import Fit, read_fit
from autoscale_exp.reporting.comparison import Difference, compare
from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.reporting.downstream import downstream_table, read_evaluated_runs
from autoscale_exp.reporting.explorer import EXPLORER, write_explorer
from autoscale_exp.reporting.mixture_files import found_in, mixture_file, remarks_on
from autoscale_exp.reporting.next_steps import after_verdict, more_seeds, target_runs
from autoscale_exp.reporting.page import render_page, render_published
from autoscale_exp.reporting.predictions import Prediction, law_of, predictions
from autoscale_exp.reporting.published import beside
from autoscale_exp.reporting.regret import BruteForce, brute_force
from autoscale_exp.reporting.savings import Saving, savings_of
from autoscale_exp.reporting.searches import Searches, read_searches
from autoscale_exp.reporting.shift import ScaleOptimum, shift_of
from autoscale_exp.reporting.target_runs import (
    MixtureRuns,
    group_by_budget,
    objective_of_fit,
    require_domains,
)
from autoscale_exp.reporting.terminal import show
from autoscale_exp.reporting.verdicts import MANY_TARGETS, answer, objective_label
from autoscale_exp.runs.record import RECORD, read_records
from autoscale_exp.runs.study_file import STUDY

log = logging.getLogger(__name__)

MOST_PROPOSED_SEEDS = 10


@job("report")
def main(conf: ReportConf) -> None:
    """Writes summary.json and report.html."""
    budgets, fit, searches = read_runs(conf)
    mixtures = [*budgets.values()][-1]
    differences = compare(mixtures, conf.reference)
    savings = savings_of(budgets, conf.reference, searches)
    trained = {record.run for mixture in mixtures.values() for record in mixture.records}
    downstream = downstream_table(read_evaluated_runs(Path(conf.targets), trained))
    objective = objective_of_fit(fit, conf.fit)
    found = predictions(fit, Path(conf.fit), mixtures, differences, objective)
    brute = brute_force(searches, mixtures, conf.reference, objective)
    optima = shift_of(Path(conf.targets), mixtures, "fitted")
    summary = summarise(searches, fit, budgets, conf.reference, downstream, found, brute, optima)
    remarks = remarks_on(Path(conf.targets), mixtures, fit.objective)
    autoscale = read_fit(Path(conf.autoscale), "autoscale") if conf.autoscale else None
    folder = Path(conf.output_dir)
    atomic.write_json(folder / "summary.json", summary)
    shown = ""
    if conf.published is not None:
        numbers = beside(conf.published, autoscale, budgets, searches, objective, downstream)
        shown = render_published(conf.published, numbers, autoscale)
    explorer = EXPLORER if write_explorer(folder, fit, law_of(Path(conf.fit)), summary["requested_weights"]) else None
    page = render_page(
        searches,
        fit,
        autoscale,
        budgets,
        conf.reference,
        summary,
        downstream,
        found=found,
        remarks=remarks,
        published=shown,
        explorer=explorer,
        brute=brute,
        optima=optima,
    )
    atomic.write_text(folder / "report.html", page)
    if conf.logger:
        from autoscale_exp.reporting.tracking import log_report  # imports torch

        log_report(conf.logger, folder, Path(conf.fit), Path(conf.targets), mixtures, differences, savings)
    show(summary, fit, mixtures, conf.reference, savings, found, downstream)
    for remark in remarks:
        log.warning(remark)
    log.info("written to '%s'", folder / "report.html")
    log.info(next_step(conf, mixtures, differences))


def read_runs(conf: ReportConf) -> tuple[dict[int, dict[str, MixtureRuns]], Fit, Searches]:
    """Reads the target runs by budget and mixture, with the reference first, the fit, and the searches.

    Raises:
        UserError: some of them are missing, or cannot be compared.
    """
    search = Path(conf.search)
    if not (search / STUDY).exists():
        read_records(search)  # a missing search is reported before a missing fit
    fit = read_fit(Path(conf.fit), "fit")
    objective = objective_of_fit(fit, conf.fit)
    if not any(Path(conf.targets).glob(f"runs/*/{RECORD}")):
        elsewhere = [] if Path(conf.targets) == search / "targets" else [f"output_dir={conf.targets}"]
        raise UserError(
            f"targets is '{conf.targets}', which has no finished run; train the mixtures to compare, as by "
            f"`{target_runs(search, fit, *elsewhere)}`, or give targets=<their output_dir>"
        )
    targets = read_records(Path(conf.targets))
    for record in targets:
        require_domains(record, "trained", record.tokens, fit.domains)
        require_domains(record, "validated", record.losses, objective.validation_domains)
    budgets = group_by_budget(targets, objective)
    budgets = {budget: _in_order(mixtures, conf.reference) for budget, mixtures in budgets.items()}
    mixtures = [*budgets.values()][-1]
    if conf.reference not in mixtures:
        raise UserError(
            f"reference is '{conf.reference}', but the target runs are of {', '.join(mixtures)}; choose one of these "
            "with reference=..., or train it at the target, too"
        )
    if len(mixtures) == 1:
        raise UserError(f"all target runs are of '{conf.reference}'; train another mixture to compare it with")
    searches = read_searches(search, found_in(search, Path(conf.targets), mixtures))
    for record in searches.all_runs:
        require_domains(record, "trained", record.tokens, fit.domains)
        require_domains(record, "validated", record.losses, objective.validation_domains)
    return budgets, fit, searches


def _in_order(mixtures: Mapping[str, MixtureRuns], reference: str) -> dict[str, MixtureRuns]:
    """The mixtures with the reference first, then from best to worst."""
    return dict(sorted(mixtures.items(), key=lambda entry: (entry[0] != reference, entry[1].final.mean())))


def next_step(conf: ReportConf, mixtures: dict[str, MixtureRuns], differences: dict[str, Difference]) -> str:
    """The next step: more seeds, as long as the best mixture cannot be told apart from the reference, or its use.

    If it would take more than `MOST_PROPOSED_SEEDS`, the difference is too small to pay for.
    """
    best = min(differences.values(), key=lambda difference: difference.mean)
    if not best.within_noise:
        winner = best.mixture if best.is_better else conf.reference
        return after_verdict(winner, mixture_file(Path(conf.targets), mixtures[winner].records[0]))
    wanted = 2 if best.num_seeds == 1 else best.seeds_to_settle
    if wanted is None or wanted > MOST_PROPOSED_SEEDS:
        return f"next: nothing that pays; {best.mixture} and {conf.reference} differ too little to matter here"
    return more_seeds(Path(conf.targets), conf.search, list(mixtures), wanted)


def summarise(
    searches: Searches,
    fit: Fit,
    budgets: Mapping[int, Mapping[str, MixtureRuns]],
    reference: str,
    downstream: DownstreamTable,
    found: Sequence[Prediction] = (),
    brute: BruteForce | None = None,
    optima: Mapping[str, ScaleOptimum] | None = None,
) -> dict[str, Any]:
    """Makes the content of summary.json; see docs/formats.md.

    Args:
        searches: the searches, with all proxy runs.
        fit: the fit of the search.
        budgets: target runs by token budget, smallest first, and mixture.
        reference: the mixture that others are compared with.
        downstream: scores by task and mixture; may be empty.
        found: predictions of the fit beside what was trained.
        brute: regrets; None without a brute-force search.
        optima: the optima of single scales and the extrapolated one; may be empty.
    """
    *_, (budget, mixtures) = budgets.items()
    differences = compare(mixtures, reference)
    savings = savings_of(budgets, reference, searches)
    targets = [record for mixture in mixtures.values() for record in mixture.records]
    runs = [record for of_budget in budgets.values() for mixture in of_budget.values() for record in mixture.records]
    fitted = next((target for target in fit.targets if target.tokens == budget), None)
    search_seconds = sum(record.seconds for record in searches.all_runs)
    return {
        "objective": fit.objective.name,
        "scales": [scale.tokens for scale in fit.scales],
        "target_tokens": budget,
        "weights": fitted and fitted.weights,
        "final": {name: mixture.final.tolist() for name, mixture in mixtures.items()},
        "final_by_budget": {
            str(tokens): {name: mixture.final.tolist() for name, mixture in of_budget.items()}
            for tokens, of_budget in budgets.items()
        },
        "downstream": {task: {name: score.values for name, score in row.items()} for task, row in downstream.items()},
        f"speedup_vs_{reference}": {name: saving.on_curves for name, saving in savings.items()},
        f"savings_vs_{reference}": {name: _saving(saving) for name, saving in savings.items()},
        f"difference_vs_{reference}": {name: _difference(difference) for name, difference in differences.items()},
        "predictions": [
            asdict(prediction) | {"runs_interval": prediction.runs_interval, "outcome": prediction.outcome}
            for prediction in found
        ],
        "brute_force": brute and asdict(brute),
        "optima": {name: _optimum(optimum) for name, optimum in (optima or {}).items()},
        "requested_weights": {name: mixture.records[0].requested_weights for name, mixture in mixtures.items()},
        "answer": answer(mixtures, reference, objective_label(fit.objective), budget),
        "target_seconds": round(statistics.median(record.seconds for record in targets), 1),
        "search_tokens": sum(sum(record.tokens.values()) for record in searches.all_runs),
        "search_seconds": round(search_seconds, 1),
        "seconds": round(search_seconds + sum(record.seconds for record in runs), 1),
    }


def _saving(saving: Saving) -> dict[str, Any]:
    """A saving in the form of the summary."""
    return asdict(saving) | {"charged": {str(count): saving.charged(count) for count in (1, MANY_TARGETS)}}


def _optimum(found: ScaleOptimum) -> dict[str, Any]:
    """An optimum in the form of the summary: its scale, weights, and what it is worth at the target."""
    optimum, difference = found.optimum, found.difference
    described = {"tokens": optimum.tokens, "weights": optimum.weights, "interval": optimum.interval}
    return described | {"scales": found.num_scales, "difference": difference and _difference(difference)}


def _difference(difference: Difference) -> dict[str, Any]:
    """A difference of final objectives in the form of the summary: in units of the objective, and as a share."""
    return {
        "mean": difference.mean,
        "interval": difference.interval,
        "relative": difference.mean / difference.base,
        "seeds": difference.num_seeds,
        "within_noise": difference.within_noise,
        "verdict": "better" if difference.is_better else "worse" if difference.is_worse else "open",
        "seeds_to_settle": difference.seeds_to_settle,
    }


if __name__ == "__main__":
    main()
