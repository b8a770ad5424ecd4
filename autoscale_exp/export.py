"""The `export` job: a mixture in the formats of other training stacks."""

import sys
from pathlib import Path

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.base.weights import check_weights
from autoscale_exp.config import ExportConf
from autoscale_exp.mixture.formats import FORMATS, Weights, megatron
from autoscale_exp.mixture.weights import read_mixture_file

PREFIXES = "put the path prefix of each domain's .bin and .idx files in the place of its name, then give this to"
USES = {  # how to use each format
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
    if conf.output is not None or sys.stdout.isatty():  # a program that reads the output gets only the mixture
        sys.stderr.write(f"next: {USES[conf.format]}\n")


def weights_to_export(path: Path) -> Weights:
    """Reads the weights of a mixture file, which sum to 1, without domains of weight 0.

    Megatron and OLMo-core refuse a weight of 0, and `interleave_datasets` would wait for such a domain to run out.

    Raises:
        UserError: the file is no mixture file, or its weights are not shares of 1.
    """
    domains, listed, _ = read_mixture_file(path, "mixture_file")
    weights = dict(zip(domains, check_weights(listed, domains, key=f"the weights in '{path}'").tolist(), strict=True))
    if unused := [domain for domain, weight in weights.items() if weight == 0]:
        sys.stderr.write(f"left out, with weight 0: {', '.join(unused)}\n")
    return {domain: weight for domain, weight in weights.items() if weight > 0}


if __name__ == "__main__":
    main()
