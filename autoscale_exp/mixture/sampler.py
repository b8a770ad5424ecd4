"""The order in which the rows of a mixture are trained on: a pure function of (seed, position).

Positions 0 .. R-1 are cut into blocks of about 1,024. Block b of B holds, of a domain with n rows in all,
rows floor(b n / B) to floor((b + 1) n / B) of that domain's sequence, in an order drawn for the block: the
mixture is therefore exact overall and stable along the run. A domain's own sequence is one pseudo-random
permutation of its pool per epoch, so its first n rows are among its first m > n: the subsets that two
runs of one seed draw from a domain are nested. Nothing is stored, whatever the size of the corpus.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from autoscale_exp.mixture.permutation import Int64Array, Permutation, derive_key, mix64

BLOCK_ROWS = 1024  # small enough to keep the mixture stable, large enough that numpy's overhead is spread


class MixtureSampler:
    """Maps positions of a run to rows of its domains.

    Args:
        domains: (K,) names; a domain's sequence depends on its name, not on its place in the list.
        pool_rows: (K,) distinct rows that each domain has.
        row_counts: (K,) rows to train on, from `allocate_rows`; may exceed the pool up to `max_epochs` times.
        seed: the run's seed; the same seed nests the subsets of two runs.
        max_epochs: times that a domain's pool may be gone through.

    Raises:
        ValueError: a domain is asked for more than `max_epochs` times what it has; the message names it.
    """

    def __init__(
        self,
        domains: Sequence[str],
        pool_rows: Sequence[int],
        row_counts: Sequence[int],
        *,
        seed: int,
        max_epochs: int,
    ) -> None:
        for domain, pool, count in zip(domains, pool_rows, row_counts, strict=True):
            if count > pool * max_epochs:
                raise ValueError(
                    f"domain '{domain}' has {pool} rows and max_epochs is {max_epochs}, but the mixture asks for "
                    f"{count} rows; lower its weight or the token budget, raise max_epochs or prepare more text"
                )
        self.domains = list(domains)
        self.pool_rows = np.asarray(pool_rows, dtype=np.int64)
        self.row_counts = np.asarray(row_counts, dtype=np.int64)
        self.seed = seed
        self.max_epochs = max_epochs
        self.num_rows = int(self.row_counts.sum())
        self._num_blocks = max(1, self.num_rows // BLOCK_ROWS)
        self._blocks = lru_cache(maxsize=2)(self._make_blocks)  # a block serves many small batches
        self._permutation = lru_cache(maxsize=1024)(self._make_permutation)

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = partial(MixtureSampler, seed=self.seed, max_epochs=self.max_epochs)  # caches stay behind
        return rebuild, (self.domains, self.pool_rows.tolist(), self.row_counts.tolist())

    def rows(self, start: int, stop: int) -> tuple[Int64Array, Int64Array]:
        """The rows at positions start .. stop - 1.

        Returns:
            (n,) index of the domain and (n,) row within that domain's pool, in training order.
        """
        if not 0 <= start <= stop <= self.num_rows:
            raise IndexError(f"positions {start} to {stop} are outside the run's {self.num_rows} rows")
        if start == stop:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        first = self._block_at(start)
        domain, row = self._blocks(first, self._block_at(stop - 1) + 1)
        offset = int(self._before(first).sum())
        return domain[start - offset : stop - offset], row[start - offset : stop - offset]

    def epochs(self) -> list[float]:
        """(K,) times that each domain's pool is gone through; 0 for a domain with an empty pool."""
        return (self.row_counts / np.maximum(self.pool_rows, 1)).tolist()

    def _before(self, block: int) -> Int64Array:
        """(K,) rows of each domain that come before `block`."""
        return block * self.row_counts // self._num_blocks

    def _block_at(self, position: int) -> int:
        # Rounding moves a block's start by less than K rows from its even share: the guess is off by a step or two.
        block = min(position * self._num_blocks // self.num_rows, self._num_blocks - 1)
        while self._before(block).sum() > position:
            block -= 1
        while self._before(block + 1).sum() <= position:
            block += 1
        return block

    def _make_blocks(self, first: int, end: int) -> tuple[Int64Array, Int64Array]:
        """Domain and row at every position of blocks first .. end - 1."""
        domain = np.concatenate([self._domains_of(block) for block in range(first, end)])
        row = np.empty_like(domain)
        # Rows are handed out to each domain in training order, so an epoch is over before the next begins.
        by_domain = np.argsort(domain, kind="stable")
        before = self._before(first)
        counts = self._before(end) - before
        place = 0
        for index, (rank, count, pool) in enumerate(zip(before, counts, self.pool_rows, strict=True)):
            last = rank + count
            while rank < last:
                epoch = int(rank // pool)
                num = min(last, (epoch + 1) * pool) - rank
                within = np.arange(rank, rank + num) - epoch * pool
                row[by_domain[place : place + num]] = self._permutation(index, epoch)(within)
                rank, place = rank + num, place + num
        return domain, row

    def _domains_of(self, block: int) -> Int64Array:
        """Domain at every position of one block: exact counts, shuffled by a key of the seed and the block."""
        counts = self._before(block + 1) - self._before(block)
        by_domain = np.repeat(np.arange(len(counts)), counts)
        key = np.uint64(derive_key(self.seed, "order", block))
        return by_domain[np.argsort(mix64(np.arange(len(by_domain), dtype=np.uint64) ^ key))]

    def _make_permutation(self, index: int, epoch: int) -> Permutation:
        return Permutation(int(self.pool_rows[index]), derive_key(self.seed, self.domains[index], epoch))
