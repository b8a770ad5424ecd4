"""Figures of fits: weights against scale and responses of the law. Also the style of all figures."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from autoscale_exp.base.labels import short_label
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.reporting.verdicts import objective_label

# Okabe and Ito's palette, which suits every kind of colour vision; markers help in print.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#B8A600")
MARKERS = "osD^vP*X"
Side = Literal["outside lower center", "outside upper center"]
STYLE: Any = {
    "font.size": 12,  # points at the page's full width; a phone shows two thirds of that
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "autoscale_exp",  # the same figure is the same file
}


def look(index: int) -> tuple[str, str]:
    """Colour and marker of the domain, scale or mixture at `index`; from the ninth on, in other pairs."""
    turn, place = divmod(index, len(COLOURS))
    return COLOURS[place], MARKERS[(place + turn) % len(MARKERS)]


def axis_label(fit: Fit) -> str:
    """Name of a fit's objective, with its unit if it has one."""
    return objective_label(fit.objective) + (", nats per token" if fit.objective.metric == "loss" else "")


def legend_outside(figure: Figure, axes: Axes, columns: int = 3, side: Side = "outside lower center") -> None:
    """Adds a legend under or over the axes, where it covers no line and keeps the figure narrow."""
    handles, labels = axes.get_legend_handles_labels()
    widest = max(map(len, labels))
    fitting = max(1, min(columns, 54 // (widest + 6), len(labels)))
    figure.legend(handles, labels, loc=side, ncols=fitting, fontsize=11)


def _token_axis(axes: Axes, tokens: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(tokens)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short_label(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def plot_weights(fit: Fit) -> Figure:
    """Plots the optimal weight of each domain against the token budget, with 90 % intervals. Extrapolations are hollow.

    Each model size has a panel.
    """
    sizes = sorted({entry.params or 0 for entry in fit.scales + fit.targets})
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(sizes), figsize=(max(5.8, 3.6 * len(sizes)), height(len(fit.domains))), sharey=True, squeeze=False
        )
        for axes, params in zip(panels[0], sizes, strict=True):
            _draw_weights(axes, fit, params)
            axes.set(xlabel="token budget, tokens", ylim=(0, None))
            if len(sizes) > 1:
                axes.set_title(f"{short_label(params)} parameters", fontsize=10)
        panels[0][0].set_ylabel("domain weight, share of tokens")
        legend_outside(figure, panels[0][0], 4)
        return figure


def _draw_weights(axes: Axes, fit: Fit, params: int) -> None:
    """Draws a line per domain through the mixtures of one model size, which is 0 if sizes are unknown."""
    entries = [entry for entry in fit.scales + fit.targets if (entry.params or 0) == params]
    entries.sort(key=lambda entry: entry.tokens)
    tokens, targets = [entry.tokens for entry in entries], {id(entry) for entry in fit.targets}
    last_scale = max((entry.tokens for entry in entries if id(entry) not in targets), default=0)
    gaps = [later / earlier for earlier, later in pairwise(tokens) if later > earlier]
    apart = min(gaps, default=2.0) ** 0.2  # factor from the first domain to the last, at one budget
    for i, domain in enumerate(fit.domains):
        colour, marker = look(i)
        shift = apart ** (i / max(len(fit.domains) - 1, 1) - 0.5)  # so that domains do not hide each other
        weights = [entry.weights[domain] for entry in entries]
        known = [k for k, t in enumerate(tokens) if t <= last_scale]
        beyond = [k for k, t in enumerate(tokens) if t >= last_scale]
        for part, style in ((known, "-"), (beyond, "--")):
            axes.plot([tokens[k] * shift for k in part], [weights[k] for k in part], style, color=colour, lw=1.6)
        for k, entry in enumerate(entries):
            if entry.interval:
                axes.plot([tokens[k] * shift] * 2, entry.interval[domain], color=colour, lw=1, alpha=0.6)
            fill = "white" if id(entry) in targets else colour
            label = domain if k == 0 else None
            axes.plot(tokens[k] * shift, weights[k], marker, color=colour, mfc=fill, ms=6, label=label)
    _token_axis(axes, tokens)


def plot_published_weights(domains: list[str], published: dict[int, list[float]], fit: Fit | None) -> Figure:
    """Plots the weights of a published study against the token budget, and those of a fit beside them.

    Args:
        domains: (K,) domains of the published study.
        published: (K,) weights by token budget.
        fit: the fit of this study, or None.
    """
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(8.4, 5.4), sharey=True)
        tokens = sorted(published)
        for i, domain in enumerate(domains):
            colour, marker = look(i)
            weights = [published[budget][i] for budget in tokens]
            panels[0].plot(tokens, weights, "-", color=colour, marker=marker, lw=1.6, ms=6, label=domain)
        _token_axis(panels[0], tokens)
        panels[0].set(title="published", ylabel="domain weight, share of tokens")
        if fit is not None:
            _draw_weights(panels[1], fit, max((entry.params or 0) for entry in fit.scales + fit.targets))
        panels[1].set(title="here")
        for axes in panels:
            axes.set(xlabel="token budget, tokens", ylim=(0, None))
            if axes.get_legend_handles_labels()[1]:
                axes.legend(fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
        return figure


def plot_responses(fit: Fit) -> Figure:
    """Plots the objective relative to the base run against multiples of each domain's base tokens."""
    responses = fit.diagnostics.responses
    with plt.rc_context(STYLE):
        columns = 2 if len(fit.domains) in (2, 4) else 3
        rows = -(-len(fit.domains) // columns)
        figure, grid = plt.subplots(rows, columns, figsize=(6.2, 1.1 + 2.0 * rows), sharey=True, squeeze=False)
        for axes in grid.flat[len(fit.domains) :]:
            axes.set_visible(False)
        for i, domain in enumerate(fit.domains):
            axes = grid.flat[i]
            for s, of_scale in enumerate(responses):
                response = of_scale[i]
                colour, marker = look(s)
                multiples, ratios = np.array(response.points).T
                label = short_label(fit.scales[s].tokens) + " tokens"
                axes.plot(*np.array(response.curve).T, color=colour, lw=1.4)
                axes.plot(multiples, ratios, marker, color=colour, ms=5, label=label)
            axes.set_xscale("log")
            axes.set_xticks([1 / 3, 1, 3], ["1/3", "1", "3"])
            axes.minorticks_off()
            axes.set_title(domain, fontsize=12)
        figure.supxlabel("tokens of the domain, multiples of the base run's", fontsize=12)
        figure.supylabel(f"{objective_label(fit.objective)} / base run's", fontsize=12)
        legend_outside(figure, grid.flat[0], 4, "outside upper center")
        return figure


def height(entries: int) -> float:
    """Height in inches of a figure with `entries` entries in its legend."""
    return 3.9 + 0.23 * -(-entries // 3)


def save_fit_figures(fit: Fit, folder: Path) -> None:
    """Writes weights.png and, if the fit has responses, responses.png."""
    figures = {"weights.png": plot_weights(fit)}
    if fit.diagnostics.responses:
        figures["responses.png"] = plot_responses(fit)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=150)
        plt.close(figure)


def as_svg(figure: Figure) -> str:
    """A figure as an SVG element for a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
