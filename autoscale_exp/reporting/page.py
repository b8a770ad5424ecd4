"""The HTML report: one file, no network, everything inside."""

import math
import statistics
from importlib import resources
from typing import Any

import jinja2

from autoscale_exp.base.labels import short_label
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.reporting import figures
from autoscale_exp.reporting.comparison import MixtureRuns, final_gap, speedup, tokens_to_reach
from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.runs.record import RunRecord


def render_page(
    search: list[RunRecord],
    fit: Fit,
    autoscale: Fit | None,
    mixtures: dict[str, MixtureRuns],
    reference: str,
    summary: dict[str, Any],
    downstream: DownstreamTable,
) -> str:
    """The report as an HTML document.

    Args:
        search: the record of every proxy run.
        fit: of the search.
        autoscale: that of the published method on the same search, or None.
        mixtures: target runs by mixture.
        reference: the mixture that others are compared with.
        summary: content of summary.json.
        downstream: scores by task and mixture; may be empty.
    """
    base = mixtures[reference]
    label = figures.objective_label(fit)
    plotted = {
        name: {
            "objective": label,
            "tokens": mixture.tokens.tolist(),
            "curves": mixture.curves.tolist(),
            "losses": [record.losses for record in mixture.records],
            "speedup": speedup(mixture, base),
            "tokens_to_reach_reference": tokens_to_reach(
                mixture.tokens, mixture.mean_curve, float(base.mean_curve[-1])
            ),
        }
        for name, mixture in mixtures.items()
    }
    drawn = {"weights": figures.plot_weights(fit)}
    if autoscale:
        drawn["autoscale"] = figures.plot_weights(autoscale)
    if fit.diagnostics.responses:
        drawn["responses"] = figures.plot_responses(fit)
    drawn["curves"] = figures.plot_validation_curves(plotted, reference)
    drawn["losses"] = figures.plot_domain_losses(plotted, reference)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(label=short_label, share=lambda x: f"{x:.4f}", million=lambda x: f"{x / 1e6:.2f}M")
    template = environment.from_string(resources.files(__package__).joinpath("page.html.j2").read_text("utf-8"))
    return template.render(
        fit=fit,
        autoscale=autoscale,
        search=search,
        mixtures=mixtures,
        reference=reference,
        summary=summary,
        downstream=downstream,
        objective=label,
        plotted=plotted,
        verdicts=[verdict(mixture, base) for name, mixture in mixtures.items() if name != reference],
        figures={name: figures.as_svg(figure) for name, figure in drawn.items()},
        first=base.records[0],
    )


def verdict(mixture: MixtureRuns, base: MixtureRuns) -> str:
    """One sentence: how the mixture compares with the reference, and whether seeds differ by as much."""
    gap = final_gap(mixture, base)
    change = gap / float(base.final.mean())
    spread = statistics.fmean([m.spread for m in (mixture, base)])
    sooner = speedup(mixture, base)
    text = f"{mixture.name} ends {abs(change):.1%} {'below' if gap < 0 else 'above'} {base.name}"
    if sooner is not None and gap < 0:
        text += f" and reaches where {base.name} ends with {sooner:.0%} fewer tokens"
    elif sooner is not None:
        text += f", which gets where {mixture.name} ends with {abs(sooner):.0%} fewer tokens"
    if math.isnan(spread):
        return text + "; with one seed each there is no telling whether that is more than noise."
    ratio = abs(gap) / max(spread, 1e-12)
    certainty = "more than" if ratio > 2 else "no more than"
    return f"{text}. The gap of {abs(gap):.3f} is {certainty} twice the spread over seeds, {spread:.3f}."
