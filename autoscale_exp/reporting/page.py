"""The HTML report: one file, no network, everything inside."""

from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2

from autoscale_exp.base.labels import short_label
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.reporting import figures
from autoscale_exp.reporting.comparison import MixtureRuns, compare, speedup, tokens_to_reach
from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.reporting.predictions import Prediction, summary_of
from autoscale_exp.reporting.verdicts import number, objective_label, percent, worth_saying
from autoscale_exp.runs.record import RunRecord


def render_page(
    search: list[RunRecord],
    fit: Fit,
    autoscale: Fit | None,
    mixtures: dict[str, MixtureRuns],
    reference: str,
    summary: dict[str, Any],
    downstream: DownstreamTable,
    found: Sequence[Prediction] = (),
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
        found: what the fit predicted, beside what was trained.
    """
    base, differences = mixtures[reference], compare(mixtures, reference)
    label = figures.axis_label(fit)
    plotted = {
        name: {
            "objective": label,
            "tokens": mixture.tokens.tolist(),
            "curves": mixture.curves.tolist(),
            "losses": [record.losses for record in mixture.records],
            "speedup": speedup(mixture, base),
            "better": name in differences and differences[name].is_better,
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
    environment.filters.update(
        label=short_label,
        share=percent,
        number=lambda x: number(x, float(base.final.mean())),
        million=lambda x: f"{x / 1e6:.2f}M",
    )
    template = environment.from_string(resources.files(__package__).joinpath("page.html.j2").read_text("utf-8"))
    return template.render(
        fit=fit,
        autoscale=autoscale,
        search=search,
        mixtures=mixtures,
        reference=reference,
        summary=summary,
        downstream=downstream,
        objective=objective_label(fit.objective),
        unit=" nats per token" if fit.objective.metric == "loss" else "",
        differences=differences,
        found=[p for p in found if p.quantity in ("objective", "gain")],
        found_losses=[p for p in found if p.quantity not in ("objective", "gain")],
        found_summary=summary_of(found),
        num_target_runs=sum(len(mixture.records) for mixture in mixtures.values()),
        plotted=plotted,
        verdicts=worth_saying(mixtures, differences, base),
        some_better=any(difference.is_better for difference in differences.values()),
        figures={name: figures.as_svg(figure) for name, figure in drawn.items()},
        first=base.records[0],
    )
