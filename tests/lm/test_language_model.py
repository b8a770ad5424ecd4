import math

import pytest
import torch
from pytorch_lightning import Trainer

from autoscale_exp.data.datamodule import Batch
from autoscale_exp.lm.causal import CausalLanguageModel
from autoscale_exp.lm.conf import ModelConf, OptimizerConf

NUM_STEPS, NUM_WARMUP, LR = 40, 8, 0.02


def language_model(**optimizer) -> CausalLanguageModel:
    torch.manual_seed(0)
    conf = ModelConf("test", "gpt2", 1, 16, 2, 0.1, OptimizerConf(**({"lr": LR, "batch_rows": 4} | optimizer)))
    return CausalLanguageModel(conf, vocab_size=30, end_of_text=0, seq_len=8, num_steps=NUM_STEPS, seed=0)


def linear(step: int) -> float:
    return step / NUM_WARMUP if step < NUM_WARMUP else (NUM_STEPS - step) / (NUM_STEPS - NUM_WARMUP)


def cosine(step: int) -> float:
    if step < NUM_WARMUP:
        return step / NUM_WARMUP
    return (1 + math.cos(math.pi * (step - NUM_WARMUP) / (NUM_STEPS - NUM_WARMUP))) / 2


@pytest.mark.parametrize(("schedule", "factor"), [("linear", linear), ("cosine", cosine)])
def test_the_learning_rate_warms_up_and_decays_to_zero(schedule, factor):
    configured = language_model(schedule=schedule, warmup_fraction=0.2).configure_optimizers()
    assert configured["lr_scheduler"]["interval"] == "step"
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(NUM_STEPS + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[1]["lr"] == rates[-1]
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([LR * factor(step) for step in range(NUM_STEPS + 1)], abs=1e-12)
    assert max(rates) == LR


def test_without_warmup_the_learning_rate_starts_at_its_peak():
    optimizer = language_model(warmup_fraction=0.0).configure_optimizers()["optimizer"]
    assert optimizer.param_groups[0]["lr"] == LR


def test_weight_decay_spares_biases_and_norms():
    module = language_model(weight_decay=0.3, betas=[0.8, 0.95])
    decayed, spared = module.configure_optimizers()["optimizer"].param_groups
    names = {id(parameter): name for name, parameter in module.model.named_parameters()}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert decayed["betas"] == spared["betas"] == (0.8, 0.95)
    assert {names[id(p)] for p in spared["params"]} == {
        name for name in names.values() if name.endswith(".bias") or "ln_" in name
    }
    everything = [names[id(p)] for group in (decayed, spared) for p in group["params"]]
    assert sorted(everything) == sorted(names.values())


def test_mean_loss_weights_tokens_not_batches():
    module = language_model()
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True)
    module.train()
    rows = torch.randint(30, (7, 8), generator=torch.Generator().manual_seed(1))
    mean = module.mean_loss(iter([(part, torch.arange(len(part)), True) for part in (rows[:1], rows[1:6], rows[6:])]))
    assert module.training
    expected = module.eval().token_losses(rows).double().mean().item()
    assert mean == pytest.approx(expected, abs=1e-6)
    of_batches = [module.token_losses(part).mean().item() for part in (rows[:1], rows[1:6], rows[6:])]
    assert abs(sum(of_batches) / 3 - expected) > 1e-4


def test_dropout_depends_on_seed_and_place_in_the_run_alone():
    def losses(seed: int, batch_idx: int) -> torch.Tensor:
        module = language_model()
        module.seed = seed
        batch = Batch(
            torch.arange(16).reshape(2, 8), 1.0, torch.tensor([2]), torch.arange(2), torch.zeros(2, dtype=torch.int64)
        )
        module.on_train_batch_start(batch, batch_idx)
        return module.token_losses(batch.tokens)

    assert torch.equal(losses(0, 3), losses(0, 3))
    assert not torch.equal(losses(0, 3), losses(0, 4))
    assert not torch.equal(losses(0, 3), losses(1, 3))
