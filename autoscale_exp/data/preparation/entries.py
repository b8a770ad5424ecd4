"""Reads files of text as entries: JSON lines, parquet and plain text, compressed or not, local or remote.

A file's name tells its kind. Its first bytes tell whether it is compressed, whatever its name is. JSON that is not
one object per line, an array or objects over several lines, is read from the start, as it cannot be entered in the
middle.

Remote files (hf://, https://) are streamed through `datasets`, which asks again when a connection breaks.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.data.preparation.compression import HEAD_BYTES, MAGIC, Decompressed, check_head, codec_of

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
JSON_LINES = (".jsonl", ".json")
TEXTS = (".txt", ".md", ".rst", ".html", ".py", ".tex", ".c", ".cc", ".cpp", ".cu", ".h", ".hpp", ".java", ".js")
BUFFER_BYTES = 2**20
LONGEST_TOKEN = 16  # characters; no JSON token but a string or a number is longer
SEPARATORS = re.compile(r"[\s,]*")
BATCH_BYTES = 2**24  # of the parquet rows in memory at a time, by the mean row of their file
MOST_BATCH_ROWS = 1024


@dataclass(frozen=True)
class FileSpan:
    """A file, or the lines of it that begin at the bytes start .. stop - 1.

    Attributes:
        path: path or URL of the file.
        start: byte offset.
        stop: byte offset; None is the end of the file.
    """

    path: str
    start: int = 0
    stop: int | None = None


def is_remote(path: str) -> bool:
    """Whether a path is a URL of another machine."""
    return "://" in path


def suffixes_of(path: str) -> list[str]:
    """Suffixes of a file's name, such as .jsonl and .gz, in lower case, without what follows the `?` of a URL."""
    name = path.split("?")[0] if is_remote(path) else path
    return [suffix.lower() for suffix in PurePosixPath(name).suffixes]


def kind_of(path: str) -> str | None:
    """'json', 'parquet' or 'text' by the file's name; None if it is none of these."""
    suffixes = suffixes_of(path)
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix == ".parquet":
        return "parquet"
    return "json" if suffix in JSON_LINES else "text" if suffix in TEXTS else None


def compression_of(path: str) -> str | None:
    """'gzip' or 'zstd' by the file's name; None if it is neither."""
    return COMPRESSIONS.get("".join(suffixes_of(path)[-1:]))


def read_entries(span: FileSpan, fields: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields the entries of a span, each with its place in the file, for messages.

    Args:
        span: the span to read.
        fields: names, or paths such as meta.language, of the columns to read from a parquet file; other files give all
            their fields. A text file is one entry with the key `text`.

    Raises:
        UserError: the file is cut off, damaged, of another kind or not UTF-8; the message names the file and the byte.
    """
    kind = kind_of(span.path)
    if kind == "json":
        yield from _json_entries(span)
    elif kind == "parquet":
        yield from _parquet_entries(span.path, fields)
    else:
        with open_binary(span.path) as file:
            yield {"text": decoded(file.read(), span.path)}, f"'{span.path}'"


@contextmanager
def open_binary(path: str) -> Iterator[io.BufferedReader]:
    """Opens a local or remote file for reading, decompressed if it is compressed.

    Raises:
        UserError: its compressed data are cut off or damaged, which shows when they are read, or its content is not of
            its kind; the message names the file.
    """
    with _open_raw(path) as raw:
        named, file = compression_of(path), raw
        if named and not raw.peek(1):
            raise UserError(f"'{path}' is cut off or damaged: it has no bytes; get it again")
        while codec := codec_of(_head(file)):  # a server may have compressed a compressed file
            file = io.BufferedReader(Decompressed(file, codec, path), BUFFER_BYTES)
        head = _head(file)
        check_head(path, kind_of(path), head)
        if named and file is raw and (b"\0" in head or MAGIC[named][0].startswith(head)):
            raise UserError(f"'{path}' is cut off or damaged: it does not begin like {named} data; get it again")
        yield file


def can_be_cut(path: str) -> bool:
    """Whether a local file is plain JSON lines, which can be read from any line on."""
    if kind_of(path) != "json":
        return False
    with _open_raw(path) as raw:
        return codec_of(_head(raw)) is None and not _is_over_lines(_head(raw))


def _head(file: io.BufferedReader) -> bytes:
    return file.peek(HEAD_BYTES)[:HEAD_BYTES]


@contextmanager
def _open_raw(path: str) -> Iterator[Any]:
    if not is_remote(path):
        try:
            file = open(path, "rb", buffering=BUFFER_BYTES)  # noqa: SIM115 - closed below
        except OSError as error:
            raise UserError(f"'{path}' cannot be read: {error.strerror}; see data.path and data.sources") from None
        with file:
            yield file
        return
    from datasets.utils.file_utils import xopen  # takes a second to import, for corpora on the disk in vain

    try:
        with xopen(path, "rb") as stream:
            yield io.BufferedReader(stream, BUFFER_BYTES)  # the stream itself copies megabytes for every line
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise UserError(f"'{path}' is not there, or its server does not answer; see data.sources") from None
        reason = first_line(error)
        raise UserError(
            f"'{path}' cannot be read ({reason}); run the same command again: it goes on where it stopped"
        ) from None


def _json_entries(span: FileSpan) -> Iterator[tuple[dict[str, Any], str]]:
    with open_binary(span.path) as file:
        offset = 0
        if not span.start and _is_over_lines(_head(file)):
            yield from _entries_over_lines(file, span.path)
            return
        if span.start:  # a line that begins before the span belongs to the span before
            file.seek(span.start - 1)
            offset = span.start - 1 + len(file.readline())
        while span.stop is None or offset < span.stop:
            line = file.readline()
            if not line:
                return
            if line.strip():
                yield _json_object(line, span.path, offset), f"'{span.path}', line at byte {offset}"
            offset += len(line)


def _json_object(line: bytes, path: str, offset: int) -> dict[str, Any]:
    text = decoded(line, path, offset)
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not line.strip(b"\0 \r\n"):
            raise UserError(
                f"'{path}' has nothing but zero bytes from byte {offset} on, as if its download had not ended; get it "
                "again"
            ) from None
        is_whole = line.endswith(b"\n")
        remedy = "each line must be a JSON object" if is_whole else "the file seems to be cut off there, get it again"
        raise UserError(f"'{path}', line at byte {offset}: {error}; {remedy}") from None
    return _checked_object(entry, f"'{path}', line at byte {offset}")


def _checked_object(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(entry).__name__}")
    return entry


def _is_over_lines(head: bytes) -> bool:
    """Whether JSON with this beginning is an array, or has an object over several lines."""
    first, line_feed, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    is_open = bool(line_feed) and first.startswith(b"{") and first.rstrip().endswith((b"{", b"[", b",", b":"))
    return first.startswith(b"[") or is_open


def _entries_over_lines(file: io.BufferedReader, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields the objects of an array or of a sequence, however they are spread over lines, one in memory at a time."""
    parse = json.JSONDecoder().raw_decode
    text, place, number, in_array = "", 0, 0, False
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    while True:
        place = _between(text, place)
        if text.startswith("]" if in_array else "[", place):
            in_array, place = not in_array, place + 1
            continue
        where = f"'{path}', entry {number}"
        try:
            entry, place = parse(text, place)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            if not _lacks_its_end(error, len(text)):
                raise UserError(f"{where}: {reason}") from None
            more = file.read(max(BUFFER_BYTES, len(text) - place))  # twice as much each time, for an entry of any size
            if not more:
                if place == len(text) and not in_array:
                    return
                raise UserError(f"{where}: {reason}; the file seems to be cut off there, get it again") from None
            text, place = text[place:] + _decode_next(decoder, more, where), 0
            continue
        yield _checked_object(entry, where), where
        number += 1


def _between(text: str, place: int) -> int:
    """The place where the next entry begins."""
    match = SEPARATORS.match(text, place)
    assert match is not None, "it matches nothing, too"
    return match.end()


def _lacks_its_end(error: Exception, size: int) -> bool:
    """Whether JSON of `size` characters cannot be parsed only because it ends too soon."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos > size - LONGEST_TOKEN


def _decode_next(decoder: codecs.IncrementalDecoder, content: bytes, where: str) -> str:
    try:
        return decoder.decode(content)
    except UnicodeDecodeError as error:
        raise UserError(f"{where} or later: not UTF-8 ({error.reason}); convert the file to UTF-8") from None


def decoded(content: bytes, path: str, offset: int = 0) -> str:
    """Decodes the text of a file from a byte on, without a byte order mark.

    Raises:
        UserError: it is not UTF-8; the message names the file and the byte.
    """
    try:
        return content.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        is_cut_off = error.reason == "unexpected end of data"  # within a character, so no line feed follows
        remedy = "the file seems to be cut off there, get it again" if is_cut_off else "convert the file to UTF-8"
        raise UserError(f"'{path}', byte {offset + error.start}: not UTF-8 ({error.reason}); {remedy}") from None


def _parquet_entries(path: str, fields: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    import pyarrow.parquet as pq

    with _open_raw(path) as raw:
        number = 0
        check_head(path, "parquet", _head(raw))
        try:
            file = pq.ParquetFile(raw)
            present = file.schema_arrow.names
            columns = sorted({name if name in present else name.split(".")[0] for name in fields})
            missing = [name for name in columns if name not in present]
            if missing:
                raise UserError(
                    f"'{path}' has no column '{missing[0]}', only {', '.join(present)}; "
                    "see data.text_field, data.group_field and keep"
                )
            for batch in file.iter_batches(batch_size=_batch_rows(file.metadata), columns=columns):
                for entry in _as_texts(batch, f"'{path}', row {number} or later").to_pylist():
                    yield entry, f"'{path}', row {number}"
                    number += 1
        except UnicodeDecodeError as error:
            raise UserError(f"'{path}', after row {number}: not UTF-8 ({error.reason}); get it again") from None
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and (error.errno is not None or isinstance(error, ConnectionError)):
                raise
            raise UserError(
                f"'{path}' is cut off or damaged: it ends at byte {raw.seek(0, 2)} ({error}); get it again"
            ) from None


def _as_texts(batch: pa.RecordBatch, where: str) -> pa.RecordBatch:
    """A batch whose columns of bytes, as some writers store texts, are texts."""
    for index, column in enumerate(batch.schema):
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            try:
                batch = batch.set_column(index, column.name, batch.column(index).cast(pa.large_string()))
            except pa.ArrowInvalid:
                raise UserError(f"{where}: column '{column.name}' has bytes that are not UTF-8 text") from None
    return batch


def _batch_rows(metadata: Any) -> int:
    """How many rows of a parquet file have about BATCH_BYTES together."""
    num_bytes = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    return max(1, min(MOST_BATCH_ROWS, BATCH_BYTES * metadata.num_rows // max(1, num_bytes)))
