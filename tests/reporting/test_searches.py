from pathlib import Path

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.reporting.searches import read_searches
from autoscale_exp.runs.record import write_record
from autoscale_exp.runs.study_file import StudyFile, write_study
from tests.runs.records import make_record


def trained(folder: Path, *runs: str) -> None:
    for run in runs:
        write_record(folder / "runs" / run, make_record(run))


def names(records):
    return [record.run for record in records]


def test_a_search_that_is_no_studys_is_charged_to_its_fits(tmp_path: Path):
    trained(tmp_path, "base", "web_x3")
    searches = read_searches(tmp_path, ["fitted"])
    assert names(searches.of("fitted")) == names(searches.all_runs) == ["base", "web_x3"]
    assert searches.of("uniform") == []


def test_each_rival_of_a_study_is_charged_with_its_own_runs_and_those_that_it_shares(tmp_path: Path):
    trained(tmp_path, "base")
    trained(tmp_path / "swarm", "draw0", "draw1")
    trained(tmp_path / "doremi", "reference", "proxy")
    folders = {"fitted": ["."], "regmix": ["swarm"], "olmix": ["swarm"], "doremi": ["doremi"]}
    write_study(tmp_path, StudyFile(searches=folders))
    searches = read_searches(tmp_path, [])
    assert names(searches.of("regmix")) == names(searches.of("olmix")) == ["draw0", "draw1"]
    assert names(searches.of("doremi")) == ["proxy", "reference"]
    assert searches.of("ado") == []
    assert sorted(names(searches.all_runs)) == ["base", "draw0", "draw1", "proxy", "reference"]


def test_a_study_may_have_no_search_of_its_own(tmp_path: Path):
    trained(tmp_path / "swarm", "draw0")
    write_study(tmp_path, StudyFile(searches={"regmix": ["swarm"]}))
    assert names(read_searches(tmp_path, []).all_runs) == ["draw0"]


def test_a_search_that_is_gone_is_named(tmp_path: Path):
    write_study(tmp_path, StudyFile(searches={"regmix": ["swarm"]}))
    with pytest.raises(UserError, match="swarm' has no finished run"):
        read_searches(tmp_path, [])
