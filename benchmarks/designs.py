"""Which runs to train: designs compared by what a law learns from the runs that they choose from finished ones.

    python benchmarks/designs.py --data ../shared/data [--law pooled_transfer] [--repetitions 5] [--only sizes]

RegMix (sail-sg/regmix, MIT): 512 mixtures of 17 Pile domains, and 256 others to be judged on. SlimPajama ladder
(Apple's runs; no licence, so that only figures of it are kept): the mixtures of 7 domains at each of three sizes, a
third of which is held out, another one in each repetition. A design chooses 20, 35 and 50 % of the runs:

    random    in random order
    ddo       those nearest to a DDO design's mixtures: one domain's share times or divided by 3, by 9, ... in turn
    optimal   a random 10 %, then by `choose_runs`, round by round, with the law fitted again after each

The ladder's sizes are also one pool, of all runs but a third of those at the largest size, which are held out. There a
design may spend 20, 35 and 50 % of the pool's FLOPs (6 for a parameter and a token):

    random    in random order, of any size
    largest   in random order, of the largest size alone
    optimal   a random 10 %, then by `choose_runs` for the mixtures at the largest size, per FLOP

Judged on the held-out mixtures: regret (nats) of the one that the law holds for the best by mean loss, Spearman
correlation of the mean losses, and mean absolute error of all losses. Writes benchmarks/designs.json; what is not asked
for stays as it was.
"""

import argparse
import json
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from laws import regmix
from scipy.stats import spearmanr

from autoscale_exp.laws.candidates import Candidate, Place
from autoscale_exp.laws.law import LossLaw, fit_law
from autoscale_exp.laws.next_runs import choose_runs, losses_of
from autoscale_exp.laws.solver.ensemble import Ensemble
from autoscale_exp.runs.run_sheet import table_of_sheet
from autoscale_exp.runs.sheet import read_sheet
from autoscale_exp.runs.table import RunTable, select_runs

HERE = Path(__file__).parent
SHARES = (0.20, 0.35, 0.50)  # of the runs
START = 0.10  # at random, before the first fit; at least a run more than there are domains
NUM_DRAWS = 200
PER_ROUND = 0.05  # of the runs, between two fits
FACTOR = 3.0


def random_order(pool: RunTable, rng: np.random.Generator) -> Iterator[int]:
    yield from rng.permutation(len(pool.runs))


def ddo_order(pool: RunTable, rng: np.random.Generator) -> Iterator[int]:
    """The nearest run that is left to each of the design's mixtures in turn, from the base mixture outwards."""
    weights = pool.domain_tokens / pool.domain_tokens.sum(axis=1, keepdims=True)
    base = weights.mean(axis=0)
    left = set(range(len(weights)))
    for power in range(1, len(weights)):
        changed = [base]
        for domain in rng.permutation(len(base)):
            for factor in (FACTOR**power, FACTOR**-power):
                one = np.where(np.arange(len(base)) == domain, factor, 1) * base
                changed.append(one / one.sum())
        for mixture in changed:
            if not left:
                return
            nearest = min(left, key=lambda run: np.linalg.norm(weights[run] - mixture))
            left.remove(nearest)
            yield nearest


def optimal_order(pool: RunTable, held_out: RunTable, law: str, rng: np.random.Generator) -> Iterator[int]:
    """Round by round those that tell most of how the mixtures compare that draws of the law hold for the best."""
    start = max(round(START * len(pool.runs)), len(pool.domains) + 1)
    chosen = rng.permutation(len(pool.runs))[:start].tolist()
    yield from chosen
    tokens = np.concatenate([pool.domain_tokens, held_out.domain_tokens])
    while len(chosen) < len(pool.runs):
        fitted = fit_law(law, select_runs(pool, np.array(chosen)))
        draws = fitted.draws(NUM_DRAWS, np.random.default_rng(0))
        objectives = np.stack([draw.predict(tokens).mean(axis=1) for draw in draws])  # (D, mixtures)
        contenders = np.unique(objectives.argmin(axis=1))
        offered = objectives.mean(axis=0).argmin()
        differences = objectives[:, contenders] - objectives[:, [offered]]
        left = np.setdiff1d(np.arange(len(pool.runs)), chosen)
        count = max(1, round(PER_ROUND * len(pool.runs)))
        losses, costs = Ensemble(draws).predict(pool.domain_tokens[left]), pool.domain_tokens[left].sum(axis=1)
        for choice in choose_runs(losses, costs, fitted.run_noise, differences, count, repeatable=False):
            chosen.append(int(left[choice.index]))
            yield chosen[-1]


def optimal_order_of_sizes(pool: RunTable, held_out: RunTable, law: str, rng: np.random.Generator) -> Iterator[int]:
    """The same over runs of several sizes, for the mixtures at the largest one, per FLOP."""
    sizes, largest = pool.params.astype(int), int(held_out.params[0])
    runs = [
        Candidate(name, None, tokens, 0, Place(0, size, ""))
        for name, tokens, size in zip(pool.runs, pool.domain_tokens, sizes.tolist(), strict=True)
    ]
    costs = np.array([run.flops for run in runs])
    chosen = rng.permutation(len(runs))[: round(START * len(runs))].tolist()
    yield from chosen
    tokens = np.concatenate([pool.domain_tokens[sizes == largest], held_out.domain_tokens])
    while len(chosen) < len(runs):
        fitted = fit_law(law, select_runs(pool, np.array(chosen)))
        draws_of = {n: fitted.at_size(n).draws(NUM_DRAWS, np.random.default_rng(0)) for n in {*sizes.tolist(), largest}}
        objectives = Ensemble(draws_of[largest]).predict(tokens).mean(axis=-1)
        contenders, offered = np.unique(objectives.argmin(axis=1)), objectives.mean(axis=0).argmin()
        differences = objectives[:, contenders] - objectives[:, [offered]]
        left = np.setdiff1d(np.arange(len(runs)), chosen)
        losses = losses_of(draws_of, [runs[index] for index in left])
        count = max(1, round(PER_ROUND * len(runs)))
        for choice in choose_runs(losses, costs[left], fitted.run_noise, differences, count, repeatable=False):
            chosen.append(int(left[choice.index]))
            yield chosen[-1]


def judge(law: LossLaw, held_out: RunTable) -> dict[str, float]:
    predicted, true = law.predict(held_out.domain_tokens), held_out.losses
    best = predicted.mean(axis=1).argmin()
    return {
        "regret": float(true.mean(axis=1)[best] - true.mean(axis=1).min()),
        "spearman": float(spearmanr(predicted.mean(axis=1), true.mean(axis=1)).statistic),
        "mae": float(np.abs(predicted - true).mean()),
    }


def compare(pool: RunTable, held_out: RunTable, law: str, num_runs: int, seed: int) -> dict[str, list[dict]]:
    """Per design its figures at each share of `num_runs`."""
    orders = {
        "random": random_order(pool, np.random.default_rng(seed)),
        "ddo": ddo_order(pool, np.random.default_rng(seed)),
        "optimal": optimal_order(pool, held_out, law, np.random.default_rng(seed)),
    }
    results = {}
    for name, order in orders.items():
        chosen, results[name] = [], []
        for share in SHARES:
            while len(chosen) < round(share * num_runs):
                chosen.append(next(order))
            fitted = fit_law(law, select_runs(pool, np.array(chosen)))
            results[name].append({"runs": len(chosen), **judge(fitted, held_out)})
    return results


def compare_sizes(pool: RunTable, held_out: RunTable, law: str, seed: int) -> dict[str, list[dict]]:
    """Per design its figures at each share of the pool's FLOPs."""
    largest, flops = held_out.params[0], 6 * pool.params * pool.domain_tokens.sum(axis=1)
    rng = np.random.default_rng(seed)
    orders = {
        "random": random_order(pool, np.random.default_rng(seed)),
        "largest": iter(rng.permutation(np.flatnonzero(pool.params == largest))),
        "optimal": optimal_order_of_sizes(pool, held_out, law, np.random.default_rng(seed)),
    }
    results = {}
    for name, order in orders.items():
        chosen, results[name] = [], []
        following = next(order)
        for share in SHARES:
            while following is not None and flops[[*chosen, following]].sum() <= share * flops.sum():
                chosen.append(following)
                following = next(order, None)
            fitted = fit_law(law, select_runs(pool, np.array(chosen))).at_size(largest)
            results[name].append({"runs": len(chosen), **judge(fitted, held_out)})
    return results


def ladder_of_sizes(data: Path, seed: int) -> tuple[RunTable, RunTable]:
    """All runs but a third of those at the largest size, and that third."""
    table = table_of_sheet(read_sheet(data / "slimpajama_ladder" / "runs_at_their_end.csv", "runs"))
    rows = np.random.default_rng(1000 + seed).permutation(np.flatnonzero(table.params == table.params.max()))
    held_out = rows[: len(rows) // 3]
    return select_runs(table, np.setdiff1d(np.arange(len(table.runs)), held_out)), select_runs(table, held_out)


def ladder(data: Path) -> dict[str, RunTable]:
    """The finished runs of each size."""
    sheet = read_sheet(data / "slimpajama_ladder" / "runs_at_their_end.csv", "runs")
    table, params = table_of_sheet(sheet), np.array([int(cell) for cell in sheet.cells("params")])
    sizes = np.unique(params)
    return {f"{size // 10**6}M": select_runs(table, np.flatnonzero(params == size)) for size in sizes}


def summary(repetitions: list[dict[str, list[dict]]]) -> dict[str, list[dict]]:
    """Per design and share the mean over repetitions of each figure, and its standard error."""
    means = {}
    for name in repetitions[0]:
        means[name] = []
        for rows in zip(*(repetition[name] for repetition in repetitions), strict=True):
            entry: dict[str, float] = {"runs": round(float(np.mean([row["runs"] for row in rows])), 1)}
            for figure in ("regret", "spearman", "mae"):
                values = np.array([row[figure] for row in rows])
                entry[figure] = round(float(values.mean()), 5)
                entry[f"{figure}_error"] = round(float(values.std(ddof=1) / np.sqrt(len(values))), 5)
            means[name].append(entry)
    return means


def print_table(results: dict[str, dict[str, list[dict]]]) -> None:
    print("| runs of | design |", " | ".join(f"{share:.0%}" for share in SHARES), "|")
    print("|---|---|" + "---|" * len(SHARES))
    for table, designs in results.items():
        for name, rows in designs.items():
            cells = [f"{r['regret']:.4f} / {r['spearman']:.3f} / {r['mae']:.4f}" for r in rows]
            print(f"| {table} | {name} |", " | ".join(cells), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--law", default="pooled_transfer")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "designs.json")
    parser.add_argument("--only", choices=["regmix", "ladder", "sizes"])
    arguments = parser.parse_args()
    law, seeds = arguments.law, range(arguments.repetitions)
    asked = [arguments.only] if arguments.only else ["regmix", "ladder", "sizes"]
    results = json.loads(arguments.output.read_text())["results"] if arguments.output.exists() else {}
    if "regmix" in asked:
        train, test = regmix(arguments.data, "train"), regmix(arguments.data, "test")
        results["regmix"] = summary([compare(train, test, law, len(train.runs), seed) for seed in seeds])
    if "ladder" in asked:
        for size, table in ladder(arguments.data).items():
            repetitions = []
            for seed in seeds:
                order = np.random.default_rng(1000 + seed).permutation(len(table.runs))
                third = len(order) // 3
                pool, held_out = select_runs(table, order[third:]), select_runs(table, order[:third])
                repetitions.append(compare(pool, held_out, law, len(table.runs), seed))
            results[f"ladder {size}"] = summary(repetitions)
    if "sizes" in asked:
        repetitions = [compare_sizes(*ladder_of_sizes(arguments.data, seed), law, seed) for seed in seeds]
        results["ladder, all sizes"] = summary(repetitions)
    print_table(results)
    content = {"python": platform.python_version(), "numpy": np.__version__, "law": law, "results": results}
    content["repetitions"] = arguments.repetitions
    arguments.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
