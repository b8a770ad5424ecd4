"""What is odd about the runs in a sweep's folder: unfinished runs, and runs of other sweeps."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from autoscale_exp.base.labels import short_label
from autoscale_exp.runs.record import RECORD, RunRecord, is_recorded, read_record

REMEDY = "to fit some alone, write them with `import_runs source=sweep`, delete the other rows, and fit the table"


def group_of(sweep: Path, experiment: str) -> str:
    """The group of a sweep's runs where they are logged.

    A sweep in the folder of another one belongs to it, such as target runs to their search.

    Args:
        sweep: folder with the sweep's runs/.
        experiment: name of the experiment.
    """
    around = next(iter(sorted(sweep.resolve().parent.glob(f"runs/*/{RECORD}"))), None)
    return experiment if around is None else read_record(around.parent).experiment


def remarks_on(sweep: Path, records: Sequence[RunRecord]) -> list[str]:
    """Makes sentences on what to know before fitting all these runs together."""
    remarks = []
    unfinished = [folder.name for folder in sorted(sweep.glob("runs/[!.]*/")) if not is_recorded(folder)]
    if unfinished:
        named = ", ".join(unfinished[:3]) + (", ..." if len(unfinished) > 3 else "")
        remarks.append(f"{len(unfinished)} runs are not finished and are left out: {named}")
    for what, values in {
        "experiments": [record.experiment for record in records],
        "base mixtures": [record.mixture for record in records],
        "token stores": [record.store for record in records],
    }.items():
        if len(counts := Counter(values)) > 1:
            told = ", ".join(f"{count} of {value}" for value, count in counts.items())
            remarks.append(f"runs of {len(counts)} {what} are fitted together ({told}); {REMEDY}")
    scales: dict[int, list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: record.token_budget):
        scales.setdefault(record.token_budget, []).append(record)
    for budget, of_scale in scales.items():
        sizes = {record.params for record in of_scale}  # laws account for these
        if len(models := Counter(record.model for record in of_scale)) > len(sizes):
            told = ", ".join(f"{count} of {model}" for model, count in models.items())
            remarks.append(f"scale {short_label(budget)} has runs of {len(models)} models ({told}); {REMEDY}")
    largest = max(map(len, scales.values()))
    if any(2 * len(of_scale) < largest for of_scale in scales.values()):
        told = ", ".join(f"{len(of_scale)} at {short_label(budget)}" for budget, of_scale in scales.items())
        remarks.append(f"its scales have very different numbers of runs ({told}), as if some were of another sweep")
    return remarks
