"""Mixtures in the formats of other training stacks."""

import json
import re
import shlex
from collections.abc import Callable

from autoscale_exp.base.errors import UserError

Weights = dict[str, float]


def megatron(weights: Weights, *, for_shell: bool = True) -> str:
    """Megatron-LM's `--data-path`: weights and prefixes in turn, quoted for a shell.

    With for_shell=False it is the content of a file for `--data-args-path`, which Megatron splits at blanks
    (megatron/training/utils.py, get_blend_and_blend_per_split).

    Raises:
        UserError: a name cannot be a prefix there.
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
        lines += [f"  {quoted(domain)}:", f"    local: {quoted(domain)}", f"    proportion: {yaml_number(weight)}"]
    return "\n".join(lines) + "\n"


def litdata(weights: Weights) -> str:
    """Arguments of litdata's `CombinedStreamingDataset`."""
    return _json({"datasets": list(weights), "weights": list(weights.values()), "iterate_over_all": False})


def olmo(weights: Weights) -> str:
    """OLMo-core's `SourceMixtureList`, as YAML; the paths are to be filled in."""
    lines = ["sources:"]
    for domain, weight in weights.items():
        lines += [f"  - source_name: {quoted(domain)}", f"    target_ratio: {yaml_number(weight)}", "    paths: []"]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Weights], str]] = {
    "megatron": megatron,
    "hugging_face": hugging_face,
    "mosaic": mosaic,
    "litdata": litdata,
    "olmo": olmo,
}


def _for_shell(name: str) -> str:
    return name if re.fullmatch(r"[\w@%+=:,./-]+", name) else shlex.quote(name)  # this quotes any non-Latin letter


def _json(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def quoted(name: str) -> str:
    """A text in quotes, for JSON, YAML and Python."""
    return json.dumps(name, ensure_ascii=False)  # YAML reads an escaped surrogate pair as two letters


def yaml_number(number: float) -> str:
    """A number that YAML reads as one."""
    return re.sub(r"^(\d+)e", r"\1.0e", repr(number))  # 1e-05 without a point is a text to YAML 1.1
