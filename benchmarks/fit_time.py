"""CPU seconds of a whole decision: the law, its back-test, and the mixtures of all scales and one target.

    OMP_NUM_THREADS=1 python benchmarks/fit_time.py --data DATA

DATA holds seven_tiny and regmix as in benchmarks/laws.py; the table of 60 domains is made here. Seconds are of one
thread. Ratios between rows of one run are comparable between machines, seconds are not.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from laws import regmix

from autoscale_exp.laws.decision import decide, gather_evidence
from autoscale_exp.laws.law import fit_law, predicts_losses
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.request import Request
from autoscale_exp.laws.solver.constraints import Constraints
from autoscale_exp.runs.run_sheet import read_runs
from autoscale_exp.runs.table import RunTable, select_runs

HERE = Path(__file__).parent


def made_up(num_domains: int, num_runs: int, seed: int = 0) -> RunTable:
    """Runs at 1B and 3B tokens under a law of another form than the default's, with noise that a run shares."""
    rng = np.random.default_rng(seed)
    transfer = rng.uniform(0.0, 0.1, (num_domains, num_domains)) * (rng.random((num_domains, num_domains)) < 0.3)
    transfer[range(num_domains), range(num_domains)] = 1 + rng.random(num_domains)
    exponent, irreducible = rng.uniform(0.15, 0.4, num_domains), rng.uniform(1.5, 2.5, num_domains)
    tokens = rng.dirichlet(np.full(num_domains, 0.7), num_runs) * np.resize([1e9, 3e9], num_runs)[:, None]
    losses = irreducible + 1.5 * (0.2 + (tokens / 1e9 * num_domains) ** 0.7 @ transfer.T) ** -exponent
    losses += 0.01 * rng.standard_normal(losses.shape) + 0.005 * rng.standard_normal((num_runs, 1))
    names = [f"d{i}" for i in range(num_domains)]
    return RunTable([f"run{r}" for r in range(num_runs)], names, names, tokens, losses)


def timed(table: RunTable, num_draws: int) -> dict[str, float]:
    target = round(3 * float(table.domain_tokens.sum(axis=1).max()))
    request = Request(
        targets=[target],
        objective=make_objective("mean_loss", "loss", None, table.validation_domains),
        constraints=Constraints(make_bounds(0.0, 1.0, table.domains)),
        kl_weight=0.0,
        prior=None,
        num_draws=num_draws,
        seed=0,
    )
    started = time.process_time()
    law = fit_law("pooled_transfer", table)
    fitted = time.process_time()
    assert predicts_losses(law)
    fit = decide(gather_evidence(law, table, request), request)
    mixtures = [*fit.scales, *fit.targets]
    return {
        "runs": len(table.runs),
        "domains": len(table.domains),
        "validation_domains": len(table.validation_domains),
        "draws": num_draws,
        "law_seconds": round(fitted - started, 2),
        "seconds": round(time.process_time() - started, 2),
        "converged": all(mixture.converged for mixture in mixtures),
        "kkt_residual": max(mixture.kkt_residual or 0.0 for mixture in mixtures),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    seven, swarm = read_runs(arguments.data / "seven_tiny" / "runs_lr2e-3.csv"), regmix(arguments.data, "train")
    tables = {
        "seven_tiny, no intervals": (seven, 0),
        "seven_tiny": (seven, 100),
        "regmix, 64 runs": (select_runs(swarm, np.arange(64)), 100),
        "regmix, 512 runs": (swarm, 100),
        "60 domains": (made_up(60, 130), 100),
    }
    results = {}
    for name, (table, num_draws) in tables.items():
        results[name] = timed(table, num_draws)
        print(name, results[name], flush=True)
    content = {"python": platform.python_version()} | {name: version(name) for name in ("numpy", "scipy", "unopy")}
    (HERE / "fit_time.json").write_text(json.dumps(content | {"fits": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
