"""Builds the mixtures that `design format=olmo` writes with OLMo-core itself, from files of real lengths.

    python -m pip install ai2-olmo-core==3.0.0
    python benchmarks/trainers.py --output benchmarks/trainers.json

For each run the tokens that OLMo-core selects of each domain are compared with those that design.csv has.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml
from olmo_core.data.source_mixture import SourceMixtureDatasetConfig

SEQ_LEN, BATCH_ROWS = 16, 8
TEXT = {"web": 40_000, "code": 9_000}  # tokens; tripling code in the larger scale repeats it nearly twice
SCALES = [3_840, 11_520]  # whole steps of 128 tokens, also of runs with a domain times and divided by 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        paths = {domain: Path(folder) / f"{domain}.npy" for domain in TEXT}
        for domain, tokens in TEXT.items():
            np.arange(tokens, dtype=np.uint16).tofile(paths[domain])
        asked = [
            f"domains=[{','.join(TEXT)}]",
            f"paths=[{','.join(map(str, paths.values()))}]",
            f"unique_tokens=[{','.join(map(str, TEXT.values()))}]",
            f"design.scales=[{','.join(map(str, SCALES))}]",
            f"seq_len={SEQ_LEN}",
            f"batch_rows={BATCH_ROWS}",
        ]
        command = [sys.executable, "-m", "autoscale_exp.design", "format=olmo", f"output_dir={folder}/design", *asked]
        subprocess.run(command, check=True)
        with (Path(folder) / "design" / "design.csv").open() as file:
            runs = {run["run"]: compare(run, Path(folder) / "design") for run in csv.DictReader(file)}
    content = {
        "olmo_core": version("ai2-olmo-core"),
        "all_equal": all(run["planned"] == run["selected"] for run in runs.values()),
        "runs": runs,
    }
    output.write_text(json.dumps(content, indent=1) + "\n")


def compare(run: dict[str, str], folder: Path) -> dict[str, dict[str, int]]:
    """Tokens of each domain as planned, and as OLMo-core selects them."""
    config = SourceMixtureDatasetConfig.from_dict(yaml.safe_load((folder / f"{run['run']}.yaml").read_text()))
    config.render_tables, config.quiet = False, True
    config.validate()
    mixture = config.build(npdtype=np.uint16, sequence_length=SEQ_LEN)
    return {
        "planned": {domain: round(float(run[f"tokens.{domain}"])) for domain in TEXT},
        "selected": {source.name: sum(path.tokens for path in source.path_tokens) for source in mixture.sources},
    }


if __name__ == "__main__":
    main()
