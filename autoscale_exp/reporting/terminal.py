"""The report in a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from autoscale_exp.base.labels import (
    budget_label,
    number,
    number_interval,
    percent,
    plural,
    short_label,
    signed,
    signed_interval,
)
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.reporting.comparison import Difference, compare
from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.reporting.predictions import Prediction, summary_of
from autoscale_exp.reporting.savings import Saving
from autoscale_exp.reporting.tables import open_console, print_table, show_downstream
from autoscale_exp.reporting.target_runs import MixtureRuns
from autoscale_exp.reporting.verdicts import (
    MANY_TARGETS,
    objective_label,
    objective_weights,
    saved,
    saved_interval,
    worth_saying,
)

MOST_SENTENCES = 3  # on mixtures; for more, the table is enough


def show(
    summary: Mapping[str, Any],
    fit: Fit,
    mixtures: Mapping[str, MixtureRuns],
    reference: str,
    savings: Mapping[str, Saving],
    found: Sequence[Prediction],
    downstream: DownstreamTable,
) -> None:
    """Prints the answer, then the comparison, the mixtures, predicted beside trained, and the costs.

    Args:
        summary: content of summary.json.
        fit: the fit of the search.
        mixtures: target runs by mixture.
        reference: the mixture that others are compared with.
        savings: the savings of all mixtures but the reference.
        found: predictions of the fit beside what was trained.
        downstream: scores by task and mixture; may be empty.
    """
    console, base, differences = open_console(), mixtures[reference], compare(mixtures, reference)
    console.print(summary["answer"])
    _show_mixtures(console, summary, fit, mixtures, differences, savings)
    shares = [[n, *(percent(m.records[0].requested_weights[d]) for d in fit.domains)] for n, m in mixtures.items()]
    print_table(console, "domain weights, shares of the tokens", ["mixture", *fit.domains], shares)
    if len(differences) <= MOST_SENTENCES:
        for sentence in worth_saying(mixtures, differences, base, savings):
            console.print(sentence)
    main = [p for p in found if p.quantity in ("objective", "gain")]
    _show_predictions(console, main, float(base.final.mean()))
    if downstream:
        show_downstream(downstream, list(mixtures))
    console.print(
        f"search: {short_label(summary['search_tokens'])} tokens in {summary['search_seconds']:.0f} s of training; "
        f"a target run: {short_label(summary['target_tokens'])} tokens, median {summary['target_seconds']:.0f} s of "
        f"{sum(len(m.records) for m in mixtures.values())} runs"
    )


def _show_mixtures(
    console: Console,
    summary: Mapping[str, Any],
    fit: Fit,
    mixtures: Mapping[str, MixtureRuns],
    differences: Mapping[str, Difference],
    savings: Mapping[str, Saving],
) -> None:
    """Prints objectives, differences and tokens saved, also net of the search if there is one."""
    base = next(mixture for name, mixture in mixtures.items() if name not in differences)
    level = float(base.final.mean())
    rows = []
    for name, mixture in mixtures.items():
        spread = f" ± {number(mixture.spread, level)}" if len(mixture.final) > 1 else ""
        row = [name, number(float(mixture.final.mean()), level) + spread]
        if name not in differences:
            rows.append([*row, "", "reference", "", "", "", "", ""])
            continue
        difference, saving = differences[name], savings[name]
        interval = f" ({signed_interval(difference.interval, difference.base)})" if difference.interval else ""
        on_curves, annealed, *charged = saved(difference, saving)
        annealed += f" ({saved_interval(saving)})" if saved_interval(saving) else ""
        searched = short_label(saving.search_tokens) if saving.search_tokens else "none"
        row += [signed(difference.mean / difference.base) + interval, difference.verdict]
        rows.append([*row, on_curves, annealed, searched, *charged])
    weights = objective_weights(fit.objective)
    budget, seeds = budget_label(summary["target_tokens"]), plural(len(base.final), "seed")
    title = f"{objective_label(fit.objective)} after {budget} tokens, {seeds}" + f"; weighs {weights}" * bool(weights)
    against = f"against {base.name} (90 % interval)"
    columns = ["mixture", "mean ± deviation", against, "verdict", "tokens saved", "by finished runs", "search tokens"]
    columns += ["net of search", f"for {MANY_TARGETS} targets"]
    filled = [k for k in range(len(columns)) if any(row[k] for row in rows)]
    print_table(console, title, [columns[k] for k in filled], [[row[k] for k in filled] for row in rows])


def _show_predictions(console: Console, main: Sequence[Prediction], level: float) -> None:
    """Prints objectives and gains, predicted and trained, with the digits that suit the objective's level."""
    if not main:
        return
    rows = []
    for p in main:
        predicted = f"{number(p.predicted, level)} ({number_interval(p.predicted_interval, level)})"
        expected, trained = number_interval(p.runs_interval, level), number(p.trained, level)
        rows.append([f"{p.mixture} {p.quantity}", predicted, expected, trained, p.outcome])
    title = "predicted by the fit, and trained; 90 % intervals"
    print_table(console, title, ["mixture", "predicted", "with the runs' noise", "trained", "prediction"], rows)
    console.print(summary_of(main))
