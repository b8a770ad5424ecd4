"""The functions that YAML in conf/ calls, as in ${run_name:...}, by name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import budget_label
from autoscale_exp.base.machine import gpus, has_gpu, num_cpus
from autoscale_exp.data.manifest import read_manifest
from autoscale_exp.runs.design import RunRequest
from autoscale_exp.runs.designs import design_runs, select_run
from autoscale_exp.runs.record import RunRecord, read_records

DEFAULT_LAW = "pooled_transfer"  # law=default; reports and target runs take its fit of a sweep


def _design_size(design: Any, domains: Any) -> int:
    """How many runs a design has; design=single has one, whatever its budget."""
    return len(design_runs(_typed(design), RunRequest(list(domains), token_budget=1, mixture="", seed=0)))


def _run_name(design: Any, domains: Any, token_budget: int | None, mixture: str, seed: int) -> str:
    runs = design_runs(_typed(design), RunRequest(list(domains), token_budget, mixture, seed))
    return select_run(runs, design.index).run


def _domains_of(store: str | None, data: Any) -> list[str]:
    """The training domains of a token store, or those of the `data` section."""
    if store is None:
        return list(data.domains)
    manifest = read_manifest(Path(store).expanduser(), "store")
    return [domain for domain, entry in manifest.domains.items() if entry.train]


def _first_of_search(search: str | None) -> RunRecord:
    """A run of a search, for what all its runs share."""
    if search is None:
        raise UserError("search is not set; give the folder of a search, as in search=outputs/train/search")
    return read_records(Path(search).expanduser())[0]


def _num_parallel_runs() -> int:
    """Runs at a time: one per CPU core, or a single one on a GPU, whose memory several would share."""
    return 1 if has_gpu() else num_cpus()


def _fit_folder(runs: str | None, law: str) -> str:
    """The default folder of a fit: for a sweep it is beside the runs, and called fit/ or after the law."""
    if runs is None or Path(runs).suffix == ".csv" or Path(runs).expanduser().is_file():
        return "outputs/fit"
    return f"{runs}/{'fit' if law == DEFAULT_LAW else law}"


def _folder_for(output_dir: str, key: str, source: str | None) -> str:
    """The folder of a job's results, if its source is there. A job that cannot begin leaves no folder behind."""
    if source is not None and not Path(source).expanduser().exists():
        raise UserError(f"{key} is '{source}', which does not exist")
    return os.path.expanduser(output_dir)


def _mixture_of_search(search: str | None, fit: str, token_budget: int | None) -> str:
    """The mixture file that a fit of a search wrote for a token budget."""
    if token_budget is None:
        raise UserError("token_budget is not set; a mixture that a fit finds needs search=<folder> token_budget=...")
    return _in_search(search, f"{fit}/mixtures/{budget_label(token_budget)}.yaml")


def _in_search(search: str | None, path: str) -> str:
    """A file in the folder of a search."""
    if search is None:
        raise UserError("search is not set; a mixture that a search finds needs search=<folder> token_budget=...")
    return f"{search}/{path}"


def _typed(section: Any) -> Any:
    return OmegaConf.to_object(section)


RESOLVERS: dict[str, Callable[..., Any]] = {
    "at_home": os.path.expanduser,
    "in_search": _in_search,
    "mixture_of_search": _mixture_of_search,
    "design_size": _design_size,
    "domains_of": _domains_of,
    "fit_folder": _fit_folder,
    "folder_for": _folder_for,
    "folder_if_there": lambda folder: folder if Path(folder).expanduser().is_dir() else None,
    "gpus": gpus,
    "folder_name": lambda *paths: Path(next((path for path in paths if path), "")).name,
    "num_parallel_runs": _num_parallel_runs,
    "store_of_search": lambda search: _first_of_search(search).store,
    "name_of_search": lambda search: _first_of_search(search).experiment,
    "num_cpus": num_cpus,
    "run_name": _run_name,
}
