"""The `evaluate` job: perplexity, GLUE, SQuAD or harness scores of a trained model, kept in evaluation.json."""

import logging
from typing import Any

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.base.loggers import LoggedRun, open_logger
from autoscale_exp.base.ranges import check_range
from autoscale_exp.config import EvaluateConf
from autoscale_exp.evaluation.conf import GlueTaskConf, HarnessTaskConf, PerplexityTaskConf, SquadTaskConf
from autoscale_exp.evaluation.evaluation_file import Evaluation, carry_out, missing_seeds
from autoscale_exp.evaluation.subject import Subject, find_subject
from autoscale_exp.runs.identity import logged_id
from autoscale_exp.runs.record import RECORD
from autoscale_exp.runs.sweep_folder import group_of

log = logging.getLogger(__name__)


@job("evaluate", lambda: "what was measured stays; the same command goes on from there")
def main(conf: EvaluateConf) -> None:
    """Measures what is not measured yet."""
    check_range({"num_threads": conf.num_threads}, 1)
    subject = find_subject(conf)
    evaluations = plan(conf, subject)
    for evaluation in evaluations:  # all that is wrong is told before the first is measured
        missing_seeds(evaluation, subject.path)
    atomic.make_folder(subject.path.parent)
    if conf.num_threads is not None:
        import torch

        torch.set_num_threads(conf.num_threads)
    entries = {evaluation.name: carry_out(evaluation, subject.path) for evaluation in evaluations}
    log_results(conf, subject, entries)
    log.info("written to '%s'", subject.path)


def plan(conf: EvaluateConf, subject: Subject) -> list[Evaluation]:
    """What the task consists of, checked as far as it can be without measuring.

    Raises:
        UserError: the model does not suit the task, or a setting or a local file is wrong.
    """
    task = conf.task
    if isinstance(task, PerplexityTaskConf):
        if conf.datasets_dir is not None:
            raise UserError("datasets_dir is given, but task=perplexity reads a token store; give task.store=<folder>")
        from autoscale_exp.evaluation.perplexity import plan_perplexity

        return plan_perplexity(task, subject)
    if isinstance(task, GlueTaskConf):
        from autoscale_exp.evaluation.glue import plan_glue

        return plan_glue(task, subject)
    if isinstance(task, SquadTaskConf):
        from autoscale_exp.evaluation.squad import plan_squad

        return plan_squad(task, subject)
    assert isinstance(task, HarnessTaskConf), task
    from autoscale_exp.evaluation.harness import plan_harness

    return plan_harness(task, subject)


def logged_run(subject: Subject) -> LoggedRun:
    """How the evaluation of a model is called where it is logged: further tasks go on in the same run."""
    folder = subject.checkpoint.folder.resolve()  # it may be given relative to any folder
    if subject.run is None:
        name, group = folder.name, "evaluation"
    else:
        name, group = subject.run.run, group_of(folder.parents[2], subject.run.experiment)
    return LoggedRun(name, group, "evaluation", logged_id(subject.checkpoint.sha256, group, "evaluation"))


def use_run(logger: Any, subject: Subject) -> None:
    """Tells the logger which run the model is of."""
    from autoscale_exp.base.wandb_runs import use_artifact  # loads torch

    if (run := subject.run) is not None:
        id = logged_id(run.fingerprint, run.experiment, run.run)
        use_artifact(logger, f"run-{id}", "run", [subject.checkpoint.folder.parent / RECORD])


def log_results(conf: EvaluateConf, subject: Subject, entries: dict[str, Any]) -> None:
    """Hands means over seeds to the logger, as <task>/<metric>."""
    of_run = {key: getattr(subject.run, key, None) for key in ("run", "mixture", "scale", "seed")}
    of_model = {"checkpoint": str(subject.checkpoint.folder), "weights": subject.checkpoint.sha256}
    with open_logger(conf.logger, subject.path.parent, logged_run(subject)) as logger:
        if logger:
            logger.log_hyperparams(of_run | of_model)
            use_run(logger, subject)
            logger.log_metrics(
                {f"{name}/{metric}": of for name, e in entries.items() for metric, of in e["mean"].items()}, step=0
            )


if __name__ == "__main__":
    main()
