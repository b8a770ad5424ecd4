import re

import pytest
from safetensors.torch import load_file, save_file

from autoscale_exp.base.errors import UserError
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.run import train

ADO, DOREMI = "reweighting=ado", "reweighting=doremi"
FEW = "reweighting.num_intervals=6"
COMMAND = r"train one with `python -m autoscale_exp.train store=\S+ model=gpt2_tiny token_budget=\d+ save_model=true`"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([ADO], r"num_intervals is 60, but the run has 50 optimiser steps, and an interval needs 5; lower rew"),
        ([ADO, FEW, "num_workers=2"], r"num_workers is 2, but with reweighting=ado .* read ahead; set num_workers=0"),
        ([ADO, "reweighting.num_intervals=2"], r"reweighting.num_intervals is 2; it must be at least 3"),
        ([ADO, "reweighting.ignored_intervals=-1"], r"reweighting.ignored_intervals is -1; it must be at least 0"),
        ([ADO, FEW, "reweighting.policy_rate=1.5"], r"reweighting.policy_rate is 1.5; it must lie between 0 and 1"),
        ([ADO, FEW, "mixture=custom", "mixture.weights=[1,0]"], r"no row of noise; give each domain a weight or leave"),
        ([ADO, FEW, "stages=[{start: 1600, weights: [1,0]}]"], r"reweighting=ado sets .* but stages are set; use des"),
        ([ADO, FEW, "design=ddo", "design.scales=[6400]"], r"but the design is not single; use design=single with"),
        (["reweighting=doge", "reweighting.mu=0"], r"reweighting.mu is 0.0; it must be positive and finite"),
        (
            ["reweighting=doge", "trainer.strategy=fsdp", "trainer.devices=2"],
            r"trainer.strategy is fsdp, under which no device has the",
        ),
        (["reweighting=doge", "trainer.precision=16-mixed"], r"trainer.precision is 16-mixed, in which the gradients"),
        ([DOREMI], rf"reweighting.reference is not set; DoReMi compares .* a reference run: {COMMAND} and give its fo"),
        ([DOREMI, "reweighting.reference=nowhere"], rf"'nowhere', which holds no finished run; {COMMAND}"),
        ([DOREMI, "reweighting.step_size=-1"], r"reweighting.step_size is -1.0; it must be at least 0"),
        ([DOREMI, "reweighting.smoothing=2"], r"reweighting.smoothing is 2.0; it must lie between 0 and 1"),
    ],
)
def test_a_run_that_cannot_be_reweighted_is_refused_before_it_starts(
    overrides, message, compose_contrast, contrast_store
):
    with pytest.raises(UserError, match=message):
        plan_run(compose_contrast(*overrides, steps=50), contrast_store)


def test_a_reference_without_its_model_is_refused(compose_contrast, contrast_store, tmp_path):
    train(plan_run(compose_contrast(steps=2), contrast_store), tmp_path)
    conf = compose_contrast(DOREMI, f"reweighting.reference={tmp_path}", steps=50)
    with pytest.raises(
        UserError, match=rf"reference is '{re.escape(str(tmp_path))}', a run without save_model=true; tr"
    ):
        plan_run(conf, contrast_store)


def test_a_reference_of_another_family_is_refused(
    compose_contrast, contrast_store, compose_train, masked_overrides, masked_store, tmp_path
):
    train(plan_run(compose_contrast("save_model=true", steps=2), contrast_store), tmp_path)
    conf = compose_train(*masked_overrides, DOREMI, f"reweighting.reference={tmp_path}")
    with pytest.raises(UserError, match=r"a gpt2 model, but model.family is 'bert', whose losses are of other tokens"):
        plan_run(conf, masked_store)


def test_a_reference_of_shorter_rows_is_refused(compose_contrast, contrast_store, tmp_path):
    train(plan_run(compose_contrast("save_model=true", steps=2), contrast_store), tmp_path)
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"n_positions": 16', '"n_positions": 8'))
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["transformer.wpe.weight"] = weights["transformer.wpe.weight"][:8].contiguous()
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    conf = compose_contrast(DOREMI, f"reweighting.reference={tmp_path}", steps=50)
    with pytest.raises(UserError, match=r"whose rows have 8 tokens, but those of the store .* have 16; train one with"):
        plan_run(conf, contrast_store)


def test_a_reference_of_another_tokenizer_is_refused(compose_train, compose_contrast, contrast_store, tmp_path):
    train(plan_run(compose_contrast("save_model=true", steps=2), contrast_store), tmp_path)
    saved = tmp_path / "model" / "tokenizer.json"
    saved.write_text(
        saved.read_text()
        .replace('"add_prefix_space":false', '"add_prefix_space":true')
        .replace('"add_prefix_space": false', '"add_prefix_space": true')
    )
    conf = compose_contrast(DOREMI, f"reweighting.reference={tmp_path}", steps=50)
    with pytest.raises(UserError, match=r"reweighting.reference is .* whose tokenizer is not the one of the store"):
        plan_run(conf, contrast_store)
