"""The `train` job: one run of a mixture or one probe of a design; in a multirun, a sweep of them."""

import logging
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from autoscale_exp.config import TrainConf
from autoscale_exp.data.store import open_store
from autoscale_exp.job import job
from autoscale_exp.runs.record import RESULT, write_failure
from autoscale_exp.training.plan import is_finished, plan_run
from autoscale_exp.training.sweep import PlannedRun, SweepWatch

log = logging.getLogger(__name__)


@job("train")
def main(conf: TrainConf) -> None:
    """Trains, unless the same run is finished already."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    try:
        plan = plan_run(conf, open_store(conf.data.store))
        finished = is_finished(plan, folder)
        run = PlannedRun(conf.run_name, folder, plan.sampler.num_rows * plan.store.seq_len, [], finished)
        with nullcontext() if hydra.mode == RunMode.MULTIRUN else SweepWatch([run]):  # a sweep has its own
            if not finished:
                from autoscale_exp.training.run import train  # imports torch, which takes seconds, once all is checked

                train(plan, folder)
    except Exception as error:
        if not (folder / RESULT).exists():  # a finished run stays finished when another is refused its folder
            write_failure(folder, conf.run_name, error)
        if hydra.mode != RunMode.MULTIRUN:
            raise
        log.exception("%s failed", conf.run_name)  # the sweep goes on and lists it at its end


if __name__ == "__main__":
    main()
