import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autoscale_exp.data.store import SPLITS, TokenStore, differing_keys, fingerprint, open_store


@pytest.fixture
def copy(store: TokenStore, tmp_path: Path) -> Path:
    return shutil.copytree(store.folder, tmp_path / "copy")


def edit_manifest(folder: Path, edit: Callable[[dict], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_store_tells_what_it_holds(store: TokenStore):
    assert store.domains == ["fruit", "code", "sums"]
    assert store.seq_len == 16
    for domain in store.domains:
        for split in SPLITS:
            rows = store.rows(split, domain)
            assert rows.shape == (store.num_rows(split, domain), 16)
            assert rows.dtype == np.uint16
            assert rows.max() < store.vocab_size
        assert store.num_rows("validation", domain) == 24


def test_rows_are_read_only(store: TokenStore):
    with pytest.raises(ValueError, match="read-only"):
        store.rows("train", "fruit")[0, 0] = 1


def test_a_moved_store_is_the_same_store(store: TokenStore, copy: Path):
    assert open_store(copy).fingerprint == store.fingerprint
    assert open_store(str(copy)) == TokenStore(copy, store.manifest)


@pytest.mark.parametrize("name", ["train/code.bin", "validation/sums.bin", "tokenizer/tokenizer.json"])
def test_a_missing_file_is_an_error_that_names_it(name, copy: Path):
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"{name}' is missing from the token store; delete '.*copy' and run"):
        open_store(copy)


@pytest.mark.parametrize("name", ["train/code.bin", "validation/sums.bin", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize("damage", ["truncated", "one bit"])
def test_a_damaged_file_is_an_error_that_names_it(name, damage, copy: Path):
    content = bytearray((copy / name).read_bytes())
    if damage == "truncated":
        del content[-32:]
    else:
        content[len(content) // 2] ^= 4
    (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}' is not what was written: it is truncated or altered"):
        open_store(copy)


def test_a_store_without_a_manifest_is_unfinished(copy: Path):
    (copy / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"data.store is '.*copy', which has no finished token store; run .*prepare"):
        open_store(copy)


def test_a_manifest_cut_short_is_an_error(copy: Path):
    content = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"manifest.json' is damaged; delete"):
        open_store(copy)


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest["config"].update(seq_len=8),
        lambda manifest: manifest.update(fingerprint="0" * 16),
        lambda manifest: manifest["domains"].pop("code"),
    ],
)
def test_an_altered_manifest_is_an_error(edit, copy: Path):
    edit_manifest(copy, edit)
    with pytest.raises(ValueError, match=r"manifest.json' has been altered"):
        open_store(copy)


def test_another_format_is_an_error(copy: Path):
    edit_manifest(copy, lambda manifest: manifest.update(format=99))
    with pytest.raises(ValueError, match="has format 99, this version reads 1"):
        open_store(copy)


def test_a_fingerprint_depends_on_content_and_not_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert len({fingerprint(x) for x in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": [1]}, {"a": "1"})}) == 5


@pytest.mark.parametrize(
    ("stored", "asked", "differences"),
    [
        ({"a": 1, "b": {"c": [1]}}, {"a": 1, "b": {"c": [1]}}, []),
        ({"a": 1, "b": {"c": [1], "d": 0}}, {"a": 2, "b": {"c": [2], "d": 0}}, ["a: 1, not 2", "b.c: [1], not [2]"]),
        ({"a": 1}, {"b": 2}, ["a: 1, not None", "b: None, not 2"]),
        ({"a": {"b": 1}}, {"a": None}, ["a: {'b': 1}, not None"]),
    ],
)
def test_differences_are_named_by_their_whole_key(stored, asked, differences):
    assert differing_keys(stored, asked) == differences
