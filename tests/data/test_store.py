import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.hashing import fingerprint
from autoscale_exp.base.versioned import differing_keys
from autoscale_exp.data import rows as rows_module
from autoscale_exp.data import store as store_module
from autoscale_exp.data.rows import Rows
from autoscale_exp.data.store import TokenStore, open_store

FILES = ["train/code/00001.bin", "validation/sums.bin", "tokenizer/tokenizer.json"]


@pytest.fixture
def copy(store: TokenStore, tmp_path: Path) -> Path:
    return shutil.copytree(store.folder, tmp_path / "copy")


def edit_manifest(folder: Path, edit: Callable[[dict], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def numbered_rows(folder: Path, lengths: list[int], seq_len: int = 3) -> tuple[Rows, np.ndarray]:
    """Rows over files of these lengths, and all that is in them."""
    whole = np.arange(sum(lengths) * seq_len, dtype="<u2").reshape(-1, seq_len)
    files, first = [], 0
    for number, length in enumerate(lengths):
        path = folder / f"{number:05d}.bin"
        whole[first : first + length].tofile(path)
        files.append((path, length))
        first += length
    return Rows(files, seq_len, "<u2", {}), whole


def test_a_store_tells_what_it_holds(store: TokenStore):
    assert store.domains == store.validation_domains == ["fruit", "code", "sums"]
    assert store.seq_len == 16
    for domain in store.domains:
        for split in ("train", "validation"):
            rows = store.rows(split, domain)
            assert len(rows) == store.num_rows(split, domain)
            assert rows[:].shape == (len(rows), 16)
            assert rows[:].dtype == np.uint16
            assert rows[:].max() < store.vocab_size
        assert store.num_rows("validation", domain) == 24


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), mapped_files=st.sampled_from([0, 2, 5]), data=st.data()
)
def test_rows_of_several_files_are_those_of_one(tmp_path_factory, lengths, mapped_files, data):
    rows, whole = numbered_rows(tmp_path_factory.mktemp("rows"), lengths)
    assert len(rows) == len(whole)
    numbers = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1))), dtype=np.int64)
    piece = data.draw(st.slices(len(whole)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "MAPPED_FILES", mapped_files)
        assert rows[numbers].tolist() == whole[numbers].tolist()
        assert rows[piece].tolist() == whole[piece].tolist()
        assert rows[piece].shape == whole[piece].shape


def test_of_many_files_none_is_mapped_and_each_is_opened_once_per_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows, whole = numbered_rows(tmp_path, [5] * 40)
    opened = []
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *args, **options: opened.append(path) or real(path, *args, **options)
    )
    monkeypatch.setattr(np, "memmap", None)
    numbers = np.random.default_rng(0).integers(0, len(whole), 500)
    assert (rows[numbers] == whole[numbers]).all()
    assert len(opened) == len(set(opened)) == 40


def test_rows_are_read_whole_though_a_call_gives_a_part_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows, whole = numbered_rows(tmp_path, [5] * 40)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, at: real(descriptor, [buffers[0][:7]], at))
    assert (rows[:] == whole).all()


def test_rows_that_were_read_are_the_readers_own(store: TokenStore):
    rows = store.rows("train", "fruit")
    before = rows[:4].copy()
    for index in (slice(0, 4), np.arange(4)):
        rows[index][:] = 7
        assert (rows[:4] == before).all()
    assert open_store(store.folder) == store


@pytest.mark.parametrize("numbers", [[-1], [7], [0, 100], [-8, 0]])
def test_a_row_that_is_not_there_is_an_error(numbers, tmp_path: Path):
    rows, _ = numbered_rows(tmp_path, [3, 4])
    with pytest.raises(IndexError, match=r"rows -?\d+ to \d+ are outside the 7 rows there are|rows .* are outside"):
        rows[np.array(numbers)]


def test_rows_may_be_in_more_files_than_a_process_may_have_open(tmp_path: Path):
    rows, whole = numbered_rows(tmp_path, [1] * 200)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        assert (rows[:] == whole).all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("change", ["longer", "shorter", "same size", "gone"])
@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize("mapped_files", [0, 16])
def test_a_file_that_changes_under_an_open_store_is_an_error_that_names_it(
    change, read_before, mapped_files, copy: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rows_module, "MAPPED_FILES", mapped_files)
    rows = open_store(copy).rows("train", "code")
    if read_before:
        rows[:]
    path = copy / "train" / "code" / "00001.bin"
    content = path.read_bytes()
    changed = {"longer": content + content, "shorter": content[:32], "same size": content[::-1], "gone": b""}[change]
    path.unlink()
    if change != "gone":
        path.write_bytes(changed)
    with pytest.raises(UserError, match=r"train/code/00001.bin' has changed since the token store was opened"):
        rows[np.array([0])]


def test_a_file_is_hashed_once_and_again_only_when_it_has_changed(copy: Path, monkeypatch: pytest.MonkeyPatch):
    hashed: list[str] = []
    real = store_module.file_sha256
    monkeypatch.setattr(store_module, "file_sha256", lambda path: hashed.append(path.name) or real(path))
    (copy / "verified.json").unlink()
    first = open_store(copy)
    assert len(hashed) == len(list(first.manifest.files())) == 7
    hashed.clear()
    assert open_store(copy) == first
    assert not hashed
    os.utime(copy / "train" / "code" / "00001.bin")
    assert open_store(copy) == first
    assert hashed == ["00001.bin"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[1]", '{"train/code/00001.bin": 1}', "\udcff"])
def test_a_damaged_list_of_checked_files_is_made_anew(content, copy: Path, store: TokenStore):
    verified = (copy / "verified.json").read_text()
    (copy / "verified.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert open_store(copy).fingerprint == store.fingerprint
    assert json.loads((copy / "verified.json").read_text()).keys() == json.loads(verified).keys()


def test_a_store_that_cannot_be_written_to_can_be_opened(
    copy: Path, monkeypatch: pytest.MonkeyPatch, store: TokenStore
):
    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    (copy / "verified.json").unlink()
    monkeypatch.setattr(store_module.atomic, "write_json", refuse)
    assert open_store(copy).fingerprint == store.fingerprint


def test_a_moved_store_is_the_same_store(store: TokenStore, copy: Path):
    assert open_store(copy).fingerprint == store.fingerprint
    assert open_store(str(copy)) == TokenStore(copy, store.manifest)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_an_error_that_names_it(name, copy: Path):
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"{name}' is missing from the token store; delete '.*copy' and run"):
        open_store(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "one bit"])
def test_a_damaged_file_is_an_error_that_names_it(name, damage, copy: Path):
    content = bytearray((copy / name).read_bytes())
    if damage == "truncated":
        del content[-32:]
    else:
        content[len(content) // 2] ^= 4
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}' is not what was written: it is truncated or altered"):
        open_store(copy)


def test_a_store_without_a_manifest_is_unfinished(copy: Path):
    (copy / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"data.store is '.*copy', which has no finished token store; run .*prepare"):
        open_store(copy)


@pytest.mark.parametrize("damage", [lambda c: c[:-100], lambda c: b"", lambda c: c[:100] + b"\xff\xfe" + c[100:]])
def test_a_damaged_manifest_is_an_error(damage, copy: Path):
    content = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_bytes(damage(content))
    with pytest.raises(UserError, match=r"manifest.json' is damaged \(.*\); delete"):
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
    with pytest.raises(UserError, match=r"manifest.json' has been altered"):
        open_store(copy)


def test_another_format_is_an_error(copy: Path):
    edit_manifest(copy, lambda manifest: manifest.update(format=99))
    with pytest.raises(UserError, match="has format 99, but this version reads format 2; delete"):
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
