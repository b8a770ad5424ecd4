import json

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.identity import RunIdentity, read_identity, write_identity
from autoscale_exp.runs.record import read_failure, read_record, read_records, write_failure, write_record
from tests.runs.records import make_curve, make_record

IDENTITY = RunIdentity("r", {"a": 1, "b": 2}, 0, "0" * 16, {"name": "gpt2_tiny"}, 1, "32-true")


def rewrite(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = make_record(validation_curve=make_curve([5, 10], [{"a": 2.0, "b": 3.0}, {"a": 1.5, "b": 2.0}]))
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert json.loads((tmp_path / "result.json").read_text())["format"] == 2


def test_a_record_of_the_first_format_has_the_weights_that_its_tokens_say(tmp_path):
    write_record(tmp_path, make_record(requested_tokens={"a": 250.0, "b": 750.0}))

    def as_before(content):
        del content["format"], content["requested_weights"], content["stages"]

    rewrite(tmp_path / "result.json", as_before)
    assert read_record(tmp_path).requested_weights == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format=3), "result.json' has format 3, but this version reads format 2; delete the run's"),
        (lambda c: c.pop("tokens"), "result.json' is damaged: tokens: field required; delete the run's folder"),
        (lambda c: c["losses"].update(a="low"), "is damaged: losses.a: input should be a valid number"),
    ],
)
def test_a_record_that_is_not_whole_is_refused_by_name(tmp_path, edit, message):
    write_record(tmp_path, make_record())
    rewrite(tmp_path / "result.json", edit)
    with pytest.raises(UserError, match=message):
        read_record(tmp_path)


def test_the_records_of_a_sweep_are_those_of_its_finished_runs(tmp_path):
    with pytest.raises(UserError, match="has no finished run"):
        read_records(tmp_path)
    write_record(tmp_path / "runs" / "b", make_record("b"))
    write_record(tmp_path / "runs" / "a", make_record("a"))
    write_failure(tmp_path / "runs" / "c", "c", UserError("no text"))
    assert [record.run for record in read_records(tmp_path)] == ["a", "b"]
    assert read_failure(tmp_path / "runs" / "c") == "UserError: no text"
    assert read_failure(tmp_path / "runs" / "d") == "it wrote no result"


def test_an_identity_is_the_same_whether_it_was_written_with_a_format_or_before(tmp_path):
    write_identity(tmp_path, IDENTITY)
    assert read_identity(tmp_path) == IDENTITY
    rewrite(tmp_path / "identity.json", lambda content: content.pop("format"))
    assert read_identity(tmp_path) == IDENTITY
    assert read_identity(tmp_path).fingerprint == IDENTITY.fingerprint


def test_what_does_not_apply_to_a_run_is_no_part_of_its_identity():
    assert set(IDENTITY.content) == {"run", "rows", "seed", "store", "model", "num_validations", "precision"}
