import contextlib
import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ["OMP_NUM_THREADS"] = "1"  # of each process; several of them with as many as there are cores wait by spinning

import numpy as np
import pytest
from hydra import initialize_config_dir

from autoscale_exp.base.composing import compose
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.config import PrepareConf, TrainConf
from tests.warm_python import WarmPython

pytest_plugins = ["tests.raised_errors"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files that take long, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


VOCABULARIES = {
    "fruit": "apple banana cherry date elderberry fig grape honeydew is ripe and sweet but not yet sold",
    "code": "def return if else for while x y z = == ( ) : [ ] + - import range print None",
    "sums": "0 1 2 3 4 5 6 7 8 9 10 20 30 40 50 60 70 80 90 100 plus minus times gives",
}


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for domain, vocabulary in VOCABULARIES.items():
        texts = (" ".join(rng.choice(vocabulary.split(), size=rng.integers(20, 60))) for _ in range(400))
        (folder / f"{domain}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


@pytest.fixture(scope="session")
def data_overrides(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [
        "data=local",
        "data.name=tiny",
        f"data.path={corpus_folder}",
        f"data.store={tmp_path_factory.mktemp('stores') / 'tiny'}",
        f"data.domains=[{','.join(VOCABULARIES)}]",
        "data.seq_len=16",
        "data.validation_fraction=0.1",
        "data.validation_rows=24",
        "data.tokenizer.vocab_size=300",
    ]


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    python = WarmPython("autoscale_exp.training.run", "transformers.models.bert.modeling_bert")
    yield python
    python.close()


@pytest.fixture(scope="session")
def store(data_overrides: list[str]):
    from autoscale_exp.data.preparation.pipeline import prepare_store

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        conf = to_typed(compose("prepare", data_overrides))
    assert isinstance(conf, PrepareConf)
    return prepare_store(conf.data)


@pytest.fixture(scope="session")
def masked_overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes of a run of the causal model one of the masked model on a store of its own."""
    return [
        "model=bert_tiny",
        "data.name=tiny_masked",
        f"data.store={tmp_path_factory.mktemp('stores') / 'tiny_masked'}",
        "data.tokenizer.name=wordpiece",
    ]


@pytest.fixture(scope="session")
def masked_store(data_overrides: list[str], masked_overrides: list[str]):
    from autoscale_exp.prepare import prepare_store

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        conf = to_typed(compose("prepare", [*data_overrides, *masked_overrides[1:]]))
    assert isinstance(conf, PrepareConf)
    return prepare_store(conf.data)


@pytest.fixture(scope="session")
def train_overrides(data_overrides: list[str]) -> list[str]:
    """A run of 12 optimiser steps of 8 rows, the last one of 4."""
    return [
        *data_overrides,
        "name=tiny",
        f"token_budget={16 * 92}",
        "model.n_layer=1",
        "model.n_embd=16",
        "model.n_head=2",
        "model.dropout=0",
        "model.optimizer.lr=2e-3",
        "model.optimizer.warmup_fraction=0.1",
        "model.optimizer.schedule=cosine",
        "model.optimizer.batch_rows=8",
        "num_threads=1",
        "trainer.accelerator=cpu",
    ]


@pytest.fixture
def compose_train(train_overrides: list[str], tmp_path: Path) -> Callable[..., TrainConf]:
    def composed(*overrides: str) -> TrainConf:
        run = [f"output_dir={tmp_path}", "run_name=run", "~logger"]
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            conf = to_typed(compose("train", [*train_overrides, *run, *overrides]))
        assert isinstance(conf, TrainConf)
        return conf

    return composed


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Runs a job in this process, with `tmp_path` as its working folder, and returns the one line that it ends with."""

    def ended(job: str, *overrides: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [job, *overrides, "hydra/job_logging=none"])
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as end:
            importlib.import_module(f"autoscale_exp.{job}").main()
        (line,) = stderr.getvalue().splitlines()
        assert (end.value.code, stdout.getvalue()) == (2, "")
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return ended
