from types import SimpleNamespace

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.imports import join_olmix, join_regmix, table_of_wandb_runs
from autoscale_exp.runs.table import parse_run_table, read_mixtures

MIXTURES = "index,train_the_pile_arxiv,train_the_pile_github\n1,0.25,0.75\n2,0.498,0.5\n"
LOSSES = "index,metric/the_pile_arxiv_val_loss,metric/the_pile_hn_val_loss\n1,3.5,4.5\n2,3.25,4.25\n"


@pytest.fixture
def files(tmp_path):
    def write(mixtures, losses):
        (tmp_path / "a.csv").write_text(mixtures)
        (tmp_path / "b.csv").write_text(losses)
        return tmp_path / "a.csv", tmp_path / "b.csv"

    return write


def test_regmix_tables_are_joined_and_their_weights_divided_by_their_sum(files):
    text, remark = join_regmix(*files(MIXTURES, LOSSES), tokens=1000)
    table = parse_run_table(text, "regmix")
    assert (table.runs, table.domains) == (["1", "2"], ["the_pile_arxiv", "the_pile_github"])
    assert table.validation_domains == ["the_pile_arxiv", "the_pile_hn"]
    np.testing.assert_allclose(table.domain_tokens, [[250, 750], [498 / 0.998, 500 / 0.998]])
    assert "0.9980 - 1.0000" in remark


def test_the_order_of_rows_in_either_file_does_not_matter(files):
    swapped = "index,metric/the_pile_arxiv_val_loss,metric/the_pile_hn_val_loss\n2,3.25,4.25\n1,3.5,4.5\n"
    assert join_regmix(*files(MIXTURES, swapped), tokens=9) == join_regmix(*files(MIXTURES, LOSSES), tokens=9)


def test_olmix_tables_are_joined_by_run_id(files):
    ratios = "run_id,name,web,code\nx,first,0.5,0.5\ny,second,0.9,0.1\n"
    metrics = "run_id,name,task\ny,second,2.0\nx,first,1.0\n"
    table = parse_run_table(join_olmix(*files(ratios, metrics), tokens=10)[0], "olmix")
    assert (table.runs, table.domains, table.validation_domains) == (["x", "y"], ["web", "code"], ["task"])
    np.testing.assert_allclose(table.losses[:, 0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("mixtures", "losses", "tokens", "message"),
    [
        (MIXTURES, LOSSES, 0, "tokens is 0"),
        (MIXTURES + "3,0.5,0.5\n", LOSSES, 1, "run '3' stands only in"),
        (MIXTURES + "1,0.5,0.5\n", LOSSES, 1, "run '1' more than once"),
        (MIXTURES.replace("0.25", "0.5"), LOSSES, 1, "run 1: the weights sum to 1.25"),
        (MIXTURES, LOSSES.replace("4.5", ""), 1, "run 1, column metric/the_pile_hn_val_loss: '' is not a number"),
        (MIXTURES.replace("index", "run"), LOSSES, 1, "no column 'index' to join by; it has run, train_the_pile_arxiv"),
        ("index,train_a\n", LOSSES, 1, "a.csv' has no runs; it needs a header and a row per run"),
        ("x" * 200_000, LOSSES, 1, "a.csv' is no CSV: field larger than field limit"),
    ],
)
def test_tables_that_do_not_fit_together_are_refused(files, mixtures, losses, tokens, message):
    with pytest.raises(UserError, match=message):
        join_regmix(*files(mixtures, losses), tokens=tokens)


def wandb_run(name, state="finished", config=None, summary=None):
    config = {"tokens": {"a": 10, "b": 20}, "scale": "30", "seed": 1} if config is None else config
    summary = {"val/a": 2.0, "val/b": 3.0, "val/tokens": 30} if summary is None else summary
    return SimpleNamespace(name=name, state=state, config=config, summary=summary)


def test_finished_wandb_runs_become_a_table():
    table = parse_run_table(table_of_wandb_runs([wandb_run("r1"), wandb_run("r2", state="crashed")]), "wandb")
    assert (table.runs, table.validation_domains, table.seeds) == (["r1"], ["a", "b"], [1])
    np.testing.assert_array_equal(table.domain_tokens, [[10, 20]])


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no finished run"),
        ([wandb_run("r1", summary={})], "'r1' has no config"),
        ([wandb_run("r1"), wandb_run("r2", summary={"val/c": 1.0})], "'r2' has other domains"),
    ],
)
def test_wandb_runs_that_make_no_table_are_refused(runs, message):
    with pytest.raises(UserError, match=message):
        table_of_wandb_runs(runs)


def test_mixtures_to_predict_are_read_in_the_laws_order(tmp_path):
    path = tmp_path / "mixtures.csv"
    path.write_text("tokens.b,run,tokens.a\n2,m,1\n")
    names, tokens = read_mixtures(path, ["a", "b"])
    assert names == ["m"]
    np.testing.assert_array_equal(tokens, [[1, 2]])
    with pytest.raises(UserError, match=r"tokens.<domain> for a, c"):
        read_mixtures(path, ["a", "c"])
