"""The `export` job: a mixture in the form that other training stacks take."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.config import ExportConf
from autoscale_exp.mixture.weights import read_mixture_file

Weights = dict[str, float]


def megatron(weights: Weights) -> str:
    """Megatron-LM's `--data-path`: weight and prefix in turn."""
    return " ".join(f"{weight!r} {domain}" for domain, weight in weights.items()) + "\n"


def hugging_face(weights: Weights) -> str:
    """Arguments of `datasets.interleave_datasets`; all_exhausted repeats domains that run out."""
    content = {"datasets": list(weights), "probabilities": list(weights.values()), "stopping_strategy": "all_exhausted"}
    return json.dumps(content, indent=1) + "\n"


def mosaic(weights: Weights) -> str:
    """MosaicML streaming: a stream per domain with its proportion, as YAML."""
    lines = ["streams:"]
    for domain, weight in weights.items():
        lines += [f"  {json.dumps(domain)}:", f"    local: {json.dumps(domain)}", f"    proportion: {weight!r}"]
    return "\n".join(lines) + "\n"


def litdata(weights: Weights) -> str:
    """Arguments of litdata's `CombinedStreamingDataset`."""
    return (
        json.dumps({"datasets": list(weights), "weights": list(weights.values()), "iterate_over_all": False}, indent=1)
        + "\n"
    )


def olmo(weights: Weights) -> str:
    """OLMo-core's source mixture, which Olmix writes too, as YAML; the paths are to be filled in."""
    lines = ["source_configs:"]
    for domain, weight in weights.items():
        lines += [f"  - source_name: {json.dumps(domain)}", f"    target_ratio: {weight!r}", "    paths: []"]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Weights], str]] = {
    "megatron": megatron,
    "hugging_face": hugging_face,
    "mosaic": mosaic,
    "litdata": litdata,
    "olmo": olmo,
}


@job("export")
def main(conf: ExportConf) -> None:
    """Prints the mixture, or writes it to `output`."""
    if conf.format not in FORMATS:
        raise UserError(f"format is '{conf.format}'; allowed are {', '.join(FORMATS)}")
    domains, weights, _ = read_mixture_file(Path(conf.mixture_file), "mixture_file")
    text = FORMATS[conf.format](dict(zip(domains, weights, strict=True)))
    if conf.output is None:
        sys.stdout.write(text)
    else:
        atomic.write_text(Path(conf.output), text)


if __name__ == "__main__":
    main()
