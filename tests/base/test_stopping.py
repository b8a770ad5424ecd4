"""A job that a signal ends says so in one line."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autoscale_exp.base.stopping import SIGNALS, Stopped, StopRequest, signals_blocked

JOB = """
import time

from autoscale_exp.base.job import job
from autoscale_exp.config import FitConf  # makes its schema known


@job("fit", lambda: "all of it is kept")
def main(conf):
    print("begun", flush=True)
    time.sleep(300)


main()
"""


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_job_that_is_stopped_says_in_one_line_what_is_kept(signum, code, tmp_path: Path):
    script = tmp_path / "job.py"
    script.write_text(JOB)
    process = subprocess.Popen(
        [sys.executable, script, "runs=.", f"output_dir={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signum)
    assert process.communicate(timeout=60) == ("", "stopped: all of it is kept\n")
    assert process.returncode == code


@pytest.mark.slow
def test_a_preparation_that_is_stopped_says_in_one_line_that_the_work_stays(tmp_path: Path):
    texts = [" ".join(f"{number * place % 9973:x}" for place in range(300)) for number in range(1, 6001)]
    for domain in ("web", "books", "code"):
        records = (json.dumps({"text": f"{domain} {text}"}) + "\n" for text in texts)
        (tmp_path / f"{domain}.jsonl").write_text("".join(records))
    store = tmp_path / "store"
    overrides = ["data=local", "data.name=large", f"data.path={tmp_path}", f"data.store={store}", "num_workers=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "autoscale_exp.prepare", *overrides, "data.domains=[web,books,code]"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(store.glob("parts/*.lock")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "stopped: what was prepared stays; the same command goes on from there\n"
    assert "Traceback" not in out
    assert not (store / "manifest.json").exists()


class Work:
    """Gets signals one after the other under a request; `known` is what the request said after each."""

    def __init__(self) -> None:
        self.known: list[int | None] = []

    def __call__(self, *signums: int, error: Exception | None = None) -> None:
        with StopRequest() as request:
            for signum in signums:
                signal.raise_signal(signum)
                self.known.append(request.signum)
            if error:
                raise error


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_request_lets_the_work_go_on_and_ends_it_with_its_block(signum):
    before = [signal.getsignal(other) for other in SIGNALS]
    work = Work()
    with pytest.raises(Stopped) as stopped:
        work(signum, signal.SIGTERM)
    assert work.known == [signum, signum]
    assert stopped.value.code == 128 + signum
    assert [signal.getsignal(other) for other in SIGNALS] == before


@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_ctrl_c_does_not_wait(first):
    work = Work()
    with pytest.raises(Stopped):
        work(first, signal.SIGINT)
    assert work.known == [first]


def test_an_error_of_the_work_is_not_hidden_by_a_signal():
    with pytest.raises(ZeroDivisionError):
        Work()(signal.SIGTERM, error=ZeroDivisionError())


def test_a_request_hears_what_was_sent_while_it_was_blocked():
    with signals_blocked(signal.SIGTERM):
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        with pytest.raises(Stopped):
            Work()()


def test_a_ctrl_c_that_the_shell_keeps_from_the_job_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Work()(signal.SIGINT, signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
