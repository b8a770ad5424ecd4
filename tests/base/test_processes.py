import os
import signal

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.processes import ProcessDied, WorkProcess, wait_for_any


def answer(question: str) -> tuple[str, str | None, int]:
    return question, os.environ.get("WHERE"), os.getpid()


def fail(message: str) -> None:
    raise UserError(message)


class OfTwo(Exception):
    """Like many errors of libraries, which are pickled but cannot be made of their message again."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


def fail_with_two(what: str, where: str) -> None:
    raise OfTwo(what, where)


def die(signum: int) -> None:
    os.kill(os.getpid(), signum)


def start(function, *arguments) -> WorkProcess:
    return WorkProcess(function, arguments, environment={**os.environ, "WHERE": "there"}, preload="json")


def test_a_process_has_an_environment_of_its_own_and_tells_what_the_function_returned():
    process = start(answer, "why")
    assert process.result() == ("why", "there", process.pid)
    assert process.pid != os.getpid()
    assert "WHERE" not in os.environ


def test_an_error_is_raised_here_with_its_traceback_there():
    with pytest.raises(UserError, match="no text") as error:
        start(fail, "no text").result()
    assert "in fail\n    raise UserError(message)" in str(error.value.__cause__)


def test_an_error_that_cannot_be_sent_as_it_is_keeps_its_message_and_traceback():
    with pytest.raises(RuntimeError, match="OfTwo: no graph in the model") as error:
        start(fail_with_two, "no graph", "the model").result()
    assert "in fail_with_two\n    raise OfTwo(what, where)" in str(error.value.__cause__)


def test_a_process_that_is_killed_is_told_of_and_leaves_the_others_alone():
    killed, other = start(die, signal.SIGKILL), start(answer, "still there")
    ended = []
    while len(ended) < 2:
        ended += [process for process in wait_for_any([killed, other], 1.0) if process not in ended]
    with pytest.raises(ProcessDied, match=rf"process {killed.pid} was killed by SIGKILL, as the system does when"):
        killed.result()
    assert other.result()[0] == "still there"
