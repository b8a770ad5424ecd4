from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoscale_exp.data.tokenizer import load_tokenizer
from autoscale_exp.lm.conf import MaskedModelConf, ModelConf, OptimizerConf
from autoscale_exp.lm.families import FAMILIES
from autoscale_exp.lm.masking import row_keys
from autoscale_exp.reweighting.domain_losses import DomainLosses, mean_of_rows

ONE_DEVICE = SimpleNamespace(strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor))


def test_losses_of_all_batches_of_a_step_are_summed_by_domain():
    rng = np.random.default_rng(0)
    losses, domains = rng.random(30).astype("float32"), rng.integers(0, 3, 30)
    of_step = DomainLosses(4)
    for part in np.array_split(np.arange(30), 4):
        of_step.add(torch.from_numpy(losses[part]), torch.from_numpy(domains[part]), counted=True)
    of_step.add(torch.ones(5), torch.zeros(5, dtype=torch.int64), counted=False)
    sums, counts = of_step.take(ONE_DEVICE)
    assert counts.tolist() == [*np.bincount(domains).tolist(), 0]
    assert sums.tolist() == pytest.approx([losses[domains == domain].sum() for domain in range(4)])
    assert of_step.take(ONE_DEVICE)[1].tolist() == [0, 0, 0, 0]


def test_rows_count_by_their_weight_however_many_tokens_they_have():
    losses, rows = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2])
    assert mean_of_rows(losses, rows, torch.ones(3)).item() == pytest.approx((2 + 0 + 5) / 3)
    assert mean_of_rows(losses, rows, torch.tensor([0.5, 7.0, 2.0])).item() == pytest.approx((1 + 0 + 10) / 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_weights_give_the_loss_of_a_run_without_reweighting(family, store, masked_store):
    of_family = masked_store if FAMILIES[family].masked else store
    schema = MaskedModelConf if FAMILIES[family].masked else ModelConf
    conf = schema("test", family, 1, 16, 2, 0.0, OptimizerConf(lr=1e-3, batch_rows=8))
    tokenizer = load_tokenizer(of_family.folder / "tokenizer")
    torch.manual_seed(0)
    module = FAMILIES[family].module_class.for_tokenizer(conf, tokenizer, seq_len=16, num_steps=1, seed=0)
    tokens = torch.from_numpy(of_family.rows("train", of_family.domains[0])[:9].astype("int64"))
    keys = row_keys(torch.arange(9), 0, "row")
    losses, rows = module.token_losses(tokens, keys), module.token_rows(tokens, keys)
    assert losses.shape == rows.shape
    weighted = mean_of_rows(losses, rows, torch.ones(9))
    assert weighted.item() == pytest.approx(module.training_loss(tokens, keys).item(), rel=1e-6)
