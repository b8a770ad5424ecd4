import gzip
import json
import re
from pathlib import Path
from typing import Any

import datasets.config
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.preparation import entries
from autoscale_exp.data.preparation.entries import FileSpan, kind_of, open_binary, read_entries
from tests.data.preparation.corpora import compress, write_entries
from tests.data.preparation.file_server import serving

ENTRIES = [{"text": f"Zürich, 東京 {number}\n{number**40}", "id": number} for number in range(300)]
KINDS = ["web.jsonl", "web.json", "web.jsonl.gz", "web.jsonl.zst", "web.parquet"]


def read(path: Path | str, columns: tuple[str, ...] = ("text", "id"), **bounds: int) -> list[dict[str, Any]]:
    return [entry for entry, _ in read_entries(FileSpan(str(path), **bounds), columns)]


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STREAMING_READ_RETRY_INTERVAL", "STREAMING_OPEN_RETRY_INTERVAL"):
        monkeypatch.setattr(datasets.config, name, 0.001)


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_read_as_it_was_written(name, tmp_path: Path):
    assert read(write_entries(tmp_path / name, ENTRIES)) == ENTRIES


@pytest.mark.parametrize("name", KINDS)
def test_a_remote_file_is_read_like_one_on_the_disk(name, tmp_path: Path):
    write_entries(tmp_path / name, ENTRIES)
    with serving(tmp_path) as server:
        assert read(f"{server.address}/{name}") == ENTRIES


@pytest.mark.parametrize("name", KINDS)
def test_a_connection_that_breaks_is_taken_up_again(name, tmp_path: Path, quick_retries):
    write_entries(tmp_path / name, ENTRIES)
    with serving(tmp_path) as server:
        server.breaks = 3
        assert read(f"{server.address}/{name}") == ENTRIES
        assert server.breaks == 0


@pytest.mark.parametrize("name", KINDS)
def test_a_connection_that_keeps_breaking_is_an_error_that_names_the_url(name, tmp_path: Path, quick_retries):
    write_entries(tmp_path / name, ENTRIES)
    with serving(tmp_path) as server:
        server.breaks = 1000
        with pytest.raises(UserError, match=rf"'{server.address}/{name}' cannot be read .*it goes on where it"):
            read(f"{server.address}/{name}")


def test_remote_lines_are_fetched_in_few_requests(tmp_path: Path):
    write_entries(tmp_path / "web.jsonl", ENTRIES * 20)
    with serving(tmp_path) as server:
        assert len(read(f"{server.address}/web.jsonl")) == 6000
        assert len(server.requests) <= 3


@pytest.mark.parametrize("name", KINDS)
def test_a_url_where_nothing_is_is_an_error_that_names_it(name, tmp_path: Path, quick_retries):
    with serving(tmp_path) as server, pytest.raises(UserError, match=rf"'{server.address}/{name}' is not there"):
        read(f"{server.address}/{name}")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_files_put_behind_each_other_are_one_file(suffix, tmp_path: Path):
    path = tmp_path / f"web.jsonl{suffix}"
    path.write_bytes(b"".join(compress(json.dumps(entry).encode() + b"\n", suffix) for entry in ENTRIES))
    assert read(path) == ENTRIES


def test_a_text_file_is_one_record(tmp_path: Path):
    (tmp_path / "page.txt").write_text("Zürich,\n東京\n", encoding="utf-8")
    (tmp_path / "page.md.gz").write_bytes(gzip.compress(b"# a\r\n"))
    assert read(tmp_path / "page.txt") == [{"text": "Zürich,\n東京\n"}]
    assert read(tmp_path / "page.md.gz") == [{"text": "# a\r\n"}]


def test_a_local_name_may_have_a_question_mark_and_capital_letters(tmp_path: Path):
    write_entries(tmp_path / "web.jsonl.gz", ENTRIES).rename(tmp_path / "why? no.JSONL.GZ")
    assert read(tmp_path / "why? no.JSONL.GZ") == ENTRIES


def test_a_byte_order_mark_and_blank_lines_are_skipped(tmp_path: Path):
    (tmp_path / "web.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\n   \n{"text": "b"}')
    assert read(tmp_path / "web.jsonl") == [{"text": "a"}, {"text": "b"}]


def test_only_the_columns_asked_for_are_read_of_a_parquet_file(tmp_path: Path):
    path = write_entries(tmp_path / "web.parquet", [{"text": "a", "meta": {"language": "en"}, "id": 1}])
    assert read(path, ("meta", "text")) == [{"text": "a", "meta": {"language": "en"}}]


def test_a_column_that_is_not_there_is_an_error_that_names_those_that_are(tmp_path: Path):
    path = write_entries(tmp_path / "web.parquet", [{"body": "a", "id": 1}])
    with pytest.raises(UserError, match=r"web.parquet' has no column 'text', only body, id; see data.text_field"):
        read(path, ("text",))


LINES = st.lists(st.text(max_size=12).map(lambda text: json.dumps({"text": text}, ensure_ascii=False)) | st.just(""))


@settings(max_examples=60, deadline=None)
@given(lines=LINES, ends=st.booleans(), cuts=st.sets(st.integers(1, 200)))
def test_a_file_cut_at_any_bytes_gives_every_line_once_and_in_order(tmp_path_factory, lines, ends, cuts):
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    content = "\n".join(lines).encode() + (b"\n" if ends else b"")
    path.write_bytes(content)
    whole = [json.loads(line) for line in lines if line]
    bounds = [0, *sorted(cut for cut in cuts if cut < len(content))]
    pieces = [read(path, start=a, stop=b) for a, b in zip(bounds, [*bounds[1:], len(content)], strict=True)]
    assert [entry for piece in pieces for entry in piece] == read(path) == whole


def test_a_record_says_where_it_stands(tmp_path: Path):
    (tmp_path / "web.jsonl").write_text('{"text": "a"}\n\n{"text": "b"}\n')
    where = [place for _, place in read_entries(FileSpan(str(tmp_path / "web.jsonl")), ["text"])]
    assert where == [f"'{tmp_path}/web.jsonl', line at byte {byte}" for byte in (0, 15)]
    path = write_entries(tmp_path / "web.parquet", ENTRIES)
    assert [place for _, place in read_entries(FileSpan(str(path)), ["id"])][-1] == f"'{path}', row 299"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'["text"]\n', "line at byte 35: expected a JSON object, found list"),
        (b'{"text": "x"\n', "line at byte 35: Expecting ',' delimiter"),
        (b'{"text": "x", "n": ' + b"1" * 5000 + b"}\n", "line at byte 35: Exceeds the limit"),
        (b'{"text": ' + b"[" * 100_000 + b"\n", "line at byte 35: maximum recursion depth exceeded"),
        ('{"text": "Zürich"}\n'.encode("latin-1"), "byte 46: not UTF-8 (invalid start byte); convert"),
        ('{"text": "東京"}\n'.encode("utf-16"), "byte 35: not UTF-8 (invalid start byte); convert the file to UTF-8"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_bad_line_is_an_error_that_names_file_and_byte(suffix, line, message, tmp_path: Path):
    path = tmp_path / f"web.jsonl{suffix}"
    good = '{"text": "Zürich und Genf, Bern"}\n'.encode()
    assert len(good) == 35
    path.write_bytes(compress(good + line + good, suffix))
    with pytest.raises(UserError, match=re.escape(f"'{path}', {message}")):
        read(path)


def test_a_bad_line_behind_a_cut_is_named_by_its_byte_in_the_file(tmp_path: Path):
    (tmp_path / "web.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text"}\n')
    with pytest.raises(UserError, match=r"web.jsonl', line at byte 28: "):
        read(tmp_path / "web.jsonl", start=3, stop=37)


@pytest.mark.parametrize("size", [5, 12, 13, 14, 15, 16, 17])
def test_a_line_that_is_cut_off_is_an_error_that_says_so(size, tmp_path: Path):
    content = '{"text": "東京"}'.encode()[:size]
    (tmp_path / "web.jsonl").write_bytes(b'{"text": "a"}\n' + content)
    with pytest.raises(UserError, match=r"web.jsonl', .*byte (14|24|27).*the file seems to be cut off there, get it"):
        read(tmp_path / "web.jsonl")


@pytest.mark.parametrize("name", ["web.jsonl.gz", "web.jsonl.zst", "web.txt.gz", "web.parquet"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_downloaded_by_half_is_an_error_that_names_file_and_byte(name, kept, tmp_path: Path):
    content = write_entries(tmp_path / name, ENTRIES).read_bytes()
    size = int(len(content) * kept)
    (tmp_path / name).write_bytes(content[:size])
    has = "it has no bytes" if not size and name != "web.parquet" else f"(data end|it ends) at byte {size}"
    with pytest.raises(UserError, match=f"{name}' is cut off or damaged: .*{has}.*get it again"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["web.jsonl.gz", "web.jsonl.zst", "web.parquet"])
@pytest.mark.parametrize("place", [0.1, 0.2, 0.3])
def test_a_damaged_file_is_an_error_that_names_it(name, place, tmp_path: Path):
    content = bytearray(write_entries(tmp_path / name, ENTRIES).read_bytes())
    start = int(len(content) * place)
    content[start : start + 40] = bytes(40)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}'(, line at byte| is cut off or damaged)"):
        read(tmp_path / name)


def test_parquet_text_that_is_not_utf8_is_an_error_that_names_file_and_row(tmp_path: Path):
    texts = pa.array([b"fine", b"Z\xfcrich"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 2, texts.buffers())
    pq.write_table(pa.table({"text": texts}), tmp_path / "web.parquet")
    with pytest.raises(UserError, match=r"web.parquet', after row 0: not UTF-8"):
        read(tmp_path / "web.parquet", ("text",))


def test_a_text_file_that_is_not_utf8_is_an_error_that_names_file_and_byte(tmp_path: Path):
    (tmp_path / "latin1.txt").write_bytes("Zürich".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin1.txt', byte 1: not UTF-8 .*; convert the file to UTF-8"):
        read(tmp_path / "latin1.txt")


def test_memory_does_not_grow_with_a_compressed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(entries, "BUFFER_BYTES", 2**12)
    (tmp_path / "web.jsonl.zst").write_bytes(compress(b'{"text": "a"}\n' * 2**20, ".zst"))
    with open_binary(str(tmp_path / "web.jsonl.zst")) as file:
        before = pa.total_allocated_bytes()
        assert sum(1 for _ in zip(range(1000), file, strict=False)) == 1000
        assert pa.total_allocated_bytes() - before < 2**22  # of 14 MB


@pytest.mark.parametrize(("characters", "rows"), [(10, [1024]), (1000, range(400, 600)), (2**20, [1])])
def test_fewer_rows_of_a_parquet_file_are_records_at_a_time_the_longer_they_are(
    characters, rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(entries, "BATCH_BYTES", 2**19)
    path = write_entries(tmp_path / "web.parquet", ({"text": f"{n}" * (characters // len(f"{n}"))} for n in range(50)))
    sizes = []
    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *a, **k: sizes.append(k["batch_size"]) or real(*a, **k))
    assert len(read(path, ("text",))) == 50
    assert sizes[0] in rows


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", "json"),
        ("a.json.gz", "json"),
        ("https://host/a.jsonl.zst?download=true", "json"),
        ("hf://datasets/o/n@1.2/a-0.1.parquet", "parquet"),
        ("a.txt", "text"),
        ("a.tex.gz", "text"),
        ("A.JSONL.GZ", "json"),
        ("why?.Parquet", "parquet"),
        ("https://host/a.csv?b.txt", None),
        ("a.csv", None),
        ("a.gz", None),
        ("jsonl", None),
    ],
)
def test_a_name_tells_the_kind(name, kind):
    assert kind_of(name) == kind


def test_a_file_that_is_gone_is_an_error_that_names_it(tmp_path: Path):
    message = r"gone.jsonl' cannot be read: No such file or directory; see data.path and data.sources"
    with pytest.raises(UserError, match=message), open_binary(str(tmp_path / "gone.jsonl")):
        pytest.fail("it was opened")
