import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from autoscale_exp import study
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.config import StudyConf
from autoscale_exp.runs.designs.ddo import DdoConf
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.study import with_scales


@pytest.fixture
def compose_study():
    def composed() -> StudyConf:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return to_typed(compose("study", ["token_budgets=[1000]"]))

    return composed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["token_budgets=[]"], "token_budgets is empty; give at least one, as in token_budgets=[...]"),
        (["token_budgets=[9]", "seeds=[]"], "seeds is empty; give at least one, as in seeds=[...]"),
        (["token_budgets=[9,9]"], "token_budgets is [9, 9]; give each value once"),
        (["token_budgets=[9]", "seeds=[1,1]"], "seeds is [1, 1]; give each value once"),
        (["token_budgets=[9,3]"], "token_budgets is [9, 3]; give them in rising order, the target last"),
        (["token_budgets=[0]"], "token_budgets[0] is 0; it must be at least 1"),
        (["token_budgets=[9]", "seeds=[-1]"], "seeds[0] is -1; it must lie between 0 and 4294967295"),
        (
            ["token_budgets=[9]", "reference=natural"],
            "reference is 'natural', but the rivals are uniform, fitted; name one of ",
        ),
        (
            ["token_budgets=[9]", "rivals=[unifrom]"],
            "In 'study': Could not load 'rivals/unifrom'; there are ado, autoscale, doge, doremi, fitted, grid, ",
        ),
        (["token_budgets=[9]", "store=nowhere"], "store is 'nowhere', which has no finished token store"),
        (
            ["token_budgets=[9]", "store=nowhere", "data.seq_len=128"],
            "store is 'nowhere', which says all about the data, but data.seq_len=128 is given too",
        ),
    ],
)
def test_a_study_that_cannot_be_is_refused(overrides, message, refused):
    assert refused("study", *overrides).startswith(message)


def test_a_study_is_planned_without_text_or_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Of each scale's 15 runs seven have three times a domain's tokens, and seven a third of them."""
    asked = ["experiment=paper_gpt2_large", "rivals=[uniform,fitted]", "plan.only=true", "plan.accelerator=h200"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["study", *asked, "output_dir=out"])
    study.main()
    told = capsys.readouterr().out
    shares = 1 + 7 * (1 + 2 / 7) + 7 * (1 - 2 / 21)
    tokens = shares * (0.3 + 0.6 + 1.2)
    assert f"│ search     │   45 │  {tokens:.1f}B │" in told
    assert "first the token store: python -m autoscale_exp.prepare data=redpajama" in told
    assert not list((tmp_path / "out").glob("*.json"))


def test_a_single_run_is_no_search(compose_study, store):
    conf = replace(compose_study(), design=SingleConf())
    with pytest.raises(UserError, match="design=single is a single run; choose a design over scales"):
        with_scales(conf, store)


def test_scales_that_are_given_stay(compose_study, store):
    design = DdoConf(scales=[7, 5])
    assert with_scales(replace(compose_study(), design=design), store) is design


def test_scales_that_are_not_given_are_chosen_below_the_target(compose_study, store):
    budget = 30 * min(store.num_rows("train", domain) for domain in store.domains)
    conf = replace(compose_study(), token_budgets=[budget], design=DdoConf(base_repeats=1))
    scales = with_scales(conf, store).scales
    assert len(scales) == 2
    assert 3 * scales[0] <= scales[1] <= budget / 3
