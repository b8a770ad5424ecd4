import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from autoscale_exp.lm.masking import Masking, _mix64, row_keys
from autoscale_exp.mixture.permutation import mix64

VOCAB_SIZE, NUM_SPECIAL, MASK = 60, 5, 4  # ids 0 to 4 are special, 40 to 59 continue a word


def masking(probability: float = 0.15, *, whole_words: bool = False) -> Masking:
    return Masking(
        VOCAB_SIZE,
        mask_token=MASK,
        special_tokens=range(NUM_SPECIAL),
        continuations=range(40, VOCAB_SIZE),
        probability=probability,
        whole_words=whole_words,
    )


def random_rows(num_rows: int, seq_len: int, *, lowest: int = 0, seed: int = 0) -> torch.Tensor:
    return torch.randint(lowest, VOCAB_SIZE, (num_rows, seq_len), generator=torch.Generator().manual_seed(seed))


def keys(num_rows: int, *parts: str | int) -> torch.Tensor:
    return row_keys(torch.arange(num_rows), *(parts or ("test",)))


def words_of(row: list[int]) -> list[list[int]]:
    """Places of each word's tokens; special tokens are in none."""
    words: list[list[int]] = []
    for place, token in enumerate(row):
        if token >= NUM_SPECIAL:
            if token >= 40 and place and row[place - 1] >= NUM_SPECIAL:
                words[-1].append(place)
            else:
                words.append([place])
    return words


def likely(successes: int, trials: int, probability: float) -> bool:
    return 1e-6 < binom.cdf(successes, trials, probability) < 1 - 1e-6


rows = st.integers(1, 5).flatmap(
    lambda t: st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=6 * t, max_size=6 * t), min_size=1, max_size=6)
)


@given(rows, st.sampled_from([0.05, 0.15, 0.4, 0.9]), st.booleans(), st.integers(0, 2**62))
@settings(max_examples=100, deadline=None)
def test_special_tokens_are_neither_masked_nor_put_in(rows, probability, whole_words, key):
    tokens = torch.tensor(rows)
    inputs, selected = masking(probability, whole_words=whole_words)(tokens, torch.arange(len(rows)) + key)
    special = tokens < NUM_SPECIAL
    assert not (selected & special).any()
    assert torch.equal(inputs[~selected], tokens[~selected])
    assert ((inputs[selected] >= NUM_SPECIAL) | (inputs[selected] == MASK)).all()


@given(rows, st.sampled_from([0.05, 0.15, 0.4, 0.9]), st.integers(0, 2**62))
@settings(max_examples=100, deadline=None)
def test_a_row_has_its_share_of_masked_tokens_and_at_least_one(rows, probability, key):
    tokens = torch.tensor(rows)
    selected = masking(probability)(tokens, torch.arange(len(rows)) + key).selected
    allowed = (tokens >= NUM_SPECIAL).sum(1)
    assert ((selected.sum(1) - probability * allowed).abs() <= 0.5 + 1e-5)[allowed * probability > 0.5].all()
    assert torch.equal(selected.any(1), allowed > 0)


@given(rows, st.sampled_from([0.05, 0.15, 0.4, 0.9]), st.integers(0, 2**62))
@settings(max_examples=100, deadline=None)
def test_the_tokens_of_a_word_are_masked_together(rows, probability, key):
    selected = masking(probability, whole_words=True)(torch.tensor(rows), torch.arange(len(rows)) + key).selected
    for row, chosen in zip(rows, selected.tolist(), strict=True):
        words = words_of(row)
        assert all(len({chosen[place] for place in word}) == 1 for word in words)
        longest = max(map(len, words), default=0)
        count = round(probability * sum(map(len, words)))
        assert abs(sum(chosen) - count) <= longest / 2 or [len(w) for w in words if chosen[w[0]]] == [sum(chosen)]


@pytest.mark.parametrize("whole_words", [False, True])
def test_as_many_tokens_are_masked_as_asked_for(whole_words):
    tokens = random_rows(4000, 128, lowest=NUM_SPECIAL)
    selected = masking(whole_words=whole_words)(tokens, keys(4000)).selected
    assert selected.double().mean().item() == pytest.approx(0.15, abs=0.002)  # 128 x .15 = 19.2 is rounded to 19


def test_every_place_is_as_likely_to_be_masked():
    selected = masking()(random_rows(20_000, 20, lowest=NUM_SPECIAL), keys(20_000)).selected  # 3 of 20
    assert all(likely(int(count), 20_000, 0.15) for count in selected.sum(0))


def test_masks_of_neighbouring_rows_and_runs_overlap_by_chance_alone():
    tokens = random_rows(20_000, 20, lowest=NUM_SPECIAL)
    selected = masking()(tokens, keys(20_000, 0, "row")).selected
    other_seed = masking()(tokens, keys(20_000, 1, "row")).selected
    for first, second in ((selected[1:], selected[:-1]), (selected, other_seed), (selected[:, 1:], selected[:, :-1])):
        expected = 0.15**2 if first.shape[1] == 20 else 0.15 * 2 / 19  # without replacement within a row
        assert likely(int((first & second).sum()), first.numel(), expected)


def test_of_the_masked_tokens_80_10_and_10_percent_become_masks_random_tokens_and_stay():
    tokens = random_rows(10_000, 64, lowest=NUM_SPECIAL)
    inputs, selected = masking()(tokens, keys(10_000))
    shown, original = inputs[selected], tokens[selected]
    num_regular = VOCAB_SIZE - NUM_SPECIAL
    masked, same = int((shown == MASK).sum()), int((shown == original).sum())
    assert len(shown) == 10_000 * 10
    assert likely(masked, len(shown), 0.8)
    assert likely(same, len(shown), 0.1 + 0.1 / num_regular)  # a random token may be the one that was there
    replaced = shown[(shown != MASK) & (shown != original)]
    counts = torch.bincount(replaced, minlength=VOCAB_SIZE)[NUM_SPECIAL:].numpy()
    assert likely(int(counts.sum()), len(shown), 0.1 * (num_regular - 1) / num_regular)
    assert chisquare(counts).pvalue > 1e-6


def test_what_becomes_of_a_token_does_not_depend_on_its_neighbour():
    tokens = random_rows(20_000, 64, lowest=NUM_SPECIAL)
    inputs, selected = masking(0.5)(tokens, keys(20_000))
    both = selected[:, 1:] & selected[:, :-1]
    hidden = inputs == MASK
    pairs = int((hidden[:, 1:] & hidden[:, :-1] & both).sum())
    assert pairs / int(both.sum()) == pytest.approx(0.64, abs=0.004)


@pytest.mark.parametrize("whole_words", [False, True])
def test_a_mask_does_not_depend_on_the_other_rows_of_the_batch(whole_words):
    tokens, row_key = random_rows(64, 32), keys(64)
    mask = masking(whole_words=whole_words)
    inputs, selected = mask(tokens, row_key)
    for size in (1, 3, 64):
        parts = [mask(*part) for part in zip(tokens.split(size), row_key.split(size), strict=True)]
        assert torch.equal(torch.cat([part.inputs for part in parts]), inputs)
        assert torch.equal(torch.cat([part.selected for part in parts]), selected)


def test_a_row_of_special_tokens_has_no_masks():
    tokens = torch.tensor([[2, 3, 3, 0, 1, 4]])
    inputs, selected = masking(0.9)(tokens, keys(1))
    assert torch.equal(inputs, tokens)
    assert not selected.any()


def test_the_hash_is_the_one_of_the_sampler():
    values = np.random.default_rng(0).integers(0, 2**64, size=1000, dtype=np.uint64)
    ours = _mix64(torch.from_numpy(values.view(np.int64)))
    assert np.array_equal(ours.numpy().view(np.uint64), mix64(values))


def test_keys_differ_between_rows_domains_and_seeds():
    drawn = [*keys(100, "validation", "web"), *keys(100, "validation", "books"), *keys(100, 0, "row")]
    assert len(set(map(int, drawn))) == 300


def test_the_masks_of_validation_are_these():
    """Losses are compared across versions of this package: masks drawn otherwise would move them all."""
    tokens = torch.arange(NUM_SPECIAL, 45).unsqueeze(0)
    inputs, selected = masking()(tokens, row_keys(torch.tensor([7]), "validation", "web"))
    assert selected.nonzero()[:, 1].tolist() == [10, 14, 19, 22, 24, 36]
    assert inputs[selected].tolist() == [4, 19, 4, 4, 4, 4]
