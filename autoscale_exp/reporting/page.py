"""The HTML report: one file with everything inside, which needs no network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from autoscale_exp.base.labels import number, number_interval, percent, short_label, signed, signed_interval
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.reporting import evidence_figures, figures, target_figures
from autoscale_exp.reporting.comparison import Difference, compare
from autoscale_exp.reporting.conf import PublishedConf
from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.reporting.predictions import Prediction, summary_of
from autoscale_exp.reporting.published import Beside
from autoscale_exp.reporting.regret import BruteForce
from autoscale_exp.reporting.savings import Saving, savings_of
from autoscale_exp.reporting.searches import Searches
from autoscale_exp.reporting.shift import ScaleOptimum
from autoscale_exp.reporting.tables import backtest_text
from autoscale_exp.reporting.target_runs import MixtureRuns
from autoscale_exp.reporting.templates import template
from autoscale_exp.reporting.verdicts import (
    MANY_TARGETS,
    objective_label,
    objective_weights,
    saved,
    saved_interval,
    worth_saying,
)


def render_page(
    searches: Searches,
    fit: Fit,
    autoscale: Fit | None,
    budgets: Mapping[int, Mapping[str, MixtureRuns]],
    reference: str,
    summary: Mapping[str, Any],
    downstream: DownstreamTable,
    found: Sequence[Prediction] = (),
    remarks: Sequence[str] = (),
    published: str = "",
    explorer: str | None = None,
    brute: BruteForce | None = None,
    optima: Mapping[str, ScaleOptimum] | None = None,
) -> str:
    """Renders the report as an HTML document.

    Args:
        searches: the searches, with the record of every proxy run.
        fit: the fit of the search.
        autoscale: the fit of the published method to the same search, or None.
        budgets: target runs by token budget, smallest first, and mixture.
        reference: the mixture that others are compared with.
        summary: content of summary.json.
        downstream: scores by task and mixture; may be empty.
        found: predictions of the fit beside what was trained.
        remarks: what to know of the mixtures before trusting the comparison.
        published: the part with a published study's numbers, or ''.
        explorer: file of the mixture explorer beside the page; None without one.
        brute: regrets; None without a brute-force search.
        optima: the optima of single scales and the extrapolated one; may be empty.
    """
    *_, mixtures = budgets.values()
    base, differences = mixtures[reference], compare(mixtures, reference)
    savings, level = savings_of(budgets, reference, searches), float(base.final.mean())
    drawn = _draw(fit, autoscale, budgets, reference, differences, savings)
    drawn |= {"regrets": evidence_figures.plot_regrets(brute)} if brute else {}
    drawn |= {"optima": evidence_figures.plot_optima(optima, fit.domains)} if optima else {}
    page = template(
        "page.html.j2",
        label=short_label,
        share=percent,
        signed=signed,
        number=lambda value: number(value, level),
        numbers=lambda interval: number_interval(interval, level),
        million=lambda count: f"{count / 1e6:.2f}M",
    )
    return page.render(
        **_compared(mixtures, reference, differences, savings),
        **_expected(found),
        fit=fit,
        autoscale=autoscale,
        search=searches.all_runs,
        budgets=budgets,
        summary=summary,
        downstream=downstream,
        objective=objective_label(fit.objective),
        objective_weights=objective_weights(fit.objective),
        unit=" nats per token" if fit.objective.metric == "loss" else "",
        backtest_text=backtest_text,
        remarks=remarks,
        published=published,
        explorer=explorer,
        brute=brute,
        optima=optima or {},
        figures={name: figures.as_svg(figure) for name, figure in drawn.items()},
    )


def _compared(
    mixtures: Mapping[str, MixtureRuns],
    reference: str,
    differences: Mapping[str, Difference],
    savings: Mapping[str, Saving],
) -> dict[str, Any]:
    """What the page tells of the mixtures at the target."""
    base = mixtures[reference]
    return {
        "mixtures": mixtures,
        "reference": reference,
        "first": base.records[0],
        "num_target_runs": sum(len(mixture.records) for mixture in mixtures.values()),
        "seeds_differ": any(record.tokens != m.records[0].tokens for m in mixtures.values() for record in m.records),
        "mean_losses": {name: _mean_losses(mixture) for name, mixture in mixtures.items()},
        "differences": differences,
        "interval": lambda difference: signed_interval(difference.interval, difference.base),
        "some_better": any(difference.is_better for difference in differences.values()),
        "savings": savings,
        "saved": {name: saved(difference, savings[name]) for name, difference in differences.items()},
        "saved_interval": saved_interval,
        "some_search": any(saving.search_tokens for saving in savings.values()),
        "many": MANY_TARGETS,
        "verdicts": worth_saying(mixtures, differences, base, savings),
    }


def _expected(found: Sequence[Prediction]) -> dict[str, Any]:
    """What the page tells of predictions: objectives and gains, and losses apart from them."""
    return {
        "found": [p for p in found if p.quantity in ("objective", "gain")],
        "found_losses": [p for p in found if p.quantity.startswith("loss ")],
        "found_summary": summary_of(found),
    }


def render_published(published: PublishedConf, numbers: Beside, autoscale: Fit | None) -> str:
    """Renders the part of the page with a published study's numbers."""
    figure = None
    if published.weights:
        figure = figures.as_svg(figures.plot_published_weights(published.domains, published.weights, autoscale))
    part = template("published.html.j2")
    return part.render(note=numbers.note, tables=numbers.tables, source=published.source, figure=figure)


def _draw(
    fit: Fit,
    autoscale: Fit | None,
    budgets: Mapping[int, Mapping[str, MixtureRuns]],
    reference: str,
    differences: Mapping[str, Difference],
    savings: Mapping[str, Saving],
) -> dict[str, Figure]:
    """Draws the figures of fits and target runs, by their place on the page."""
    *_, mixtures = budgets.values()
    label = figures.axis_label(fit)
    drawn = {"weights": figures.plot_weights(fit)}
    if autoscale:
        drawn["autoscale"] = figures.plot_weights(autoscale)
    if fit.diagnostics.responses:
        drawn["responses"] = figures.plot_responses(fit)
    if len(differences) > 1:
        drawn["differences"] = target_figures.plot_differences(differences, reference)
    if len(budgets) > 1:
        drawn["budgets"] = target_figures.plot_budgets(budgets, reference, label)
    drawn["curves"] = target_figures.plot_validation_curves(mixtures, differences, savings, label)
    drawn["losses"] = target_figures.plot_domain_losses(mixtures, reference)
    return drawn


def _mean_losses(mixture: MixtureRuns) -> dict[str, float]:
    """Mean losses over seeds, by validation domain."""
    domains = mixture.records[0].losses
    return {domain: float(np.mean([record.losses[domain] for record in mixture.records])) for domain in domains}
