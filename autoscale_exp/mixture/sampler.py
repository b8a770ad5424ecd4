"""The order in which the rows of a mixture are trained on: a pure function of (seed, position).

A run has one or more stages, each with row counts of its own. The positions of a stage are cut into blocks of about
1,024. Of a domain with n rows in a stage of B blocks, block b holds the rows floor(b n / B) to
floor((b + 1) n / B) of the domain's sequence there. Their order is drawn for the block. So the mixture is
exact in every stage and stable along it. A domain's sequence is one pseudo-random permutation of its
pool per epoch, and goes on from stage to stage. So its first n rows are among its first m > n, and the subsets that two
runs of one seed draw from a domain are nested. Nothing is stored, whatever the size of the corpus.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from autoscale_exp.base.arrays import Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.hashing import derive_key
from autoscale_exp.mixture.permutation import Permutation, mix64

BLOCK_ROWS = 1024  # small enough to keep the mixture stable
CHUNK_BLOCKS = 64  # computed together, which spreads numpy's overhead over 65,536 rows, or many small batches


class RowOrder(Protocol):
    """What a loader needs of a sampler. A run has `num_rows` rows; the first `known_rows` are known by now."""

    num_rows: int

    @property
    def known_rows(self) -> int:
        """Number of rows whose places are known."""

    def rows(self, start: int, stop: int) -> tuple[Int64Array, Int64Array]:
        """The rows at positions start .. stop - 1; see `MixtureSampler.rows`."""


class MixtureSampler:
    """Maps positions of a run to rows of its domains.

    Args:
        domains: (K,) names; a domain's sequence depends on its name, not on its place in the list.
        pool_rows: (K,) distinct rows of each domain that the run may see.
        row_counts: (S, K) rows to train on in each stage, or (K,) if there is one; from `allocate_rows` or
            `allocate_stages`. Their sum may exceed the pool up to `max_epochs` times.
        seed: the run's seed; the same seed nests the subsets of two runs.
        max_epochs: epochs over a domain's pool at most.
        unique_rows: (K,) distinct rows that each domain has, if its pool is only a part of them: the first
            `pool_rows` of the order in which all of them come in epoch 0. Pools of one seed are therefore nested.

    Attributes:
        stage_counts: (S, K) rows of each stage.
        row_counts: (K,) rows over all stages.

    Raises:
        UserError: a domain is asked for more than `max_epochs` times its pool; the message names it.
    """

    def __init__(
        self,
        domains: Sequence[str],
        pool_rows: Sequence[int],
        row_counts: npt.ArrayLike,
        *,
        seed: int,
        max_epochs: int,
        unique_rows: Sequence[int] | None = None,
    ) -> None:
        self.domains = list(domains)
        self.pool_rows = np.asarray(pool_rows, dtype=np.int64)
        self.unique_rows = np.asarray(pool_rows if unique_rows is None else unique_rows, dtype=np.int64)
        self.stage_counts = np.atleast_2d(np.asarray(row_counts, dtype=np.int64))
        self.row_counts = self.stage_counts.sum(axis=0)
        assert len(domains) == len(self.pool_rows) == len(self.unique_rows) == len(self.row_counts)
        assert np.all(self.pool_rows <= self.unique_rows), "a pool is a part of what the domain has"
        self.seed = seed
        self.max_epochs = max_epochs
        self.num_rows = int(self.row_counts.sum())
        self._check_epochs()
        stage_rows = self.stage_counts.sum(axis=1)
        self._num_blocks = np.maximum(1, stage_rows // BLOCK_ROWS).tolist()  # (S,)
        self._first_block = [0, *np.cumsum(self._num_blocks).tolist()]  # (S + 1,)
        self._first_position = [0, *np.cumsum(stage_rows).tolist()]  # (S + 1,)
        self._first_ranks = np.cumsum(self.stage_counts, axis=0) - self.stage_counts  # (S, K) rows before the stage
        self._chunk = lru_cache(maxsize=2)(self._make_chunk)
        self._permutation = lru_cache(maxsize=1024)(self._make_permutation)

    def _check_epochs(self) -> None:
        for i, (pool, unique, count) in enumerate(zip(self.pool_rows, self.unique_rows, self.row_counts, strict=True)):
            if count <= pool * self.max_epochs:
                continue
            has, remedy = f"{pool} rows", "lower its weight or the token budget"
            if pool < unique:
                has = f"a pool of {pool} of its {unique} rows because of design.match_repetition"
                remedy = "lower its weight or design.match_repetition"
            raise UserError(
                f"domain '{self.domains[i]}' has {has} and max_epochs is {self.max_epochs}, but the mixture asks for "
                f"{count} rows ({count / max(pool, 1):.1f} epochs); {remedy}, raise max_epochs or prepare more text"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = partial(  # without the caches
            MixtureSampler, seed=self.seed, max_epochs=self.max_epochs, unique_rows=self.unique_rows.tolist()
        )
        return rebuild, (self.domains, self.pool_rows.tolist(), self.stage_counts.tolist())

    def with_stages(self, stage_counts: npt.ArrayLike) -> "MixtureSampler":
        """Returns a sampler of the same pools in the same order, with other (S, K) rows per stage."""
        return MixtureSampler(
            self.domains,
            self.pool_rows.tolist(),
            stage_counts,
            seed=self.seed,
            max_epochs=self.max_epochs,
            unique_rows=self.unique_rows.tolist(),
        )

    @property
    def known_rows(self) -> int:
        """All rows, since all stages are given."""
        return self.num_rows

    def rows(self, start: int, stop: int) -> tuple[Int64Array, Int64Array]:
        """The rows at positions start .. stop - 1.

        Returns:
            (n,) index of the domain and (n,) row within that domain, in training order.
        """
        if not 0 <= start <= stop <= self.num_rows:
            raise IndexError(f"positions {start} to {stop} are outside the run's {self.num_rows} rows")
        domains, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        chunk = self._block_at(start) // CHUNK_BLOCKS if start < stop else 0
        while start < stop:
            offset, domain, row = self._chunk(chunk)
            domains.append(domain[start - offset : stop - offset])
            rows.append(row[start - offset : stop - offset])
            start, chunk = offset + len(domain), chunk + 1
        return np.concatenate(domains), np.concatenate(rows)

    def epochs(self) -> list[float]:
        """(K,) epochs over each domain's pool; 0 for an empty pool."""
        return (self.row_counts / np.maximum(self.pool_rows, 1)).tolist()

    def _before(self, block: int) -> Int64Array:
        """(K,) rows of each domain that come before `block`, which counts over all stages."""
        stage = min(bisect_right(self._first_block, block), len(self.stage_counts)) - 1
        block -= self._first_block[stage]
        whole, rest = np.divmod(self.stage_counts[stage], self._num_blocks[stage])  # block * count may exceed 64 bits
        return self._first_ranks[stage] + block * whole + block * rest // self._num_blocks[stage]

    def _block_at(self, position: int) -> int:
        stage = bisect_right(self._first_position, position) - 1
        position_in_stage = position - self._first_position[stage]
        stage_rows = self._first_position[stage + 1] - self._first_position[stage]
        # Rounding moves a block's start by less than K rows from its even share, so the guess is off by a step or two.
        block = self._first_block[stage] + position_in_stage * self._num_blocks[stage] // stage_rows
        while self._before(block).sum() > position:
            block -= 1
        while self._before(block + 1).sum() <= position:
            block += 1
        return block

    def _make_chunk(self, chunk: int) -> tuple[int, Int64Array, Int64Array]:
        """First position of a chunk of blocks, and domain and row at each of its positions."""
        first = chunk * CHUNK_BLOCKS
        end = min(first + CHUNK_BLOCKS, self._first_block[-1])
        domain = np.concatenate([self._domains_of(block) for block in range(first, end)])
        row = np.empty_like(domain)
        # Each domain gets its rows in training order, so an epoch is over before the next begins.
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
                row[by_domain[place : place + num]] = self._rows_of(index, epoch, within)
                rank, place = rank + num, place + num
        return int(before.sum()), domain, row

    def _domains_of(self, block: int) -> Int64Array:
        """Domain at every position of one block: exact counts, shuffled by a key of the seed and the block."""
        counts = self._before(block + 1) - self._before(block)
        by_domain = np.repeat(np.arange(len(counts)), counts)
        key = np.uint64(derive_key(self.seed, "order", block))
        return by_domain[np.argsort(mix64(np.arange(len(by_domain), dtype=np.uint64) ^ key))]

    def _rows_of(self, index: int, epoch: int, within: Int64Array) -> Int64Array:
        """Rows of a domain at places `within` an epoch of its pool."""
        pool, unique = int(self.pool_rows[index]), int(self.unique_rows[index])
        if epoch and pool < unique:  # an order of the pool's places in epoch 0
            epoch, within = 0, self._permutation(index, epoch, pool)(within)
        return self._permutation(index, epoch, unique)(within)

    def _make_permutation(self, index: int, epoch: int, size: int) -> Permutation:
        return Permutation(size, derive_key(self.seed, self.domains[index], epoch))
