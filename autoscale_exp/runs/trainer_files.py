"""The proxy runs of a design as files for other trainers, with each run's mixture, length and seed.

A run has whole optimiser steps, so its tokens are rounded to the nearest step.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.mixture.formats import megatron, olmo, quoted
from autoscale_exp.runs.design import RunSpec

DESIGN = "design.csv"  # what was planned
RESULTS = "results.csv"  # what the trainer is to report


@dataclass(frozen=True)
class Batches:
    """How a trainer batches tokens into steps.

    Attributes:
        seq_len: tokens per sequence.
        batch_rows: sequences per optimiser step.
    """

    seq_len: int
    batch_rows: int

    @property
    def tokens(self) -> int:
        """Tokens per optimiser step."""
        return self.seq_len * self.batch_rows


@dataclass(frozen=True)
class ProxyRun:
    """A run for another trainer.

    Attributes:
        run: name, unique in the design.
        scale: label of its token budget.
        seed: seed of initialisation and order.
        asked_tokens: tokens that the design asks for in all.
        steps: optimiser steps.
        batches: the batches that the steps consist of.
        max_epochs: times that text may be repeated.
        weights: shares of the run's tokens by domain, without domains that have none.
        domains: (K,) all domains.
    """

    run: str
    scale: str
    seed: int
    asked_tokens: float
    steps: int
    batches: Batches
    max_epochs: int
    weights: dict[str, float]
    domains: Sequence[str]

    @property
    def tokens(self) -> dict[str, float]:
        """Tokens that the run trains on, by domain."""
        total = self.steps * self.batches.tokens
        return {domain: self.weights.get(domain, 0.0) * total for domain in self.domains}

    @property
    def rounding(self) -> float:
        """How far the tokens of whole steps are from those asked for, as a share of the latter."""
        return abs(self.steps * self.batches.tokens / self.asked_tokens - 1)


def proxy_run(
    spec: RunSpec, weights: FloatArray, domains: Sequence[str], seed: int, batches: Batches, max_epochs: int
) -> ProxyRun:
    """Makes a run of a design, in whole steps.

    Args:
        spec: the run of the design.
        weights: (K,) weights of its mixture, before the run's multipliers.
        domains: (K,) names.
        seed: seed of the experiment.
        batches: the batches of the trainer.
        max_epochs: times that text may be repeated.

    Raises:
        UserError: the run is shorter than half a step.
    """
    asked = spec.domain_tokens(weights)
    steps = round(asked.sum() / batches.tokens)
    if steps < 1:
        raise UserError(
            f"run '{spec.run}' has {asked.sum():,.0f} tokens, less than half of a step of {batches.tokens:,}; lower "
            "batch_rows or seq_len, or raise design.scales"
        )
    shares = dict(zip(domains, (asked / asked.sum()).tolist(), strict=True))
    used = {domain: share for domain, share in shares.items() if share > 0}
    return ProxyRun(
        spec.run, spec.scale, seed + spec.seed_offset, asked.sum(), steps, batches, max_epochs, used, domains
    )


Paths = Mapping[str, str]  # by domain, the path of its data, as the trainer takes it


def megatron_arguments(run: ProxyRun, paths: Paths) -> str:
    """Arguments of Megatron-LM's pretrain_gpt.py, to add to those of the model."""
    length = (
        f"--train-iters {run.steps} --global-batch-size {run.batches.batch_rows} --seq-length {run.batches.seq_len}"
    )
    return f"{length} --seed {run.seed} --data-path {megatron(_by_path(run, paths), for_shell=False)}"


def nemo_overrides(run: ProxyRun, paths: Paths) -> str:
    """A YAML of overrides for a recipe of NeMo's Megatron Bridge."""
    blend = [text for path, weight in _by_path(run, paths).items() for text in (repr(weight), path)]
    lines = ["dataset:", f"  seq_length: {run.batches.seq_len}", "  data_path:"]
    lines += [f"    - {quoted(text)}" for text in blend]
    lines += ["train:", f"  train_iters: {run.steps}", f"  global_batch_size: {run.batches.batch_rows}"]
    return "\n".join([*lines, "rng:", f"  seed: {run.seed}"]) + "\n"


def olmo_mixture(run: ProxyRun, paths: Paths) -> str:
    """OLMo-core's `SourceMixtureDatasetConfig`, whose batches are counted in tokens, as YAML."""
    sources = olmo(run.weights)
    for domain in run.weights:
        sources = sources.replace(
            "    paths: []\n",
            f"    paths: [{quoted(paths[domain])}]\n    max_repetition_ratio: {float(run.max_epochs)}\n",
            1,
        )
    nested = "".join(f"  {line}\n" for line in sources.splitlines())
    tokens = run.steps * run.batches.tokens
    numbers = f"requested_tokens: {tokens}\nglobal_batch_size: {run.batches.tokens}\nseed: {run.seed}\n"
    return (
        f"# sequence_length={run.batches.seq_len} in build(), and max_duration=Duration.steps({run.steps}) of the "
        f"trainer\nsource_list:\n{nested}{numbers}"
    )


def torchtitan_module(runs: Sequence[ProxyRun], paths: Paths) -> str:
    """A module of torchtitan configs, one per run: --module proxy_runs --config <run>.

    A path is the name of a data set in torchtitan's DATASETS.
    """
    entries = [
        f"    {quoted(run.run)}: ({run.steps}, {run.seed}, {{"
        + ", ".join(f"{quoted(path)}: {weight!r}" for path, weight in _by_path(run, paths).items())
        + "}),\n"
        for run in runs
    ]
    batches = runs[0].batches
    return TORCHTITAN.format(seq_len=batches.seq_len, batch_rows=batches.batch_rows, runs="".join(entries))


TORCHTITAN = '''"""The proxy runs: --module proxy_runs --config <run>, with this file's folder on PYTHONPATH."""

from functools import partial

from base_config import base_config  # yours: a function that returns the Trainer.Config that all runs share
from torchtitan.hf_datasets.text_datasets import HFDataSource, InterleavedHuggingFaceTextDataLoader

RUNS = {{  # optimiser steps, seed, and weights by the name of a data set in DATASETS
{runs}}}


def config_of(run):
    steps, seed, weights = RUNS[run]
    config = base_config()
    config.training.steps = steps
    config.training.global_batch_size = {batch_rows}
    config.training.seq_len = {seq_len}
    config.debug.seed = seed
    sources = [HFDataSource(dataset=name, weight=weight) for name, weight in weights.items()]
    config.dataloader = InterleavedHuggingFaceTextDataLoader.Config(sources=sources, seed=seed)
    return config


def __getattr__(name):
    if name not in RUNS:
        raise AttributeError(name)
    return partial(config_of, name)
'''


@dataclass(frozen=True)
class Trainer:
    """A trainer for which designs can be written.

    Attributes:
        suffix: suffix of the file of a run.
        text: text of that file; None if one file has all runs.
        use: how to use the files.
    """

    suffix: str
    text: Callable[[ProxyRun, Paths], str] | None
    use: str


TRAINERS = {
    "megatron": Trainer(".args", megatron_arguments, "pretrain_gpt.py $(cat <run>.args) <arguments of your model>"),
    "nemo": Trainer(".yaml", nemo_overrides, "a Megatron Bridge recipe takes <run>.yaml as its --config-file"),
    "olmo": Trainer(
        ".yaml", olmo_mixture, "SourceMixtureDatasetConfig.from_dict(yaml.safe_load(open('<run>.yaml'))) of OLMo-core"
    ),
    "torchtitan": Trainer(".py", None, "torchtitan --module proxy_runs --config <run>"),
}


def files_of(trainer: str, runs: Sequence[ProxyRun], paths: Paths) -> dict[str, str]:
    """The text of each file for a trainer, by name."""
    text = TRAINERS[trainer].text
    if text is None:
        return {"proxy_runs.py": torchtitan_module(runs, paths)}
    return {f"{run.run}{TRAINERS[trainer].suffix}": text(run, paths) for run in runs}


def design_table(runs: Sequence[ProxyRun]) -> str:
    """design.csv: what each run is to be trained on."""
    domains = runs[0].domains
    rows: list[list[object]] = [["run", "scale", "seed", "steps", *(f"tokens.{domain}" for domain in domains)]]
    rows += [[run.run, run.scale, run.seed, run.steps, *run.tokens.values()] for run in runs]
    return _csv(rows)


def results_table(runs: Sequence[ProxyRun], validation_domains: Sequence[str]) -> str:
    """results.csv, to be filled in: the tokens that each run was trained on, and its losses in nats per token."""
    rows: list[list[object]] = [["run", "tokens", *(f"loss.{domain}" for domain in validation_domains)]]
    return _csv(rows + [[run.run, *[""] * (1 + len(validation_domains))] for run in runs])


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _by_path(run: ProxyRun, paths: Paths) -> dict[str, float]:
    return {paths[domain]: weight for domain, weight in run.weights.items()}
