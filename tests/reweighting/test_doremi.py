from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from autoscale_exp.lm.causal import CausalLanguageModel
from autoscale_exp.lm.conf import ModelConf, OptimizerConf
from autoscale_exp.mixture.weights import read_mixture_file
from autoscale_exp.reweighting.conf import DoremiConf
from autoscale_exp.reweighting.doremi import Doremi, next_weights
from autoscale_exp.training.plan import is_finished, plan_run
from autoscale_exp.training.run import train
from tests.training.test_run import Interrupted, interrupted_after, result_of, trained, weights_of


@pytest.fixture(scope="module")
def reference(contrast_store, train_overrides, tmp_path_factory) -> Path:
    """A reference run on the contrast store, of 200 steps."""
    from tests.reweighting.conftest import compose_contrast

    folder = tmp_path_factory.mktemp("reference")
    compose = compose_contrast.__wrapped__(contrast_store, train_overrides, folder)
    train(plan_run(compose("save_model=true", "model.optimizer.lr=0.02", steps=200), contrast_store), folder)
    return folder


def doremi_of(num_domains: int, **conf) -> Doremi:
    model = ModelConf("test", "gpt2", 1, 16, 2, 0.0, OptimizerConf(lr=1e-3, batch_rows=4))
    module = CausalLanguageModel(model, vocab_size=30, end_of_text=0, seq_len=8, num_steps=9, seed=0)
    conf = DoremiConf(**({"name": "doremi", "step_size": 1.0, "smoothing": 0.1} | conf))
    return Doremi(conf, module, np.full(num_domains, 1 / num_domains), num_steps=9, vocab_size=30)


def test_weights_ascend_by_the_exponential_of_the_excess_and_are_smoothed():
    weights = next_weights(np.array([0.5, 0.25, 0.25]), np.log([1, 2, 4]), step_size=1.0, smoothing=0.1)
    assert weights.tolist() == pytest.approx([0.9 * share + 0.1 / 3 for share in (0.25, 0.25, 0.5)])
    double = next_weights(np.array([0.5, 0.5]), np.log([3, 1]), step_size=2.0, smoothing=0.0)
    assert double.tolist() == pytest.approx([0.9, 0.1])
    large = next_weights(np.array([0.5, 0.5]), np.array([2000.0, 0.0]), step_size=1.0, smoothing=0.02)
    assert large.tolist() == pytest.approx([0.99, 0.01])


def test_the_result_is_the_mean_of_the_weights_and_an_absent_domain_keeps_its_excess():
    doremi = doremi_of(2)
    sums, counts = np.array([[0.0, 6.0], [8.0, 2.0], [0.0, 5.0]]), np.array([[0, 3], [4, 4], [0, 5]])
    weights, excess, seen = np.array([0.5, 0.5]), np.log([30, 30]), []
    for step in range(3):
        doremi.take_step(sums[step], counts[step], step + 1)
        excess = np.where(counts[step] > 0, sums[step] / np.maximum(counts[step], 1), excess)
        raised = weights * np.exp(excess)
        weights = 0.9 * raised / raised.sum() + 0.05
        seen.append(weights)
    assert doremi.excess.tolist() == [2.0, 1.0]
    assert doremi.weights == pytest.approx(weights)
    assert doremi.mean_weights == pytest.approx(np.mean(seen, axis=0))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_proxy_run_raises_a_learnable_domain_and_not_noise(
    seed, compose_contrast, contrast_store, reference, tmp_path
):
    options = ["reweighting=doremi", f"reweighting.reference={reference}", "model.optimizer.lr=0.005", f"seed={seed}"]
    result = trained(plan_run(compose_contrast(*options, steps=200), contrast_store), tmp_path)
    mixture = read_mixture_file(tmp_path / "mixture.yaml")
    assert mixture.domains == ["counting", "noise"]
    assert mixture.weights[0] > 0.9
    assert mixture.token_budget is None
    curve = result["weights_curve"]
    assert [point["tokens"] for point in curve] == [2 * 8 * 16 * number for number in range(1, 101)]
    assert all(point["excess_losses"]["counting"] > 2 for point in curve[:20])
    assert curve[0]["excess_losses"]["noise"] < 0.2
    assert all(sum(point["weights"].values()) == pytest.approx(1) for point in curve)
    assert result["tokens"] == {"counting": 200 * 64, "noise": 200 * 64}  # drawn as the mixture says
    assert result["mixture"] == "doremi"


def test_a_proxy_run_is_that_of_a_plain_loop_around_transformers(compose_contrast, contrast_store, reference, tmp_path):
    options = ["reweighting=doremi", f"reweighting.reference={reference}", "model.optimizer.schedule=linear"]
    steps, mixture = 12, ["mixture=custom", "mixture.weights=[.75,.25]"]
    conf = compose_contrast(*options, *mixture, "reweighting.smoothing=.05", "micro_batch_rows=4", steps=steps)
    plan = plan_run(conf, contrast_store)
    torch.manual_seed(plan.seed)
    model: GPT2LMHeadModel = CausalLanguageModel(
        conf.model, vocab_size=300, end_of_text=0, seq_len=16, num_steps=steps, seed=0
    ).model
    known = GPT2LMHeadModel.from_pretrained(reference / "model").eval()
    groups = [[p for p in model.parameters() if (p.ndim > 1) == decayed] for decayed in (True, False)]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.01}, {"params": groups[1], "weight_decay": 0}]
    )
    weights, excess, curve = np.array([0.5, 0.5]), np.log([300.0, 300.0]), []

    def losses_of(network, tokens):
        logits = network(input_ids=tokens).logits[:, :-1].transpose(1, 2)
        return torch.nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none")  # (8, 15)

    for step in range(steps):
        domain, row = plan.sampler.rows(8 * step, 8 * step + 8)
        rows = [
            contrast_store.rows("train", contrast_store.domains[d])[r : r + 1] for d, r in zip(domain, row, strict=True)
        ]
        tokens = torch.from_numpy(np.concatenate(rows).astype("int64"))
        losses = losses_of(model, tokens)
        of_rows = torch.from_numpy((weights / [0.75, 0.25])[domain]) * losses.mean(1)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (step if step < 1 else (steps - step) / (steps - 1))
        optimizer.zero_grad()
        of_rows.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with torch.no_grad():
            over = (losses - losses_of(known, tokens)).clamp(min=0).numpy()
        optimizer.step()
        for index in set(domain.tolist()):
            excess[index] = over[domain == index].mean()
        raised = weights * np.exp(excess)
        weights = 0.95 * raised / raised.sum() + 0.025
        curve.append(weights)
    result = trained(plan, tmp_path)
    assert [list(point["weights"].values()) for point in result["weights_curve"]] == [
        pytest.approx(of_step.tolist(), abs=1e-5) for of_step in curve
    ]
    mean = read_mixture_file(tmp_path / "mixture.yaml").weights
    assert mean == pytest.approx(np.mean(curve, axis=0).tolist(), abs=1e-5)


def test_the_weights_do_not_depend_on_how_a_step_is_cut(compose_contrast, contrast_store, reference, tmp_path):
    options = ["reweighting=doremi", f"reweighting.reference={reference}"]
    curves = []
    for rows in (8, 4, 1):
        conf = compose_contrast(*options, f"micro_batch_rows={rows}", steps=10)
        result = trained(plan_run(conf, contrast_store), tmp_path / str(rows))
        curves.append([point["weights"]["counting"] for point in result["weights_curve"]])
    assert curves[1:] == [pytest.approx(curves[0], abs=1e-5)] * 2


@pytest.mark.parametrize("overrides", [[], ["micro_batch_rows=2", "model.dropout=0.2", "num_workers=1"]])
def test_an_interrupted_proxy_run_ends_exactly_as_an_uninterrupted_one(
    overrides, compose_contrast, contrast_store, reference, tmp_path
):
    options = ["reweighting=doremi", f"reweighting.reference={reference}", "save_model=true", "checkpoint_minutes=0"]
    plan = plan_run(compose_contrast(*options, *overrides, steps=30), contrast_store)
    expected = trained(plan, tmp_path / "whole")
    for num_batches in (13, 9):
        with interrupted_after(num_batches), pytest.raises(Interrupted):
            train(plan, tmp_path / "parts")
    result = trained(plan, tmp_path / "parts")
    for key in ("losses", "tokens", "weights_curve"):
        assert result[key] == expected[key]
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")
    mixtures = [(tmp_path / part / "mixture.yaml").read_bytes() for part in ("whole", "parts")]
    assert mixtures[0] == mixtures[1]


def test_a_mixture_from_a_proxy_run_can_be_trained(compose_contrast, contrast_store, reference, tmp_path):
    options = ["reweighting=doremi", f"reweighting.reference={reference}"]
    train(plan_run(compose_contrast(*options, steps=6), contrast_store), tmp_path)
    weights = read_mixture_file(tmp_path / "mixture.yaml").weights
    target = compose_contrast("mixture=from_file", f"mixture.path={tmp_path / 'mixture.yaml'}", steps=100)
    counts = plan_run(target, contrast_store).sampler.row_counts
    assert counts.tolist() == pytest.approx([800 * weight for weight in weights], abs=1)


def test_masked_models_are_compared_on_the_same_masks(masked_overrides, compose_train, masked_store, tmp_path):
    def compose(*overrides):
        return compose_train(*masked_overrides, "model.n_layer=1", *overrides)

    train(plan_run(compose("save_model=true"), masked_store), tmp_path / "reference")
    same = [f"model.init_from={tmp_path / 'reference' / 'model'}", "model.optimizer.lr=1e-9", "model.dropout=0"]
    options = ["reweighting=doremi", f"reweighting.reference={tmp_path / 'reference'}"]
    curve = trained(plan_run(compose(*options, *same), masked_store), tmp_path / "proxy")["weights_curve"]
    assert max(max(point["excess_losses"].values()) for point in curve[-3:]) < 1e-4  # a model against itself


def test_another_reference_or_step_size_is_another_run(compose_contrast, contrast_store, reference, tmp_path):
    options = ["reweighting=doremi", f"reweighting.reference={reference}"]
    plan = plan_run(compose_contrast(*options, steps=6), contrast_store)
    train(plan, tmp_path)
    assert is_finished(plan, tmp_path)
    assert plan.identity.reweighting == {
        "reference": plan.reference.sha256,
        "step_size": 1.0,
        "smoothing": 1e-3,
    }
    other = plan_run(compose_contrast(*options, "reweighting.step_size=0.5", steps=6), contrast_store)
    with pytest.raises(ValueError, match=r"reweighting.step_size: 1.0, not 0.5"):
        is_finished(other, tmp_path)
    named = plan_run(compose_contrast(*options, "reweighting.name=mine", steps=6), contrast_store)
    assert named.identity.reweighting == plan.identity.reweighting
    assert "weights_curve" in result_of(tmp_path)
