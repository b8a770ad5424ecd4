"""The `report` job: a search, its fit and its target runs as summary.json, a terminal table and one HTML page."""

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.base.labels import budget_label
from autoscale_exp.config import ReportConf
from autoscale_exp.laws.fit_file import Fit, read_fit
from autoscale_exp.reporting.comparison import (
    Difference,
    MixtureRuns,
    compare,
    group_by_mixture,
    objective_of_fit,
    require_domains,
    speedup,
)
from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.reporting.downstream import downstream_table, read_evaluated_runs
from autoscale_exp.reporting.next_steps import after_verdict, more_seeds
from autoscale_exp.reporting.page import render_page
from autoscale_exp.reporting.predictions import Prediction, predictions, summary_of
from autoscale_exp.reporting.tables import open_console, print_table, show_downstream
from autoscale_exp.reporting.verdicts import answer, objective_label, percent, plural, worth_saying
from autoscale_exp.runs.record import RECORD, RunRecord, read_records

log = logging.getLogger(__name__)

MOST_PROPOSED_SEEDS = 10


@job("report")
def main(conf: ReportConf) -> None:
    """Writes summary.json and report.html."""
    fit = read_fit(Path(conf.fit), "fit")
    autoscale = read_fit(Path(conf.autoscale), "autoscale") if conf.autoscale else None
    objective = objective_of_fit(fit, conf.fit)
    search = read_records(Path(conf.search))
    if not any(Path(conf.targets).glob(f"runs/*/{RECORD}")):
        raise UserError(
            f"targets is '{conf.targets}', which has no finished run; train the mixtures to compare with "
            f"output_dir={conf.targets}, or give targets=<their output_dir>"
        )
    targets = read_records(Path(conf.targets))
    for record in search + targets:
        require_domains(record, "trained", record.tokens, fit.domains)
        require_domains(record, "validated", record.losses, objective.validation_domains)
    mixtures = group_by_mixture(targets, objective)
    mixtures = {
        name: mixtures[name] for name in sorted(mixtures, key=lambda n: (n != conf.reference, n != "fitted", n))
    }
    if conf.reference not in mixtures:
        raise UserError(
            f"reference is '{conf.reference}', but the target runs are of {', '.join(mixtures)}; choose one of these "
            "with reference=..., or train it at the target, too"
        )
    downstream = downstream_table(read_evaluated_runs(Path(conf.targets)))
    others = [name for name in mixtures if name != conf.reference]
    if not others:
        raise UserError(f"all target runs are of '{conf.reference}'; train another mixture to compare it with")
    differences = compare(mixtures, conf.reference)
    found = predictions(fit, Path(conf.fit), mixtures, differences, objective)
    summary = summarise(search, fit, mixtures, conf.reference, downstream, found)
    folder = Path(conf.output_dir)
    atomic.write_json(folder / "summary.json", summary)
    page = render_page(search, fit, autoscale, mixtures, conf.reference, summary, downstream, found)
    atomic.write_text(folder / "report.html", page)
    show(summary, fit, mixtures, conf.reference, found)
    if downstream:
        show_downstream(downstream, list(mixtures))
    log.info("written to '%s'", folder / "report.html")
    log.info(next_step(conf, mixtures, differences))


def next_step(conf: ReportConf, mixtures: dict[str, MixtureRuns], differences: dict[str, Difference]) -> str:
    """More seeds while the best of the other mixtures is not told apart from the reference; then the use of the best.

    Beyond `MOST_PROPOSED_SEEDS` the difference is too small to pay for.
    """
    best = min(differences.values(), key=lambda difference: difference.mean)
    if not best.within_noise:
        winner = best.mixture if best.is_better else conf.reference
        folders = {"fitted": conf.fit, "autoscale": conf.autoscale}
        return after_verdict(winner, folders.get(winner), mixtures[winner].records[0].token_budget)
    wanted = 2 if best.num_seeds == 1 else best.seeds_to_settle
    if wanted is None or wanted > MOST_PROPOSED_SEEDS:
        return f"next: nothing that pays; {best.mixture} and {conf.reference} differ too little to matter here"
    return more_seeds(Path(conf.targets), conf.search, list(mixtures), wanted)


def summarise(
    search: list[RunRecord],
    fit: Fit,
    mixtures: dict[str, MixtureRuns],
    reference: str,
    downstream: DownstreamTable,
    found: Sequence[Prediction] = (),
) -> dict[str, Any]:
    """The content of summary.json.

    `weights` are the fitted ones for the target's budget, None if the fit has no such target. `speedup_vs_<reference>`
    has those of the other mixtures by name, see `speedup`; `difference_vs_<reference>` says which of them exceed the
    noise. Seconds are of training, added up over runs, however many ran at a time. `downstream` has the runs'
    evaluations, by task and mixture.
    """
    differences = compare(mixtures, reference)
    runs = [record for mixture in mixtures.values() for record in mixture.records]
    budget = runs[0].token_budget
    fitted = next((target for target in fit.targets if target.tokens == budget), None)
    search_seconds = sum(record.seconds for record in search)
    return {
        "objective": fit.objective.name,
        "scales": [scale.tokens for scale in fit.scales],
        "target_tokens": budget,
        "weights": fitted and fitted.weights,
        "final": {name: mixture.final.tolist() for name, mixture in mixtures.items()},
        "downstream": {task: {name: score.values for name, score in row.items()} for task, row in downstream.items()},
        f"speedup_vs_{reference}": {name: speedup(mixtures[name], mixtures[reference]) for name in differences},
        f"difference_vs_{reference}": {name: _difference(difference) for name, difference in differences.items()},
        "predictions": [asdict(prediction) | {"outcome": prediction.outcome} for prediction in found],
        "requested_weights": {name: mixture.records[0].requested_weights for name, mixture in mixtures.items()},
        "answer": answer(mixtures, reference, objective_label(fit.objective), budget),
        "target_seconds": round(statistics.median(record.seconds for record in runs), 1),
        "search_tokens": sum(sum(record.tokens.values()) for record in search),
        "search_seconds": round(search_seconds, 1),
        "seconds": round(search_seconds + sum(record.seconds for record in runs), 1),
    }


def _difference(difference: Difference) -> dict[str, Any]:
    """A difference of final objectives as the summary has it: in units of the objective, and as a share."""
    return {
        "mean": difference.mean,
        "interval": difference.interval,
        "relative": difference.mean / difference.base,
        "seeds": difference.num_seeds,
        "within_noise": difference.within_noise,
        "verdict": "better" if difference.is_better else "worse" if difference.is_worse else "open",
        "seeds_to_settle": difference.seeds_to_settle,
    }


def show(
    summary: dict[str, Any],
    fit: Fit,
    mixtures: dict[str, MixtureRuns],
    reference: str,
    found: Sequence[Prediction],
) -> None:
    """Prints the answer, then the comparison, the mixtures, and predicted beside trained."""
    console, base, differences = open_console(), mixtures[reference], compare(mixtures, reference)
    console.print(summary["answer"], markup=False)
    rows = []
    for name, mixture in mixtures.items():
        spread = "" if math.isnan(mixture.spread) else f" ± {mixture.spread:.4f}"
        row = [name, f"{mixture.final.mean():.4f}{spread}"]
        difference = differences.get(name)
        if difference is None:
            row += ["", "", ""]
        else:
            interval = difference.interval or (math.nan, math.nan)
            low, high = (f"{100 * end / difference.base:+.1f}" for end in interval)
            saved = speedup(mixture, base)
            row.append(f"{100 * difference.mean / difference.base:+.1f} %")
            row.append(f"{low} to {high} %" if difference.interval else "one seed")
            row.append("within noise" if difference.within_noise else "" if saved is None else f"{100 * saved:+.0f} %")
        rows.append([*row, ", ".join(f"{value:.4f}" for value in mixture.final)])
    label = objective_label(fit.objective)
    title = f"{label} after {budget_label(summary['target_tokens'])} tokens, {plural(len(base.final), 'seed')}"
    columns = ["mixture", "mean ± deviation", f"against {reference}", "90 % interval", "tokens saved", "per seed"]
    print_table(console, title, columns, rows)
    shares = [[d, *(percent(m.records[0].requested_weights[d]) for m in mixtures.values())] for d in fit.domains]
    print_table(console, "domain weights, shares of the tokens", ["domain", *mixtures], shares)
    for sentence in worth_saying(mixtures, differences, base):
        console.print(sentence, markup=False)
    main = [p for p in found if p.quantity in ("objective", "gain")]
    if main:
        title = "predicted by the fit, and trained; 90 % intervals"
        cells = [
            [
                f"{p.mixture} {p.quantity}",
                f"{p.predicted:.4f} ({p.predicted_interval[0]:.4f} to {p.predicted_interval[1]:.4f})",
                f"{p.trained:.4f}"
                + (f" ({p.trained_interval[0]:.4f} to {p.trained_interval[1]:.4f})" if p.trained_interval else ""),
                p.outcome,
            ]
            for p in main
        ]
        print_table(console, title, ["mixture", "predicted", "trained", "prediction"], cells)
        console.print(summary_of(found), markup=False)
    console.print(
        f"search: {summary['search_tokens'] / 1e6:.1f}M tokens in {summary['search_seconds']:.0f} s of training; "
        f"a target run: {summary['target_tokens'] / 1e6:.1f}M tokens, median {summary['target_seconds']:.0f} s of "
        f"{sum(len(m.records) for m in mixtures.values())} runs"
    )


if __name__ == "__main__":
    main()
