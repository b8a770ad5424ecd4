"""The watch over a sweep: checks all its runs before the first starts, shows progress, and sums up at the end.

Runs are watched through the files in their folders, so it does not matter in which process, or on which machine
with the same file system, a launcher puts them.
"""

import atexit
import json
import math
import os
import shlex
import signal
import socket
import threading
import time
import traceback
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, NoReturn, Self

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import user_errors
from autoscale_exp.base.multirun import jobs_of
from autoscale_exp.base.stopping import SIGNALS, handle_signals, signals_blocked, stop_at
from autoscale_exp.config import TrainConf
from autoscale_exp.data.store import TokenStore
from autoscale_exp.reporting.next_steps import after_sweep
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.runs.record import FAILURE, is_recorded, read_failure, read_record
from autoscale_exp.runs.table import TABLE, write_run_table
from autoscale_exp.training.claim import SWEEP, SWEEP_STARTED, end_workers, holder, this_command, this_process
from autoscale_exp.training.plan import RESUME_POINT, is_finished, num_devices, plan_run, store_of

LOOK_SECONDS = 0.5
MOST_NAMES = 4  # of runs that a line lists


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        name: of the run.
        folder: where it writes.
        num_tokens: that it trains on.
        overrides: that make `train` do this run.
        finished: whether its result was there when the sweep started.
    """

    name: str
    folder: Path
    num_tokens: int
    overrides: list[str]
    finished: bool

    @property
    def command(self) -> str:
        """Runs this one alone."""
        return shlex.join(["python", "-m", "autoscale_exp.train", *self.overrides, "hydra.mode=RUN"])


class SweepCallback(Callback):
    """Hydra callback of the `train` job; does nothing in single runs."""

    def __init__(self) -> None:
        self._watch: SweepWatch | None = None
        self._watching = ExitStack()
        self._folder = Path()
        self._stopping = False

    def __reduce__(self) -> tuple[Any, ...]:
        return SweepCallback, ()  # launchers send callbacks to their workers; the watch stays here

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Checks every run of the sweep, then starts to watch.

        SystemExit ends the job here, because Hydra turns an exception in a callback into a warning.
        """
        self._folder = Path(config.hydra.sweep.dir)
        try:
            with user_errors():
                self._watch = SweepWatch(plan_sweep(config))
        except Exception:
            traceback.print_exc()
            raise SystemExit(1) from None
        os.environ[SWEEP] = this_process()
        os.environ[SWEEP_STARTED] = str(time.time())
        self._watching.enter_context(self._watch)
        atexit.register(self._watching.close)  # a sweep that is stopped gives the terminal its cursor back
        handle_signals(self._stop)
        if "joblib" in config.hydra.launcher._target_:  # the watch's thread goes on to receive them
            self._watching.enter_context(signals_blocked(*SIGNALS))

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        """Ends the sweep once its workers have left their runs; a second Ctrl-C does not wait for them."""
        assert self._watch is not None
        if self._stopping and signum != signal.SIGINT:
            return
        if not self._stopping:
            self._stopping = True
            end_workers(run.folder for run in self._watch.runs if not is_recorded(run.folder))
        stop_at(signum, frame)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Writes the run table; lists failed runs with the commands that repeat them and exits with code 1."""
        assert self._watch is not None
        watch, runs = self._watch, self._watch.runs
        self._watching.close()
        failed = [run for run in runs if not is_recorded(run.folder)]
        for run in failed:
            watch.say(f"{run.name} failed: {read_failure(run.folder)}\n  again: {run.command}")
        if failed:
            watch.say(f"{len(failed)} of {len(runs)} runs failed; the sweep's command starts only these again")
        if len(failed) < len(runs):
            try:
                write_run_table(self._folder)
            except UserError as error:  # runs of another experiment lie in the same folder
                watch.say(f"no table is written: {error}")
                raise SystemExit(1) from None
        if failed:
            raise SystemExit(1)
        watch.say(f"{len(runs)} runs are finished; their table is '{self._folder / TABLE}'")
        is_design = OmegaConf.get_type(config.design) is not SingleConf
        # Of the one mixture; of a sweep over several, or over what its path depends on, there is none.
        mixture_file = OmegaConf.select(config, "mixture.path", throw_on_resolution_failure=False)
        watch.say(after_sweep(self._folder, is_design=is_design, search=config.search, mixture_file=mixture_file))


def is_worker() -> bool:
    """Whether the sweep's process started this one, on this machine."""
    return this_command() == f"{os.getppid()}@{socket.gethostname()}"


@cache
def end_with_sweep() -> None:
    """Makes a worker end with the process of its sweep, or it would train on for no one."""
    if not is_worker():
        return  # the sweep's own process, or one on another machine, whose launcher looks after it
    sweep = os.getppid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # where there is nothing to save, the sweep ends its workers

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def leave_to_sweep() -> NoReturn:
    """Tells the sweep that its worker was told to end, and waits for it to end them all.

    A worker that ended by itself would take the others along before they have written their checkpoints.
    """
    with suppress(ProcessLookupError):
        os.kill(int(this_command().split("@")[0]), signal.SIGTERM)
    while True:
        time.sleep(LOOK_SECONDS)


def plan_sweep(config: DictConfig) -> list[PlannedRun]:
    """Composes and checks every run of a sweep, in the order in which they are launched.

    Raises:
        UserError: a run cannot be made as configured.
    """
    runs: dict[str, PlannedRun] = {}
    store: TokenStore | None = None
    for overrides, conf in jobs_of(config):
        assert isinstance(conf, TrainConf)
        store = store or store_of(conf, overrides)
        if num_devices(conf) > 1:
            raise UserError(
                "trainer.devices is above 1 in a multirun, where Lightning would start the sweep again in every "
                "process; start one run per command with design.index=<k> hydra.mode=RUN, or one task per GPU"
            )
        plan = plan_run(conf, store)
        folder = Path(config.hydra.sweep.dir) / "runs" / conf.run_name
        if conf.run_name in runs:
            raise UserError(f"two runs of the sweep have the name '{conf.run_name}'; set run_name so that they differ")
        num_tokens = plan.sampler.num_rows * store.seq_len
        runs[conf.run_name] = PlannedRun(conf.run_name, folder, num_tokens, overrides, is_finished(plan, folder))
    return list(runs.values())


class SweepWatch:
    """Follows the runs of a sweep from a thread of its own: a line per finished run, and on a terminal a live table.

    Attributes:
        current: the watch of this process.
    """

    current: ClassVar["SweepWatch | None"] = None

    def __init__(self, runs: list[PlannedRun]) -> None:
        self.runs = runs
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = time.time()
        self._training: tuple[float, int] | None = None  # since when a run trains, and tokens that were done then
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._ended = {run.name for run in runs if run.finished}
        self._width = max([24, *(len(run.name) for run in runs)])
        self._num_tokens = sum(run.num_tokens for run in runs if not run.finished)
        self._done_tokens = 0
        self._known_commands = {this_command()}
        SweepWatch.current = self

    def __enter__(self) -> Self:
        """Says what is to be done and begins to watch."""
        skipped = f", {len(self._ended)} finished before" if self._ended else ""
        count = f"{len(self.runs)} runs" if len(self.runs) > 1 else self.runs[0].name
        self.say(f"{count}{skipped}; {self._num_tokens / 1e6:.2f}M tokens to train on")
        self._tell_of_others()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Looks a last time and ends."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        self._console.print(text, markup=False)

    def kept(self) -> str:
        """What there is of the runs once they are stopped."""
        finished = [run for run in self.runs if is_recorded(run.folder)]
        begun = [run for run in self.runs if run not in finished and (run.folder / RESUME_POINT).exists()]
        if len(self.runs) == 1 and begun:
            written = time.localtime((begun[0].folder / RESUME_POINT).stat().st_mtime)
            return (
                f"{begun[0].name} has a checkpoint of {time.strftime('%H:%M:%S', written)}; "
                "the same command goes on from there"
            )
        if len(self.runs) == 1:
            state = "is finished" if finished else "has no checkpoint; the same command starts it anew"
            return f"{self.runs[0].name} {state}"
        names = [run.name for run in begun[:MOST_NAMES]] + ["..."] * (len(begun) > MOST_NAMES)
        have = "has" if len(begun) == 1 else "have"
        checkpoints = f"{len(begun)} {have} a checkpoint ({', '.join(names)})" if begun else "no other has a checkpoint"
        return (
            f"{len(finished)} of {len(self.runs)} runs are finished and {checkpoints}; "
            "the same command goes on from there"
        )

    def _follow(self) -> None:
        if not self._console.is_terminal:
            while not self._stopping.wait(LOOK_SECONDS):
                self._report_ended()
                self._tell_of_others()
            self._report_ended()
            return
        with Live(console=self._console, refresh_per_second=2, transient=True) as live:
            while not self._stopping.wait(LOOK_SECONDS):
                self._report_ended()
                self._tell_of_others()
                live.update(self._table())
            self._report_ended()

    def _tell_of_others(self) -> None:
        """A line for each other command that trains some of the runs."""
        waiting = [run for run in self.runs if run.name not in self._ended]
        held = [(found, run.name) for run in waiting if (found := holder(run.folder))]
        for command in {found.command for found, _ in held} - self._known_commands:
            self._known_commands.add(command)
            names = [name for found, name in held if found.command == command]
            other = next(found for found, _ in held if found.command == command)
            subject = f"{names[0]} is" if len(names) == 1 else f"{len(names)} of the runs are"
            self.say(f"{subject} being trained by {other}; waiting for the result")

    def _report_ended(self) -> None:
        if self._training is None and (running := self._running()):
            self._training = time.time(), sum(content["tokens"] for _, content in running)
        for run in self.runs:
            if run.name in self._ended:
                continue
            failure = run.folder / FAILURE
            if is_recorded(run.folder):
                self._ended.add(run.name)
                self._done_tokens += run.num_tokens
                record = read_record(run.folder)
                loss = sum(record.losses.values()) / len(record.losses)
                self._say_ended(run, f"mean loss {loss:.4f} nats  {record.tokens_per_second:>9,.0f} tokens/s")
            elif failure.exists() and failure.stat().st_mtime >= self._started:
                self._ended.add(run.name)
                self._num_tokens -= run.num_tokens
                self._say_ended(run, f"failed: {read_failure(run.folder).splitlines()[0]} ")

    def _say_ended(self, run: PlannedRun, what: str) -> None:
        count = f"[{len(self._ended):>{len(str(len(self.runs)))}}/{len(self.runs)}]"
        times = f"{_minutes(time.time() - self._started)} gone, {_minutes(self._seconds_left())} left"
        self._console.print(f"{count} {run.name:<{self._width}} {what}  {times}", markup=False)

    def _running(self) -> list[tuple[PlannedRun, dict[str, Any]]]:
        """The runs in progress, each with what it tells of itself."""
        running = []
        for run in self.runs:
            progress = run.folder / "progress.json"
            with suppress(FileNotFoundError):
                if run.name not in self._ended and progress.stat().st_mtime >= self._started:
                    running.append((run, json.loads(progress.read_text(encoding="utf-8"))))
        return running

    def _seconds_left(self) -> float:
        """At the pace since the first run began to train, as workers take a while to start; NaN before."""
        tokens = self._done_tokens + sum(content["tokens"] for _, content in self._running())
        started, before = self._training or (math.nan, 0)
        return (
            (time.time() - started) * (self._num_tokens - tokens) / (tokens - before) if tokens > before else math.nan
        )

    def _table(self) -> Table:
        """The runs in progress and the whole."""
        table = Table.grid("", "", "", "", padding=(0, 2))
        rate, tokens = 0.0, self._done_tokens
        for run, content in self._running():
            rate, tokens = rate + content["tokens_per_second"], tokens + content["tokens"]
            bar = ProgressBar(content["total_tokens"], content["tokens"], width=24)
            table.add_row(
                run.name, bar, f"{content['tokens_per_second']:,.0f} tokens/s", f"loss {content['train_loss']:.3f}"
            )
        left = _minutes(self._seconds_left())
        whole = ProgressBar(self._num_tokens, tokens, width=24)
        table.add_row(f"{len(self._ended)} of {len(self.runs)} runs", whole, f"{rate:,.0f} tokens/s", f"{left} left")
        return table


def what_is_kept() -> str:
    """What this process leaves behind once it is stopped."""
    if SweepWatch.current is None:
        return "nothing was begun; the same command starts anew"
    SweepWatch.current.close()
    return SweepWatch.current.kept()


def _minutes(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
