import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from autoscale_exp.base import composing
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.data.store import TokenStore
from autoscale_exp.runs.identity import write_identity
from autoscale_exp.runs.record import write_record
from autoscale_exp.training.parallelism import micro_batch, num_devices
from autoscale_exp.training.plan import is_finished, plan_run, store_of
from autoscale_exp.training.sweep import plan_sweep
from tests.runs.records import make_record


def test_a_plan_has_the_rows_steps_and_seed_of_its_spec(compose_train, store: TokenStore):
    plan = plan_run(compose_train("seed=3"), store)
    assert plan.sampler.row_counts.tolist() == [31, 31, 30]  # 92 rows over three domains
    assert plan.num_steps == 12
    assert plan.seed == plan.sampler.seed == 3
    assert plan.spec.run == "uniform_1.472K_seed3"


def test_a_run_of_a_design_changes_one_domain_and_keeps_the_others_rows(compose_train, store: TokenStore):
    design = ["design=ddo", f"design.scales=[{16 * 92}]", "design.base_repeats=1"]
    plans = [plan_run(compose_train(*design, f"design.index={index}"), store) for index in range(8)]
    assert [plan.sampler.row_counts.tolist() for plan in plans] == [
        [31, 31, 30],
        [31, 31, 30],
        [93, 31, 30],
        [10, 31, 30],
        [31, 93, 30],
        [31, 10, 30],
        [31, 31, 90],
        [31, 31, 10],
    ]
    assert [plan.seed for plan in plans] == [0, 1, 0, 0, 0, 0, 0, 0]


def test_weights_are_realised_in_rows(compose_train, store: TokenStore):
    plan = plan_run(compose_train("mixture=custom", "mixture.weights=[0.5,0.25,0.25]"), store)
    assert plan.sampler.row_counts.tolist() == [46, 23, 23]


def test_the_cap_of_unimax_is_of_the_runs_tokens_or_of_the_target_whose_repetition_it_matches(
    compose_train, store: TokenStore
):
    pools = np.array([store.num_rows("train", domain) for domain in store.domains])
    smallest = int(pools.argmin())
    budget = 16 * int(pools.min() + 2 * np.sort(pools)[1])
    unimax = ["mixture=unimax", f"mixture.max_epochs={1 / 2}"]
    half = plan_run(compose_train(*unimax, f"token_budget={budget // 2}"), store).sampler.row_counts
    assert half[smallest] == pools[smallest] // 2
    matched = [f"token_budget={budget // 4}", f"design.match_repetition={budget // 2}"]
    quarter = plan_run(compose_train(*unimax, *matched), store).sampler
    assert quarter.row_counts[smallest] == pytest.approx(quarter.pool_rows[smallest] / 2, abs=1)


def test_no_run_of_a_swarm_asks_for_more_than_max_epochs_of_a_domain(compose_train, store: TokenStore):
    pools = np.array([store.num_rows("train", domain) for domain in store.domains])
    budget = 16 * int(0.8 * pools.sum())
    swarm = ["design=dirichlet", "design.num_runs=9", "design.base_repeats=0", "mixture=natural", "max_epochs=2"]
    for matched in ([], [f"design.match_repetition={2 * budget}"]):
        design = [*swarm, f"design.scales=[{budget}]", *matched]
        plans = [plan_run(compose_train(*design, f"design.index={index}"), store) for index in range(10)]
        for plan in plans:
            assert plan.sampler.num_rows == budget // 16
            assert np.all(plan.sampler.row_counts <= 2 * plan.sampler.pool_rows)
        assert len({tuple(plan.sampler.row_counts) for plan in plans}) == 10


def test_stages_take_the_place_of_the_mixture_from_their_starts_on(compose_train, store: TokenStore):
    stages = "stages=[{start: 1_00, weights: [.5,.5,0]}, {start: 800, weights: [0,0,1]}]"
    plan = plan_run(compose_train(stages), store)
    assert plan.sampler.stage_counts.tolist() == [[2, 2, 2], [22, 22, 0], [0, 0, 42]]  # from rows 0, 6 and 50 of 92
    assert plan.requested_tokens.tolist() == [pytest.approx([100 / 3] * 3), [350, 350, 0], [0, 0, 672]]
    assert plan.identity.rows == {"fruit": 24, "code": 24, "sums": 44}
    assert plan.identity.stage_rows == {
        "mixture": {"fruit": 2, "code": 2, "sums": 2},
        "stages[0]": {"fruit": 22, "code": 22, "sums": 0},
        "stages[1]": {"fruit": 0, "code": 0, "sums": 42},
    }


def test_proxy_runs_that_match_a_targets_repetition_have_their_scales_pools(compose_train, store: TokenStore):
    design = ["design=ddo", "design.scales=[1472,2944]", "design.match_repetition=4416", "max_epochs=30"]
    design.append("design.base_repeats=0")
    plans = [plan_run(compose_train(*design, f"design.index={index}"), store) for index in range(14)]
    whole = np.array([store.num_rows("train", domain) for domain in store.domains])
    for number, plan in enumerate(plans):
        pools = np.floor(whole * (1 if number < 7 else 2) / 3 + 0.5).astype(int).tolist()
        assert plan.sampler.pool_rows.tolist() == pools
        assert plan.sampler.unique_rows.tolist() == whole.tolist()
        assert plan.identity.pool_rows == dict(zip(store.domains, pools, strict=True))


def test_a_run_of_the_targets_size_has_the_whole_pools(compose_train, store: TokenStore):
    matched = plan_run(compose_train("design.match_repetition=1472"), store)
    assert matched.identity == plan_run(compose_train(), store).identity


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=1", "seed: 0, not 1"),
        (
            "stages=[{start: 736, weights: [1,0,0]}]",
            r"stage_rows: None, not \{'mixture': \{'fruit': 16, .*'stages\[0\]'",
        ),
        ("design.match_repetition=14720", r"pool_rows: None, not \{'fruit': "),
        ("model.optimizer.lr=1e-4", "model.optimizer.lr: 0.002, not 0.0001"),
        ("model.n_layer=2", "model.n_layer: 1, not 2"),
        ("num_validations=3", "num_validations: 1, not 3"),
        ("trainer=bf16", "precision: 32-true, not bf16-mixed"),
        ("token_budget=1600", r"rows.fruit: 31, not 34; rows.code: 31, not 33; rows.sums: 30, not 33"),
    ],
)
@pytest.mark.parametrize("begun", ["result.json", "resume.ckpt"])
def test_a_folder_of_another_run_is_an_error_that_names_what_differs(
    override, key, begun, compose_train, store: TokenStore, tmp_path: Path
):
    write_identity(tmp_path, plan_run(compose_train(), store).identity)
    (tmp_path / begun).write_text("{}")
    with pytest.raises(UserError, match=rf"with another config \(.*{key}.*\); delete that folder"):
        is_finished(plan_run(compose_train(override), store), tmp_path)


def test_a_run_of_another_mixture_of_that_name_is_told_to_have_a_name_of_its_own(
    compose_train, store: TokenStore, tmp_path: Path
):
    write_identity(tmp_path, plan_run(compose_train(), store).identity)
    (tmp_path / "result.json").write_text("{}")
    weights = ["mixture=custom", "mixture.weights=[.5,.25,.25]", "mixture.name=uniform"]
    with pytest.raises(UserError, match=r"choose another mixture.name, as the run there has another mixture"):
        is_finished(plan_run(compose_train(*weights), store), tmp_path)


def test_a_mixture_file_that_a_fit_has_not_written_is_named_with_those_there_are_and_the_fit(
    compose_train, store: TokenStore, tmp_path: Path
):
    asked = ["mixture=from_file", "token_budget=2_500_000", f"mixture.path={tmp_path}/fit/mixtures/2.5M.yaml"]
    asked.append("search=a")
    command = r"this fit writes it: python -m autoscale_exp.fit runs=a 'target_tokens=\[2_500_000\]'"
    with pytest.raises(UserError, match=rf"mixtures/2.5M.yaml', which does not exist \(there is no other\); {command}"):
        plan_run(compose_train(*asked), store)
    (tmp_path / "fit" / "mixtures").mkdir(parents=True)
    (tmp_path / "fit" / "mixtures" / "3M.yaml").touch()
    with pytest.raises(UserError, match=r"which does not exist \(there is 3M.yaml\); this fit writes it: "):
        plan_run(compose_train(*asked), store)


@pytest.mark.parametrize(
    "override", ["num_workers=2", "micro_batch_rows=4", "num_threads=2", "checkpoint_minutes=1", "save_model=true"]
)
def test_what_does_not_change_the_result_is_not_part_of_the_identity(override, compose_train, store: TokenStore):
    assert plan_run(compose_train(override), store).identity == plan_run(compose_train(), store).identity


def test_a_run_is_finished_only_with_its_result(compose_train, store: TokenStore, tmp_path: Path):
    plan = plan_run(compose_train(), store)
    assert not is_finished(plan, tmp_path / "nowhere")
    write_identity(tmp_path, plan.identity)
    assert not is_finished(plan, tmp_path)
    (tmp_path / "resume.ckpt").touch()
    assert not is_finished(plan, tmp_path)
    write_record(tmp_path, make_record(fingerprint=plan.identity.fingerprint))
    assert is_finished(plan, tmp_path)
    (tmp_path / "identity.json").unlink()
    assert is_finished(plan, tmp_path)
    write_record(tmp_path, make_record(fingerprint="of another run"))
    with pytest.raises(UserError, match="holds the result of another run"):
        is_finished(plan, tmp_path)


def test_a_run_of_other_stages_is_refused_by_the_stage_that_differs(compose_train, store: TokenStore, tmp_path: Path):
    first, last = "{start: 736, weights: [1,0,0]}", "{start: 800, weights: [0,%s]}"
    plans = [plan_run(compose_train(f"stages=[{first}, {last % weights}]"), store) for weights in ("1,0", "0.5,0.5")]
    write_identity(tmp_path, plans[0].identity)
    (tmp_path / "resume.ckpt").touch()
    assert not is_finished(plans[0], tmp_path)
    with pytest.raises(
        ValueError, match=r"stage_rows.stages\[1\].code: 42, not 21; stage_rows.stages\[1\].sums: 0, not 21"
    ):
        is_finished(plans[1], tmp_path)


def test_a_run_that_never_got_to_a_checkpoint_may_be_replaced(compose_train, store: TokenStore, tmp_path: Path):
    write_identity(tmp_path, plan_run(compose_train("seed=1"), store).identity)
    assert not is_finished(plan_run(compose_train(), store), tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.domains=[fruit,code]"], r"data.domains is \['fruit', 'code'\], but the store .*'sums'"),
        (["data.seq_len=32"], r"was prepared with another config \(seq_len: 16, not 32\); set data.store"),
        (["data.tokenizer.vocab_size=400"], r"\(tokenizer.vocab_size: 300, not 400\)"),
        (["model.family=rnn"], "model.family is 'rnn'; allowed are gpt2"),
        (["model.n_head=3"], "model.n_embd is 16, which model.n_head 3 does not divide"),
        (["model.optimizer.schedule=step"], "model.optimizer.schedule is 'step'; allowed are linear, cosine"),
        (["model.optimizer.warmup_fraction=1"], "model.optimizer.warmup_fraction is 1.0; allowed are shares below 1"),
        (["model.optimizer.lr=0"], "model.optimizer.lr is 0.0; it must be positive"),
        (["model.optimizer.lr=nan"], "model.optimizer.lr is nan; it must be positive"),
        (["model.optimizer.clip_norm=-1"], "model.optimizer.clip_norm is -1.0; it must be positive"),
        (["model.optimizer.batch_rows=0"], "model.optimizer.batch_rows is 0; it must be positive"),
        (["model.optimizer.betas=[0.9]"], r"model.optimizer.betas is \[0.9\]"),
        (["model.optimizer.betas=[0.9,1.0]"], r"model.optimizer.betas is \[0.9, 1.0\]"),
        (["model.optimizer.lr=inf"], "model.optimizer.lr is inf; it must be positive and finite"),
        (["model.optimizer.weight_decay=-1"], "model.optimizer.weight_decay is -1.0; it must be at least 0"),
        (["model.n_layer=0"], "model.n_layer is 0; it must be at least 1"),
        (["model.n_head=0"], "model.n_head is 0; it must be at least 1"),
        (["model.dropout=nan"], "model.dropout is nan; it must lie between 0 and 1"),
        (["run_name=a/b"], "run_name is 'a/b'; it may only have letters, digits, '_', '.' and '-'"),
        (["seed=-1"], "seed is -1; it must lie between 0 and 4294967295"),
        (["num_workers=-1"], "num_workers is -1; it must be at least 0"),
        (["num_threads=0"], "num_threads is 0; it must be at least 1"),
        (["checkpoint_minutes=nan"], "checkpoint_minutes is nan; it must be at least 0"),
        (["micro_batch_rows=0"], "micro_batch_rows is 0; it must be at least 1"),
        (["num_validations=0"], "num_validations is 0; it must be at least 1"),
        (["max_epochs=0"], "max_epochs is 0; it must be at least 1"),
        (["micro_batch_rows=3"], "batch_rows is 8, which 1 devices x micro_batch_rows 3 do not divide"),
        (["trainer.devices=3"], "batch_rows is 8, which 3 devices x micro_batch_rows 2 do not divide"),
        (["mixture=custom", "mixture.weights=[0.5,0.5]"], "mixture.weights has 2 entries but data.domains has 3"),
        (["mixture=custom", "mixture.weights=[0.5,0.5,0.5]"], "mixture.weights sum to 1.5, not to 1"),
        (["mixture=custom", "mixture.weights=[1.5,-0.5,0]"], "the weight of 'code' is -0.5"),
        (["mixture=llama"], "missing: code, fruit, sums; unknown: arxiv"),
        (["token_budget=1_000_000"], "domain 'fruit' has .* max_epochs is 4, but the mixture asks for"),
        (["token_budget=15"], "the token budget 15 is below one row of 16 tokens"),
        (["token_budget=null"], "token_budget must be a positive number of tokens for design=single"),
        (["stages=[{start: 160, weights: {web: 1}}]"], r"stages\[0\].weights names 'web'; the domains are fruit"),
        (["stages=[{start: 160, weights: [1,0]}]"], r"stages\[0\].weights has 2 entries but data.domains has 3"),
        (["stages=[{start: 160, weights: [1,0,0.5]}]"], r"stages\[0\].weights sum to 1.5, not to 1"),
        (["stages=[{start: 1472, weights: [1,0,0]}]"], r"stages\[0\].start is 1472; .* below the budget of 1472"),
        (
            ["stages=[{start: 320, weights: [1,0,0]}, {start: 160, weights: [1,0,0]}]"],
            r"stages\[1\].start is 160; it must be at least a row of 16 tokens above 320",
        ),
        (
            ["design=ddo", "design.scales=[1472]", "stages=[{start: 160, weights: [1,0,0]}]"],
            "stages are for design=single",
        ),
        (["design.match_repetition=1471"], "design.match_repetition is 1471, below the token budget 1472"),
        (
            ["design.match_repetition=100_000_000"],
            r"domain 'fruit' has a pool of 1 of its \d+ rows because of design.match_repetition and max_epochs is 4",
        ),
        (["+trainer.max_steps=3"], "trainer.max_steps is 3, but a run sets it itself; give token_budget"),
        (["+trainer.accumulate_grad_batches=4"], "is 4, but a run sets it itself; give micro_batch_rows"),
        (["+trainer.gradient_clip_algorithm=value"], "is value, but .* give model.optimizer.clip_norm"),
        (
            ["trainer.precision=bf16"],
            "trainer.precision is 'bf16'; it can be 32-true, bf16-mixed, 16-mixed, ",
        ),
        (["+trainer.callbacks=[a]"], r"trainer.callbacks is \['a'\], but a run sets it itself; leave it out"),
        (["design.index=1"], "design.index is 1, but the design has runs 0 to 0"),
        (
            ["design=ddo", "design.scales=[16]", "design.index=3", "mixture=custom", "mixture.weights=[1,0,0]"],
            "run 'fruit_x0.333_0.016K' has no whole row of 16 tokens; raise the token budget 16",
        ),
        (["design=ddo", "design.scales=[]"], "design.scales must be distinct positive token budgets"),
    ],
)
def test_a_run_that_cannot_be_is_an_error_before_it_starts(overrides, message, compose_train, store: TokenStore):
    with pytest.raises(UserError, match=message):
        plan_run(compose_train(*overrides), store)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.mask_probability=0"], "model.mask_probability is 0.0; it must lie between 0 and 1"),
        (["model.mask_probability=1"], "model.mask_probability is 1.0; it must lie between 0 and 1"),
        (["model.family=gpt2"], "model.family is 'gpt2', but model 'bert_tiny' has the keys of another family"),
    ],
)
def test_a_masked_run_that_cannot_be_is_an_error(overrides, message, compose_train, masked_overrides, masked_store):
    with pytest.raises(UserError, match=message):
        plan_run(compose_train(*masked_overrides, *overrides), masked_store)


def test_a_masked_model_needs_a_tokenizer_with_a_mask_token(compose_train, store: TokenStore):
    with pytest.raises(UserError, match=r"data.tokenizer.name is 'bpe', which has no mask token; .*=wordpiece"):
        plan_run(compose_train("model=bert_tiny"), store)
    with pytest.raises(UserError, match=r"model.family is 'bert', but model 'gpt2_tiny' has the keys of another"):
        plan_run(compose_train("model.family=bert"), store)


def test_whole_words_need_wordpiece(compose_train, masked_overrides, masked_store: TokenStore, tmp_path: Path):
    conf = compose_train(*masked_overrides, "model.whole_word_masking=true")
    assert plan_run(conf, masked_store).identity.model["whole_word_masking"]
    copy = shutil.copytree(masked_store.folder, tmp_path / "copy")
    saved = json.loads((copy / "tokenizer" / "tokenizer.json").read_text())
    saved["model"]["type"] = "BPE"
    (copy / "tokenizer" / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"whole_word_masking needs a WordPiece tokenizer, but .* a BPE tokenizer"):
        plan_run(conf, replace(masked_store, folder=copy))


def test_a_causal_model_takes_rows_of_any_tokenizer(compose_train, masked_overrides, masked_store: TokenStore):
    assert plan_run(compose_train(*masked_overrides[1:]), masked_store).num_steps == 12


@pytest.mark.parametrize(
    ("step_rows", "micro_batch_rows", "devices", "expected"),
    [(80, None, 1, (80, 1)), (80, None, 4, (20, 1)), (80, 10, 4, (10, 2)), (80, 80, 1, (80, 1)), (6, 1, 3, (1, 2))],
)
def test_a_step_is_cut_into_devices_and_forward_passes(step_rows, micro_batch_rows, devices, expected):
    assert micro_batch(step_rows, micro_batch_rows, devices) == expected


@pytest.mark.parametrize(
    ("step_rows", "micro_batch_rows", "devices"), [(80, 30, 1), (80, 80, 2), (2, None, 3), (8, -1, 1)]
)
def test_a_step_that_cannot_be_cut_so_is_an_error(step_rows, micro_batch_rows, devices):
    with pytest.raises(UserError, match=f"batch_rows is {step_rows}, which {devices} devices"):
        micro_batch(step_rows, micro_batch_rows, devices)


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [({}, 1), ({"devices": 4}, 4), ({"devices": "2", "num_nodes": 3}, 6), ({"devices": [0, 2, 5]}, 3)],
)
def test_devices_are_counted_over_nodes(trainer, expected, compose_train):
    assert num_devices(replace(compose_train(), trainer=trainer)) == expected


@pytest.mark.parametrize(("accelerator", "expected"), [("auto", 8), ("cpu", 1)])
def test_all_devices_are_the_gpus_unless_runs_are_on_the_cpu(accelerator, expected, compose_train, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    conf = compose_train("trainer.devices=auto", f"trainer.accelerator={accelerator}")
    assert num_devices(conf) == expected


@pytest.mark.parametrize("trainer", ["devices=x", "devices=0", "devices=[]", "devices=-3", "num_nodes=0"])
def test_devices_that_are_no_number_of_at_least_one_are_refused(trainer, compose_train):
    key, _, value = trainer.partition("=")
    with pytest.raises(UserError, match=rf"trainer.{key} is {re.escape(value)}.*; devices are a number of at least 1"):
        num_devices(compose_train(f"++trainer.{trainer}"))


def test_a_plan_is_made_without_torch():
    check = "import sys, autoscale_exp.train, autoscale_exp.training.sweep; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_run_that_is_told_of_its_store_alone_is_the_run_that_names_all_its_data(
    compose_train, store, train_overrides
):
    named = plan_run(compose_train(), store)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        of_run = [o for o in train_overrides if not o.startswith("data")]
        conf = to_typed(compose("train", [*of_run, f"store={store.folder}", "run_name=run", "~logger"]))
    told = plan_run(conf, store_of(conf, of_run))
    assert told.identity == named.identity
    assert told.conf.data.domains == ["fruit", "code", "sums"]
    assert (told.conf.data.seq_len, told.conf.data.tokenizer.vocab_size) == (16, 300)


def test_each_run_of_a_sweep_over_stores_is_planned_with_its_own(
    train_overrides, store: TokenStore, masked_store: TokenStore, tmp_path: Path
):
    of_run = [*(o for o in train_overrides if not o.startswith("data")), f"output_dir={tmp_path}"]
    sweep = [f"store={store.folder},{masked_store.folder}", "run_name='of_${folder_name:${store}}'"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        conf = composing.compose("train", of_run, with_hydra=True)
        conf.hydra.overrides.task = [*of_run, *sweep]
        runs = plan_sweep(conf)
    assert [run.name for run in runs] == ["of_tiny", "of_tiny_masked"]
    assert [run.plan.identity.store for run in runs] == [store.fingerprint, masked_store.fingerprint]


def test_the_domains_of_a_design_are_those_of_the_store(store: TokenStore):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        conf = compose("train", [f"store={store.folder}", "design=ddo", "design.scales=[1000]", "design.index=2"])
    assert conf.run_name == "fruit_x3_1K"


@pytest.mark.parametrize("given", ["data=local", "data.seq_len=32", "++data.sources.web.files=[x]"])
def test_a_store_and_keys_of_data_are_not_given_together(given, compose_train, store: TokenStore):
    conf = replace(compose_train(), store=str(store.folder))
    with pytest.raises(
        UserError, match=r"store is '.*tiny', which says all about the data, but .* is given too; leave"
    ):
        store_of(conf, ["seed=1", given])


def test_a_store_that_is_not_there_is_told_by_its_key(compose_train):
    with pytest.raises(
        UserError, match=r"store is 'nowhere', which has no finished token store; .* or give its folder"
    ):
        store_of(replace(compose_train(), store="nowhere"), [])


def test_compiling_without_a_compiler_is_refused(compose_train, store: TokenStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    plan_run(compose_train(), store)
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler, but there is no 'no-such-compiler'; install one"):
        plan_run(compose_train("trainer.compile=true"), store)
