import pytest
import torch
from transformers import GPT2LMHeadModel

from autoscale_exp.lm.causal import CausalLanguageModel
from autoscale_exp.lm.conf import ModelConf, OptimizerConf

VOCAB_SIZE, SEQ_LEN = 50, 12


def language_model(dropout: float = 0.0) -> CausalLanguageModel:
    torch.manual_seed(0)
    conf = ModelConf("test", "gpt2", 2, 16, 2, dropout, OptimizerConf(lr=1e-3, batch_rows=4))
    return CausalLanguageModel(conf, vocab_size=VOCAB_SIZE, end_of_text=7, seq_len=SEQ_LEN, num_steps=10, seed=0)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, (5, SEQ_LEN), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_losses_are_those_of_transformers(dropout, tokens):
    module = language_model(dropout)
    torch.manual_seed(5)
    losses = module.token_losses(tokens)
    torch.manual_seed(5)
    expected = module.model(input_ids=tokens, labels=tokens).loss
    assert losses.shape == (5 * (SEQ_LEN - 1),)
    assert losses.mean().item() == pytest.approx(expected.item(), abs=1e-6)


def test_losses_are_negative_log_probabilities_of_the_next_token(tokens):
    module = language_model().eval()
    probabilities = module.model(tokens).logits.double().softmax(-1)
    expected = [-probabilities[b, t, tokens[b, t + 1]].log() for b in range(5) for t in range(SEQ_LEN - 1)]
    torch.testing.assert_close(module.token_losses(tokens).double(), torch.stack(expected), atol=1e-5, rtol=0)


def test_gradients_are_those_of_transformers(tokens):
    module = language_model()
    module.token_losses(tokens).mean().backward()
    ours = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module.model(input_ids=tokens, labels=tokens).loss.backward()
    for mine, expected in zip(ours, module.parameters(), strict=True):
        torch.testing.assert_close(mine, expected.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_losses_in_chunks_have_the_same_gradients(checkpointed, tokens, monkeypatch):
    module = language_model()
    whole = module.token_losses(tokens)
    whole.mean().backward()
    expected = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    monkeypatch.setattr("autoscale_exp.lm.language_model.CHUNK_LOGITS", 7 * VOCAB_SIZE)  # 55 tokens, 7 at a time
    if checkpointed:
        module.model.gradient_checkpointing_enable({"use_reentrant": False})
    losses = module.token_losses(tokens)
    losses.mean().backward()
    torch.testing.assert_close(losses, whole, atol=1e-6, rtol=0)
    for parameter, gradient in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-5)


def test_a_token_is_predicted_only_from_those_before_it(tokens):
    module = language_model().eval()
    before = module.token_losses(tokens[:1])
    tokens[0, 6] = (tokens[0, 6] + 1) % VOCAB_SIZE
    after = module.token_losses(tokens[:1])
    assert torch.equal(before[:5], after[:5])
    assert (before[5:] != after[5:]).all()


def test_the_architecture_is_the_one_asked_for():
    model = language_model(dropout=0.3).model
    assert isinstance(model, GPT2LMHeadModel)
    config = model.config
    assert (config.n_layer, config.n_embd, config.n_head, config.n_positions) == (2, 16, 2, SEQ_LEN)
    assert (config.vocab_size, config.eos_token_id, config.bos_token_id) == (VOCAB_SIZE, 7, 7)
    assert {config.resid_pdrop, config.embd_pdrop, config.attn_pdrop} == {0.3}
    assert model.lm_head.weight is model.transformer.wte.weight
    embeddings, per_layer = (VOCAB_SIZE + SEQ_LEN) * 16, 12 * 16**2 + 13 * 16
    assert sum(p.numel() for p in model.parameters()) == embeddings + 2 * per_layer + 2 * 16
