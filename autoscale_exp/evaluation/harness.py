"""Zero- and few-shot tasks of EleutherAI's lm-evaluation-harness, through its Python API."""

import difflib
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.base.hashing import file_sha256
from autoscale_exp.base.ranges import check_range
from autoscale_exp.evaluation.conf import HarnessTaskConf
from autoscale_exp.evaluation.evaluation_file import Evaluation
from autoscale_exp.evaluation.examples import READERS
from autoscale_exp.evaluation.subject import Subject
from autoscale_exp.lm.checkpoint import load_model, load_tokenizer

SPLITS = ("train", "validation", "test")
PREFERRED = ("acc_norm", "acc", "exact_match", "f1", "perplexity")  # a report shows the first that a task has


def plan_harness(conf: HarnessTaskConf, subject: Subject) -> list[Evaluation]:
    """One evaluation per task.

    Raises:
        UserError: the harness is not installed, the model is masked, a task is unknown, or a local file is missing.
    """
    checkpoint = subject.checkpoint
    if checkpoint.masked:
        raise UserError(
            f"'{checkpoint.folder}' is a masked {checkpoint.family} model, but task=harness scores causal ones; use "
            "task=glue, task=squad or task=perplexity"
        )
    check_range({"task.num_fewshot": conf.num_fewshot}, 0)
    check_range({"task.limit": conf.limit, "task.batch_size": conf.batch_size}, 1)
    if not conf.tasks:
        raise UserError("task.tasks is []; name at least one task of the harness; `lm-eval ls tasks` lists all")
    try:
        manager = _task_manager()
    except ImportError:
        raise UserError(
            "task=harness needs the lm-evaluation-harness; install it with `pip install 'autoscale_exp[harness]'`"
        ) from None
    for name in conf.tasks:
        if name not in manager.all_subtasks:
            near = ", ".join(difflib.get_close_matches(name, manager.all_subtasks, n=5)) or "none"
            raise UserError(
                f"task.tasks names '{name}', which is none of the {len(manager.all_subtasks)} tasks of the harness; "
                f"near it: {near}; `lm-eval ls tasks` lists all"
            )
    model = functools.cache(functools.partial(_harness_model, subject, conf.batch_size))  # for all tasks
    return [_plan(name, conf, subject, manager, model) for name in conf.tasks]


@functools.cache
def _task_manager() -> Any:
    """The harness's index of its tasks, which takes ten seconds to build."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager()


def _plan(name: str, conf: HarnessTaskConf, subject: Subject, manager: Any, model: Callable[[], Any]) -> Evaluation:
    files = None if subject.datasets_dir is None else _local_files(subject.datasets_dir / name)
    task = _load_task(name, files, manager)

    def measure(_: int | None) -> dict[str, Any]:
        import lm_eval

        own = model()
        truncated = own.truncated_requests
        results = lm_eval.simple_evaluate(
            own,
            tasks=[task],
            num_fewshot=conf.num_fewshot,
            limit=conf.limit,
            log_samples=False,
            bootstrap_iters=1000,
            task_manager=manager,  # the harness would build another one
        )
        metrics, errors = metrics_by_name(results["results"][name])
        return {
            "metrics": metrics,
            "standard_errors": errors,
            "examples": {"scored": results["n-samples"][name]["effective"]},
            "truncated_requests": own.truncated_requests - truncated,
        }

    return Evaluation(
        name=f"harness/{name}",
        settings=subject.settings
        | {
            "num_fewshot": conf.num_fewshot,
            "limit": conf.limit,
            "task_version": task.VERSION,
            "data": files and {split: file_sha256(Path(path)) for split, path in files.items()},
        },
        seeds=[None],
        headline=lambda metrics: choose_headline(metrics, task.higher_is_better()),  # asked late: scoring adds some
        measure=measure,
    )


def metrics_by_name(results: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the metrics of a task, and their standard errors if there are any.

    Args:
        results: results of the harness, with keys such as <metric>,<filter> and <metric>_stderr,<filter>. A filter
            extracts the answer from generated text.

    Returns:
        Two dicts by <metric>.<filter>, or <metric> without a filter.
    """
    metrics: dict[str, float] = {}
    errors: dict[str, float] = {}
    for key, number in results.items():
        metric, comma, filtered = key.partition(",")
        if not comma or number == "N/A":
            continue
        numbers = errors if metric.endswith("_stderr") else metrics
        suffix = "" if filtered == "none" else f".{filtered}"
        numbers[metric.removesuffix("_stderr") + suffix] = float(number)
    return metrics, errors


def choose_headline(metrics: Iterable[str], higher_is_better: Mapping[str, bool]) -> dict[str, bool]:
    """Chooses the metric that a report shows, with whether higher is better; empty if that is known of none.

    Args:
        metrics: names from `metrics_by_name`; of several filters the first counts, unless there is a bare name.
        higher_is_better: whether higher is better, by metric without its filter.
    """
    measured = list(metrics)
    for metric in (*(m for m in PREFERRED if m in higher_is_better), *higher_is_better):
        filtered = [name for name in measured if name.startswith(f"{metric}.")]
        for name in [metric, *filtered]:
            if name in measured:
                return {name: higher_is_better[metric]}
    return {}


def _local_files(folder: Path) -> dict[str, str]:
    """The files of a task by split, all of one kind."""
    for suffix in READERS:
        if files := {s: str(folder / f"{s}{suffix}") for s in SPLITS if (folder / f"{s}{suffix}").is_file()}:
            return files
    raise UserError(f"'{folder}' has no {', '.join(SPLITS)} with ending {' or '.join(READERS)}")


def _load_task(name: str, files: dict[str, str] | None, manager: Any) -> Any:
    """The harness's task, its data read from `files` by split if there are any, else from the Hub."""
    own: dict[str, Any] = {"task": name}
    if files is not None:
        (suffix,) = {Path(path).suffix for path in files.values()}
        own |= {"dataset_path": READERS[suffix], "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    try:  # only as a member of a group can a registered task be given keys of our own
        return manager.load([{"group": "autoscale_exp", "task": [own]}])["tasks"][name]
    except Exception as error:
        raise UserError(f"the data of the harness's task '{name}' cannot be had: {first_line(error)}") from None


def _harness_model(subject: Subject, batch_size: int) -> Any:
    """The harness's wrapper of the model, which also counts the requests that it cuts to the model's positions."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.utils import normalize_gen_kwargs
    from transformers import AutoModelForCausalLM

    from autoscale_exp.evaluation.fine_tuning import find_device

    class CountingModel(HFLM):
        truncated_requests = 0

        def _loglikelihood_tokens(self, requests: list[Any], *arguments: Any, **options: Any) -> Any:
            longest = max(len(continuation) for _, _, continuation in requests)
            if longest > self.max_length:
                raise UserError(
                    f"an answer of {longest} tokens is longer than the {self.max_length} positions of "
                    f"'{subject.checkpoint.folder}'; leave this task out"
                )
            # The last token is only predicted, so one more than the model has positions fits.
            self.truncated_requests += sum(len(c) + len(a) > self.max_length + 1 for _, c, a in requests)
            return super()._loglikelihood_tokens(requests, *arguments, **options)

        def generate_until(self, requests: list[Any], *arguments: Any, **options: Any) -> Any:
            for context, asked in (request.args for request in requests):
                length = normalize_gen_kwargs(asked, self.max_gen_toks)["max_gen_toks"]
                room = self.max_length - length
                if room < 1:
                    raise UserError(
                        f"this task generates answers of {length} tokens, but '{subject.checkpoint.folder}' has "
                        f"{self.max_length} positions; leave it out"
                    )
                self.truncated_requests += len(self.tok_encode(context)) > room
            return super().generate_until(requests, *arguments, **options)

    model = load_model(subject.checkpoint, AutoModelForCausalLM).to(find_device(subject.device)).eval()
    return CountingModel(pretrained=model, tokenizer=load_tokenizer(subject.checkpoint), batch_size=batch_size)
