"""Does the parts of a corpus in worker processes, and shows their progress."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import rich.progress

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.stopping import signals_blocked
from autoscale_exp.data.preparation.corpus import Part
from autoscale_exp.data.preparation.encoding import Threads
from autoscale_exp.data.preparation.parts import Report

log = logging.getLogger(__name__)

WAIT_SECONDS = 0.5  # before a second look at another process's parts; each further wait is twice as long
LONGEST_WAIT_SECONDS = 10.0
Work = Callable[[Part, Report, Threads], bool]  # does a part; False if another process is at it


class ProgressDisplay:
    """Shows a line per domain on the terminal, with the tokens written and the pace."""

    def __init__(self) -> None:
        columns = (
            "{task.description:<28}",
            rich.progress.BarColumn(bar_width=24),
            "{task.fields[rate]}",
            rich.progress.TimeElapsedColumn(),
        )
        self._display = rich.progress.Progress(*columns)
        self._tasks: dict[str, Any] = {}
        self._tokens: Counter[str] = Counter()
        self._started: dict[str, float] = {}

    def __enter__(self) -> "ProgressDisplay":
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks.values():
            self._display.update(task, total=1, completed=1)
        self._display.stop()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Shows a step without a count."""
        task = self._display.add_task(name, total=None, rate="")
        yield
        self._display.update(task, total=1, completed=1)

    def report(self, domain: str, tokens: int) -> None:
        """Adds tokens written for a domain."""
        if not tokens:
            return
        if domain not in self._tasks:
            self._tasks[domain] = self._display.add_task(f"tokenizing {domain}", total=None, rate="")
            self._started[domain] = time.perf_counter()
        self._tokens[domain] += tokens
        seconds = max(time.perf_counter() - self._started[domain], 0.1)  # the first report may come at once
        rate = self._tokens[domain] / seconds / 1e6
        text = f"{self._tokens[domain] / 1e6:.2f}M tokens, {rate:.2f}M tokens/s"
        self._display.update(self._tasks[domain], rate=text)

    @contextmanager
    def listening(self, reports: Any) -> Iterator[None]:
        """Shows what worker processes put into a queue."""

        def listen() -> None:
            for domain, tokens in iter(reports.get, None):
                self.report(domain, tokens)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield
        finally:
            reports.put(None)
            thread.join()


def run_parts(
    work: Work,
    parts: Sequence[Part],
    num_workers: int,
    progress: ProgressDisplay,
    first: Collection[Part] = (),
    check: Callable[[], None] = lambda: None,
) -> None:
    """Does every part, the largest first, and waits for those that another process does.

    A single part is done here, with `num_workers` threads. Else each process has one thread, until fewer parts are left
    than there are processes. The parts in `first` come before the others. After each of these, `check` is called here;
    it may raise an error to end the work.
    """
    waiting = sorted(parts, key=lambda part: (part not in first, -part.size))

    def is_busy(part: Part, is_done: bool) -> bool:
        if is_done and part in first:
            check()
        return not is_done

    seconds = WAIT_SECONDS
    while waiting:
        if min(num_workers, len(waiting)) == 1:
            busy = [part for part in waiting if is_busy(part, work(part, progress.report, lambda: num_workers))]
        else:
            busy = _run_in_pool(work, waiting, num_workers, progress, is_busy)
        if busy:
            if seconds == WAIT_SECONDS:
                log.info("another process is at work on %d parts of this store; waiting for it", len(busy))
            time.sleep(seconds)
            seconds = min(2 * seconds, LONGEST_WAIT_SECONDS)
        waiting = busy


def _run_in_pool(
    work: Work,
    parts: Sequence[Part],
    num_workers: int,
    progress: ProgressDisplay,
    is_busy: Callable[[Part, bool], bool],
) -> list[Part]:
    """Does the parts in processes; returns those that another process does."""
    context = multiprocessing.get_context("spawn")  # threads of the tokenizer and the display do not survive a fork
    reports = context.SimpleQueue()
    unfinished = context.Value("q", len(parts))
    stopping = context.RawValue("b", False)
    initargs = (work, reports, unfinished, num_workers, stopping)
    with (
        progress.listening(reports),
        ProcessPoolExecutor(num_workers, context, initializer=_begin_worker, initargs=initargs) as pool,
    ):
        with signals_blocked(signal.SIGINT):  # this process ends its workers
            futures = {pool.submit(_do_in_worker, part): part for part in parts}
        try:
            return [futures[done] for done in as_completed(futures) if is_busy(futures[done], done.result())]
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, as happens when memory runs out; run the same command again with fewer "
                "num_workers: it goes on where it stopped"
            ) from None
        except BaseException:
            stopping.value = True  # parts in progress end at their next report, to which a thread still listens
            pool.shutdown(cancel_futures=True)
            raise


_in_worker: tuple[Work, Any, Any, int, Any]  # in a worker process: the arguments from `run_parts`


class _Stopped(Exception):
    """Another part failed, so this one is given up."""


def _begin_worker(work: Work, reports: Any, unfinished: Any, num_workers: int, stopping: Any) -> None:
    global _in_worker
    _in_worker = work, reports, unfinished, num_workers, stopping
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed; it would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only workers call this"
    parent.join()
    os._exit(1)


def _do_in_worker(part: Part) -> bool:
    work, reports, unfinished, num_workers, stopping = _in_worker

    def report(domain: str, tokens: int) -> None:
        if tokens:
            if stopping.value:
                raise _Stopped
            reports.put((domain, tokens))

    try:
        return work(part, report, lambda: max(1, num_workers // max(1, unfinished.value)))
    finally:
        with unfinished.get_lock():
            unfinished.value -= 1
