import csv
from pathlib import Path

import numpy as np

from autoscale_exp.runs.table import RunTable

GOLDEN = Path(__file__).parent / "golden"
DOMAINS = ["common_crawl", "github", "books", "wikipedia", "c4", "stackexchange", "arxiv"]


def ddo_runs(reduced: float) -> RunTable:
    rows = list(csv.DictReader((GOLDEN / "ddo_gpt2_large_1.2B_perplexity.csv").open()))
    tokens = np.full((len(rows), len(DOMAINS)), 1.2e9 / 7)
    for r, row in enumerate(rows):
        if row["perturbed_domain"]:
            factor = reduced if row["factor"] == "reduced" else 3
            tokens[r, DOMAINS.index(row["perturbed_domain"])] *= factor
    perplexity = np.array([[float(row[f"perplexity.{d}"]) for d in DOMAINS] for row in rows])
    return RunTable([row["run"] for row in rows], DOMAINS, DOMAINS, tokens, np.log(perplexity))


def notebook_optima() -> tuple[list[int], list[np.ndarray]]:
    rows = list(csv.DictReader((GOLDEN / "ddo_optima_gpt2_large.csv").open()))[:2]
    multiples = [np.array([float(row[f"multiple_of_uniform.{d}"]) for d in DOMAINS]) for row in rows]
    return [int(row["tokens"]) for row in rows], [m / m.sum() for m in multiples]
