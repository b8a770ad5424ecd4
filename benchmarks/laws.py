"""A leaderboard of all laws on public run tables, without leaks: laws see the training runs alone.

    python benchmarks/laws.py --data ../shared/data [--laws pooled_transfer linear ...] [--counts 32 64 512]

RegMix (sail-sg/regmix, MIT): 512 mixtures of 17 Pile domains, 1M-parameter models at 1B tokens, 13 validation domains.
A law is fitted to the first n runs and judged on the 256 test runs. seven_tiny: 30 runs of a DDO design at 0.6M and
1.8M tokens and four runs at 5.4M, whose mean losses less uniform's are to be predicted; the noisy copy has ten times
the spread over seeds.
Writes benchmarks/laws.json and benchmarks/laws.png.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr

from autoscale_exp.laws.law import LAWS, fit_law
from autoscale_exp.reporting.figures import COLOURS, MARKERS, STYLE
from autoscale_exp.runs.imports import join_regmix
from autoscale_exp.runs.run_sheet import parse_run_table, read_runs
from autoscale_exp.runs.table import RunTable, select_runs

HERE = Path(__file__).parent
PILE_CC = "the_pile_pile_cc"
COUNTS = (32, 64, 128, 256, 512)


def regmix(data: Path, split: str) -> RunTable:
    folder = data / "regmix"
    paths = folder / f"{split}_mixture_1m.csv", folder / f"{split}_pile_loss_1m.csv"
    return parse_run_table(join_regmix(*paths, tokens=1_000_000_000), f"regmix {split}")


def judge_regmix(name: str, train: RunTable, test: RunTable, count: int) -> dict[str, float] | None:
    started = time.process_time()
    try:
        law = fit_law(name, select_runs(train, np.arange(count)))
    except ValueError:  # too few runs for the law
        return None
    seconds = time.process_time() - started
    predicted = law.predict(test.domain_tokens)
    ranks = [spearmanr(predicted[:, v], test.losses[:, v]).statistic for v in range(test.losses.shape[1])]
    pile_cc = test.validation_domains.index(PILE_CC)
    chosen = predicted.mean(axis=1).argmin()  # of the test mixtures, whose true losses are known
    return {
        "runs": count,
        "spearman": float(np.mean(ranks)),
        "mae": float(np.abs(predicted - test.losses).mean()),
        "pile_cc_mae": float(np.abs(predicted - test.losses)[:, pile_cc].mean()),
        "regret": float(test.losses.mean(axis=1)[chosen] - test.losses.mean(axis=1).min()),
        "seconds": seconds,
    }


def judge_seven(name: str, data: Path, runs: str) -> dict[str, object] | None:
    targets = read_runs(data / "seven_tiny" / "targets_5.4M_lr2e-3.csv")
    try:
        law = fit_law(name, read_runs(data / "seven_tiny" / runs))
    except ValueError:
        return None
    base = next(r for r, run in enumerate(targets.runs) if run.startswith("uniform"))
    true, predicted = (losses.mean(axis=1) for losses in (targets.losses, law.predict(targets.domain_tokens)))
    others = [r for r in range(len(targets.runs)) if r != base]
    differences = {
        targets.runs[r]: [float(predicted[r] - predicted[base]), float(true[r] - true[base])] for r in others
    }
    return {
        "differences": differences,
        "largest_error": max(abs(p - t) for p, t in differences.values()),
        "signs_right": all(p * t > 0 for p, t in differences.values()),
        "level_error": float(predicted[base] - true[base]),
    }


def draw(results: dict[str, dict], path: Path) -> None:
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
        for i, (name, result) in enumerate(results.items()):
            rows = [row for row in result["regmix"] if row]
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "ms": 4, "lw": 1.4}
            style["ls"] = "-" if i < len(COLOURS) else ":"
            left.plot([r["runs"] for r in rows], [1 - r["spearman"] for r in rows], label=name, **style)
            right.plot([r["runs"] for r in rows], [r["mae"] for r in rows], **style)
        for axes, label in ((left, "1 - mean Spearman"), (right, "mean error, nats/token")):
            axes.set(xscale="log", yscale="log", xlabel="training runs", ylabel=f"{label} (lower is better)")
            axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
            axes.minorticks_off()
        figure.legend(loc="outside right center", fontsize=8)
        figure.savefig(path, dpi=150)


def print_table(results: dict[str, dict]) -> None:
    counts = [row["runs"] for row in next(iter(results.values()))["regmix"] if row]
    print(
        "| law |", " | ".join(f"{n} runs" for n in counts), "| fit of the largest | seven_tiny: largest error, signs |"
    )
    print("|---|" + "---|" * (len(counts) + 2))
    for name, result in sorted(results.items(), key=lambda item: -item[1]["regmix"][-1]["spearman"]):
        cells = [f"{r['spearman']:.3f} ({r['pile_cc_mae']:.3f})" if r else "-" for r in result["regmix"]]
        seven = result["seven_tiny"]
        seven_cell = f"{seven['largest_error']:.3f}, {'right' if seven['signs_right'] else 'wrong'}" if seven else "-"
        print(f"| {name} |", " | ".join(cells), f"| {result['regmix'][-1]['seconds']:.1f} s | {seven_cell} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    laws = [name for name, entry in LAWS.items() if "losses" in entry.abilities]
    parser.add_argument("--laws", nargs="+", choices=laws, default=laws)
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    arguments = parser.parse_args()
    train, test = regmix(arguments.data, "train"), regmix(arguments.data, "test")
    before = HERE / "laws.json"  # of laws that are not asked for, results stay
    results = json.loads(before.read_text())["laws"] if before.exists() else {}
    for name in arguments.laws:
        results[name] = {
            "regmix": [judge_regmix(name, train, test, count) for count in arguments.counts],
            "seven_tiny": judge_seven(name, arguments.data, "runs_lr2e-3.csv"),
            "seven_tiny_noisy": judge_seven(name, arguments.data, "runs_lr6e-3_noisy.csv"),
        }
        print(name, *(f"{r['runs']}: {r['spearman']:.4f}" for r in results[name]["regmix"] if r), flush=True)
    content = {"python": platform.python_version(), "numpy": np.__version__, "laws": results}
    (HERE / "laws.json").write_text(json.dumps(content, indent=1) + "\n")
    draw(results, HERE / "laws.png")
    print_table(results)


if __name__ == "__main__":
    main()
