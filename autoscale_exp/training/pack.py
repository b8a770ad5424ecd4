"""Trains a pack: runs of one architecture as one model, each with its own rows, schedule, optimiser, curve and end.

A pack takes one optimiser step of each run at a time. Nothing passes between runs: matrix products are per run, and
optimiser and clipping see the parameters of one run.

N runs of the pack, G rows of a step, R rows of a forward pass, T tokens per row.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import DivergedError, UserError, first_line
from autoscale_exp.base.stopping import StopRequest
from autoscale_exp.data.datamodule import Batch
from autoscale_exp.data.tokenizer import load_tokenizer
from autoscale_exp.lm.language_model import LanguageModel
from autoscale_exp.lm.masking import row_keys
from autoscale_exp.lm.stack import Stack
from autoscale_exp.runs.record import write_failure, write_record
from autoscale_exp.runs.table import refresh_run_table
from autoscale_exp.training.building import begin_folder, build_module, keep_model, make_fast
from autoscale_exp.training.callbacks import PROGRESS_SECONDS, check_counts, validation_batches
from autoscale_exp.training.packed_run import PackedRun
from autoscale_exp.training.packed_trainer import PackedTrainer, Planned
from autoscale_exp.training.parallelism import micro_batch
from autoscale_exp.training.plan import RESUME_POINT, RunPlan
from autoscale_exp.training.run import VALIDATION_TOKENS, describe_plan, record_of

CPU_RUNS = 8  # runs of a pack on a CPU; more would not fit its cache
MEMORY_SHARE = 0.85  # of the free memory of a GPU, to be used


class Pack:
    """Runs that are trained together.

    Args:
        runs: plans and folders of the runs.
        device: the device to train on.
        precision: 32-true or bf16-mixed.
    """

    def __init__(self, runs: Sequence[tuple[RunPlan, Path]], device: torch.device, precision: str) -> None:
        self.device = device
        self.autocast = precision == "bf16-mixed"
        self.plan = runs[0][0]  # for what all runs have in common
        self.tokenizer = load_tokenizer(self.plan.store.folder / "tokenizer")
        self.planned = runs
        self.runs: list[PackedRun] = []
        conf = self.plan.conf
        self.step_rows = conf.model.optimizer.batch_rows
        self.micro_rows, _ = micro_batch(self.step_rows, conf.micro_batch_rows, 1)
        self.batch_rows = max(self.micro_rows, VALIDATION_TOKENS // self.plan.store.seq_len)  # in validation

    def train(self, request: StopRequest) -> None:
        """Trains all runs to their ends, and writes their records. A run that diverges is marked as failed.

        Raises:
            UserError: the pack needs more memory than there is, or a resume point cannot be used.
            Stopped: a signal came; the resume points are those of the step just done.
        """
        try:
            self._build()
            self._loop(request)
        except BaseException as error:
            for run in self.runs:
                with suppress(type(error)):
                    run.close(error)
            raise

    def _loop(self, request: StopRequest) -> None:
        saved = told = last = time.perf_counter()
        while self.runs:
            losses = self._step()
            if time.perf_counter() - told >= PROGRESS_SECONDS:
                self._each(PackedRun.tell, self.runs, losses.tolist())
                told = time.perf_counter()
            self._validate([run for run in self.runs if run.step in run.validations])
            now = time.perf_counter()
            for run in self.runs:
                run.seconds += (now - last) / len(self.runs)
            last = now
            ending = request.signum is not None  # looked at once, as a signal may come while runs are saved or end
            if ending or now - saved >= self.plan.conf.checkpoint_minutes * 60:
                saved = now
                self._each(PackedRun.save, [run for run in self.runs if run.step < run.plan.num_steps])
            self._end([run for run in self.runs if run.step == run.plan.num_steps])
            if self.runs and ending:
                request.stop()

    def _build(self) -> None:
        self.stack_models(len(self.planned))
        for index, (plan, folder) in enumerate(self.planned):
            begin_folder(folder, plan)
            torch.manual_seed(plan.seed)
            module = build_module(plan, self.tokenizer)
            self.stack.put(index, module.model)
            self.runs.append(PackedRun(plan, folder))
            self.runs[-1].start(self.stack, index)
        self._place()

    def stack_models(self, num_runs: int) -> None:
        """Makes the model of `num_runs` runs, without their parameters."""
        self.module: LanguageModel = build_module(self.plan, self.tokenizer)
        self.num_params = sum(p.numel() for p in self.module.model.parameters())
        self.stack = Stack(self.module.model, num_runs, self.device)
        make_fast(self.module.model, self.plan.conf)
        self.module.to(self.device).train()
        self.module.num_models = num_runs

    def bytes_per_run(self) -> int:
        """GPU memory in bytes that a run in a pack takes, measured with a pack of one."""
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.stack_models(1)
        tokens = torch.zeros(1, self.batch_rows, self.plan.store.seq_len, dtype=torch.int64, device=self.device)
        keys, weights = tokens[..., 0], torch.ones(1, self.batch_rows, device=self.device)
        part = slice(self.micro_rows)
        self._backward(tokens[:, part], keys[:, part], weights[:, part])
        with torch.no_grad():
            self._losses(tokens, keys)
        # 12 bytes per parameter: AdamW's two moments, and the copy that validation and the end of a run make.
        return torch.cuda.max_memory_allocated(self.device) - before + 12 * self.num_params

    def _place(self) -> None:
        """Gives each run its place in the stack."""
        self.module.num_models = len(self.runs)
        for index, run in enumerate(self.runs):
            run.move(self.stack, index)
        norms = [run.plan.conf.model.optimizer.clip_norm for run in self.runs]
        self.clip_norms = torch.tensor(norms, device=self.device)

    def _step(self) -> torch.Tensor:
        """Takes one optimiser step of each run; returns the (N,) training losses."""
        batches = [next(run.batches) for run in self.runs]
        tokens, keys, weights = self._joined(batches)
        losses = torch.zeros(len(self.runs), device=self.device)
        for start in range(0, self.step_rows, self.micro_rows):
            part = slice(start, start + self.micro_rows)
            losses += self._backward(tokens[:, part], keys[:, part], weights[:, part])
        squares = sum(grad.square().sum(1) for grad in self.stack.grads)
        factors = (self.clip_norms / (torch.as_tensor(squares).sqrt() + 1e-6)).clamp(max=1)  # as clip_grad_norm_
        for grad in self.stack.grads:
            grad.mul_(factors.unsqueeze(1))
        for run, batch in zip(self.runs, batches, strict=True):
            run.optimizer.step()
            run.schedule.step()
            run.count(batch)
        for grad in self.stack.grads:
            grad.zero_()
        if any(run.logs_now for run in self.runs):
            for run, loss in zip(self.runs, losses.tolist(), strict=True):
                if run.logs_now:
                    run.log.training(run.step, run.tokens, loss)
        return losses

    def _joined(self, batches: Sequence[Batch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, G, T) tokens, (N, G) keys of the rows and (N, G) weights, which are 0 for padding of a last step."""
        places = [torch.arange(self.step_rows).clamp(max=len(batch.tokens) - 1) for batch in batches]
        tokens = torch.stack([batch.tokens[rows] for batch, rows in zip(batches, places, strict=True)])
        keys = torch.stack(
            [
                row_keys(batch.positions[rows], run.plan.seed, "row")
                for run, batch, rows in zip(self.runs, batches, places, strict=True)
            ]
        )
        sizes = torch.tensor([len(batch.tokens) for batch in batches]).unsqueeze(1)
        weights = (torch.arange(self.step_rows) < sizes) / sizes
        return self._sent(tokens).long(), self._sent(keys), self._sent(weights)

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _backward(self, tokens: torch.Tensor, keys: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Adds the gradients of (N, R, T) rows with (N, R) keys and weights; returns their (N,) training losses."""
        num_runs, num_rows, _ = tokens.shape
        losses, runs, rows = self._losses(tokens, keys)
        counts = torch.zeros(num_runs * num_rows, device=self.device).index_add_(0, rows, torch.ones_like(losses))
        weighted = losses * (weights.flatten() / counts.clamp(min=1))[rows]
        weighted.sum().backward()
        return torch.zeros(num_runs, device=self.device).index_add_(0, runs, weighted.detach())

    def _losses(self, tokens: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses of the predicted tokens of (N, R, T) rows, and the run and the row (among all N R) of each token."""
        num_rows = tokens.shape[1]
        self.stack.expect(num_rows)
        tokens, keys = tokens.flatten(0, 1), keys.flatten()
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            losses = self.module.token_losses(tokens, keys).float()
        rows = self.module.token_rows(tokens, keys)
        return losses, rows // num_rows, rows

    @torch.no_grad()
    def _validate(self, due: Sequence[PackedRun]) -> None:
        """Adds a point to the validation curves of some runs. Runs that diverged are marked as failed."""
        if not due:
            return
        self.stack.point([self.runs.index(run) for run in due])
        self.module.num_models = len(due)
        self.module.eval()
        means = {domain: self._mean_losses(domain, len(due)) for domain in self.plan.store.validation_domains}
        self.module.train()
        self.module.num_models = len(self.runs)
        self.stack.point()
        points = [{domain: losses[index] for domain, losses in means.items()} for index in range(len(due))]
        self._each(PackedRun.add_point, due, points)

    def _mean_losses(self, domain: str, num_runs: int) -> list[float]:
        """Each run's mean loss over the validation tokens of a domain."""
        sums = torch.zeros(num_runs, dtype=torch.float64, device=self.device)
        counts = torch.zeros_like(sums)
        for tokens, keys, _ in validation_batches(self.plan.store, domain, self.batch_rows):
            shown = self._sent(tokens).expand(num_runs, -1, -1), self._sent(keys).expand(num_runs, -1)
            losses, runs, _ = self._losses(*shown)
            sums.index_add_(0, runs, losses.double())
            counts.index_add_(0, runs, torch.ones_like(losses, dtype=torch.float64))
        return (sums / counts).tolist()

    def _each(self, act: Callable[..., None], runs: Sequence[PackedRun], *values: Sequence[Any]) -> None:
        """Calls `act` for each run, with its values. Runs that diverged are marked as failed and leave the pack."""
        failed = []
        for run, *own in zip(runs, *values, strict=True):
            try:
                act(run, *own)
            except DivergedError as error:
                run.close(error)
                write_failure(run.folder, run.plan.conf.run_name, error)
                failed.append(run)
        self._leave(failed)

    def _end(self, ended: Sequence[PackedRun]) -> None:
        """Writes the records of runs that are done, and takes them out of the pack."""
        for run in ended:
            plan, folder = run.plan, run.folder
            check_counts(plan.store.domains, run.rows, plan.sampler.row_counts.tolist())
            if plan.conf.save_model:
                own = build_module(plan, self.tokenizer).model
                self.stack.take(self.runs.index(run), own)
                keep_model(folder, own, own.state_dict(), self.tokenizer)
            record = record_of(plan, self.num_params, run.tokens, run.points, run.seconds)
            write_record(folder, record)
            (folder / RESUME_POINT).unlink(missing_ok=True)
            run.log.finish(describe_plan(plan), folder)
            run.close()
            refresh_run_table(folder.parent.parent)
        self._leave(ended)

    def _leave(self, gone: Sequence[PackedRun]) -> None:
        if not gone:
            return
        staying = [index for index, run in enumerate(self.runs) if run not in gone]
        self.runs = [self.runs[index] for index in staying]
        self.stack.keep(staying)
        if self.runs:
            self._place()


def train_pack(runs: Sequence[Planned], trainer: PackedTrainer) -> None:
    """Trains runs together; see `Pack.train`."""
    conf = runs[0][0].conf
    if conf.num_threads is not None:
        torch.set_num_threads(conf.num_threads)
    warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout")  # as blocks are wanted
    with StopRequest() as request, atomic.full_disk_named(runs[0][1].parent):
        try:
            Pack(runs, _device(trainer), trainer.precision).train(request)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{len(runs)} runs at a time are too many for the device's memory ({first_line(error)}); lower "
                "trainer.max_runs or micro_batch_rows"
            ) from error


def most_runs(plan: RunPlan, trainer: PackedTrainer) -> int:
    """How many runs like this one a pack has.

    Raises:
        UserError: `trainer.max_runs` is more than fit the device's memory.
    """
    device = _device(trainer)
    if device.type != "cuda":
        return trainer.max_runs or CPU_RUNS
    of_run = Pack([(plan, Path())], device, trainer.precision).bytes_per_run()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    fitting = max(1, int(MEMORY_SHARE * free) // of_run)
    if trainer.max_runs is not None and trainer.max_runs > fitting:
        raise UserError(
            f"trainer.max_runs is {trainer.max_runs}, but {fitting} runs of {of_run / 2**30:.2f} GiB fit the device, "
            f"which has {free / 2**30:.1f} GiB free; give {fitting} or less, or a smaller micro_batch_rows"
        )
    return trainer.max_runs or fitting


def _device(trainer: PackedTrainer) -> torch.device:
    """The device to train on."""
    return torch.device("cuda" if trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
