"""Fits as tables in a terminal."""

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from autoscale_exp.base.labels import number, percent, short_label
from autoscale_exp.laws.fit_file import Backtest, Fit, FittedMixture
from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.reporting.verdicts import objective_label


def open_console() -> Console:
    """Opens a console for tables, with the width of the terminal, or without a limit for a file or a pipe.

    It prints text as it is: rich would take what stands in brackets, as in `web[en]`, for its markup.
    """
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
    console = Console(**plain, soft_wrap=True)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(**plain, width=10_000)


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a whole table. If it is too wide, it is continued below, with its first column repeated."""
    widths = [
        max(len(line) for cell in (name, *cells) for line in cell.split("\n")) + 3
        for name, *cells in zip(columns, *rows, strict=True)
    ]
    start = 1
    while start < len(columns) or start == 1:
        stop, width = start + 1, widths[0] + 1 + sum(widths[start : start + 1])
        while stop < len(columns) and width + widths[stop] <= console.width:
            width += widths[stop]
            stop += 1
        table = Table(title=title if start == 1 else f"{title}, continued", title_justify="left")
        table.add_column(columns[0], overflow="fold")
        for name in columns[start:stop]:
            table.add_column(name, justify="right", overflow="fold")
        for row in rows:
            table.add_row(row[0], *row[start:stop])
        console.print(table, soft_wrap=False)
        start = stop


def show_fit(fit: Fit) -> None:
    """Prints verdicts, weights by scale and target, the bounds that hold, and what to know before trusting them."""
    console = open_console()
    for entry in fit.targets:
        if entry.verdict:
            console.print(f"{entry.label}, {objective_label(fit.objective)}: {entry.verdict}")
        _show_next_runs(console, entry)
    entries = fit.scales + fit.targets
    kinds = ["scale"] * len(fit.scales) + ["target"] * len(fit.targets)
    labels = [entry.label if several_sizes(fit) else short_label(entry.tokens) for entry in entries]
    columns = [f"{kind} {label}" for kind, label in zip(kinds, labels, strict=True)]
    rows = [[domain, *(_weight_cell(entry, domain) for entry in entries)] for domain in fit.domains]
    objective = objective_label(fit.objective)
    title = f"domain weights (shares of the tokens, 90 % intervals), law {fit.law}, objective {objective}"
    print_table(console, title, ["domain", *columns], rows)
    for label, entry in zip(labels, entries, strict=True):
        for bound in entry.active_bounds:
            console.print(f"{label}: on a bound: {bound}")
    for entry in fit.targets:
        if entry.converged is False:
            console.print(f"{short_label(entry.tokens)}: this is no exact optimum ({entry.method}); do not rely on it")
        _show_other_metric(console, fit, entry)
    for tested in [fit.diagnostics.backtest, *fit.diagnostics.further_backtests]:
        if tested is not None:
            console.print(backtest_text(fit, tested))
    for note in fit.diagnostics.notes:
        console.print(f"note: {note}")


def several_sizes(fit: Fit) -> bool:
    """Whether the mixtures of a fit are for several model sizes."""
    return len({entry.params for entry in fit.scales + fit.targets}) > 1


def backtest_text(fit: Fit, tested: Backtest) -> str:
    """A back-test as a sentence, in units of the objective and in shares of its optimum at that scale."""
    level = fit.scales[-1].objective_value
    errors = (tested.level_error, tested.difference_error, tested.difference_spread)
    unit = " nats per token" if fit.objective.metric == "loss" else f" of {fit.objective.metric}"
    off, error, spread = (
        number(value, level or 0.0) + unit + (f" ({percent(value / level)})" if level else "") for value in errors
    )
    return (
        f"back-test: without the {tested.runs} runs of the {tested.left_out} ({short_label(tested.tokens)} tokens) the "
        f"law predicts their mean off by {off} and their differences within {error}, where they spread by {spread}"
    )


def _weight_cell(entry: FittedMixture, domain: str) -> str:
    interval = entry.interval and entry.interval[domain]
    return f"{entry.weights[domain]:.4f}" + (f"  {interval[0]:.2f}-{interval[1]:.2f}" if interval else "")


def _show_next_runs(console: Console, entry: FittedMixture) -> None:
    """Prints the commands that train the most telling runs, if the verdict is open and more runs may close it."""
    if not entry.next_runs or not entry.is_open:
        return
    console.print("train the most useful next proxy runs, then fit again:")
    sizes = {entry.params, *(run.params for run in entry.next_runs)}
    for run in entry.next_runs:
        total = short_label(sum(run.domain_tokens.values()))
        size = f" and {short_label(run.params)} parameters" if run.params and len(sizes) > 1 else ""
        amounts = ", ".join(f"{domain} {short_label(tokens)}" for domain, tokens in run.domain_tokens.items())
        console.print(f"  {run.run}, {total} tokens{size}, explains {percent(run.explained, 0)} of the gain's variance")
        console.print(f"    {run.command or f'seed {run.seed}, tokens: {amounts}'}")


def show_downstream(downstream: DownstreamTable, mixtures: list[str]) -> None:
    """Prints scores by task and mixture, with a star for those that are best by more than the noise."""
    rows = []
    for task, row in downstream.items():
        scores = [row.get(name) for name in mixtures]
        rows.append([task, *(score.text + "*" * score.best if score else "" for score in scores)])
    title = "downstream, shares of 1 or as named; * better than every other by more than the noise"
    print_table(open_console(), title, ["task", *mixtures], rows)


def _show_other_metric(console: Console, fit: Fit, entry: FittedMixture) -> None:
    """Prints the optimum under the other metric, if it differs by more than the interval."""
    other = "perplexity" if fit.objective.metric == "loss" else "loss"
    weights, interval = entry.weights_under(other), entry.interval
    if not weights or not interval:
        return
    outside = [d for d in fit.domains if not interval[d][0] <= weights[d] <= interval[d][1]]
    if outside:
        mine = ", ".join(f"{d} {entry.weights[d]:.3f}" for d in fit.domains)
        theirs = ", ".join(f"{d} {weights[d]:.3f}" for d in fit.domains)
        console.print(
            f"{short_label(entry.tokens)}: the objective decides: {fit.objective.metric} gives {mine}; "
            f"{other} gives {theirs}"
        )
