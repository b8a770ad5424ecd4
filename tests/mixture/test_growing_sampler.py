import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.mixture.growing_sampler import GrowingSampler, rows_within
from autoscale_exp.mixture.sampler import MixtureSampler

NAMES = ["web", "books", "code"]


@st.composite
def plans(draw):
    """Stages that the pools of three domains allow for, and a plan of as many rows."""
    pools = [draw(st.integers(1, 900)) for _ in NAMES]
    num_stages = draw(st.integers(1, 5))
    stages = np.array([[draw(st.integers(0, pool)) for pool in pools] for _ in range(num_stages)])
    stages[:, draw(st.integers(0, 2))] += 1
    return MixtureSampler(NAMES, pools, stages, seed=draw(st.integers(0, 5)), max_epochs=10)


@given(plans())
@settings(max_examples=60, deadline=None)
def test_stages_told_one_by_one_have_the_rows_of_stages_told_at_once(plan):
    growing = GrowingSampler(plan)
    parts = []
    for counts in plan.stage_counts:
        start = growing.known_rows
        growing.append(counts)
        parts.append(growing.rows(start, growing.known_rows))
        domain, _ = parts[-1]
        assert np.bincount(domain, minlength=3).tolist() == counts.tolist()
    assert growing.num_rows == growing.known_rows == plan.num_rows
    for whole, of_parts in zip(plan.rows(0, plan.num_rows), zip(*parts, strict=True), strict=True):
        assert np.array_equal(whole, np.concatenate(of_parts))


@given(plans())
@settings(max_examples=40, deadline=None)
def test_what_was_told_never_changes(plan):
    growing = GrowingSampler(plan)
    growing.append(plan.stage_counts[0])
    first = growing.rows(0, growing.known_rows)
    for counts in plan.stage_counts[1:]:
        growing.append(counts)
    again = growing.rows(0, len(first[0]))
    assert all(np.array_equal(before, after) for before, after in zip(first, again, strict=True))


def test_rows_beyond_the_stages_told_cannot_be_asked_for():
    growing = GrowingSampler(MixtureSampler(NAMES, [9, 9, 9], [5, 5, 5], seed=0, max_epochs=1))
    assert (growing.known_rows, growing.num_rows) == (0, 15)
    growing.append(np.array([1, 2, 3]))
    assert growing.left().tolist() == [8, 7, 6]
    with pytest.raises(IndexError, match="positions 0 to 7 are outside the run's 6 rows"):
        growing.rows(0, 7)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 200)), min_size=1, max_size=6), st.data())
@settings(max_examples=200, deadline=None)
def test_no_domain_gives_more_than_its_limit_and_none_is_lost(domains, data):
    weights, limits = (np.array(of) for of in zip(*domains, strict=True))
    num_rows = data.draw(st.integers(1, max(1, int(limits.sum()))))
    if limits.sum() < num_rows or weights.sum() == 0:
        return
    shares = weights / weights.sum()
    rows = rows_within(shares, num_rows, limits)
    assert rows.sum() == num_rows
    assert (rows <= limits).all()
    if (shares * num_rows <= limits).all():
        assert np.abs(rows - shares * num_rows).max() < 1


def test_what_a_domain_cannot_give_the_others_give_by_their_weights():
    assert rows_within(np.array([0.5, 0.3, 0.2]), 100, np.array([10, 1000, 1000])).tolist() == [10, 54, 36]
    assert rows_within(np.array([0.5, 0.3, 0.2]), 100, np.array([10, 40, 1000])).tolist() == [10, 40, 50]
    assert rows_within(np.array([1.0, 0.0, 0.0]), 100, np.array([10, 60, 120])).tolist() == [10, 30, 60]
    assert rows_within(np.array([0.5, 0.5, 0.0]), 15, np.array([5, 5, 5])).tolist() == [5, 5, 5]
