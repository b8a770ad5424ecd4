"""The `status` job: how far the runs of a sweep or study are."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.base.labels import short_duration, short_label
from autoscale_exp.base.ranges import check_range
from autoscale_exp.config import StatusConf
from autoscale_exp.training.registry import RunState, State, rate_of, seconds_left, states_of, sweeps_in

FILE_COLUMNS = 200  # width of the output without a terminal
COLORS = {State.FAILED: "red", State.DIED: "red", State.RUNNING: "green", State.MISSING: "dim"}


@job("status", lambda: "the sweep goes on")
def main(conf: StatusConf) -> None:
    """Prints the state of every run, once or repeatedly until all are finished."""
    check_range({"seconds": conf.seconds}, 0.1)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = FILE_COLUMNS
    runs = look_at(Path(conf.sweep))
    if not conf.watch:
        console.print(shown(runs))
        return
    with Live(shown(runs), console=console, auto_refresh=False) as live:
        while any(run.state != State.FINISHED for of_sweep in runs.values() for run in of_sweep):
            time.sleep(conf.seconds)
            runs = look_at(Path(conf.sweep))
            live.update(shown(runs), refresh=True)


def look_at(folder: Path) -> dict[Path, list[RunState]]:
    """Reads the states of the runs of all sweeps in a folder.

    Raises:
        UserError: there is none.
    """
    runs = {sweep: states for sweep in sweeps_in(folder) if (states := states_of(sweep))}
    if not runs:
        raise UserError(f"sweep is '{folder}', which has no runs; give the folder of a sweep or of a study")
    return runs


def shown(runs: dict[Path, list[RunState]]) -> Group:
    """A line and a table per sweep."""
    return Group(*(part for sweep, states in runs.items() for part in (summary_of(sweep, states), table_of(states))))


def summary_of(sweep: Path, runs: Sequence[RunState]) -> str:
    """A line on a sweep."""
    counts = {state: sum(run.state == state for run in runs) for state in State}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    pace = f"; {rate_of(runs):,.0f} tokens/s, {short_duration(seconds_left(runs))} left" if rate_of(runs) else ""
    return f"{sweep}: {len(runs)} runs, {told}{pace}"


def table_of(runs: Sequence[RunState]) -> Table:
    """A row per run."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("run", "state", "of tokens", "tokens/s", "loss", "left", ""):
        table.add_column(name, justify="left" if name in ("run", "state", "") else "right", no_wrap=True)
    for run in runs:
        table.add_row(
            run.name,
            run.state,
            f"{run.tokens / run.total_tokens:.0%} of {short_label(run.total_tokens)}" if run.total_tokens else "",
            f"{run.tokens_per_second:,.0f}" if run.tokens_per_second else "",
            f"{run.loss:.4f}" if run.loss is not None else "",
            "" if math.isnan(run.seconds_left) else short_duration(run.seconds_left),
            run.note,
            style=COLORS.get(run.state),
        )
    return table


if __name__ == "__main__":
    main()
