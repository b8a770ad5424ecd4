"""What a fit refuses before it reads the runs, or with them."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from autoscale_exp.fit import tell_of_runs
from autoscale_exp.runs.record import write_record
from tests.laws.synthetic import ddo_table
from tests.runs.records import make_record


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "give either runs=<runs.csv or sweep folder> or optima=<optima.csv>, one of the two"),
        (["runs=a.csv", "optima=b.csv"], "give either runs=<runs.csv or sweep folder> or optima=<optima.csv>"),
        (["runs=a.csv", "target_tokens=[9,0]"], "target_tokens[1] is 0; it must lie between 1 and "),
        (["runs=a.csv", "target_tokens=[10000000000000000000]"], "target_tokens[0] is 10000000000000000000; it must"),
        (["runs=a.csv", "uncertainty=some"], "uncertainty is 'some'; allowed are intervals and none"),
        (["runs=a.csv", "num_draws=-1"], "num_draws is -1; it must be at least 0"),
        (["runs=a.csv", "seed=-1"], "seed is -1; it must lie between 0 and 4294967295"),
        (["runs=a.csv"], "runs is 'a.csv', which does not exist"),
        (["optima=a.csv"], "optima is 'a.csv', which does not exist"),
    ],
)
def test_a_request_that_cannot_be_is_refused(overrides, message, refused, tmp_path: Path):
    assert refused("fit", *overrides, f"output_dir={tmp_path}").startswith(message)


@pytest.mark.parametrize(
    "group", ["{domains: a, upper: 0.5}", "{domains: [a], upper: half}", "{domains: [a]}", "{domains: 3, upper: 0.5}"]
)
def test_a_group_that_is_not_written_as_one_is_refused(group, refused, tmp_path: Path):
    write_record(tmp_path / "runs" / "run", make_record())
    line = refused("fit", "runs=.", "output_dir=out", "law=transfer", f"+bounds.groups.web={group}")
    assert line.startswith("bounds.groups.web is {")
    assert line.endswith("; give it as {domains: [...], upper: <share>}")


def test_what_a_fit_reads_is_told(caplog):
    caplog.set_level(logging.INFO)
    tell_of_runs(replace(ddo_table(), validation_domains=["a", "index"]))
    assert caplog.messages == ["14 runs: 7 at 30000, 7 at 100000", "domains: a, b, c", "validation domains: a, index"]
    caplog.clear()
    tell_of_runs(replace(ddo_table(), scales=None))
    assert caplog.messages[0] == "14 runs: 7 at 30K, 7 at 0.1M"
