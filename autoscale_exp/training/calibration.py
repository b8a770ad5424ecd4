"""How fast this machine trains a model, measured by a few steps of training in as many processes as a sweep uses."""

import json
import logging
import multiprocessing
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from autoscale_exp.base import atomic
from autoscale_exp.base.hashing import fingerprint
from autoscale_exp.config import TrainConf
from autoscale_exp.data.store import TokenStore, open_store
from autoscale_exp.mixture.conf import MixtureConf
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.runs.record import read_record
from autoscale_exp.training.plan import plan_run

log = logging.getLogger(__name__)

CALIBRATION = "calibration.json"
SECONDS = 3.0  # length of the measured training
MOST_STEPS = 200  # of the measured training
VALIDATION_WORTH = 1 / 3  # cost of a validation token over that of a training token: it has no backward pass


@dataclass(frozen=True)
class Pace:
    """How fast runs go.

    Attributes:
        tokens_per_second: of one run among those that train at a time.
        run_seconds: time of a run beside training and validation.
        start_seconds: time before the first run of a process starts.
    """

    tokens_per_second: float
    run_seconds: float = 0.0
    start_seconds: float = 0.0


def calibrated(conf: TrainConf, store: TokenStore, folder: Path, parallel: int) -> Pace:
    """Returns the pace of runs like this one on this machine. It is measured once per `folder`.

    Args:
        conf: the config of one of the runs.
        store: its token store.
        folder: where calibration.json keeps what was measured.
        parallel: runs at a time.
    """
    key = _key(conf, store, parallel)
    known = _read(folder)
    if key not in known:
        log.info("trying a few steps on this machine, to tell how long the runs will take")
        known[key] = asdict(_measure(conf, store, parallel))
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(folder / CALIBRATION, known)
    return Pace(**known[key])


def _key(conf: TrainConf, store: TokenStore, parallel: int) -> str:
    """A hash of all that the pace depends on."""
    of_runs = {
        "model": asdict(conf.model),
        "trainer": conf.trainer,
        "micro_batch_rows": conf.micro_batch_rows,
        "num_threads": conf.num_threads,
        "num_workers": conf.num_workers,
        "store": store.fingerprint,
        "parallel": parallel,
    }
    return fingerprint(of_runs)


def _read(folder: Path) -> dict[str, dict[str, float]]:
    """What has been measured; nothing if there is no file, or one that this module cannot have written."""
    try:
        content = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
        return {key: asdict(Pace(**pace)) for key, pace in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _measure(conf: TrainConf, store: TokenStore, parallel: int) -> Pace:
    """Measures the pace in `parallel` processes at once, and takes the mean."""
    asked = replace(
        conf,
        design=SingleConf(),
        mixture=MixtureConf(kind="uniform", name="uniform"),
        reweighting=None,
        stages=[],
        seed=0,
        num_validations=1,
        save_model=False,
        logger=None,
        run_name="calibration",
        max_epochs=10**6,  # the text of a small store may not last
        store=str(store.folder),
    )
    started = time.time()
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, mp_context=spawned, initializer=_be_quiet) as pool:
        paces = [future.result() for future in [pool.submit(_pace_here, asked, started) for _ in range(parallel)]]
    return Pace(*(sum(values) / parallel for values in zip(*(asdict(pace).values() for pace in paces), strict=True)))


def _be_quiet() -> None:
    logging.disable()
    warnings.simplefilter("ignore")


def _pace_here(conf: TrainConf, started: float) -> Pace:
    """Trains one step, which includes all costs of a start, and then for about `SECONDS`."""
    from autoscale_exp.training.run import train  # imports torch, which is part of starting a process

    store = open_store(str(conf.store), "store")
    step_tokens = conf.model.optimizer.batch_rows * store.seq_len
    with tempfile.TemporaryDirectory() as folder:

        def trained(steps: int, part: str) -> float:
            train(plan_run(replace(conf, token_budget=steps * step_tokens), store), Path(folder) / part)
            return read_record(Path(folder) / part).seconds

        seconds = trained(1, "first")
        start = time.time() - started - seconds
        steps = max(1, min(MOST_STEPS, round(SECONDS / seconds)))
        begun = time.time()
        seconds = trained(steps, "measured")
        run_seconds = time.time() - begun - seconds
    worth = steps * step_tokens + validation_tokens(store) * VALIDATION_WORTH
    return Pace(worth / seconds, run_seconds, max(0.0, start - run_seconds))


def validation_tokens(store: TokenStore) -> int:
    """Validation tokens of one point of the curve."""
    return sum(store.num_rows("validation", domain) for domain in store.validation_domains) * store.seq_len
