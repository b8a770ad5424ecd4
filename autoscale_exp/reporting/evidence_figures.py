"""Figures of regret against brute force and of optima against scale."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from autoscale_exp.base.labels import short_label
from autoscale_exp.reporting.figures import STYLE, height, legend_outside, look
from autoscale_exp.reporting.regret import BruteForce
from autoscale_exp.reporting.shift import ScaleOptimum
from autoscale_exp.reporting.target_figures import WIDTH

SIDE_BY_SIDE = 0.75  # width of the markers of one scale, where scales are 1 apart


def plot_regrets(found: BruteForce) -> Figure:
    """Plots the regret of each mixture on the smooth surface, with 90 % intervals, in percent, least regret first."""
    with plt.rc_context(STYLE):
        rows = sorted(found.regrets, key=lambda name: found.regrets[name].smooth)
        figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.34 * len(rows)))
        for y, name in enumerate(rows):
            colour, marker = look(list(found.regrets).index(name))
            regret = found.regrets[name]
            axes.plot([100 * end for end in regret.interval], [y, y], color=colour, lw=2)
            axes.plot(100 * regret.smooth, y, marker, color=colour, ms=8)
        axes.axvline(0, color="0.4", lw=1, ls=":")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("% above the best of all mixtures (left is better)")
        return figure


def plot_optima(optima: Mapping[str, ScaleOptimum], domains: Sequence[str]) -> Figure:
    """Plots the best shares by scale, with 90 % intervals. Markers of extrapolated ones are hollow."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, height(len(domains))))
        for column, of in enumerate(optima.values()):
            for k, domain in enumerate(domains):
                colour, marker = look(k)
                at = column + SIDE_BY_SIDE * ((k + 0.5) / len(domains) - 0.5)
                if of.optimum.interval:
                    axes.plot([at, at], of.optimum.interval[domain], color=colour, lw=1.5)
                fill = colour if of.num_scales == 1 else "white"
                label = domain if column == 0 else None
                axes.plot(at, of.optimum.weights[domain], marker, color=colour, mfc=fill, mew=1.6, ms=7, label=label)
        told = [
            short_label(of.optimum.tokens) + ("\nextrapolated" if of.num_scales > 1 else "") for of in optima.values()
        ]
        axes.set_xticks(range(len(told)), told)
        axes.set(xlabel="token budget", ylabel="share of the tokens", ylim=(0, None))
        axes.grid(visible=False, axis="x")
        legend_outside(figure, axes)
        return figure
