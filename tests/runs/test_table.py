import logging
import math

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.mixtures import read_mixtures
from autoscale_exp.runs.record import write_record
from autoscale_exp.runs.run_sheet import parse_run_table, read_optima, read_runs
from autoscale_exp.runs.table import format_run_table, refresh_run_table, scales_of, table_of_records
from tests.runs.records import make_record

HEADER = "run,scale,seed,tokens.a,tokens.b,loss.a,loss.b,lr\n"
ROWS = "r1,s,0,1000,2000,2.5,3.5,1e-3\nr2,s,1,3000,2000,2.0,3.25,1e-3\n"


def test_a_run_table_is_read_by_column_name():
    table = parse_run_table(HEADER + ROWS, "runs.csv")
    assert (table.runs, table.domains, table.validation_domains) == (["r1", "r2"], ["a", "b"], ["a", "b"])
    np.testing.assert_array_equal(table.domain_tokens, [[1000, 2000], [3000, 2000]])
    np.testing.assert_array_equal(table.losses, [[2.5, 3.5], [2.0, 3.25]])
    assert (table.scales, table.seeds) == (["s", "s"], [0, 1])


def test_perplexities_become_losses():
    table = parse_run_table("run,tokens.a,tokens.b,perplexity.news\nr,1000,2000,7.389056098930650\n", "runs.csv")
    assert table.validation_domains == ["news"]
    assert table.losses[0, 0] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "has no runs"),
        (HEADER.replace("run,", "name,") + ROWS, "no column 'run'"),
        (HEADER.replace("tokens.b", "tokens.a") + ROWS, "column 'tokens.a' more than once"),
        (HEADER.replace("tokens.b", "weight.b") + ROWS, "column 'weight.b'; allowed are tokens"),
        (HEADER.replace("loss.b", "perplexity.b") + ROWS, "one kind of the two"),
        (HEADER.replace("lr", "ppl.b") + ROWS, "column 'ppl.b'; allowed"),
        (HEADER + "r1,s,0,1000,2000,2.5,,1e-3\n", "row 2, column loss.b: '' is not a number"),
        (HEADER + "r1,s,0,-1,2000,2.5,3.5,1e-3\n", "row 2, column tokens.a: -1 must be finite and at least 0"),
        (HEADER + "r1,s,0,100,200,nan,3.5,1e-3\n", "row 2, column loss.a: nan must be finite"),
        (HEADER + "r1,s,0,1000,2000,2.5,inf,1e-3\n", "row 2, column loss.b: inf must be finite"),
        (HEADER + "r1,s,0,0,0,2.5,3.5,1e-3\n", "row 2: all tokens are 0"),
        (HEADER + ROWS + "r1,s,2,1,2,3,4,1\n", "row 4, column run: 'r1' is also in row 2"),
        (HEADER + ROWS + ",s,2,1,2,3,4,1\n", "row 4, column run: the name is missing"),
        (HEADER + "r1,s,0,100,200,2.5\n", "row 2: 6 cells, but the header has 8 columns"),
        (HEADER + "r1,s,x,1000,2000,2.5,3.5,1\n", "row 2, column seed: 'x' is not a number"),
        (HEADER + "r1,s,0.5,1000,2000,2.5,3.5,1\n", "row 2, column seed: 0.5 is no integer; correct that cell"),
        (HEADER + ROWS + "r3,,0,1000,2000,2.5,3.5,1\n", "row 4, column scale: it is empty; give every run a scale"),
        (HEADER + "r1,s,0,0.4,0.6,2.5,3.5,1\n", "row 2: 1 tokens in all, but a run has at least 1000; if these are sh"),
        (HEADER + "r1,s,0,40,60,2.5,3.5,1\n", "row 2: 100 tokens in all, but a run has at least 1000"),
        (
            HEADER + "r1,s,0,1000,2000,13,3.5,1\n",
            "column loss.a: no run is below 13 nats .*; name the column perplexity.a",
        ),
        (HEADER.replace("loss.b", "loss.a.1") + ROWS, "column 'loss.a.1' beside 'loss.a', as pandas names a column"),
        (
            HEADER.replace("tokens.b", "Tokens.b") + ROWS,
            "column 'Tokens.b'; allowed are tokens",
        ),
        (
            HEADER.replace("tokens.b", "b") + ROWS,
            "at least two training domains; its columns are run, scale, seed, tokens.a, b",
        ),
        (
            HEADER.replace("lr", "tokens,weights.a") + ROWS.replace("\n", ",1\n"),
            r"columns tokens\.\* and weights\.\*; keep one kind",
        ),
        ("run,weights.a,weights.b,loss.a\nr,0.5,0.5,3\n", "needs a column tokens with the tokens of each run"),
        ("run,tokens,weights.a,weights.b,loss.a\nr,5000,0.5,0.4,3\n", "row 2: the weights sum to 0.9, not to 1"),
        (
            "run,tokens.a,tokens.b,perplexity.a\nr,1000,2000,0.5\n",
            "column perplexity.a: 0.5 must be finite and at least 1",
        ),
    ],
)
def test_bad_tables_are_refused_by_row_and_column(text, message):
    with pytest.raises(UserError, match=message):
        parse_run_table(text, "runs.csv")


def test_the_table_of_a_sweep_is_the_one_that_fits_read(tmp_path):
    tokens = {"a": 1000, "b": 2000}
    records = [
        make_record("r1", tokens=tokens, losses={"a": 1.123456789012345, "b": 2.0}),
        make_record("r2", tokens=tokens, seed=1),
    ]
    for record in records:
        write_record(tmp_path / "runs" / record.run, record)
    (tmp_path / "runs" / "r3").mkdir()  # a run that has not finished
    from_folder = read_runs(tmp_path)
    (tmp_path / "runs.csv").write_text(format_run_table(records))
    from_table = read_runs(tmp_path / "runs.csv")
    assert from_folder.runs == from_table.runs == ["r1", "r2"]
    assert (from_folder.scales, from_folder.seeds) == (from_table.scales, from_table.seeds) == (["1K", "1K"], [0, 1])
    np.testing.assert_array_equal(from_folder.domain_tokens, from_table.domain_tokens)
    np.testing.assert_array_equal(from_folder.losses, from_table.losses)
    assert from_folder.losses[0, 0] == 1.123456789012345
    assert from_folder.unique_tokens == from_table.unique_tokens == [10, 20]
    np.testing.assert_array_equal(from_folder.pool_tokens, from_table.pool_tokens)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (make_record("r1"), "two of the runs are called 'r1'; give every run a name of its own"),
        (make_record("r2", losses={"a": 1.0}), "run 'r2' has other domains than run 'r1'"),
        (make_record("r2", losses={"a": math.nan, "b": 1.0}), "run 'r2', loss.a: nan must be finite and at least 0"),
        (make_record("r2", tokens={"a": -1, "b": 1}), "run 'r2', tokens.a: -1 must be finite and at least 0"),
        (make_record("r2", tokens={"a": 0, "b": 0}), "run 'r2' was trained on no tokens; train it again"),
    ],
)
def test_records_that_make_no_table_are_refused(second, message):
    with pytest.raises(UserError, match=message):
        table_of_records([make_record("r1"), second])


def test_a_folder_without_runs_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        read_runs(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read_runs(tmp_path / "runs.csv")


def test_optima_are_read(tmp_path):
    path = tmp_path / "optima.csv"
    path.write_text("weights.a,tokens,weights.b\n0.25,100,0.75\n0.5,300,0.5\n")
    domains, budgets, weights = read_optima(path)
    assert (domains, budgets) == (["a", "b"], [100, 300])
    np.testing.assert_allclose(weights, [[0.25, 0.75], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weights.a,weights.b\n1,0\n", "needs the columns tokens"),
        ("tokens,weights.a,weights.b\n100,0.5,0.4\n", "row 2: the weights sum to 0.9"),
        ("tokens,weights.a,weights.b\n100,0.5\n", "row 2: 2 cells"),
        ("tokens,weights.a,weights.b\n0,0.5,0.5\n", "column tokens: 0"),
    ],
)
def test_bad_optima_are_refused(tmp_path, text, message):
    path = tmp_path / "optima.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_optima(path)


def test_shares_of_a_runs_tokens_are_its_domain_tokens():
    text = "run,weights.a,tokens,weights.b,loss.a\nr,0.333,9990,0.666,3\n"
    table = parse_run_table(text, "runs.csv")
    assert table.domains == ["a", "b"]
    np.testing.assert_allclose(table.domain_tokens, [[3330, 6660]])


def test_runs_with_the_same_tokens_and_losses_are_told_of(caplog):
    parse_run_table(HEADER + ROWS + "r3,s,2,3000,2000,2.0,3.26,1e-3\n", "runs.csv")
    assert "to the last digit" not in caplog.text
    parse_run_table(HEADER + ROWS + "r3,s,2,3000,2000,2.0,3.25,2e-3\n", "runs.csv")
    assert "'runs.csv': run 'r3' has the tokens and losses of run 'r2' to the last digit" in caplog.text


def test_columns_that_are_left_out_are_told(caplog):
    header = ",".join(["", *HEADER.strip().split(",")]) + ",_step\n"
    rows = "".join(f"{i},{row},900\n" for i, row in enumerate(ROWS.splitlines()))
    table = parse_run_table(header + rows, "runs.csv")
    assert (table.domains, table.validation_domains) == (["a", "b"], ["a", "b"])
    assert "columns left out: one without a name, lr, _step; what is read: run, scale," in caplog.text


def test_the_table_of_a_folder_follows_its_runs_and_an_old_one_is_told_of(tmp_path, caplog):
    for number, run in enumerate(["r1", "r2", "r3"], start=1):
        losses = {"a": 1 + 1 / number, "b": 2.0}
        write_record(tmp_path / "runs" / run, make_record(run, tokens={"a": 1000, "b": 2000}, losses=losses))
        if run != "r3":
            refresh_run_table(tmp_path)
            assert len(read_runs(tmp_path / "runs.csv").runs) == number
    assert not caplog.records
    assert read_runs(tmp_path / "runs.csv").runs == ["r1", "r2"]
    assert f"lacks 1 finished runs of its folder (r3); runs={tmp_path} reads all of them" in caplog.text


def test_runs_that_end_while_the_table_is_written_are_in_it(tmp_path, monkeypatch):
    from autoscale_exp.runs import table

    def read_then_end(sweep):
        records = read_all(sweep)
        write_record(tmp_path / "runs" / "r2", make_record("r2"))
        return records

    write_record(tmp_path / "runs" / "r1", make_record("r1"))
    read_all = table.read_records
    monkeypatch.setattr(table, "read_records", read_then_end)
    refresh_run_table(tmp_path)
    assert [line.split(",")[0] for line in (tmp_path / "runs.csv").read_text().splitlines()] == ["run", "r1", "r2"]


def test_records_that_make_no_table_are_told_of_when_a_run_ends(tmp_path, caplog):
    for run, losses in {"r1": {"a": 1.0}, "r2": {"b": 1.0}}.items():
        write_record(tmp_path / "runs" / run, make_record(run, losses=losses))
    refresh_run_table(tmp_path)
    assert "runs.csv' is not written: run 'r2' has other domains than run 'r1'" in caplog.text


def test_what_is_odd_about_a_folder_is_told(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    runs = {f"r{i}": make_record(f"r{i}") for i in range(5)}
    runs["other"] = make_record("other", experiment="targets", mixture="fitted", token_budget=9_000_000, scale="9M")
    runs["r0"] = make_record("r0", model="gpt2_large", store="outputs/stores/new")
    for name, record in runs.items():
        write_record(tmp_path / "runs" / name, record)
    (tmp_path / "runs" / "stopped").mkdir()
    assert len(read_runs(tmp_path).runs) == 6
    for told in (
        "1 runs are not finished and are left out: stopped",
        "runs of 2 experiments are fitted together (1 of targets, 5 of test)",
        "runs of 2 base mixtures are fitted together (1 of fitted, 5 of uniform)",
        "runs of 2 token stores are fitted together",
        "scale 1K has runs of 2 models (1 of gpt2_large, 4 of gpt2_tiny)",
        "very different numbers of runs (5 at 1K, 1 at 9M)",
    ):
        assert told in caplog.text


def test_runs_of_one_sweep_are_nothing_to_tell_of(tmp_path, caplog):
    for i in range(3):
        write_record(tmp_path / "runs" / f"r{i}", make_record(f"r{i}"))
    read_runs(tmp_path)
    assert not caplog.records


def test_labels_say_which_runs_are_of_one_scale():
    rows = "r1,1M,0,1000,2000,2,3,1\nr2,3M,0,9000,3000,2,3,1\nr3,1M,0,2000,1000,2,3,1\n"
    assert [rows.tolist() for rows in scales_of(parse_run_table(HEADER + rows, "runs.csv"))] == [[0, 2], [1]]


@pytest.mark.parametrize("key", ["runs", "optima", "mixtures"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.csv", "gone.csv', which does not exist; give the path of a CSV file"),
        ("runs.csv/x", "runs.csv/x', which cannot be read: Not a directory; give a CSV file"),
        ("binary.csv", "binary.csv', which is not UTF-8 text: .*; give a CSV file in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_by_its_key(key, name, message, tmp_path):
    (tmp_path / "runs.csv").write_text(HEADER + ROWS)
    (tmp_path / "binary.csv").write_bytes(b"run\xff\x00")
    read = {
        "runs": read_runs,
        "optima": read_optima,
        "mixtures": lambda path: read_mixtures(str(path), ["a", "b"], None),
    }[key]
    with pytest.raises(UserError, match=f"{key} is '.*{message}"):
        read(tmp_path / name)


def test_text_that_is_no_csv_is_an_error():
    with pytest.raises(UserError, match=r"'runs.csv' is no CSV: field larger than field limit .*; give a table with"):
        parse_run_table("x" * 200_000, "runs.csv")


SIZED = "run,params,tokens.a,tokens.b,loss.a\n"


def test_model_sizes_are_read_and_make_scales_of_their_own():
    table = parse_run_table(SIZED + "x,1000000,5000,5000,3\ny,4000000,5000,5000,2\n", "runs.csv")
    np.testing.assert_array_equal(table.params, [1e6, 4e6])
    assert [rows.tolist() for rows in scales_of(table)] == [[0], [1]]
    assert parse_run_table(SIZED + "x,,5000,5000,3\ny,,5000,5000,2\n", "runs.csv").params is None


@pytest.mark.parametrize("cell", ["", "0", "large"])
def test_a_model_size_that_is_missing_or_none_is_refused(cell):
    with pytest.raises(UserError, match="row 3, column params"):
        parse_run_table(SIZED + f"x,1000000,5000,5000,3\ny,{cell},5000,5000,2\n", "runs.csv")
