import logging
from types import SimpleNamespace

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.imports import (
    Choice,
    join_design,
    join_olmix,
    join_regmix,
    read_wandb_export,
    table_of_wandb_runs,
)
from autoscale_exp.runs.run_sheet import parse_run_table

MIXTURES = "index,train_the_pile_arxiv,train_the_pile_github\n1,0.25,0.75\n2,0.498,0.5\n"
LOSSES = "index,metric/the_pile_arxiv_val_loss,metric/the_pile_hn_val_loss\n1,3.5,4.5\n2,3.25,4.25\n"


@pytest.fixture
def files(tmp_path):
    def write(mixtures, losses):
        (tmp_path / "a.csv").write_text(mixtures)
        (tmp_path / "b.csv").write_text(losses)
        return tmp_path / "a.csv", tmp_path / "b.csv"

    return write


def test_regmix_tables_are_joined_and_their_weights_divided_by_their_sum(files, caplog):
    caplog.set_level(logging.INFO)
    text = join_regmix(*files(MIXTURES, LOSSES), tokens=1000)
    table = parse_run_table(text, "regmix")
    assert (table.runs, table.domains) == (["1", "2"], ["the_pile_arxiv", "the_pile_github"])
    assert table.validation_domains == ["the_pile_arxiv", "the_pile_hn"]
    np.testing.assert_allclose(table.domain_tokens, [[250, 750], [498 / 0.998, 500 / 0.998]])
    assert "weights summed to 0.9980 - 1.0000 and were divided by that" in caplog.text


def test_the_order_of_rows_in_either_file_does_not_matter(files):
    swapped = "index,metric/the_pile_arxiv_val_loss,metric/the_pile_hn_val_loss\n2,3.25,4.25\n1,3.5,4.5\n"
    assert join_regmix(*files(MIXTURES, swapped), tokens=9000) == join_regmix(*files(MIXTURES, LOSSES), tokens=9000)


def test_olmix_tables_are_joined_by_run_id(files):
    ratios = "run_id,name,web,code\nx,first,0.5,0.5\ny,second,0.9,0.1\n"
    metrics = "run_id,name,task\ny,second,2.0\nx,first,1.0\n"
    table = parse_run_table(join_olmix(*files(ratios, metrics), tokens=10_000), "olmix")
    assert (table.runs, table.domains, table.validation_domains) == (["x", "y"], ["web", "code"], ["task"])
    np.testing.assert_allclose(table.losses[:, 0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("mixtures", "losses", "tokens", "message"),
    [
        (MIXTURES, LOSSES, 0, "tokens is 0; it must be at least 1000"),
        (MIXTURES, LOSSES, 1, "tokens is 1; it must be at least 1000"),
        (MIXTURES + "3,0.5,0.5\n", LOSSES, 5000, "run '3' is only in"),
        (
            MIXTURES + "1,0.5,0.5\n",
            LOSSES,
            5000,
            "row 4, column index: '1' is also in row 2; give every run a name of its own",
        ),
        (
            MIXTURES.replace("0.25", "0.5"),
            LOSSES,
            5000,
            "a.csv', row 2: the weights sum to 1.25, not to 1; correct them",
        ),
        (
            MIXTURES,
            LOSSES.replace("4.5", ""),
            5000,
            "b.csv', row 2, column metric/the_pile_hn_val_loss: '' is not a number",
        ),
        (
            MIXTURES.replace("index", "run"),
            LOSSES,
            5000,
            "no column 'index' to join by; it has run, train_the_pile_arxiv",
        ),
        (
            MIXTURES.replace("0.25", "-0.25"),
            LOSSES,
            5000,
            "row 2, column train_the_pile_arxiv: -0.25 must be finite and",
        ),
        (MIXTURES, LOSSES.replace("hn", "arxiv"), 5000, "has the_pile_arxiv more than once, in 'metric/the_pile_arxiv"),
        ("index,lr\n1,0.5\n", LOSSES, 5000, "a.csv' has no column of a domain; it has index, lr"),
        ("index,train_a\n", LOSSES, 5000, "a.csv' has no runs; it needs a header and a row per run"),
        ("x" * 200_000, LOSSES, 5000, "a.csv' is no CSV: field larger than field limit"),
    ],
)
def test_tables_that_do_not_fit_together_are_refused(files, mixtures, losses, tokens, message):
    with pytest.raises(UserError, match=message):
        join_regmix(*files(mixtures, losses), tokens=tokens)


def test_only_the_columns_of_the_format_are_domains_and_losses(files, caplog):
    mixtures = "index,train_web,valid_web,train_code\n1,0.5,1,0.5\n2,0.2,1,0.8\n3,0.7,1,0.3\n"
    losses = "index,metric/train_loss,web_val_loss,metric/code_val_loss,_step,lr\n" + "".join(
        f"{run},2.5,3.25,4.5,900,4e-4\n" for run in (1, 2, 3)
    )
    table = parse_run_table(join_regmix(*files(mixtures, losses), tokens=1000), "regmix")
    assert (table.domains, table.validation_domains) == (["web", "code"], ["web", "code"])
    np.testing.assert_array_equal(table.losses, [[3.25, 4.5]] * 3)
    assert "a.csv': columns left out: valid_web; what is read: index and train_web, train_code" in caplog.text
    assert "b.csv': columns left out: metric/train_loss, _step, lr; what is read: index and web_val_loss" in caplog.text


def test_regmix_tables_of_bare_names_are_read(files):
    mixtures = "index,Pile-CC,Wikipedia (en)\n1,0.25,0.75\n2,0.5,0.5\n"
    losses = "index,Wikipedia (en),Pile-CC\n2,4,5\n1,2,3\n"
    table = parse_run_table(join_regmix(*files(mixtures, losses), tokens=1000), "regmix")
    assert (table.domains, table.validation_domains) == (["Pile-CC", "Wikipedia (en)"], ["Wikipedia (en)", "Pile-CC"])
    np.testing.assert_array_equal(table.losses, [[2, 3], [4, 5]])


def test_olmix_tables_as_its_readme_prints_them_are_read(files, caplog):
    ratios = ",run,name,index,web,code\n" + "".join(f"{i},x{i},swarm-{i},{i},0.5,0.5\n" for i in range(3))
    metrics = "run_id,name,index,task,row,lr,Unnamed: 0\n" + "".join(
        f"x{i},swarm-{i},{i},{1.5 + i},{i + 1},1e-3,{i}\n" for i in range(3)
    )
    table = parse_run_table(join_olmix(*files(ratios, metrics), tokens=10_000), "olmix")
    assert (table.runs, table.domains, table.validation_domains) == (["x0", "x1", "x2"], ["web", "code"], ["task"])
    np.testing.assert_array_equal(table.losses[:, 0], [1.5, 2.5, 3.5])
    assert (
        "columns left out: row, lr, Unnamed: 0; what is read: run_id and task; validation_domains=[...] ch"
        in caplog.text
    )


def test_domains_can_be_chosen(files):
    ratios = "run,tokens,code,scratch\nx,0.25,0.75,1\ny,0.5,0.5,1\n"
    metrics = "run,task,other\nx,1.5,9\ny,2.5,9\n"
    chosen = Choice(["code", "tokens"], ["task"])
    table = parse_run_table(join_olmix(*files(ratios, metrics), tokens=1000, choice=chosen), "olmix")
    assert (table.domains, table.validation_domains) == (["code", "tokens"], ["task"])
    np.testing.assert_array_equal(table.domain_tokens, [[750, 250], [500, 500]])
    with pytest.raises(UserError, match=r"validation_domains names 'speech', but '.*b.csv' has task, other"):
        join_olmix(*files(ratios, metrics), tokens=1000, choice=Choice(["code", "tokens"], ["speech"]))


def wandb_run(name, state="finished", config=None, summary=None):
    config = {"tokens": {"a": 1000, "b": 2000}, "scale": "3K", "seed": 1} if config is None else config
    summary = {"val/loss/a": 2.0, "val/loss/b": 3.0, "val/objective": 2.5} if summary is None else summary
    return SimpleNamespace(name=name, state=state, config=config, summary=summary)


def test_finished_wandb_runs_of_training_become_a_table(caplog):
    evaluated = wandb_run("evaluated", config={"scale": "30", "seed": 0}, summary={"perplexity/loss/a": 3.0})
    runs = [wandb_run("r1"), wandb_run("r2", state="crashed"), evaluated]
    table = parse_run_table(table_of_wandb_runs(runs), "wandb")
    assert (table.runs, table.validation_domains, table.seeds) == (["r1"], ["a", "b"], [1])
    np.testing.assert_array_equal(table.domain_tokens, [[1000, 2000]])
    assert "left out, not finished: r2" in caplog.text
    assert "left out, without config tokens.<domain> or summary val/loss/<domain>: evaluated" in caplog.text


def test_older_wandb_runs_have_their_losses_as_val_and_the_domain():
    older = wandb_run("r1", summary={"val/a": 2.0, "val/b": 3.0, "val/tokens": 1e6})
    assert table_of_wandb_runs([older]) == table_of_wandb_runs([wandb_run("r1")])


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no finished W&B run"),
        ([wandb_run("r1", summary={})], "no finished W&B run of `train`, with config tokens"),
        ([wandb_run("r1"), wandb_run("r2", summary={"val/loss/c": 1.0})], "'r2' has other domains"),
        ([wandb_run("r1"), wandb_run("r1")], "two W&B runs are called 'r1'; rename or remove one"),
        ([wandb_run("r1", summary={"val/loss/a": "NaN"})], "'r1' has loss.a NaN, which is no number; remove the run"),
    ],
)
def test_wandb_runs_that_make_no_table_are_refused(runs, message):
    with pytest.raises(UserError, match=message):
        table_of_wandb_runs(runs)


# As W&B's table view exports it: what is shown of config and summary, and blanks where a run has none of it.
EXPORT = """"Name","State","params","scale","seed","tokens.a","tokens.b","val/loss/a","val/loss/b","val/objective"
"r1","finished","8000","3K","1","1000","2000","2.25","3","9"
"r2","running","8000","3K","1","1000","2000","","",""
"fit","finished","","","","","","","","9"
"""


def test_the_table_that_wandb_exports_is_the_same_as_its_runs(tmp_path, caplog):
    (tmp_path / "export.csv").write_text(EXPORT)
    table = parse_run_table(table_of_wandb_runs(read_wandb_export(tmp_path / "export.csv")), "wandb")
    assert (table.runs, table.domains, table.seeds, table.scales) == (["r1"], ["a", "b"], [1], ["3K"])
    np.testing.assert_array_equal(table.domain_tokens, [[1000, 2000]])
    np.testing.assert_array_equal(table.losses, [[2.25, 3.0]])
    np.testing.assert_array_equal(table.params, [8000])
    assert "left out, not finished: r2" in caplog.text
    assert "summary val/loss/<domain>: fit" in caplog.text


def test_an_export_without_states_is_refused(tmp_path):
    (tmp_path / "export.csv").write_text("Name,tokens.a\nr1,1000\n")
    with pytest.raises(UserError, match=r"export.csv' has no column State; show them in W&B's table view, with tokens"):
        read_wandb_export(tmp_path / "export.csv")


PLAN = "run,scale,seed,steps,tokens.a,tokens.b\nr1,3K,0,3,1024.0,2048.0\nr2,3K,0,3,2048.0,1024.0\n"


def reported(tmp_path, results):
    (tmp_path / "design.csv").write_text(PLAN)
    (tmp_path / "results.csv").write_text(results)
    return join_design(tmp_path)


def test_what_a_trainer_reports_is_joined_with_what_was_planned(tmp_path, caplog):
    text = reported(tmp_path, "run,tokens,loss.a,loss.b\nr2,3072,2.5,3.5\nr1,,,\n")
    assert text == "run,scale,seed,tokens.a,tokens.b,loss.a,loss.b\nr2,3K,0,2048.0,1024.0,2.5,3.5\n"
    assert "runs left out, without losses: r1" in caplog.text


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ("run,tokens,loss.a\nr3,,2.5\n", "has run 'r3', which '.*design.csv' does not plan; remove that row"),
        ("run,tokens,loss.a\nr1,,\n", "results.csv' has no loss of any run; fill in loss.<domain>"),
        ("run,tokens,loss.a\nr1,4000,2\n", "run 'r1': tokens is '4000', but 3,072 were planned; train it on these"),
        ("run,tokens,loss.a\nr1,many,2\n", "run 'r1': tokens is 'many', but 3,072 were planned"),
    ],
)
def test_a_report_of_other_runs_or_tokens_is_refused(results, message, tmp_path):
    with pytest.raises(UserError, match=message):
        reported(tmp_path, results)
