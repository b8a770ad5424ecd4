"""The `train` job: a single run, or one of a design; in a multirun, all of a design."""

import logging
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from autoscale_exp.base.job import job
from autoscale_exp.config import TrainConf
from autoscale_exp.mixture.weights import read_mixture_file
from autoscale_exp.runs.design import RunRequest
from autoscale_exp.runs.designs import design_runs
from autoscale_exp.runs.record import is_recorded, write_failure
from autoscale_exp.training.plan import is_finished, plan_run, store_of
from autoscale_exp.training.sweep import PlannedRun, SweepWatch, end_with_sweep

log = logging.getLogger(__name__)


@job("train")
def main(conf: TrainConf) -> None:
    """Trains, unless the same run is finished already."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    end_with_sweep()
    try:
        plan = plan_run(conf, store_of(conf, hydra.overrides.task))
        finished = is_finished(plan, folder)
        if hydra.mode != RunMode.MULTIRUN and not any(o.startswith("design.index=") for o in hydra.overrides.task):
            tell_of_other_runs(plan.conf)
        tell_of_other_budget(conf)
        run = PlannedRun(conf.run_name, folder, plan.sampler.num_rows * plan.store.seq_len, [], finished)
        with nullcontext() if hydra.mode == RunMode.MULTIRUN else SweepWatch([run]):  # a sweep has its own
            if not finished:
                from autoscale_exp.training.run import train  # imports torch, which takes seconds, once all is checked

                train(plan, folder)
    except Exception as error:
        if not is_recorded(folder):  # a finished run stays finished when another is refused its folder
            write_failure(folder, conf.run_name, error)
        if hydra.mode != RunMode.MULTIRUN:
            raise
        log.exception("%s failed", conf.run_name)  # the sweep goes on and lists it at its end


def tell_of_other_runs(conf: TrainConf) -> None:
    """Says so if the design has more runs than the one that is trained."""
    count = len(
        design_runs(conf.design, RunRequest(conf.data.domains, conf.token_budget, conf.mixture.name, conf.seed))
    )
    if count > 1:
        remedy = f"hydra.mode=MULTIRUN 'design.index=range(0,{count})'"
        log.warning("this is the first of %d runs of the design; for all of them add %s", count, remedy)


def tell_of_other_budget(conf: TrainConf) -> None:
    """Says so if a mixture file is for another number of tokens than it is trained at."""
    if conf.mixture.kind != "file" or conf.token_budget is None:
        return
    meant = read_mixture_file(Path(str(conf.mixture.path))).token_budget
    if meant not in (None, conf.token_budget):
        log.warning("'%s' is meant for %s tokens, not %s", conf.mixture.path, f"{meant:,}", f"{conf.token_budget:,}")


if __name__ == "__main__":
    main()
