"""Finished runs in the folder of a search that its design does not have."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from autoscale_exp.base.labels import plural
from autoscale_exp.config import TrainConf
from autoscale_exp.runs.design import RunRequest
from autoscale_exp.runs.designs import design_runs
from autoscale_exp.runs.designs.optimal import OptimalConf
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.runs.record import is_recorded

ADDED = SingleConf, OptimalConf  # designs whose runs are meant to join others


def remark_on_other_designs(conf: TrainConf, domains: Sequence[str], runs: Iterable[str] = ()) -> str | None:
    """Tells of finished runs in a search's folder that its design does not have, since fits read the whole folder.

    Args:
        conf: the config of any run of the search.
        domains: training domains of its token store.
        runs: names of the search's own runs, which may have others than their design gives them.

    Returns:
        A sentence; None if there are no such runs, or if the design is one of runs that are added to others.
    """
    if isinstance(conf.design, ADDED):
        return None
    sweep = Path(conf.output_dir)
    own = {*runs} | {
        run.run
        for run in design_runs(conf.design, RunRequest(domains, conf.token_budget, conf.mixture_name, conf.seed))
    }
    others = [
        folder.name for folder in sorted(sweep.glob("runs/[!.]*/")) if is_recorded(folder) and folder.name not in own
    ]
    if not others:
        return None
    named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    return (
        f"'{sweep}' has {plural(len(others), 'finished run')} of another design ({named}), which fits of this folder "
        "will include, too; if that is not meant, give this search another name for a folder of its own"
    )
