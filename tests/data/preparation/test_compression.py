import gzip
import io
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.preparation import compression
from autoscale_exp.data.preparation.compression import Decompressed, zstd
from autoscale_exp.data.preparation.entries import FileSpan, can_be_cut, read_entries
from tests.data.preparation.corpora import compress, write_entries

ENTRIES = [{"text": f"Zürich, 東京 {number}", "id": number} for number in range(50)]
LINES = "".join(json.dumps(entry) + "\n" for entry in ENTRIES).encode()
SKIPPABLE = b"\x5e\x2a\x4d\x18\x09\x00\x00\x00seektable"  # RFC 8878, 3.1.2: magic, size, what readers pass over


def read(path: Path) -> list[dict[str, Any]]:
    return [entry for entry, _ in read_entries(FileSpan(str(path)), ("text", "id"))]


def with_window(content: bytes, log: int) -> bytes:
    """As `zstd --long=<log>` compresses, for a stream of unknown length."""
    options = {zstd.CompressionParameter.window_log: log, zstd.CompressionParameter.enable_long_distance_matching: 1}
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(content) + compressor.flush()


@pytest.mark.parametrize("log", [20, 27, 28, 31])
def test_zstd_with_any_window_is_read(log, tmp_path: Path):
    content = with_window(LINES, log)
    assert zstd.get_frame_info(content).decompressed_size is None
    (tmp_path / "web.jsonl.zst").write_bytes(content)
    assert read(tmp_path / "web.jsonl.zst") == ENTRIES


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("padding", [1, 511, 3 * compression.CHUNK_BYTES])
def test_zero_bytes_after_and_between_compressed_data_are_padding(suffix, padding, tmp_path: Path):
    content = compress(LINES, suffix) + bytes(padding)
    path = tmp_path / f"web.jsonl{suffix}"
    path.write_bytes(content + content)
    assert read(path) == ENTRIES * 2


def test_skippable_frames_are_passed_over(tmp_path: Path):
    frames = [compress(line, ".zst") for line in LINES.splitlines(keepends=True)]
    (tmp_path / "web.jsonl.zst").write_bytes(SKIPPABLE + SKIPPABLE.join(frames) + SKIPPABLE)
    assert read(tmp_path / "web.jsonl.zst") == ENTRIES


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=3000).map(lambda piece: piece * 40), max_size=5),
    codec=st.sampled_from(["gzip", "zstd"]),
    size=st.integers(1, 5000),
    chunk=st.integers(1, 300),
)
def test_any_content_comes_out_as_it_went_in_whatever_is_read_at_a_time(pieces, codec, size, chunk):
    squeeze = gzip.compress if codec == "gzip" else zstd.compress
    raw = io.BufferedReader(io.BytesIO(b"".join(map(squeeze, pieces)) or squeeze(b"")))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "CHUNK_BYTES", chunk)
        stream = Decompressed(raw, codec, "web")
        assert b"".join(iter(lambda: stream.read(size), b"")) == b"".join(pieces)
        assert stream.read(size) == b""


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_data_that_are_cut_off_in_a_later_member_are_an_error(suffix, kept, tmp_path: Path):
    content = compress(random.Random(0).randbytes(10_000).hex().encode(), suffix)
    path = tmp_path / f"web.txt{suffix}"
    path.write_bytes(content + content[: int(len(content) * kept)])
    with pytest.raises(UserError, match=f"web.txt{suffix}' is cut off or damaged: its .* data end at byte .*get it"):
        read(path)


def test_a_gzip_file_whose_checksum_is_wrong_is_an_error(tmp_path: Path):
    content = bytearray(gzip.compress(LINES, mtime=0))
    content[-8:-4] = (zlib.crc32(LINES) ^ 1).to_bytes(4, "little")
    (tmp_path / "web.jsonl.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"web.jsonl.gz' is cut off or damaged: .*incorrect data check"):
        read(tmp_path / "web.jsonl.gz")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("web.jsonl.gz", LINES),
        ("web.jsonl.zst", LINES),
        ("web.jsonl", gzip.compress(LINES, mtime=0)),
        ("web.json", compress(LINES, ".zst")),
        ("web.jsonl.gz", compress(LINES, ".zst")),
        ("web.jsonl.zst", SKIPPABLE + compress(LINES, ".zst")),
        ("web.jsonl.gz", gzip.compress(gzip.compress(LINES, mtime=0), mtime=0)),
    ],
)
def test_a_file_is_read_as_what_it_is_whatever_its_suffix_says_of_compression(name, content, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == ENTRIES


def test_only_plain_json_lines_can_be_cut(tmp_path: Path):
    contents = {
        "a.jsonl": (LINES, True),
        "b.jsonl": (gzip.compress(LINES, mtime=0), False),
        "c.json": (json.dumps(ENTRIES).encode(), False),
        "d.json": (json.dumps(ENTRIES[0], indent=1).encode(), False),
        "e.txt": (LINES, False),
    }
    for name, (content, expected) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert can_be_cut(str(tmp_path / name)) is expected, name


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"
S3 = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'
TAR = bytes(257) + b"ustar\x0000" + bytes(248)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(
            (name, POINTER, "is a Git LFS pointer, not the file itself; run `git lfs pull`")
            for name in ("a.txt", "a.zst")
        ),
        ("a.parquet", POINTER, "is a Git LFS pointer"),
        ("a.jsonl.gz", POINTER, "is a Git LFS pointer"),
        *((name, PAGE, "is a web page or an error in HTML") for name in ("a.jsonl", "a.json.gz", "a.parquet")),
        ("a.jsonl", S3, "is a web page or an error in HTML or XML, as servers send it in place of a file"),
        ("a.jsonl", b"PAR1\x15\x04", r"is a parquet file; let its name end in .parquet"),
        ("a.parquet", LINES, r"holds JSON, not parquet; let its name end in .jsonl"),
        (
            "a.parquet",
            gzip.compress(b"PAR1", mtime=0),
            "is compressed with gzip as a whole, as no parquet file is; unpack it",
        ),
        ("a.jsonl", b"BZh91AY&SY\x00", r"is compressed with bzip2; unpack it, or compress what is in it as .gz or"),
        ("a.jsonl.gz", b"\xfd7zXZ\x00\x00", "is compressed with xz"),
        ("a.txt", b"PK\x03\x04\x14", "is a zip archive"),
        ("a.jsonl.gz", gzip.compress(TAR, mtime=0), "is a tar archive"),
        ("a.txt", b"%PDF-1.7\n", "is a PDF; extract its text"),
        ("a.jsonl", '{"text": "a"}\n'.encode("utf-16"), "is text in UTF-16; convert it, as with `iconv"),
        ("a.jsonl", b"\x00\x05\x16\x07\x00\x02", "is what macOS notes about another file"),
        ("a.jsonl.gz", bytes(64), "is cut off or damaged: it does not begin like gzip data; get it again"),
        ("a.jsonl.zst", b"\x28\xb5", "is cut off or damaged: it does not begin like zstd data"),
    ],
)
def test_a_file_that_is_something_else_is_named_for_what_it_is(name, content, message, tmp_path: Path):
    name = "a.jsonl.zst" if name == "a.zst" else name
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}' {message}"):
        read(tmp_path / name)


def test_a_page_is_text_where_text_is_asked_for(tmp_path: Path):
    (tmp_path / "page.html").write_bytes(PAGE)
    assert read(tmp_path / "page.html") == [{"text": PAGE.decode()}]


def test_zero_bytes_at_the_end_of_json_lines_are_an_error_that_says_where_they_begin(tmp_path: Path):
    (tmp_path / "web.jsonl").write_bytes(LINES + bytes(4096))
    with pytest.raises(UserError, match=rf"web.jsonl' has nothing but zero bytes from byte {len(LINES)} on, as if"):
        read(tmp_path / "web.jsonl")


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("buffer", [512, 517, 523, 2**20])
@pytest.mark.parametrize("form", ["array", "objects"])
def test_json_in_an_array_or_over_several_lines_is_read(form, indent, buffer, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("autoscale_exp.data.preparation.entries.BUFFER_BYTES", buffer)
    strange = {"text": 'a "]}[{" \\', "id": -1.5e-3, "meta": {"tags": ["x", None, True, 12345678]}}
    entries = [entry for plain in ENTRIES for entry in (plain, strange)]
    if form == "array":
        content = json.dumps(entries, indent=indent, ensure_ascii=False)
    else:
        content = "\n".join(json.dumps(entry, indent=indent or 0, ensure_ascii=False) for entry in entries)
    for name, prefix in (("web.json", b""), ("bom.json", b"\xef\xbb\xbf \r\n")):
        (tmp_path / name).write_bytes(prefix + content.encode() + b"\n")
        assert read(tmp_path / name) == entries


@pytest.mark.parametrize(
    "content",
    [b'{"text":\n"a"}\n{"text": "b"}', b'{"text": "a",\r\n"id": 1}{"text": "b"}', b'{"text": "a"},\n{"text": "b"},'],
)
def test_objects_may_break_anywhere_and_have_commas_between_them(content, tmp_path: Path):
    (tmp_path / "web.json").write_bytes(content)
    assert [entry["text"] for entry in read(tmp_path / "web.json")] == ["a", "b"]


def test_a_line_that_is_not_an_object_says_what_lines_must_be(tmp_path: Path):
    (tmp_path / "web.json").write_text('{"text": "a"}\n{\n"text": "b"}\n')
    with pytest.raises(UserError, match=r"web.json', line at byte 14: .*; each line must be a JSON object"):
        read(tmp_path / "web.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"text": "a"}, {"text": "b"', "entry 1: .*; the file seems to be cut off there, get it again"),
        (b'[{"text": "a"}, ', "entry 1: Expecting value; the file seems to be cut off there, get it again"),
        (b'[{"text": "a"}, {"text": "b', "entry 1: Unterminated string starting at; the file seems"),
        (b'[{"text": "a"}, {"text" "b"}, {"text": "ccccccccccccccccccccc"}]', "entry 1: Expecting ':' delimiter$"),
        (b'[{"text": "a"}, 3]', "entry 1: expected a JSON object, found int"),
        (b'[{"text": "a"}, {"n": ' + b"1" * 5000 + b"}]", "entry 1: Exceeds the limit"),
        ('[{"text": "Zürich"}]'.encode("latin-1"), "entry 0 or later: not UTF-8"),
    ],
)
def test_json_in_an_array_that_is_bad_is_an_error_that_names_the_entry(content, message, tmp_path: Path):
    (tmp_path / "web.json").write_bytes(content)
    with pytest.raises(UserError, match=f"web.json', {message}"):
        read(tmp_path / "web.json")


def test_parquet_may_hold_texts_as_bytes(tmp_path: Path):
    for kind in (pa.binary(), pa.large_binary()):
        texts = pa.array([entry["text"].encode() for entry in ENTRIES], kind)
        pq.write_table(pa.table({"text": texts, "id": range(50)}), tmp_path / "web.parquet")
        assert read(tmp_path / "web.parquet") == ENTRIES
    pq.write_table(pa.table({"text": [b"fine", b"Z\xfcrich"], "id": [0, 1]}), tmp_path / "web.parquet")
    with pytest.raises(UserError, match=r"web.parquet', row 0 or later: column 'text' has bytes that are not UTF-8"):
        read(tmp_path / "web.parquet")


def test_a_parquet_file_may_be_named_as_json_is_only_by_mistake(tmp_path: Path):
    write_entries(tmp_path / "web.parquet", ENTRIES).rename(tmp_path / "web.jsonl")
    with pytest.raises(UserError, match=r"web.jsonl' is a parquet file; let its name end in .parquet"):
        read(tmp_path / "web.jsonl")
