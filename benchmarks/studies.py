"""Studies from their first stage to their report: what they planned, what they took, and what came out.

    python benchmarks/studies.py --work FOLDER [--studies paper_gpt2_smoke paper_bert_smoke]

Each study runs in FOLDER/<study>. One that was interrupted goes on from there; its plan and time are then of what was
left. `planned` is the plan's time of training, measured in a few steps before the first run; `took` is how long the
stages that train were at it, by the clock, so that other work on the machine shows in their ratio.
Writes benchmarks/studies.json; a study that is not asked for stays as it was.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "studies.json"
SECONDS = {"s": 1, "min": 60, "h": 3600}
STAGE = re.compile(r"\d+ of \d+: (.+)")
PLANNED = re.compile(r"to do: .*; about ([\d.,]+) (s|min|h) of training")


def run_study(study: str, folder: Path) -> dict[str, Any]:
    """What a study planned, took and found."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "autoscale_exp.study",
        f"experiment={study}",
        f"output_dir={folder / 'study'}",
    ]
    process = subprocess.Popen([*command, f"data.store={folder / 'store'}"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    planned, stage, began, stages = None, "prepare and plan", time.time(), {}
    for line in process.stdout:
        sys.stdout.write(line)
        if match := PLANNED.match(line):
            planned = float(match[1].replace(",", "")) * SECONDS[match[2]]
        if match := STAGE.match(line):
            stages[stage], began = round(time.time() - began, 1), time.time()
            stage = match[1]
    stages[stage] = round(time.time() - began, 1)
    if process.wait():
        raise SystemExit(f"{study} ended with exit code {process.returncode}")
    took = sum(seconds for name, seconds in stages.items() if name.startswith(("search", "train", "targets")))
    summary = json.loads((folder / "study" / "summary.json").read_text())
    return {
        "seconds_by_stage": stages,
        "planned": planned,
        "took": round(took, 1),
        "ratio": round(took / planned, 2) if planned else None,
        "load_average": round(os.getloadavg()[2], 1),
        "objective": summary["objective"],
        "target_tokens": summary["target_tokens"],
        "search_tokens": summary["search_tokens"],
        "final": {name: round(sum(values) / len(values), 4) for name, values in summary["final"].items()},
        "report_bytes": (folder / "study" / "report.html").stat().st_size,
    }


def main() -> None:
    """Runs the studies and writes the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--studies", nargs="+", default=["paper_gpt2_smoke", "paper_bert_smoke"])
    asked = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for study in asked.studies:
        results[study] = run_study(study, asked.work / study)
        results["machine"] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
