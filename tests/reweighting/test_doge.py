from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoscale_exp.data.datamodule import Batch
from autoscale_exp.lm.causal import CausalLanguageModel
from autoscale_exp.lm.conf import ModelConf, OptimizerConf
from autoscale_exp.mixture.weights import read_mixture_file
from autoscale_exp.reweighting.conf import DogeConf
from autoscale_exp.reweighting.doge import Doge, next_weights
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.run import train
from tests.training.test_run import Interrupted, interrupted_after, trained, weights_of

CONF = DogeConf(name="doge", mu=0.05, largest_score=5.0)


def test_weights_ascend_by_what_a_domains_gradient_has_in_common_with_those_of_the_others():
    gradients = np.array([[3.0, 0.0], [4.0, 3.0], [0.0, -4.0]])  # of norms 3, 5 and 4
    products = gradients @ gradients.T
    scores = np.array([12 + 0, 12 - 12, 0 - 12]) / 4
    raised = np.array([0.5, 0.25, 0.25]) * np.exp(0.2 * np.array([3, 0, 0]))
    assert scores.tolist() == [3, 0, -3]
    weights = next_weights(np.array([0.5, 0.25, 0.25]), products, rate=0.2, largest_score=5.0)
    assert weights == pytest.approx(raised / raised.sum(), abs=1e-6)
    limited = next_weights(np.array([0.5, 0.5, 0.5]), products, rate=np.log(3), largest_score=1.0)
    assert limited == pytest.approx([0.6, 0.2, 0.2], abs=1e-6)
    assert next_weights(np.array([0.3, 0.7]), np.zeros((2, 2)), rate=1.0, largest_score=5.0).tolist() == [0.3, 0.7]


def test_the_loss_is_the_weighted_mean_over_domains_and_so_is_its_gradient():
    """Against a single pass and a single backward pass over all rows."""
    model = ModelConf("test", "gpt2", 1, 16, 2, 0.0, OptimizerConf(lr=1e-3, batch_rows=6))
    module = CausalLanguageModel(model, vocab_size=30, end_of_text=0, seq_len=8, num_steps=9, seed=0)
    module._trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 0.5}])])
    tokens = torch.randint(30, (6, 8), generator=torch.Generator().manual_seed(0))
    domains = torch.tensor([0, 2, 0, 2, 2, 1])
    doge = Doge(CONF, np.array([1 / 3, 1 / 6, 1 / 2]))
    doge.weights = np.array([0.5, 0.2, 0.3])
    batch = Batch(tokens, 1.0, domains.bincount(), torch.arange(6), domains)
    loss = doge.batch_loss(module, batch, torch.zeros(6, dtype=torch.int64))
    gradient = torch.autograd.grad(loss, module.model.parameters())
    logits = module.model(input_ids=tokens).logits[:, :-1].transpose(1, 2)
    of_rows = torch.nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none").mean(dim=1)
    expected = (
        0.5 * of_rows[domains == 0].mean() + 0.2 * of_rows[domains == 1].mean() + 0.3 * of_rows[domains == 2].mean()
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for one, other in zip(gradient, torch.autograd.grad(expected, module.model.parameters()), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_proxy_run_raises_domains_that_teach_each_other_and_not_noise(compose_contrast, kindred_store, tmp_path):
    asked = ["reweighting=doge", f"store={kindred_store.folder}", "model.optimizer.lr=0.01"]
    result = trained(plan_run(compose_contrast(*asked, steps=150), kindred_store), tmp_path)
    mixture = read_mixture_file(tmp_path / "mixture.yaml")
    assert mixture.domains == ["noise", "counting", "numbers"]
    assert mixture.weights[0] < 0.2
    assert mixture.weights[1] == pytest.approx(mixture.weights[2], rel=0.2)
    assert sum(mixture.weights) == pytest.approx(1)
    assert result["mixture"] == "doge"
    assert result["tokens"] == dict.fromkeys(mixture.domains, 150 * 8 * 16 // 3)  # drawn as the mixture says


def test_the_weights_do_not_depend_on_how_a_step_is_cut(compose_contrast, kindred_store, tmp_path):
    asked = ["reweighting=doge", f"store={kindred_store.folder}", "reweighting.mu=0.002"]
    found = []
    for rows in (8, 2):
        conf = compose_contrast(*asked, f"micro_batch_rows={rows}", steps=12)
        train(plan_run(conf, kindred_store), tmp_path / str(rows))
        found.append(read_mixture_file(tmp_path / str(rows) / "mixture.yaml").weights)
    assert max(found[0]) > 0.35
    assert found[1] == pytest.approx(found[0], abs=1e-5)


def test_an_interrupted_proxy_run_ends_exactly_as_an_uninterrupted_one(compose_contrast, kindred_store, tmp_path):
    asked = ["reweighting=doge", f"store={kindred_store.folder}", "save_model=true", "checkpoint_minutes=0"]
    plan = plan_run(compose_contrast(*asked, "micro_batch_rows=4", "model.dropout=0.2", steps=20), kindred_store)
    train(plan, tmp_path / "whole")
    with interrupted_after(13), pytest.raises(Interrupted):
        train(plan, tmp_path / "parts")
    train(plan, tmp_path / "parts")
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")
    mixtures = [(tmp_path / part / "mixture.yaml").read_bytes() for part in ("whole", "parts")]
    assert mixtures[0] == mixtures[1]
