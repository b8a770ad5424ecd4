"""What the studies of docs/evidence.md show: their numbers and figures, from the folders of finished studies.

    python -m autoscale_exp.study experiment=compare     # and regret, shift, compare_seven, quickstart
    python benchmarks/evidence.py outputs/compare outputs/regret outputs/shift

Writes for each study benchmarks/results/<name>.json and figures beside it, and prints the tables of the page. The
README's table of expected numbers is of quickstart.json.
"""

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoscale_exp.config import ReportConf
from autoscale_exp.report import read_runs
from autoscale_exp.reporting.comparison import compare
from autoscale_exp.reporting.evidence_figures import plot_optima, plot_regrets
from autoscale_exp.reporting.regret import brute_force
from autoscale_exp.reporting.shift import shift_of
from autoscale_exp.reporting.target_figures import plot_differences
from autoscale_exp.reporting.target_runs import objective_of_fit
from autoscale_exp.runs.study_file import read_study

RESULTS = Path(__file__).parent / "results"
KEPT = ["objective", "scales", "target_tokens", "final", "requested_weights", "predictions", "search_tokens"]
KEPT += ["brute_force", "optima"]


def elsewhere(command: str, folder: Path) -> str:
    """A command of a study with its outputs in `outputs`, and without the place of the text, for any machine."""
    return re.sub(r"data\.path=\S+", "data.path=FOLDER", command.replace(str(folder.parent), "outputs"))


def result_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A study's numbers and figures.

    Args:
        folder: of the study, with its report.
    """
    conf = ReportConf(str(folder), str(folder), str(folder / "fit"), None, str(folder / "targets"))
    budgets, fit, searches = read_runs(conf)
    *_, mixtures = budgets.values()
    records = [record for mixture in mixtures.values() for record in mixture.records]
    objective = objective_of_fit(fit, conf.fit)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    result = {
        "command": f"python -m autoscale_exp.study experiment={folder.name}",
        "rivals": list(mixtures),
        "weights_of_objective": fit.objective.weights,
        "training_hours": round(summary["seconds"] / 3600, 2),
        "finished": max(record.finished for record in records),
        "versions": records[0].versions,
        "git_commit": records[0].git_commit,
        "commands": {
            stage: elsewhere(" ".join(command), folder) for stage, command in read_study(folder).finished.items()
        },
    }
    result |= {key: summary[key] for key in KEPT}
    result |= {key: summary[key] for key in ("difference_vs_uniform", "savings_vs_uniform")}
    result["proxy_runs"] = {run.run: objective(run.losses) for run in searches.runs.get(".", [])}
    result["gain_expected"] = asdict(gain) if (gain := (fit.targets[-1].gains or {}).get("uniform")) else None
    figures = {"differences": plot_differences(compare(mixtures, "uniform"), "uniform")}
    if brute := brute_force(searches, mixtures, "uniform", objective):
        figures["regrets"] = plot_regrets(brute)
    if optima := shift_of(folder / "targets", mixtures, "fitted"):
        figures["optima"] = plot_optima(optima, fit.domains)
    return result, figures


def percent(share: float | None, interval: list[float] | None = None) -> str:
    text = "" if share is None else f"{100 * share:+.1f} %"
    return f"{text} ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})" if interval else text


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def counts_of(predictions: list[dict[str, Any]]) -> str:
    """How many predictions lie in the law's interval, and in that with the noise of the runs."""
    told = []
    for quantity in ("objective", "gain"):
        own = [p for p in predictions if p["quantity"] == quantity]
        of_law = sum(p["predicted_interval"][0] <= p["trained"] <= p["predicted_interval"][1] for p in own)
        of_runs = sum(p["outcome"] == "held" for p in own)
        told.append(f"{quantity}s: {of_law} of {len(own)} in the law's interval, {of_runs} with the runs' noise")
    return "\n".join(told)


def tables_of(result: dict[str, Any]) -> list[str]:
    """The tables of the page, in Markdown."""
    domains = list(next(iter(result["requested_weights"].values())))
    expected = {(p["mixture"], p["quantity"]): p for p in result["predictions"]}
    level = expected["uniform", "objective"]["predicted"]
    rows = []
    for name, final in result["final"].items():
        difference = result["difference_vs_uniform"].get(name)
        saving = result["savings_vs_uniform"].get(name)
        base = sum(result["final"]["uniform"]) / len(result["final"]["uniform"])
        interval = difference and difference["interval"] and [end / base for end in difference["interval"]]
        gain = expected.get((name, "gain"))
        rows.append(
            [
                f"`{name}`",
                ", ".join(f"{result['requested_weights'][name][domain]:.2f}" for domain in domains),
                f"{sum(final) / len(final):.2f}",
                percent(difference and difference["relative"], interval),
                percent(-gain["predicted"] / level, [-end / level for end in gain["predicted_interval"][::-1]])
                if gain
                else "",
                "" if not difference or difference["within_noise"] else percent(saving["on_curves"]),
                f"{saving['search_tokens'] / 1e6:.1f}M" if saving else "",
            ]
        )
    head = [
        "mixture",
        ", ".join(domains),
        "perplexity",
        "against uniform (90 %)",
        "predicted (90 %)",
        "tokens saved",
        "search",
    ]
    tables = [table(head, rows), counts_of(result["predictions"])]
    if brute := result["brute_force"]:
        rows = [
            [f"`{name}`", percent(r["trained"]), percent(r["smooth"], r["interval"]), f"{100 * r['captured']:.0f} %"]
            for name, r in brute["regrets"].items()
        ]
        tables.append(table(["mixture", "above the best run", "above the best (90 %)", "gain captured"], rows))
    if optima := result["optima"]:
        rows = []
        for name, of in optima.items():
            shares = [
                f"{of['weights'][d]:.2f}"
                + ("" if not of["interval"] else " ({:.2f}–{:.2f})".format(*of["interval"][d]))
                for d in domains
            ]
            difference = of["difference"]
            rows.append([f"`{name}`", *shares, percent(difference and difference["relative"])])
        tables.append(table(["mixture", *domains, "against `fitted` at the target"], rows))
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path, help="folders of finished studies")
    RESULTS.mkdir(exist_ok=True)
    for folder in parser.parse_args().studies:
        found, figures = result_of(folder)
        (RESULTS / f"{folder.name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        for name, figure in figures.items():
            figure.savefig(RESULTS / f"{folder.name}_{name}.png", dpi=100)
        print(f"\n{folder.name}\n\n" + "\n\n".join(tables_of(found)))
