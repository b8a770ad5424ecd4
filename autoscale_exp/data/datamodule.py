"""Batches of a mixture for the Lightning trainer. Rows do not depend on the number of ranks, workers and resumptions.

The rows of optimiser step s are the sampler's positions s G to (s + 1) G - 1, where G is the rows of a step over all
devices; the last step may have fewer. The loss of a batch is weighted by the batch's share of its step's rows.
"""

import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.stopping import SIGNALS
from autoscale_exp.data.rows import Rows
from autoscale_exp.data.store import TokenStore
from autoscale_exp.mixture.sampler import RowOrder

GROUP_TOKENS = 2**20  # that a worker reads and sends at a time, so that small batches cost no more than large ones


class Batch(NamedTuple):
    """Rows that one device trains on in one forward pass.

    Attributes:
        tokens: (B, T) token ids in the store's type, uint16 or uint32, which takes a quarter or half of int64's memory.
        share: share of the optimiser step's rows; the shares of a step's batches sum to 1 over all devices.
        domain_rows: (K,) int64 rows of each domain; all 0 if the share is 0, as such rows do not count.
        positions: (B,) int64 places of the rows in the run, which determine random choices such as masks.
        domains: (B,) int64 index of each row's domain.
    """

    tokens: torch.Tensor
    share: float
    domain_rows: torch.Tensor
    positions: torch.Tensor
    domains: torch.Tensor


class Group(NamedTuple):
    """Consecutive batches that are read and sent together.

    Attributes:
        tokens: (R, T) token ids of all their rows.
        positions: (R,) int64 places of the rows in the run.
        domains: (R,) int64 index of each row's domain.
        domain_rows: (N, K) int64 rows of each domain in each batch.
        sizes: (N,) rows of each batch.
        shares: (N,) each batch's share of its optimiser step.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    domains: torch.Tensor
    domain_rows: torch.Tensor
    sizes: list[int]
    shares: list[float]

    def batches(self) -> Iterator[Batch]:
        """Yields the batches, as views."""
        tokens, positions, domains = (of.split(self.sizes) for of in (self.tokens, self.positions, self.domains))
        return map(Batch, tokens, self.shares, self.domain_rows.unbind(), positions, domains)


class MixtureBatches(Dataset[Group]):
    """All batches of one rank, by ranges of indices."""

    def __init__(
        self,
        store: TokenStore,
        sampler: RowOrder,
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
        self.group_batches = max(1, GROUP_TOKENS // (micro_batch_rows * store.seq_len))
        self._rows: list[Rows] | None = None

    def __len__(self) -> int:
        return self._batches_of(self.sampler.num_rows)

    @property
    def num_known(self) -> int:
        """Number of batches whose rows are known by now."""
        return self._batches_of(self.sampler.known_rows)

    def _batches_of(self, num_rows: int) -> int:
        full_steps, rest = divmod(num_rows, self.step_rows)
        return full_steps * (self.step_rows // self.chunk_rows) + -(-rest // self.chunk_rows)

    def __getitem__(self, indices: range) -> Group:
        places = [self._place(index) for index in indices]
        # All ranks must step. A rank for which a batch has no row takes the last row, which does not count.
        mine = [np.arange(min(start + self.rank, stop - 1), stop, self.world_size) for start, stop, _ in places]
        counts = [self.rank < stop - start for start, stop, _ in places]
        positions, sizes = np.concatenate(mine), [len(own) for own in mine]
        first = places[0][0]
        domain, row = (of[positions - first] for of in self.sampler.rows(first, places[-1][1]))
        cells = np.repeat(np.arange(len(sizes)), sizes) * len(self.store.domains) + domain
        domain_rows = np.bincount(cells, minlength=len(sizes) * len(self.store.domains)).reshape(len(sizes), -1)
        return Group(
            torch.from_numpy(self._read(domain, row)),
            torch.from_numpy(positions),
            torch.from_numpy(domain),
            torch.from_numpy(domain_rows * np.array(counts)[:, None]),
            sizes,
            [size * count / rows for size, count, (_, _, rows) in zip(sizes, counts, places, strict=True)],
        )

    def batches_from(self, start: int) -> Iterator[Batch]:
        """Yields the batches from index `start` on, read in this process."""
        for indices in _Groups(self, start):
            yield from self[indices].batches()

    def _place(self, index: int) -> tuple[int, int, int]:
        """First position of a batch over all devices, position after its last, and rows of its optimiser step."""
        step, chunk = divmod(index, self.step_rows // self.chunk_rows)
        step_start = step * self.step_rows
        step_stop = min(step_start + self.step_rows, self.sampler.num_rows)
        start = step_start + chunk * self.chunk_rows
        return start, min(start + self.chunk_rows, step_stop), step_stop - step_start

    def _read(self, domain: npt.NDArray[np.int64], row: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if self._rows is None:
            self._rows = [self.store.rows("train", name) for name in self.store.domains]
        by_domain = np.argsort(domain, kind="stable")
        numbers = row[by_domain]
        ends = np.cumsum(np.bincount(domain, minlength=len(self._rows))).tolist()
        stored = np.empty((len(row), self.store.seq_len), self._rows[0].dtype)
        for rows, start, end in zip(self._rows, [0, *ends], ends, strict=False):
            if start < end:
                rows.read_into(numbers[start:end], stored[start:end])
        tokens = np.empty_like(stored)
        tokens[by_domain] = stored
        return tokens


class _Groups(Sampler[range]):
    """Ranges of indices from `start` on. The length counts all ranges from 0, as Lightning expects of resumed loaders.

    A range ends with the batches known when it is made, so that no row is read before its stage is known.
    """

    def __init__(self, batches: MixtureBatches, start: int = 0) -> None:
        self.start = start
        self.batches = batches

    def __iter__(self) -> Iterator[range]:
        start = self.start
        while start < len(self):
            stop = min(start + self.batches.group_batches, self.batches.num_known)
            assert start < stop, "the next stage is told before its first batch is asked for"
            yield range(start, stop)
            start = stop

    def __len__(self) -> int:
        return len(self.batches)


class ResumableLoader(DataLoader[Any]):
    """A loader whose state is the number of batches that the trainer has consumed, and their size."""

    def __init__(self, batches: MixtureBatches, consumed: Callable[[], int], **options: Any) -> None:
        self._cut = {"micro_batch_rows": batches.chunk_rows // batches.world_size, "devices": batches.world_size}
        self._groups = _Groups(batches)
        self._consumed = consumed
        super().__init__(batches, batch_size=None, sampler=self._groups, **options)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yields the batches of the groups that workers send."""
        for group in super().__iter__():
            yield from group.batches()

    def state_dict(self) -> dict[str, Any]:
        """The state of the loader for a checkpoint."""
        return {"batches": self._consumed(), **self._cut}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration start after the consumed batches.

        Raises:
            UserError: the consumed batches had another size.
        """
        if differences := [f"{key} {state[key]}, not {own}" for key, own in self._cut.items() if state[key] != own]:
            raise UserError(
                f"the run was interrupted with {' and '.join(differences)}; give these again (micro_batch_rows, "
                "trainer.devices), or delete its resume.ckpt to start it over"
            )
        self._groups.start = state["batches"]


class MixtureDataModule(LightningDataModule):
    """Training batches of one run.

    Args:
        store: token store with the rows.
        sampler: the order of the rows; its domains are those of the store.
        step_rows: rows per optimiser step over all devices and accumulation.
        micro_batch_rows: rows per device and forward pass.
        num_workers: loader processes.
    """

    def __init__(
        self, store: TokenStore, sampler: RowOrder, *, step_rows: int, micro_batch_rows: int, num_workers: int
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
            worker_init_fn=_end_with_run,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=self.num_workers > 0,
        )


def _end_with_run(_: int) -> None:
    """Makes a loader process ignore signals to the whole job, since the run needs it up to its checkpoint."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
