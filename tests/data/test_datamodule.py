import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from autoscale_exp.data.datamodule import Batch, MixtureBatches, ResumableLoader
from autoscale_exp.data.manifest import DomainEntry, FileEntry, Manifest, TokenizerEntry, TrainEntry, ValidationEntry
from autoscale_exp.data.store import TokenStore
from autoscale_exp.mixture.growing_sampler import GrowingSampler
from autoscale_exp.mixture.sampler import MixtureSampler, RowOrder

SEQ_LEN = 4
STEP_ROWS = 24
POOLS = {"web": 90, "books": 25}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """A store in which every token of a row is the row's number, plus 1000 in the second domain."""
    folder = tmp_path_factory.mktemp("numbered")
    domains = {}
    for index, (domain, rows) in enumerate(POOLS.items()):
        (folder / "train" / domain).mkdir(parents=True)
        parts = np.array_split(np.arange(rows, dtype="<u2") + 1000 * index, 3)
        for number, part in enumerate(parts):
            np.repeat(part, SEQ_LEN).tofile(folder / "train" / domain / f"{number:05d}.bin")
        files = {f"{number:05d}": FileEntry(len(part), "") for number, part in enumerate(parts)}
        validation = ValidationEntry(0, 0, 0, 0, 0, "")
        domains[domain] = DomainEntry(validation, 0, 0, train=TrainEntry(rows, rows * SEQ_LEN, 0, 0, 0, files))
    tokenizer = TokenizerEntry("bpe", 2**16, "")
    return TokenStore(folder, Manifest({"seq_len": SEQ_LEN}, "<u2", tokenizer, domains, 0, 0.0))


# 4 steps of 24 rows, one of 15; in the second, stages change inside a step and pools are gone through again inside one.
SAMPLERS = {
    "one stage": {"pool_rows": [90, 25], "row_counts": [70, 41], "max_epochs": 2},
    "stages of small pools": {"pool_rows": [30, 11], "row_counts": [[10, 20], [50, 1], [10, 20]], "max_epochs": 4},
}


@pytest.fixture(scope="module", params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> MixtureSampler:
    return MixtureSampler(list(POOLS), seed=3, unique_rows=list(POOLS.values()), **SAMPLERS[request.param])


def batches_of(store: TokenStore, sampler: RowOrder, world_size: int, accumulation: int) -> list[MixtureBatches]:
    micro = STEP_ROWS // (world_size * accumulation)
    return [
        MixtureBatches(store, sampler, step_rows=STEP_ROWS, micro_batch_rows=micro, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]


def read(batches: MixtureBatches, group_batches: int = 3) -> list[Batch]:
    """All batches of a rank, read in groups."""
    batches.group_batches = group_batches
    return list(ResumableLoader(batches, lambda: 0))


def steps(ranks: list[MixtureBatches], accumulation: int) -> Iterator[list[list[Batch]]]:
    """Per optimiser step and rank, the batches."""
    of_ranks = [read(rank) for rank in ranks]
    for start in range(0, len(of_ranks[0]), accumulation):
        yield [batches[start : start + accumulation] for batches in of_ranks]


def numbers(batches: list[Batch]) -> list[int]:
    for batch in batches:
        assert (batch.tokens.long() == batch.tokens[:, :1].long()).all()
        assert batch.tokens.shape[1] == SEQ_LEN
    return [row for batch in batches if batch.share for row in batch.tokens[:, 0].tolist()]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_ranks_of_a_step_share_its_rows(world_size, accumulation, numbered, sampler):
    ranks = batches_of(numbered, sampler, world_size, accumulation)
    num_steps = 0
    for step, of_ranks in enumerate(steps(ranks, accumulation)):
        domain, row = sampler.rows(step * STEP_ROWS, min((step + 1) * STEP_ROWS, sampler.num_rows))
        expected = (1000 * domain + row).tolist()
        drawn = [numbers(batches) for batches in of_ranks]
        assert sorted(itertools.chain(*drawn)) == sorted(expected)
        num_steps += 1
    assert num_steps == 5


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_every_row_of_a_step_has_the_same_share(world_size, accumulation, numbered, sampler):
    for step, of_ranks in enumerate(steps(batches_of(numbered, sampler, world_size, accumulation), accumulation)):
        num_rows = STEP_ROWS if step < 4 else 15
        batches = list(itertools.chain(*of_ranks))
        assert sum(batch.share for batch in batches) == pytest.approx(1, abs=1e-12)
        for batch in batches:
            assert batch.share in (0, pytest.approx(len(batch.tokens) / num_rows))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_batches_count_the_rows_of_their_domains(world_size, accumulation, numbered, sampler):
    total = np.zeros(len(POOLS), dtype=int)
    for rank in batches_of(numbered, sampler, world_size, accumulation):
        for batch in read(rank):
            rows = numbers([batch])  # none, if the share is 0
            assert batch.domain_rows.tolist() == [sum(row < 1000 for row in rows), sum(row >= 1000 for row in rows)]
            total += batch.domain_rows.numpy()
    assert total.tolist() == sampler.row_counts.tolist()


@pytest.mark.parametrize("group_batches", [1, 3, 1000])
def test_no_row_is_read_before_its_stage_is_told(group_batches, numbered):
    stages = np.array([[40, 8], [1, 23], [30, 13]])  # two steps, one step, and two of which the last is not full
    plan = MixtureSampler(list(POOLS), list(POOLS.values()), stages, seed=3, max_epochs=2)
    growing = GrowingSampler(plan)
    growing.append(stages[0])
    (rank,) = batches_of(numbered, growing, 1, 2)
    rank.group_batches = group_batches
    ends, batches = {4: 1, 6: 2}, []
    for batch in ResumableLoader(rank, lambda: 0):
        batches.append(batch)
        if len(batches) in ends:  # as a callback does between two batches
            growing.append(stages[ends[len(batches)]])
    domain, row = plan.rows(0, plan.num_rows)
    assert numbers(batches) == (1000 * domain + row).tolist()
    assert torch.cat([batch.domains for batch in batches]).tolist() == domain.tolist()


@pytest.mark.parametrize("group_batches", [1, 2, 3, 1000])
def test_one_rank_reads_the_rows_in_the_samplers_order_however_many_at_once(group_batches, numbered, sampler):
    domain, row = sampler.rows(0, sampler.num_rows)
    (rank,) = batches_of(numbered, sampler, 1, 2)
    batches = read(rank, group_batches)
    assert numbers(batches) == (1000 * domain + row).tolist()
    assert torch.cat([batch.positions for batch in batches]).tolist() == list(range(sampler.num_rows))


def test_a_rank_without_rows_takes_part_with_no_share(numbered):
    sampler = MixtureSampler(list(POOLS), list(POOLS.values()), [25, 0], seed=0, max_epochs=1)
    last = [read(rank)[-1] for rank in batches_of(numbered, sampler, 3, 1)]
    assert [batch.share for batch in last] == [1, 0, 0]
    assert [len(batch.tokens) for batch in last] == [1, 1, 1]


@pytest.mark.parametrize("num_rows", [24, 25, 26, 40, 47])
def test_all_ranks_have_as_many_batches(num_rows, numbered):
    sampler = MixtureSampler(list(POOLS), list(POOLS.values()), [num_rows, 0], seed=0, max_epochs=1)
    ranks = batches_of(numbered, sampler, 3, 2)
    assert {len(rank) for rank in ranks} == {2 + -(-(num_rows - 24) // 12)}
    for rank in ranks:
        assert [len(batch.tokens) > 0 for batch in read(rank)] == [True] * len(rank)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_loader_goes_on_behind_the_batches_consumed(num_workers, world_size, numbered, sampler):
    for batches in batches_of(numbered, sampler, world_size, 2):
        uninterrupted = read(batches, group_batches=4)
        batches.group_batches = 2
        assert len(uninterrupted) == 10
        for consumed in (5, 9):
            state = ResumableLoader(batches, lambda consumed=consumed: consumed).state_dict()
            loader = ResumableLoader(batches, lambda: 0, num_workers=num_workers)
            loader.load_state_dict(state)
            for batch, expected in zip(loader, uninterrupted[consumed:], strict=True):
                assert torch.equal(batch.tokens, expected.tokens)
                assert torch.equal(batch.domain_rows, expected.domain_rows)
                assert torch.equal(batch.positions, expected.positions)
                assert batch.share == expected.share
            assert len(loader) == len(batches)
