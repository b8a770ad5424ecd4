"""Figures of target runs: differences with intervals, curves, finished runs by budget, losses per domain."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from autoscale_exp.base.labels import short_label
from autoscale_exp.reporting.comparison import Difference
from autoscale_exp.reporting.figures import STYLE, height, legend_outside, look
from autoscale_exp.reporting.savings import Saving, tokens_to_reach
from autoscale_exp.reporting.target_runs import MixtureRuns
from autoscale_exp.reporting.verdicts import saved

WIDTH = 6.2  # inches


def plot_differences(differences: Mapping[str, Difference], reference: str) -> Figure:
    """Plots the difference of each mixture from the reference, with its 90 % interval, in percent, best first.

    Filled markers are for differences beyond the noise.
    """
    with plt.rc_context(STYLE):
        rows = sorted(differences.values(), key=lambda difference: difference.mean)
        figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.34 * len(rows)))
        for y, difference in enumerate(rows):
            colour, marker = look(1 + list(differences).index(difference.mixture))  # the reference is the first
            share = 100 / difference.base
            if difference.interval:
                axes.plot([end * share for end in difference.interval], [y, y], color=colour, lw=2)
            fill = "white" if difference.within_noise else colour
            axes.plot(difference.mean * share, y, marker, color=colour, mfc=fill, mew=1.6, ms=8)
        axes.axvline(0, color="0.4", lw=1, ls=":")
        axes.set_yticks(range(len(rows)), [difference.mixture for difference in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"% of {reference}'s objective (left is better)")
        return figure


def plot_validation_curves(
    mixtures: Mapping[str, MixtureRuns],
    differences: Mapping[str, Difference],
    savings: Mapping[str, Saving],
    label: str,
) -> Figure:
    """Plots the objective against tokens for each mixture, with a thin line per seed.

    If a mixture's gain exceeds the noise, a marker shows where it reaches the reference's end, the legend its saving.

    Args:
        mixtures: target runs by mixture.
        differences: differences from the reference, by mixture.
        savings: savings against the reference, by mixture.
        label: label of the objective.
    """
    (base,) = (mixture for name, mixture in mixtures.items() if name not in differences)
    end = float(base.mean_curve[-1])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, height(len(mixtures))))
        axes.axhline(end, color="0.4", lw=1, ls=":")
        for i, (name, mixture) in enumerate(mixtures.items()):
            colour, marker = look(i)
            for values in mixture.curves:
                axes.plot(mixture.tokens, values, color=colour, lw=0.7, alpha=0.5)
            is_better = name in differences and differences[name].is_better
            share = saved(differences[name], savings[name])[0] if is_better else ""
            text = f"{name}, {share.removeprefix('+')} sooner" if share else name
            every = (i % 4, 4) if len(mixture.tokens) > 8 else None  # so that close markers stay visible
            mean = mixture.mean_curve
            axes.plot(mixture.tokens, mean, marker, ls="-", color=colour, lw=1.8, ms=5, markevery=every, label=text)
            at = tokens_to_reach(mixture.tokens, mean, end)
            if share and at is not None:
                axes.plot(at, end, marker, color=colour, mec="black", mew=1.2, ms=9, zorder=5)
        late = np.concatenate([m.curves[:, len(m.tokens) // 2 :].ravel() for m in mixtures.values()])
        margin = 0.08 * np.ptp(late) or 0.1
        axes.set(xlabel="training tokens", ylabel=label)
        axes.set(xlim=(0, base.tokens[-1] * 1.02), ylim=(late.min() - margin, late.max() + margin))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short_label(x) if x else "0"))
        legend_outside(figure, axes)
        return figure


def plot_budgets(budgets: Mapping[int, Mapping[str, MixtureRuns]], reference: str, label: str) -> Figure:
    """Plots the final objective against the token budget, both on log axes, with a dot per seed and a line of means."""
    *_, mixtures = budgets.values()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, height(len(mixtures))))
        axes.axhline(float(mixtures[reference].final.mean()), color="0.4", lw=1, ls=":")
        for i, name in enumerate(mixtures):
            colour, marker = look(i)
            of_name = {budget: of[name].final for budget, of in budgets.items() if name in of}
            for budget, final in of_name.items():
                axes.plot([budget] * len(final), final, marker, color=colour, ms=4, alpha=0.5)
            means = [float(final.mean()) for final in of_name.values()]
            axes.plot([*of_name], means, marker, ls="-", color=colour, lw=1.8, ms=6, label=name)
        axes.set(xscale="log", yscale="log", xlabel="token budget", ylabel=label)
        axes.set_xticks([*budgets])
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short_label(x)))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        legend_outside(figure, axes)
        return figure


def plot_domain_losses(mixtures: Mapping[str, MixtureRuns], reference: str) -> Figure:
    """Plots the final loss of each validation domain less the reference's, with a dot per seed."""
    losses = {name: [record.losses for record in mixture.records] for name, mixture in mixtures.items()}
    domains = list(losses[reference][0])
    base = {domain: np.mean([of_seed[domain] for of_seed in losses[reference]]) for domain in domains}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 1.3 + len(domains) * max(0.45, 0.1 * len(mixtures))))
        for i, (name, of_seeds) in enumerate(losses.items()):
            colour, marker = look(i)
            for y, domain in enumerate(domains):
                less = [of_seed[domain] - base[domain] for of_seed in of_seeds]
                beside = [y + (i - (len(losses) - 1) / 2) * min(0.22, 0.8 / len(losses))] * len(less)
                axes.plot(less, beside, marker, color=colour, ms=6, alpha=0.8, label=name if y == 0 else None)
        axes.axvline(0, color="0.4", lw=1, ls=":")
        axes.set_yticks(range(len(domains)), domains)
        axes.set_ylim(len(domains) - 0.5, -0.5)
        for y in range(1, len(domains)):
            axes.axhline(y - 0.5, color="0.9", lw=0.8)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"loss less {reference}'s mean, nats per token (left is better)")
        legend_outside(figure, axes)
        return figure
