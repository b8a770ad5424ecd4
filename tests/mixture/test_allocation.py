import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.weights import check_weights
from autoscale_exp.mixture.allocation import allocate_rows, allocate_stages

DOMAINS = ["web", "books", "arxiv"]
EXACT = Fraction(1, 10**6)  # rows; far above rounding error, far below what a wrong allocation is off by


@st.composite
def requests(draw, max_budget: int = 10**13):
    shares = np.array(draw(st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any)), dtype=float)
    seq_len = draw(st.sampled_from([1, 16, 64, 1000, 1024]))
    return shares / shares.sum() * draw(st.integers(2 * seq_len, max_budget)), seq_len


@given(requests())
@settings(max_examples=200, deadline=None)
def test_total_is_the_number_of_rows_nearest_to_the_budget(request):
    domain_tokens, seq_len = request
    quota = sum(Fraction(tokens) for tokens in domain_tokens) / seq_len
    tolerance = max(EXACT, quota / 10**12)
    assert abs(int(allocate_rows(domain_tokens, seq_len).sum()) - quota) <= Fraction(1, 2) + tolerance


@given(requests())
@settings(max_examples=200, deadline=None)
def test_every_domain_gets_its_quota_rounded_down_or_up(request):
    domain_tokens, seq_len = request
    for rows, tokens in zip(allocate_rows(domain_tokens, seq_len).tolist(), domain_tokens, strict=True):
        quota = Fraction(tokens) / seq_len
        tolerance = max(EXACT, quota / 10**12)
        assert math.floor(quota - tolerance) <= rows <= math.ceil(quota + tolerance)
        assert rows > 0 or quota < 1


@given(st.lists(st.integers(0, 400), min_size=2, max_size=4), st.sampled_from([7, 10, 64]))
@settings(max_examples=100, deadline=None)
def test_no_other_allocation_of_the_same_total_is_nearer_to_the_quotas(domain_tokens, seq_len):
    if sum(domain_tokens) < seq_len:
        return
    rows = allocate_rows(domain_tokens, seq_len)
    quota = np.array(domain_tokens) / seq_len
    around = [range(max(0, int(q) - 1), int(q) + 3) for q in quota]
    others = [np.array(other) for other in itertools.product(*around) if sum(other) == rows.sum()]
    assert np.abs(rows - quota).sum() <= min(np.abs(other - quota).sum() for other in others) + 1e-9


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8).filter(any), st.sampled_from([16, 64, 1000, 1024]))
@settings(max_examples=200, deadline=None)
def test_whole_quotas_are_exact_in_spite_of_rounding(rows, seq_len):
    weights = np.array(rows) / sum(rows)
    assert allocate_rows(weights * sum(rows) * seq_len, seq_len).tolist() == rows


def test_fractions_count_at_a_trillion_tokens():
    assert allocate_rows(np.array([1e9 + 0.3, 1e9 + 0.3, 1e9 + 0.4]) * 1024, 1024).sum() == 3_000_000_001


@pytest.mark.parametrize(
    ("quota", "rows"),
    [([1.5, 1.5], [2, 1]), ([1.5, 0.25] * 20, [2, 0] * 15 + [1, 0] * 5), ([2.25, 0.25, 2.25, 0.25], [3, 0, 2, 0])],
)
def test_equal_remainders_go_to_the_earlier_domain(quota, rows):
    assert allocate_rows(np.array(quota) * 64, 64).tolist() == rows


@pytest.mark.parametrize("weights", [[0.7, 0.2, 0.1], [0.1] * 10, [1 / 3] * 3, [1.0, 0.0]])
def test_a_budget_of_one_row_is_enough(weights):
    assert allocate_rows(np.array(weights) * 64, 64).sum() == 1


def test_a_budget_below_one_row_is_an_error():
    with pytest.raises(UserError, match="budget 63 is below one row of 64 tokens; token_budget must be at least 64"):
        allocate_rows([31.5, 31.5], 64)


@pytest.mark.parametrize("tokens", [-64.0, math.nan, math.inf])
def test_tokens_that_are_no_amount_are_an_error(tokens):
    with pytest.raises(UserError, match="domain tokens must be finite and not negative"):
        allocate_rows([640.0, tokens], 64)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.5], r"^mixture.weights has 2 entries but data.domains has 3 \(web, books, arxiv\)"),
        ([0.7, 0.5, -0.2], "^mixture.weights: the weight of 'arxiv' is -0.2"),
        ([0.5, math.nan, 0.5], "^mixture.weights: the weight of 'books' is nan"),
        ([math.inf, 0.5, 0.5], "^mixture.weights: the weight of 'web' is inf"),
        ([0.5, 0.5, 0.5], "^mixture.weights sum to 1.5, not to 1; divide each weight by 1.5"),
        ([0.3, 0.3, 0.3], "^mixture.weights sum to 0.9, not to 1"),
    ],
)
def test_weights_that_are_no_shares_are_an_error(weights, message):
    with pytest.raises(UserError, match=message):
        check_weights(weights, DOMAINS, key="mixture.weights")


def test_weights_rounded_in_a_file_come_back_as_exact_shares():
    weights = check_weights([0.3333333, 0.3333333, 0.3333333], DOMAINS, key="mixture.weights")
    np.testing.assert_allclose(weights, 1 / 3, rtol=1e-15)


@st.composite
def staged(draw):
    seq_len = draw(st.sampled_from([1, 16, 1000]))
    num_domains, num_stages = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    lengths = [draw(st.integers(2 * seq_len, 10**12)) for _ in range(num_stages)]
    shares = np.array(
        [draw(st.lists(st.integers(1, 1000), min_size=num_domains, max_size=num_domains)) for _ in lengths]
    )
    edges = [0, *itertools.accumulate(lengths)]
    return edges[:-1], shares / shares.sum(axis=1, keepdims=True), edges[-1], seq_len


@given(staged())
@settings(max_examples=200, deadline=None)
def test_stages_start_and_end_at_the_nearest_row(request):
    starts, weights, token_budget, seq_len = request
    requested, rows = allocate_stages(starts, weights, token_budget, seq_len)
    assert requested.sum() == pytest.approx(token_budget, rel=1e-12)
    for end, stop in zip(np.cumsum(rows.sum(axis=1)).tolist(), [*starts[1:], token_budget], strict=True):
        assert abs(end - Fraction(stop, seq_len)) <= Fraction(1, 2)


@given(staged())
@settings(max_examples=200, deadline=None)
def test_a_stage_gives_every_domain_its_quota_rounded_down_or_up(request):
    for rows, weights in zip(allocate_stages(*request)[1].tolist(), request[1], strict=True):
        for count, weight in zip(rows, weights, strict=True):
            quota = Fraction(weight) * sum(rows)
            tolerance = max(EXACT, quota / 10**12)
            assert math.floor(quota - tolerance) <= count <= math.ceil(quota + tolerance)


def test_one_stage_is_a_run_without_stages():
    weights = np.array([0.5, 0.3, 0.2])
    _, rows = allocate_stages([0], [weights], 1600, 16)
    assert rows.tolist() == [allocate_rows(weights * 1600, 16).tolist()]


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([0, 7], r"stages\[0\].start is 7; it must be at least a row of 16 tokens above 0, .* below the budget of 160"),
        ([0, 0], r"stages\[0\].start is 0"),
        ([0, -16], r"stages\[0\].start is -16"),
        ([0, 160], r"stages\[0\].start is 160"),
        ([0, 155], r"stages\[0\].start is 155"),
        ([0, 999], r"stages\[0\].start is 999"),
        ([0, 80, 80], r"stages\[1\].start is 80; it must be at least a row of 16 tokens above 80"),
        ([0, 80, 32], r"stages\[1\].start is 32"),
    ],
)
def test_stages_that_do_not_follow_each_other_inside_the_run_are_refused(starts, message):
    with pytest.raises(UserError, match=message):
        allocate_stages(starts, [[0.5, 0.5]] * len(starts), 160, 16)
