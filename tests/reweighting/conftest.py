import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hydra import initialize_config_dir

from autoscale_exp.base.arrays import Int64Array
from autoscale_exp.base.composing import compose
from autoscale_exp.base.hashing import file_sha256
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.config import TrainConf
from autoscale_exp.data.manifest import (
    DomainEntry,
    FileEntry,
    Manifest,
    TokenizerEntry,
    TrainEntry,
    ValidationEntry,
    write_manifest,
)
from autoscale_exp.data.store import TokenStore, open_store

SEQ_LEN, VOCABULARY, TRAIN_ROWS, VALIDATION_ROWS = 16, 300, 3000, 24


def made_store(folder: Path, like: TokenStore, rows_of: Mapping[str, Int64Array]) -> TokenStore:
    """A store of these rows, the last ones for validation, with the tokenizer of another store."""
    shutil.copytree(like.folder / "tokenizer", folder / "tokenizer")
    domains = {}
    for name, rows in rows_of.items():
        (folder / "train" / name).mkdir(parents=True)
        (folder / "validation").mkdir(exist_ok=True)
        train, validation = folder / f"train/{name}/00000.bin", folder / f"validation/{name}.bin"
        rows[:TRAIN_ROWS].astype("<u2").tofile(train)
        rows[TRAIN_ROWS:].astype("<u2").tofile(validation)
        files = {"00000": FileEntry(TRAIN_ROWS, file_sha256(train))}
        held_out = ValidationEntry(VALIDATION_ROWS, VALIDATION_ROWS * SEQ_LEN, 0, 0, 0, file_sha256(validation))
        domains[name] = DomainEntry(held_out, 0, 0, TrainEntry(TRAIN_ROWS, TRAIN_ROWS * SEQ_LEN, 0, 0, 0, files))
    config = like.manifest.config | {"name": "contrast", "domains": list(domains)}
    tokenizer = TokenizerEntry("bpe", VOCABULARY, file_sha256(folder / "tokenizer" / "tokenizer.json"))
    write_manifest(folder, Manifest(config, "<u2", tokenizer, domains, 0, 0.0))
    return open_store(folder)


def counting_rows(rng: np.random.Generator) -> Int64Array:
    """Rows that count up modulo 200."""
    return (rng.integers(0, 200, (TRAIN_ROWS + VALIDATION_ROWS, 1)) + np.arange(SEQ_LEN)) % 200


def noise_rows(rng: np.random.Generator) -> Int64Array:
    """Rows of pure noise, uniform over the vocabulary."""
    return rng.integers(0, VOCABULARY, (TRAIN_ROWS + VALIDATION_ROWS, SEQ_LEN))


@pytest.fixture(scope="session")
def contrast_store(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """A learnable domain, whose rows count up modulo 200, and one of pure noise, uniform over the vocabulary."""
    rng = np.random.default_rng(0)
    rows_of = {"counting": counting_rows(rng), "noise": noise_rows(rng)}
    return made_store(tmp_path_factory.mktemp("contrast"), store, rows_of)


@pytest.fixture(scope="session")
def kindred_store(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Two learnable domains, each of which teaches the other, and one of pure noise."""
    rng = np.random.default_rng(1)
    rows_of = {"noise": noise_rows(rng), "counting": counting_rows(rng), "numbers": counting_rows(rng)}
    return made_store(tmp_path_factory.mktemp("kindred"), store, rows_of)


@pytest.fixture
def compose_contrast(
    contrast_store: TokenStore, train_overrides: list[str], tmp_path: Path
) -> Callable[..., TrainConf]:
    """The config of a run on `contrast_store`, in steps of 8 rows."""
    of_run = [override for override in train_overrides if not override.startswith("data")]
    common = [*of_run, f"store={contrast_store.folder}", f"output_dir={tmp_path}", "run_name=run", "~logger"]

    def composed(*overrides: str, steps: int) -> TrainConf:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            conf = to_typed(compose("train", [*common, f"token_budget={8 * SEQ_LEN * steps}", *overrides]))
        assert isinstance(conf, TrainConf)
        return conf

    return composed
