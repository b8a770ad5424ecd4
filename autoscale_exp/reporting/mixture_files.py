"""The mixture file, and so the fit, of a target run, read from the run's folder."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

from autoscale_exp.laws.fit_file import FIT, FitObjective, read_fit
from autoscale_exp.mixture.weights import read_mixture_file
from autoscale_exp.reporting.target_runs import SAME_WEIGHTS, MixtureRuns
from autoscale_exp.runs.record import RunRecord


def mixture_file(sweep: Path, record: RunRecord) -> Path | None:
    """The mixture file that a run was trained on; None if there was none, or if its folder does not tell.

    Args:
        sweep: folder of the run's sweep.
        record: the record of the run.
    """
    path = sweep / "runs" / record.run / ".hydra" / "config.yaml"
    if not path.is_file():
        return None
    found = OmegaConf.select(OmegaConf.load(path), "mixture.path")  # resolved as the job did
    return None if found is None else Path(found)


def fit_of(file: Path) -> Path | None:
    """The folder of the fit that wrote a mixture file; None if no fit did."""
    folder = file.parent.parent
    return folder if file.parent.name == "mixtures" and (folder / FIT).is_file() else None


def found_in(search: Path, targets: Path, mixtures: Mapping[str, MixtureRuns]) -> list[str]:
    """The mixtures of fits in the folder of a search, found by their files or their names."""
    files = {name: mixture_file(targets, mixture.records[0]) for name, mixture in mixtures.items()}
    inside = {name for name, file in files.items() if file and search.resolve() in file.resolve().parents}
    return [name for name in mixtures if name in ("fitted", "autoscale") or name in inside]


def remarks_on(targets: Path, mixtures: Mapping[str, MixtureRuns], objective: FitObjective) -> list[str]:
    """Makes sentences on mixtures that were found for another objective, and on those that their fit no longer has.

    Args:
        targets: folder of the target runs.
        mixtures: target runs by mixture.
        objective: the objective that the report judges by.
    """
    remarks = []
    for name, mixture in mixtures.items():
        record = mixture.records[0]
        file = mixture_file(targets, record)
        fit = file and fit_of(file)
        if file is None or fit is None:
            continue
        own = read_fit(fit, "fit").objective
        if own.metric is not None and own != objective:
            remarks.append(
                f"{name} was found for another objective, {own.name}, than this report judges by; "
                f"a report with fit={fit} judges by that one"
            )
        if not file.is_file():
            remarks.append(f"{name} was trained on '{file}', which the fit there no longer offers")
        elif _apart(record, file) > SAME_WEIGHTS:
            remarks.append(
                f"{name} was trained on other weights than '{file}' has by now, because the fit was made again; to "
                "train those, too, give them a mixture.name of their own"
            )
    return remarks


def _apart(record: RunRecord, file: Path) -> float:
    """The largest difference between the weights of a run and of a mixture file."""
    content = read_mixture_file(file)
    weights = dict(zip(content.domains, content.weights, strict=True))
    return max(abs(weights.get(domain, 0.0) - weight) for domain, weight in record.requested_weights.items())
