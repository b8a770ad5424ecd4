"""A pseudo-random permutation of range(size) in O(1) memory, evaluated at any position."""

import numpy as np
import numpy.typing as npt

from autoscale_exp.base.arrays import Int64Array, UInt64Array
from autoscale_exp.base.hashing import derive_key

NUM_ROUNDS = 6  # Luby and Rackoff (1988) prove four enough with random round functions; ours are hashes


def mix64(values: UInt64Array) -> UInt64Array:
    """A bijective 64-bit hash (the finaliser of splitmix64: Steele, Lea and Flood, 2014), elementwise."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Permutation:
    """A keyed bijection of range(size): a Feistel network on the next even power of two, cycle-walked.

    A value that falls outside range(size) is encrypted again until it falls inside, which keeps the map
    a bijection; the domain is at most four times `size`, so this takes four rounds of walking on average at worst.
    """

    def __init__(self, size: int, key: int) -> None:
        assert size >= 1, f"a permutation needs a size of at least 1, not {size}"
        self.size = size
        half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._shift = np.uint64(half_bits)
        self._mask = np.uint64((1 << half_bits) - 1)
        self._round_keys = [np.uint64(derive_key(key, r)) for r in range(NUM_ROUNDS)]

    def _encrypt(self, values: UInt64Array) -> UInt64Array:
        left, right = values >> self._shift, values & self._mask
        for round_key in self._round_keys:
            left, right = right, left ^ (mix64(right ^ round_key) & self._mask)
        return (left << self._shift) | right

    def __call__(self, positions: npt.ArrayLike) -> Int64Array:
        """Maps positions in [0, size) to distinct values in [0, size), elementwise."""
        values = np.array(positions, dtype=np.uint64, ndmin=1)
        assert values.size == 0 or values.max() < self.size, "position outside the permutation"
        walking = np.arange(values.size)
        while walking.size:
            values[walking] = self._encrypt(values[walking])
            walking = walking[values[walking] >= self.size]
        return values.astype(np.int64)
