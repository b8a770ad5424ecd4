"""The HTML report: one file with everything inside, which needs no network."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from autoscale_exp.base.labels import short_label
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.reporting import evidence_figures, figures, target_figures
from autoscale_exp.reporting.comparison import compare
from autoscale_exp.reporting.conf import PublishedConf
from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.reporting.predictions import Prediction, summary_of
from autoscale_exp.reporting.published import Beside
from autoscale_exp.reporting.regret import BruteForce
from autoscale_exp.reporting.savings import savings_of
from autoscale_exp.reporting.searches import Searches
from autoscale_exp.reporting.shift import ScaleOptimum
from autoscale_exp.reporting.tables import backtest_text
from autoscale_exp.reporting.target_runs import MixtureRuns
from autoscale_exp.reporting.verdicts import (
    MANY_TARGETS,
    number,
    objective_label,
    objective_weights,
    percent,
    saved,
    saved_interval,
    signed,
    signed_interval,
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
    savings = savings_of(budgets, reference, searches)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(
        label=short_label,
        share=percent,
        signed=signed,
        number=lambda x: number(x, float(base.final.mean())),
        million=lambda x: f"{x / 1e6:.2f}M",
    )
    template = environment.from_string(resources.files(__package__).joinpath("page.html.j2").read_text("utf-8"))
    drawn = draw(fit, autoscale, budgets, reference, searches)
    drawn |= {"regrets": evidence_figures.plot_regrets(brute)} if brute else {}
    drawn |= {"optima": evidence_figures.plot_optima(optima, fit.domains)} if optima else {}
    return template.render(
        fit=fit,
        autoscale=autoscale,
        search=searches.all_runs,
        budgets=budgets,
        mixtures=mixtures,
        reference=reference,
        summary=summary,
        downstream=downstream,
        objective=objective_label(fit.objective),
        objective_weights=objective_weights(fit.objective),
        unit=" nats per token" if fit.objective.metric == "loss" else "",
        backtest_text=backtest_text,
        differences=differences,
        interval=lambda difference: signed_interval(difference.interval, difference.base),
        savings=savings,
        saved={name: saved(difference, savings[name]) for name, difference in differences.items()},
        saved_interval=saved_interval,
        some_search=any(saving.search_tokens for saving in savings.values()),
        many=MANY_TARGETS,
        mean_losses={name: _mean_losses(mixture) for name, mixture in mixtures.items()},
        found=[p for p in found if p.quantity in ("objective", "gain")],
        found_losses=[p for p in found if p.quantity not in ("objective", "gain")],
        found_summary=summary_of(found),
        num_target_runs=sum(len(mixture.records) for mixture in mixtures.values()),
        verdicts=worth_saying(mixtures, differences, base, savings),
        remarks=remarks,
        published=published,
        explorer=explorer,
        brute=brute,
        optima=optima or {},
        some_better=any(difference.is_better for difference in differences.values()),
        figures={name: figures.as_svg(figure) for name, figure in drawn.items()},
        first=base.records[0],
    )


def render_published(published: PublishedConf, numbers: Beside, autoscale: Fit | None) -> str:
    """Renders the part of the page with a published study's numbers."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = resources.files(__package__).joinpath("published.html.j2").read_text("utf-8")
    figure = None
    if published.weights:
        figure = figures.as_svg(figures.plot_published_weights(published.domains, published.weights, autoscale))
    shown = environment.from_string(source)
    return shown.render(note=numbers.note, tables=numbers.tables, source=published.source, figure=figure)


def draw(
    fit: Fit,
    autoscale: Fit | None,
    budgets: Mapping[int, Mapping[str, MixtureRuns]],
    reference: str,
    searches: Searches,
) -> dict[str, Figure]:
    """Draws the figures of a report, by their place on the page."""
    *_, mixtures = budgets.values()
    differences, savings = compare(mixtures, reference), savings_of(budgets, reference, searches)
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
