from itertools import repeat
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from transformers import AutoModelForMaskedLM, BertForMaskedLM

from autoscale_exp.lm.conf import MaskedModelConf, OptimizerConf
from autoscale_exp.lm.masked import MaskedLanguageModel
from autoscale_exp.lm.masking import Masking, row_keys

VOCAB_SIZE, SEQ_LEN, NUM_ROWS = 50, 12, 64


def language_model(dropout: float = 0.0, probability: float = 0.3) -> MaskedLanguageModel:
    torch.manual_seed(0)
    conf = MaskedModelConf("test", "bert", 2, 16, 2, dropout, OptimizerConf(lr=1e-3, batch_rows=4))
    masking = Masking(
        VOCAB_SIZE, mask_token=4, special_tokens=range(5), continuations=[], probability=probability, whole_words=False
    )
    return MaskedLanguageModel(conf, masking, vocab_size=VOCAB_SIZE, padding=0, seq_len=SEQ_LEN, num_steps=10, seed=0)


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows with [CLS] in front and up to all but two tokens special, so that they have 1 to 3 masked tokens; keys."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, VOCAB_SIZE, (NUM_ROWS, SEQ_LEN), generator=generator)
    num_special = torch.randint(1, SEQ_LEN - 1, (NUM_ROWS, 1), generator=generator)
    tokens[torch.arange(SEQ_LEN) < num_special] = 3
    tokens[:, 0] = 2
    return tokens, row_keys(torch.arange(NUM_ROWS), "validation", "web")


def losses_of_transformers(model: BertForMaskedLM, module: MaskedLanguageModel, tokens, keys) -> torch.Tensor:
    """Mean loss per row, from transformers' own labels."""
    inputs, selected = module.masking(tokens, keys)
    labels = tokens.masked_fill(~selected, -100)
    return torch.stack([model(input_ids=inputs[[i]], labels=labels[[i]]).loss for i in range(len(tokens))])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_losses_are_those_of_transformers(dropout, rows):
    module = language_model(dropout)
    torch.manual_seed(5)
    losses = module.token_losses(*rows)
    inputs, selected = module.masking(*rows)
    torch.manual_seed(5)
    expected = module.model(input_ids=inputs, labels=rows[0].masked_fill(~selected, -100)).loss
    assert losses.shape == (int(selected.sum()),)
    assert losses.mean().item() == pytest.approx(expected.item(), abs=1e-5)


def test_losses_are_negative_log_probabilities_of_the_tokens_behind_the_masks(rows):
    module = language_model().eval()
    tokens, keys = rows
    inputs, selected = module.masking(tokens, keys)
    probabilities = module.model(inputs).logits.double().softmax(-1)
    expected = [-probabilities[b, t, tokens[b, t]].log() for b, t in selected.nonzero()]
    torch.testing.assert_close(module.token_losses(tokens, keys).double(), torch.stack(expected), atol=1e-5, rtol=0)


def test_each_row_counts_the_same_in_training(rows):
    module = language_model()
    expected = losses_of_transformers(module.model, module, *rows).mean()
    assert module.training_loss(*rows).item() == pytest.approx(expected.item(), abs=1e-5)
    assert abs(module.token_losses(*rows).mean().item() - expected.item()) > 1e-4


@pytest.mark.parametrize("size", [1, 3, 16])
def test_training_does_not_depend_on_how_a_step_is_cut(size, rows):
    module = language_model()
    whole = module.training_loss(*rows)
    whole.backward()
    expected = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    total = 0.0
    for tokens, keys in zip(*(part.split(size) for part in rows), strict=True):
        loss = module.training_loss(tokens, keys) * (len(tokens) / NUM_ROWS)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.item(), abs=1e-6)
    for parameter, gradient in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=0)


def test_the_validation_loss_does_not_depend_on_the_batch_size(rows):
    module = language_model(dropout=0.3)
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True)
    module.train()
    batches = [zip(*(part.split(size) for part in rows), repeat(True), strict=False) for size in (1, 3, 64)]
    means = [module.mean_loss(of_size) for of_size in batches]
    assert module.training
    inputs, selected = module.eval().masking(*rows)
    expected = module.model(input_ids=inputs, labels=rows[0].masked_fill(~selected, -100)).loss.item()
    assert means == [pytest.approx(expected, abs=1e-5)] * 3


def test_a_row_of_special_tokens_has_no_loss_and_breaks_nothing(rows):
    module = language_model()
    tokens, keys = rows[0][:2].clone(), rows[1][:2]
    alone = module.training_loss(tokens[:1], keys[:1])
    tokens[1] = 3
    assert module.training_loss(tokens, keys).item() == pytest.approx(alone.item() / 2, abs=1e-6)
    nothing = module.training_loss(tokens[1:], keys[1:])
    nothing.backward()
    assert nothing.item() == 0


def test_a_masked_token_is_predicted_from_both_sides(rows):
    module = language_model().eval()
    tokens, keys = rows[0][:1].clone(), rows[1][:1]
    tokens[0, 1:] = torch.arange(10, 10 + SEQ_LEN - 1)
    inputs, selected = module.masking(tokens, keys)
    before = module._losses(inputs, tokens, selected)
    places = selected[0].nonzero().flatten()
    for place in (~selected[0]).nonzero().flatten()[1:]:
        changed = inputs.clone()
        changed[0, place] = 49
        assert (module._losses(changed, tokens, selected) != before).all(), (int(place), places)


def test_a_saved_model_is_loaded_by_transformers_with_the_same_loss(rows, tmp_path: Path):
    module = language_model(dropout=0.1).eval()
    module.model.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, BertForMaskedLM)
    torch.testing.assert_close(
        losses_of_transformers(loaded, module, *rows), losses_of_transformers(module.model, module, *rows)
    )


def test_the_architecture_is_the_one_asked_for():
    model = language_model(dropout=0.3).model
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 16, 2)
    assert (config.intermediate_size, config.max_position_embeddings) == (64, SEQ_LEN)
    assert (config.vocab_size, config.pad_token_id) == (VOCAB_SIZE, 0)
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.3
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    embeddings, norm, per_layer = (VOCAB_SIZE + SEQ_LEN + 2) * 16, 2 * 16, 12 * 16**2 + 9 * 16 + 4 * 16
    head = 16**2 + 16 + norm + VOCAB_SIZE
    assert sum(p.numel() for p in model.parameters()) == embeddings + norm + 2 * per_layer + head
