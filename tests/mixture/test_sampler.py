import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.mixture.sampler import MixtureSampler

NAMES = ["web", "books", "arxiv", "code", "wiki"]


def sampler_of(pools: dict[str, int], counts: dict[str, int], seed: int = 0, max_epochs: int = 8) -> MixtureSampler:
    return MixtureSampler(list(pools), list(pools.values()), list(counts.values()), seed=seed, max_epochs=max_epochs)


def sequence(sampler: MixtureSampler, name: str) -> list[int]:
    """Rows of one domain in training order."""
    domain, row = sampler.rows(0, sampler.num_rows)
    return row[domain == sampler.domains.index(name)].tolist()


@st.composite
def samplers(draw):
    """Of one to four stages, whose domains may go through a part of what they have only."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    unique = [draw(st.integers(1, 2000)) for _ in names]
    pools = [draw(st.one_of(st.just(rows), st.integers(1, rows))) for rows in unique]
    counts = [draw(st.integers(0, min(3 * pool, 4000))) for pool in pools]
    assume(sum(counts) > 0)
    num_cuts = draw(st.integers(0, 3))
    cuts = [sorted(draw(st.lists(st.integers(0, n), min_size=num_cuts, max_size=num_cuts))) for n in counts]
    stages = np.diff([[0, *cut, n] for cut, n in zip(cuts, counts, strict=True)]).T
    return MixtureSampler(names, pools, stages, seed=draw(st.integers(0, 5)), max_epochs=3, unique_rows=unique)


@given(samplers())
@settings(max_examples=60, deadline=None)
def test_every_stage_has_exactly_the_rows_asked_for(sampler):
    domain, row = sampler.rows(0, sampler.num_rows)
    start = 0
    for counts in sampler.stage_counts:
        stop = start + int(counts.sum())
        assert np.bincount(domain[start:stop], minlength=len(sampler.domains)).tolist() == counts.tolist()
        start = stop
    assert start == sampler.num_rows
    assert (row >= 0).all()
    assert (row < sampler.unique_rows[domain]).all()


@given(samplers())
@settings(max_examples=60, deadline=None)
def test_no_row_comes_again_before_its_pool_is_exhausted(sampler):
    for name, pool in zip(sampler.domains, sampler.pool_rows.tolist(), strict=True):
        rows = sequence(sampler, name)
        for start in range(0, len(rows), pool):
            epoch = rows[start : start + pool]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(rows[:pool])


@given(samplers())
@settings(max_examples=60, deadline=None)
def test_a_domain_goes_on_where_the_stage_before_left_it(sampler):
    one_stage = MixtureSampler(
        sampler.domains,
        sampler.pool_rows.tolist(),
        sampler.row_counts,
        seed=sampler.seed,
        max_epochs=3,
        unique_rows=sampler.unique_rows.tolist(),
    )
    for name in sampler.domains:
        assert sequence(sampler, name) == sequence(one_stage, name)


@given(samplers())
@settings(max_examples=60, deadline=None)
def test_a_smaller_pool_is_what_comes_first_of_all_rows(sampler):
    whole = MixtureSampler(
        sampler.domains, sampler.unique_rows.tolist(), sampler.unique_rows, seed=sampler.seed, max_epochs=1
    )
    for name, pool in zip(sampler.domains, sampler.pool_rows.tolist(), strict=True):
        first = sequence(sampler, name)[:pool]
        assert first == sequence(whole, name)[: len(first)]


@given(samplers(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_run_with_less_of_everything_sees_a_subset(sampler, data):
    def at_most(values):
        return np.array([[data.draw(st.integers(0, int(v))) for v in row] for row in np.atleast_2d(values)])

    pools = np.maximum(at_most(sampler.pool_rows)[0], 1)
    counts = np.minimum(at_most(sampler.row_counts), 3 * pools)
    assume(counts.sum() > 0)
    smaller = MixtureSampler(
        sampler.domains,
        pools.tolist(),
        counts,
        seed=sampler.seed,
        max_epochs=3,
        unique_rows=sampler.unique_rows.tolist(),
    )
    for name in sampler.domains:
        assert set(sequence(smaller, name)) <= set(sequence(sampler, name))


@given(samplers())
@settings(max_examples=30, deadline=None)
def test_a_pickled_sampler_is_the_same_sampler(sampler):
    before = sampler.rows(0, sampler.num_rows)
    again = pickle.loads(pickle.dumps(sampler))
    assert np.array_equal(before, again.rows(0, sampler.num_rows))
    assert pickle.dumps(again) == pickle.dumps(sampler)


@given(samplers(), st.lists(st.floats(0, 1), max_size=6))
@settings(max_examples=40, deadline=None)
def test_pieces_of_a_run_are_the_run_wherever_it_is_cut(sampler, cuts):
    positions = [0, *sorted(int(cut * sampler.num_rows) for cut in cuts), sampler.num_rows]
    pieces = [sampler.rows(start, stop) for start, stop in itertools.pairwise(positions)]
    whole = sampler.rows(0, sampler.num_rows)
    for part, piece in zip(whole, zip(*pieces, strict=True), strict=True):
        assert np.array_equal(part, np.concatenate(piece))


@given(st.data(), st.integers(1, 1500), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_rows_of_a_smaller_run_are_among_those_of_a_larger_one(data, pool, seed):
    smaller, larger = sorted(data.draw(st.lists(st.integers(1, 4 * pool), min_size=2, max_size=2)))
    others = data.draw(st.dictionaries(st.sampled_from(NAMES[1:]), st.integers(0, 900)))
    alone = sampler_of({"web": pool}, {"web": smaller}, seed=seed)
    mixed = sampler_of(dict.fromkeys(others, 300) | {"web": pool}, others | {"web": larger}, seed=seed)
    assert sequence(mixed, "web")[:smaller] == sequence(alone, "web")


def test_a_domains_rows_do_not_depend_on_the_other_domains():
    pools = {"web": 500, "books": 40, "code": 700}
    three = sampler_of(pools, {"web": 900, "books": 100, "code": 600})
    two = sampler_of({"code": 700, "web": 500}, {"code": 30, "web": 900})
    assert sequence(three, "web") == sequence(two, "web")
    assert sequence(three, "code")[:30] == sequence(two, "code")


def test_further_epochs_are_whole_and_in_another_order():
    rows = sequence(sampler_of({"web": 200, "books": 9}, {"web": 500, "books": 27}), "web")
    first, second, third = rows[:200], rows[200:400], rows[400:]
    assert sorted(first) == sorted(second) == list(range(200))
    assert first != second
    assert third not in (first[:100], second[:100])


def test_domains_of_equal_size_are_drawn_from_in_different_orders():
    sampler = sampler_of({"web": 100, "books": 100}, {"web": 100, "books": 100})
    assert sequence(sampler, "web") != sequence(sampler, "books")


def test_seeds_differ_in_rows_and_in_order():
    pools = {"web": 5000, "books": 5000}
    runs = [sampler_of(pools, {"web": 600, "books": 400}, seed=seed) for seed in range(3)]
    assert len({tuple(run.rows(0, 1000)[0]) for run in runs}) == 3
    shared = set(sequence(runs[0], "web")) & set(sequence(runs[1], "web"))
    assert len(shared) < 2 * 600 * 600 / 5000  # twice what chance gives


@pytest.mark.parametrize("counts", [[700, 200, 9340], [2048, 2048, 2048], [5, 5000, 5235]])
def test_the_mixture_is_stable_along_the_run(counts):
    sampler = MixtureSampler(NAMES[:3], [1000] * 3, counts, seed=1, max_epochs=10)
    domain, _ = sampler.rows(0, sampler.num_rows)
    for position in range(1024, sampler.num_rows + 1, 1024):
        share = np.array(counts) * position / sampler.num_rows
        assert np.abs(np.bincount(domain[:position], minlength=3) - share).max() <= 3


def test_the_mixture_is_stable_along_every_stage():
    stages = np.array([[724, 200, 3172], [3000, 72, 0], [1, 900, 123]])
    domain, _ = MixtureSampler(NAMES[:3], [1000] * 3, stages, seed=1, max_epochs=10).rows(0, int(stages.sum()))
    for counts, of_stage in zip(stages, np.split(domain, np.cumsum(stages.sum(axis=1))[:-1]), strict=True):
        for position in range(1024, len(of_stage) + 1, 1024):
            share = counts * position / len(of_stage)
            assert np.abs(np.bincount(of_stage[:position], minlength=3) - share).max() <= 3


def test_inside_a_block_the_domains_are_shuffled():
    domain, _ = sampler_of({"web": 900, "books": 900}, {"web": 500, "books": 500}).rows(0, 1000)
    switches = np.count_nonzero(np.diff(domain))
    assert abs(switches - 500) < 5 * np.sqrt(1000) / 2


def test_a_run_of_billions_of_rows_is_entered_anywhere():
    sampler = sampler_of({"web": 10**9, "books": 3 * 10**8}, {"web": 2 * 10**9, "books": 10**9})
    start = 2 * 10**9 + 12345
    domain, row = sampler.rows(start, start + 3000)
    parts = [sampler.rows(start, start + 1), sampler.rows(start + 1, start + 3000)]
    assert np.array_equal(domain, np.concatenate([part[0] for part in parts]))
    assert np.array_equal(row, np.concatenate([part[1] for part in parts]))
    assert abs(np.mean(domain) - 1 / 3) < 0.01


def test_the_last_rows_of_a_run_of_trillions_of_rows_are_as_mixed_as_the_first():
    sampler = sampler_of({"web": 10**12, "books": 10**12}, {"web": 2 * 10**12, "books": 10**12})
    domain, _ = sampler.rows(sampler.num_rows - 3000, sampler.num_rows)
    assert abs(np.mean(domain) - 1 / 3) < 0.01


def test_a_billion_rows_of_fifty_domains_take_little_memory():
    shares = np.random.default_rng(0).dirichlet(np.ones(50))
    counts = np.rint(shares * [[10**9 // 4], [3 * 10**9 // 4]]).astype(int)
    pools = (counts.sum(axis=0) // 2 + 1).tolist()
    tracemalloc.start()
    try:
        sampler = MixtureSampler([f"domain{i}" for i in range(50)], pools, counts, seed=0, max_epochs=2)
        for start in range(0, sampler.num_rows, sampler.num_rows // 20):
            sampler.rows(start, min(start + 2000, sampler.num_rows))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6


def test_a_shrunk_pool_is_named_when_it_is_too_small():
    message = (
        r"domain 'web' has a pool of 10 of its 90 rows because of design.match_repetition and max_epochs is 2, but the "
        r"mixture asks for 21 rows \(2.1 epochs\); lower its weight or design.match_repetition"
    )
    with pytest.raises(UserError, match=message):
        MixtureSampler(["web"], [10], [[11], [10]], seed=0, max_epochs=2, unique_rows=[90])


def test_more_than_max_epochs_is_an_error_that_names_the_domain():
    with pytest.raises(UserError, match=r"domain 'books' has 10 rows and max_epochs is 4, but .* asks for 41 rows"):
        sampler_of({"web": 100, "books": 10}, {"web": 400, "books": 41}, max_epochs=4)


def test_a_domain_without_rows_may_only_be_left_out():
    assert sampler_of({"web": 5, "books": 0}, {"web": 5, "books": 0}).epochs() == [1.0, 0.0]
    with pytest.raises(UserError, match="domain 'books' has 0 rows"):
        sampler_of({"web": 5, "books": 0}, {"web": 5, "books": 1})


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 11), (5, 4)])
def test_positions_outside_the_run_are_an_error(start, stop):
    with pytest.raises(IndexError, match="outside the run's 10 rows"):
        sampler_of({"web": 10}, {"web": 10}).rows(start, stop)


def test_no_positions_give_no_rows():
    assert [part.size for part in sampler_of({"web": 10}, {"web": 10}).rows(10, 10)] == [0, 0]


def test_epochs_are_rows_per_pool():
    assert sampler_of({"web": 100, "books": 10}, {"web": 50, "books": 25}).epochs() == [0.5, 2.5]


def test_the_order_never_changes():
    domain, row = sampler_of({"web": 6, "books": 3}, {"web": 8, "books": 4}, seed=42).rows(0, 12)
    assert domain.tolist() == [0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1]
    assert row.tolist() == [3, 2, 4, 2, 5, 1, 0, 0, 3, 1, 1, 1]
    domain, row = sampler_of({"web": 10**6, "books": 500}, {"web": 90_000, "books": 1000}, seed=42).rows(90_000, 90_008)
    assert domain.tolist() == [0] * 8
    assert row.tolist() == [323448, 195280, 31918, 830007, 196620, 352759, 924102, 999318]
    domain, row = MixtureSampler(
        ["web", "books"], [4, 3], [[5, 1], [2, 4]], seed=42, max_epochs=2, unique_rows=[6, 3]
    ).rows(0, 12)
    assert domain.tolist() == [0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 0]
    assert row.tolist() == [3, 4, 2, 2, 5, 4, 0, 1, 3, 1, 2, 2]
