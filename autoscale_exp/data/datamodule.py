"""Batches of a mixture for the Lightning trainer, the same training for any number of ranks, workers and parts.

The rows of optimiser step s are the sampler's positions s G to (s + 1) G - 1, where G is the rows of a step over all
devices; the last step may have fewer. A batch carries its share of its step's rows, which the loss is weighted by.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from autoscale_exp.data.store import Rows, TokenStore
from autoscale_exp.mixture.sampler import MixtureSampler


class Batch(NamedTuple):
    """Rows that one device trains on in one forward pass.

    Attributes:
        tokens: (B, T) int64 token ids.
        share: of the rows of the optimiser step; the shares of a step's batches over all devices sum to 1.
        domain_rows: (K,) int64 rows of each domain; all 0 if the share is, because such rows do not count.
        positions: (B,) int64 places of the rows in the run, which random choices such as masks are drawn from.
    """

    tokens: torch.Tensor
    share: float
    domain_rows: torch.Tensor
    positions: torch.Tensor


class MixtureBatches(Dataset[Batch]):
    """All batches of one rank, by index."""

    def __init__(
        self,
        store: TokenStore,
        sampler: MixtureSampler,
        *,
        step_rows: int,
        micro_batch_rows: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.store = store
        self.sampler = sampler
        self.step_rows = step_rows
        self.chunk_rows = micro_batch_rows * world_size  # one forward pass of all devices
        self.rank = rank
        self.world_size = world_size
        self._rows: list[Rows] | None = None

    def __len__(self) -> int:
        full_steps, rest = divmod(self.sampler.num_rows, self.step_rows)
        return full_steps * (self.step_rows // self.chunk_rows) + -(-rest // self.chunk_rows)

    def __getitem__(self, index: int) -> Batch:
        step, chunk = divmod(index, self.step_rows // self.chunk_rows)
        step_start = step * self.step_rows
        step_stop = min(step_start + self.step_rows, self.sampler.num_rows)
        start = step_start + chunk * self.chunk_rows
        domain, row = self.sampler.rows(start, min(start + self.chunk_rows, step_stop))
        mine = slice(self.rank, None, self.world_size)
        if self.rank < len(domain):
            positions = torch.arange(start, start + len(domain))[mine]
            share = len(positions) / (step_stop - step_start)
            return Batch(self._read(domain[mine], row[mine]), share, self._count(domain[mine]), positions)
        # All ranks must step; this one's row does not count.
        return Batch(self._read(domain[:1], row[:1]), 0.0, self._count(domain[:0]), torch.tensor([start]))

    def _count(self, domain: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.bincount(domain, minlength=len(self.store.domains)))

    def _read(self, domain: npt.NDArray[np.int64], row: npt.NDArray[np.int64]) -> torch.Tensor:
        if self._rows is None:
            self._rows = [self.store.rows("train", name) for name in self.store.domains]
        by_domain = np.argsort(domain, kind="stable")
        numbers = row[by_domain]
        ends = np.cumsum(np.bincount(domain, minlength=len(self._rows))).tolist()
        stored = np.empty((len(row), self.store.seq_len), self._rows[0].dtype)
        for rows, start, end in zip(self._rows, [0, *ends], ends, strict=False):
            if start < end:
                rows.read_into(numbers[start:end], stored[start:end])
        tokens = np.empty(stored.shape, np.int64)
        tokens[by_domain] = stored
        return torch.from_numpy(tokens)


class _From(Sampler[int]):
    """Indices `start` .. `end` - 1; its length counts all from 0, as Lightning expects of a resumed loader."""

    def __init__(self, end: int) -> None:
        self.start = 0
        self.end = end

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.end))

    def __len__(self) -> int:
        return self.end


class ResumableLoader(DataLoader[Batch]):
    """A loader whose state is one integer: the batches that the trainer has consumed."""

    def __init__(self, batches: MixtureBatches, consumed: Callable[[], int], **options: Any) -> None:
        self._from = _From(len(batches))
        self._consumed = consumed
        super().__init__(batches, batch_size=None, sampler=self._from, **options)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of the data."""
        return {"batches": self._consumed()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on behind the batches consumed."""
        self._from.start = state["batches"]


class MixtureDataModule(LightningDataModule):
    """Training batches of one run.

    Args:
        store: rows per domain.
        sampler: their order; its domains are the store's.
        step_rows: rows per optimiser step over all devices and accumulation.
        micro_batch_rows: rows per device and forward pass.
        num_workers: loader processes.

    Raises:
        ValueError: `step_rows` is not a multiple of devices times `micro_batch_rows`.
    """

    def __init__(
        self, store: TokenStore, sampler: MixtureSampler, *, step_rows: int, micro_batch_rows: int, num_workers: int
    ) -> None:
        super().__init__()
        self.store = store
        self.sampler = sampler
        self.step_rows = step_rows
        self.micro_batch_rows = micro_batch_rows
        self.num_workers = num_workers

    def train_dataloader(self) -> ResumableLoader:
        """This rank's batches, from where the checkpoint left off."""
        assert self.trainer is not None
        batches = MixtureBatches(
            self.store,
            self.sampler,
            step_rows=self.step_rows,
            micro_batch_rows=self.micro_batch_rows,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return ResumableLoader(
            batches,
            lambda: self.trainer.fit_loop.epoch_loop.batch_progress.current.ready,  # type: ignore[union-attr]
            num_workers=self.num_workers,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=self.num_workers > 0,
        )
