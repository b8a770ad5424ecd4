"""Fits as a person reads them in a terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.runs.design import short_label


def show_fit(content: dict[str, Any]) -> None:
    """Prints weights by scale and target, what holds them, verdicts, and what to know before trusting them."""
    console = Console(highlight=False, soft_wrap=True)
    columns = content["scales"] + content["targets"]
    table = Table(title=f"domain weights, law {content['law']}, objective {content['objective']['name']}")
    table.add_column("domain")
    for i, entry in enumerate(columns):
        kind = "scale" if i < len(content["scales"]) else "target"
        table.add_column(f"{kind} {short_label(entry['tokens'])}", justify="right")
    for domain in content["domains"]:
        cells = []
        for entry in columns:
            interval = entry["interval"] and entry["interval"][domain]
            spread = f"  {interval[0]:.2f}-{interval[1]:.2f}" if interval else ""
            cells.append(f"{entry['weights'][domain]:.4f}{spread}")
        table.add_row(domain, *cells)
    console.print(table)
    for entry in columns:
        label = short_label(entry["tokens"])
        for bound in entry["active_bounds"]:
            console.print(f"{label}: on a bound: {bound}")
    for entry in content["targets"]:
        if not entry.get("converged", True):
            console.print(
                f"{short_label(entry['tokens'])}: this is no exact optimum ({entry['method']}); do not rely on it"
            )
        if entry.get("verdict"):
            console.print(f"{short_label(entry['tokens'])}: {entry['verdict']}")
        _show_other_metric(console, content, entry)
    tested = content["diagnostics"].get("backtest")
    if tested:
        console.print(
            f"back-test: without the runs at {short_label(tested['tokens'])} the law predicts their mean off by "
            f"{tested['level_error']:+.4f} and their differences within {tested['difference_error']:.4f}, "
            f"where they spread by {tested['difference_spread']:.4f}"
        )
    for note in content["diagnostics"]["notes"]:
        console.print(f"note: {note}")


def show_downstream(downstream: DownstreamTable, mixtures: list[str]) -> None:
    """Prints scores by task and mixture; those that are best by more than the noise have a star."""
    table = Table(title="downstream; * better than every other by more than the noise")
    table.add_column("task")
    for name in mixtures:
        table.add_column(name, justify="right")
    for task, row in downstream.items():
        scores = [row.get(name) for name in mixtures]
        table.add_row(task, *(score.text + "*" * score.best if score else "" for score in scores))
    Console(highlight=False).print(table)


def _show_other_metric(console: Console, content: dict[str, Any], entry: dict[str, Any]) -> None:
    """The optimum under the other metric, where it differs by more than the interval."""
    other = "perplexity" if content["objective"]["metric"] == "loss" else "loss"
    weights, interval = entry.get(f"{other}_weights"), entry["interval"]
    if not weights or not interval:
        return
    outside = [d for d in content["domains"] if not interval[d][0] <= weights[d] <= interval[d][1]]
    if outside:
        mine = ", ".join(f"{d} {entry['weights'][d]:.3f}" for d in content["domains"])
        theirs = ", ".join(f"{d} {weights[d]:.3f}" for d in content["domains"])
        console.print(
            f"{short_label(entry['tokens'])}: the objective decides: {content['objective']['metric']} gives {mine}; "
            f"{other} gives {theirs}"
        )
