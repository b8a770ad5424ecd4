"""The `export` job: a mixture in the form that other training stacks take."""

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.base.weights import check_weights
from autoscale_exp.config import ExportConf
from autoscale_exp.mixture.weights import read_mixture_file

Weights = dict[str, float]


def megatron(weights: Weights, *, for_shell: bool = True) -> str:
    """Megatron-LM's `--data-path`: weight and prefix in turn, quoted for a shell.

    Without a shell it is the content of a file for `--data-args-path`, which Megatron splits at blanks
    (megatron/training/utils.py, get_blend_and_blend_per_split).

    Raises:
        UserError: a name that cannot be a prefix there.
    """
    for domain in weights:
        if domain.startswith("-"):
            raise UserError(f"domain '{domain}' begins with '-', so that Megatron takes it for an option; rename it")
        if domain != domain.strip() or (not for_shell and domain.split() != [domain]):
            raise UserError(
                f"domain '{domain}' has blanks, at which Megatron splits what it reads; rename it, or give no output=, "
                "for a --data-path with quotes to paste into a command"
            )
    prefixes = [_for_shell(domain) if for_shell else domain for domain in weights]
    return " ".join(f"{weight!r} {prefix}" for weight, prefix in zip(weights.values(), prefixes, strict=True)) + "\n"


def hugging_face(weights: Weights) -> str:
    """Arguments of `datasets.interleave_datasets`; all_exhausted repeats domains that run out."""
    content = {"datasets": list(weights), "probabilities": list(weights.values()), "stopping_strategy": "all_exhausted"}
    return _json(content)


def mosaic(weights: Weights) -> str:
    """MosaicML streaming: a stream per domain with its proportion, as YAML."""
    lines = ["streams:"]
    for domain, weight in weights.items():
        lines += [f"  {_quoted(domain)}:", f"    local: {_quoted(domain)}", f"    proportion: {_yaml_number(weight)}"]
    return "\n".join(lines) + "\n"


def litdata(weights: Weights) -> str:
    """Arguments of litdata's `CombinedStreamingDataset`."""
    return _json({"datasets": list(weights), "weights": list(weights.values()), "iterate_over_all": False})


def olmo(weights: Weights) -> str:
    """OLMo-core's `SourceMixtureList`, as YAML; the paths are to be filled in."""
    lines = ["sources:"]
    for domain, weight in weights.items():
        lines += [f"  - source_name: {_quoted(domain)}", f"    target_ratio: {_yaml_number(weight)}", "    paths: []"]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Weights], str]] = {
    "megatron": megatron,
    "hugging_face": hugging_face,
    "mosaic": mosaic,
    "litdata": litdata,
    "olmo": olmo,
}


PREFIXES = "put the path prefix of each domain's .bin and .idx files in the place of its name, then give this to"
USES = {  # what is left to do with each
    "megatron": f"{PREFIXES} Megatron-LM as --data-path, or a file of it as --data-args-path",
    "hugging_face": "load a data set in the place of each name, then call datasets.interleave_datasets with these",
    "mosaic": "put the folder of each domain's shards after local, then make a Stream of each for StreamingDataset",
    "litdata": "open a StreamingDataset in the place of each name, then call CombinedStreamingDataset with these",
    "olmo": "fill in the paths of each domain, then build a SourceMixtureList of the sources",
}


@job("export")
def main(conf: ExportConf) -> None:
    """Prints the mixture, or writes it to `output`."""
    if conf.format not in FORMATS:
        raise UserError(f"format is '{conf.format}'; allowed are {', '.join(FORMATS)}")
    weights = weights_to_export(Path(conf.mixture_file))
    if conf.output is None:
        sys.stdout.write(FORMATS[conf.format](weights))
    else:
        text = megatron(weights, for_shell=False) if conf.format == "megatron" else FORMATS[conf.format](weights)
        atomic.write_text(Path(conf.output), text)
    if conf.output is not None or sys.stdout.isatty():  # where the export is read by a program, it stands alone
        sys.stderr.write(f"next: {USES[conf.format]}\n")


def weights_to_export(path: Path) -> Weights:
    """The weights of a mixture file, summing to 1, without domains of weight 0.

    Megatron and OLMo-core refuse a weight of 0, and `interleave_datasets` waits for ever until such a domain runs out.

    Raises:
        UserError: the file is no mixture file, or its weights are not shares of 1.
    """
    domains, listed, _ = read_mixture_file(path, "mixture_file")
    weights = dict(zip(domains, check_weights(listed, domains, key=f"the weights in '{path}'").tolist(), strict=True))
    if unused := [domain for domain, weight in weights.items() if weight == 0]:
        sys.stderr.write(f"left out, with weight 0: {', '.join(unused)}\n")
    return {domain: weight for domain, weight in weights.items() if weight > 0}


def _for_shell(name: str) -> str:
    return name if re.fullmatch(r"[\w@%+=:,./-]+", name) else shlex.quote(name)  # which quotes any non-Latin letter


def _json(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)  # as YAML reads it too; it takes an escaped pair for two letters


def _yaml_number(number: float) -> str:
    return re.sub(r"^(\d+)e", r"\1.0e", repr(number))  # 1e-05 without a point is a text to YAML 1.1


if __name__ == "__main__":
    main()
