import numpy as np
import pytest

from autoscale_exp.base.hashing import derive_key
from autoscale_exp.mixture.permutation import Permutation, mix64


@pytest.mark.parametrize("size", [*range(1, 35), 63, 64, 65, 255, 256, 257, 1000, 4096, 5000])
@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_every_value_comes_exactly_once(size, key):
    assert sorted(Permutation(size, key)(np.arange(size)).tolist()) == list(range(size))


def test_a_position_maps_alike_alone_and_among_others():
    permutation = Permutation(1000, 7)
    positions = np.array([3, 999, 0, 500])
    assert permutation(positions).tolist() == [permutation(p).item() for p in positions]


def test_keys_give_different_orders():
    assert len({tuple(Permutation(50, key)(np.arange(50))) for key in range(100)}) == 100


def test_all_places_are_equally_likely():
    counts = np.zeros((5, 5))
    for key in range(2000):
        counts[np.arange(5), Permutation(5, key)(np.arange(5))] += 1
    assert np.abs(counts - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)


def test_a_huge_range_takes_no_memory():
    values = Permutation(10**15, 3)(np.arange(10**15 - 1000, 10**15))
    assert len(set(values.tolist())) == 1000
    assert 0 <= values.min() <= values.max() < 10**15


def test_no_positions_give_no_values():
    assert Permutation(10, 0)([]).shape == (0,)


def test_an_empty_range_is_an_error():
    with pytest.raises(AssertionError, match="at least 1, not 0"):
        Permutation(0, 0)


def test_mix64_is_the_published_splitmix64():
    gamma = np.uint64(0x9E3779B97F4A7C15)
    states = gamma * np.arange(1, 4, dtype=np.uint64)
    assert [hex(v) for v in mix64(states)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_a_key_depends_on_every_part_and_on_where_it_ends():
    assert len({derive_key("a", "bc"), derive_key("ab", "c"), derive_key("abc"), derive_key("a", "bc", 0)}) == 4


def test_keys_and_orders_never_change():
    assert derive_key(0, "web", 0) == 7871721917367164740
    assert Permutation(12, 5)(np.arange(12)).tolist() == [5, 7, 3, 6, 2, 1, 8, 4, 10, 9, 11, 0]
