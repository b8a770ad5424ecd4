"""How far laws are off at sizes and repetitions not seen, and how often the default law's intervals hold.

    python benchmarks/coverage.py --data ../shared/data

Sizes: the SlimPajama ladder (Shukor et al., arXiv 2507.09404; finished runs at 122M, 310M and 680M parameters) and
SLDBench's domain mixtures (70M to 410M parameters). A law is fitted to the smaller sizes and judged at the largest.
Repetition: SLDBench's data_constrained (Muennighoff et al., arXiv 2305.16264), without its largest models and budgets.
Coverage: how many differences between two mixtures lie in their 90 % interval, of the mean loss, and of each loss. On
real tables the truth is a run, noise and all; on synthetic ones it is a law of the list, fitted to real runs, which the
default law sees through noise of .003 nats. Rows of the ladder, which has no licence, are read and never written.
Writes benchmarks/coverage.json and benchmarks/coverage.png.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from laws import regmix
from scipy.stats import spearmanr

from autoscale_exp.laws.law import LAWS, fit_law, predict_runs
from autoscale_exp.reporting.figures import COLOURS, STYLE
from autoscale_exp.runs.run_sheet import read_runs
from autoscale_exp.runs.table import RunTable, select_runs

HERE = Path(__file__).parent
LEVELS = np.arange(0.1, 1.0, 0.1)
NUM_DRAWS, MOST_PAIRS, NOISE = 200, 3000, 0.003
SLIM = "slimpajama_ladder"
Split = tuple[str, RunTable, RunTable]


def ladder(data: Path, file: str) -> tuple[RunTable, np.ndarray]:
    """The runs, and the number of each run's mixture."""
    table = replace(read_runs(data / SLIM / f"{file}.csv"), scales=None)
    return table, np.array([int(run.split("_")[1].removeprefix("mix")) for run in table.runs])


def sldbench(data: Path) -> RunTable:
    """Mixtures of five domains; the tokens trained on are not told, and taken for the same."""
    with open(data / "sldbench" / "domain_mixture_train.csv") as file:
        rows = list(csv.DictReader(file))
    names = [str(i) for i in range(1, 6)]
    shares = np.array([[float(row[f"proportion_domain_{i}"]) for i in names] for row in rows])
    losses = np.array([[float(row[f"loss_domain_{i}"]) for i in names] for row in rows])
    params = np.array([float(row["group"].removesuffix("M")) * 1e6 for row in rows])
    tokens = shares / shares.sum(axis=1, keepdims=True) * 1e10
    return RunTable([f"r{i}" for i in range(len(rows))], names, names, tokens, losses, params=params)


def by_size(table: RunTable, largest: float) -> tuple[RunTable, RunTable]:
    small = table.params <= largest
    unseen = table.params == table.params[~small].min()
    return select_runs(table, np.flatnonzero(small)), select_runs(table, np.flatnonzero(unseen))


def judge_sizes(data: Path) -> dict[str, dict]:
    runs = {"ladder, 122M and 310M to 680M": (ladder(data, "runs_at_their_end")[0], 4e8)}
    runs |= {"SLDBench, 70M to 305M to 410M": (sldbench(data), 3.1e8)}
    results = {}
    for name, (table, largest) in runs.items():
        train, test = by_size(table, largest)
        results[name] = {}
        for law_name, entry in LAWS.items():
            if "model size" not in entry.abilities:
                continue
            predicted = predict_runs(fit_law(law_name, train), test)
            mean, true = predicted.mean(axis=1), test.losses.mean(axis=1)
            results[name][law_name] = {
                "relative_error": float(np.abs(predicted / test.losses - 1).mean()),
                "level_error": float((mean - true).mean()),
                "difference_error": float((mean - true).std()),
                "spearman": float(spearmanr(mean, true).statistic),
                "regret": float(true[mean.argmin()] - true.min()),
            }
            print(name, law_name, results[name][law_name], flush=True)
    return results


def judge_repetition(data: Path) -> dict[str, dict]:
    with open(data / "sldbench" / "data_constrained_train.csv") as file:
        rows = list(csv.DictReader(file))
    unique, params, tokens, losses = (
        np.array([float(row[key]) for row in rows]) for key in ("unique_tokens", "params", "tokens", "loss")
    )
    names, text = [f"r{i}" for i in range(len(rows))], unique[:, None]
    table = RunTable(names, ["text"], ["text"], tokens[:, None], losses[:, None], params=params, pool_tokens=text)
    unseen = {
        "models of 1B parameters and more": params >= 1e9,
        "models of 2B parameters and more": params >= 2e9,
        "budgets of 40B tokens and more": tokens >= 4e10,
        "budgets of 90B tokens and more": tokens >= 9e10,
        "models of 2B or budgets of 90B, and more": (params >= 2e9) | (tokens >= 9e10),
        "models of 1B or budgets of 50B, and more": (params >= 1e9) | (tokens >= 5e10),
        "texts of 4B tokens and more": unique >= 4e9,
    }
    results = {}
    for name, rows in unseen.items():
        train, test = _parts(table, ~rows, rows)
        results[name] = {"runs": int(rows.sum())}
        for law_name, known in (("pooled_transfer", True), ("pooled_transfer", False), ("additive", True)):
            seen, left_out = (each if known else replace(each, pool_tokens=None) for each in (train, test))
            errors = predict_runs(fit_law(law_name, seen), left_out) - test.losses
            results[name][law_name if known else f"{law_name}, repetition not told"] = {
                "r2": 1 - float((errors**2).mean() / test.losses.var()),
                "median_relative_error": float(np.median(np.abs(errors / test.losses))),
            }
        print(name, results[name], flush=True)
    return results


def real_splits(data: Path) -> Iterator[Split]:
    table, mixture = ladder(data, "runs_at_their_end")
    third, largest = mixture % 3 == 0, table.params == table.params.max()
    yield "ladder: size and mixtures", *_parts(table, ~third & ~largest, third & largest)
    middle = table.params == 310_000_000
    yield "ladder: mixtures", *_parts(table, ~third, third & middle)
    table, mixture = ladder(data, "checkpoints")
    totals = table.domain_tokens.sum(axis=1)
    for params in (122_000_000, 680_000_000):
        own, end = table.params == params, totals[table.params == params].max()
        early = own & (np.isclose(totals, 0.3 * end, rtol=0.03) | np.isclose(totals, 0.5 * end, rtol=0.03))
        name = f"ladder, {params // 10**6}M on the way: budget and mixtures"
        yield name, *_parts(table, early & (mixture % 2 == 0), np.isclose(totals, end) & own & (mixture % 2 == 1))
    train, test = regmix(data, "train"), regmix(data, "test")
    for count in (64, 512):
        yield f"RegMix, {count} runs: mixtures", select_runs(train, np.arange(count)), test
    seven = read_runs(data / "seven_tiny" / "runs_lr2e-3.csv")
    small = np.array(["0.6M" in run for run in seven.runs])
    yield "seven domains: budget", *_parts(seven, small, ~small)
    yield "seven domains: targets", seven, read_runs(data / "seven_tiny" / "targets_5.4M_lr2e-3.csv")


def synthetic_splits(data: Path) -> Iterator[Split]:
    table, _ = ladder(data, "checkpoints")
    own = table.params == 310_000_000
    totals = table.domain_tokens.sum(axis=1)
    early = own & (np.isclose(totals, 6e9, rtol=0.03) | np.isclose(totals, 1e10, rtol=0.03))
    runs = select_runs(table, np.flatnonzero(early))
    runs = replace(runs, validation_domains=runs.domains, losses=runs.losses[:, : len(runs.domains)], params=None)
    for name in (name for name, entry in LAWS.items() if "losses" in entry.abilities):
        truth = fit_law(name, runs)
        rng = np.random.default_rng(5)
        shares = 0.93 * rng.dirichlet(np.full(7, 1.5), 48) + 0.01
        seen, unseen = np.concatenate([shares[:24] * 6e9, shares[:24] * 1e10]), shares[24:] * 3e10
        noise = NOISE / np.sqrt(2) * (rng.standard_normal((48, 7)) + rng.standard_normal((48, 1)))
        tables = (
            replace(runs, runs=[f"r{i}" for i in range(len(tokens))], domain_tokens=tokens, losses=losses)
            for tokens, losses in ((seen, truth.predict(seen) + noise), (unseen, truth.predict(unseen)))
        )
        yield f"truth: {name}", *tables


def _parts(table: RunTable, train: np.ndarray, test: np.ndarray) -> tuple[RunTable, RunTable]:
    return select_runs(table, np.flatnonzero(train)), select_runs(table, np.flatnonzero(test))


def covered(draws: np.ndarray, true: np.ndarray, level: float) -> float:
    """Part of the differences between two of (R,) true values within the interval of (D, R) draws."""
    first, second = np.triu_indices(len(true), 1)
    chosen = np.random.default_rng(0).permutation(len(first))[:MOST_PAIRS]
    first, second = first[chosen], second[chosen]
    low, high = np.quantile(draws[:, first] - draws[:, second], ((1 - level) / 2, (1 + level) / 2), axis=0)
    true = true[first] - true[second]
    return float(((true >= low) & (true <= high)).mean())


def judge_coverage(train: RunTable, test: RunTable) -> dict[str, object]:
    law = fit_law("pooled_transfer", train)
    if test.params is not None:
        law = law.at_size(test.params[0])
    draws = np.stack([draw.predict(test.domain_tokens) for draw in law.draws(NUM_DRAWS, np.random.default_rng(0))])
    mean, true = draws.mean(axis=2), test.losses.mean(axis=1)
    low, high = np.quantile(mean, (0.05, 0.95), axis=0)
    errors = law.predict(test.domain_tokens).mean(axis=1) - true
    return {
        "mean_loss": covered(mean, true, 0.9),
        "each_loss": float(np.mean([covered(draws[:, :, v], test.losses[:, v], 0.9) for v in range(draws.shape[2])])),
        "level": float(((true >= low) & (true <= high)).mean()),
        "level_error": float(errors.mean()),
        "difference_error": float(errors.std()),
        "by_level": [covered(mean, true, level) for level in LEVELS],
    }


def draw(results: dict[str, dict], path: Path) -> None:
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
        for axes, synthetic in zip(panels, (False, True), strict=True):
            chosen = {name: result for name, result in results.items() if name.startswith("truth") == synthetic}
            for i, (name, result) in enumerate(chosen.items()):
                style = "-" if i < len(COLOURS) else ":"
                axes.plot(LEVELS, result["by_level"], style, color=COLOURS[i % len(COLOURS)], label=name, lw=1.4)
            axes.plot([0, 1], [0, 1], color="black", lw=0.8)
            axes.set(xlabel="interval", xlim=(0, 1), ylim=(0, 1))
            axes.legend(fontsize=7)
        panels[0].set_ylabel("differences of mean loss within it")
        figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    sizes, repetition, coverage = judge_sizes(data), judge_repetition(data), {}
    for splits in (real_splits, synthetic_splits):
        for name, train, test in splits(data):
            coverage[name] = judge_coverage(train, test)
            shown = {key: round(value, 3) for key, value in coverage[name].items() if key != "by_level"}
            print(name, shown, flush=True)
    content = {"sizes": sizes, "repetition": repetition, "coverage": coverage}
    (HERE / "coverage.json").write_text(json.dumps(content, indent=1) + "\n")
    draw(coverage, HERE / "coverage.png")


if __name__ == "__main__":
    main()
