"""Compressed files as streams of their content, and the kind of a file by its first bytes, whatever its name."""

import io
import sys
import zlib
from typing import Any

from autoscale_exp.base.errors import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HEAD_BYTES = 512  # enough to tell what a file is
CHUNK_BYTES = 2**16  # of compressed data that are read at a time
# The window of `zstd --long=31`; pyarrow's limit is 2^27 bytes.
LARGEST_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 31}
SKIPPABLE = tuple(bytes([kind]) + b"\x2a\x4d\x18" for kind in range(0x50, 0x60))  # frames of RFC 8878 without text
MAGIC = {"gzip": (b"\x1f\x8b",), "zstd": (b"\x28\xb5\x2f\xfd", *SKIPPABLE)}

GET_IT_AGAIN = "get the file again"
UNPACK = "unpack it, or compress what is in it as .gz or .zst"
UTF8 = "convert it, as with `iconv -f UTF-16 -t UTF-8`"
LFS = b"version https://git-lfs.github.com/spec/"
FOREIGN = [  # first bytes, what such a file is, and what to do
    (LFS, "a Git LFS pointer, not the file itself", "run `git lfs pull` in its clone"),
    (b"PAR1\x15", "a parquet file", "let its name end in .parquet"),
    (b"ARROW1\0\0", "an Arrow file", "write it as parquet"),
    (b"BZh91AY&SY", "compressed with bzip2", UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", UNPACK),
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"%PDF-1.", "a PDF", "extract its text"),
    (b"\x00\x05\x16\x07", "what macOS notes about another file (AppleDouble), without text", "leave it out"),
    (b"\xff\xfe", "text in UTF-16", UTF8),
    (b"\xfe\xff", "text in UTF-16", UTF8),
]
PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")


def codec_of(head: bytes) -> str | None:
    """'gzip' or 'zstd' by the first bytes of a file; None if it is neither."""
    return next((codec for codec, magic in MAGIC.items() if head.startswith(magic)), None)


def check_head(path: str, kind: str | None, head: bytes) -> None:
    """Checks that a file is of a kind, as far as its first bytes can tell.

    Args:
        path: path of the file, for the message.
        kind: 'json', 'parquet' or 'text'; None for text, too.
        head: the first HEAD_BYTES of its content, or all of it if that is less.

    Raises:
        UserError: it is of another kind; the message says which, and what to do.
    """
    if kind == "parquet" and head.startswith(b"PAR1"):
        return
    for magic, what, remedy in FOREIGN:
        if head.startswith(magic):
            raise UserError(f"'{path}' is {what}; {remedy}")
    if head[257:262] == b"ustar":
        raise UserError(f"'{path}' is a tar archive; {UNPACK}")
    if kind == "parquet" and (codec := codec_of(head)):
        raise UserError(f"'{path}' is compressed with {codec} as a whole, as no parquet file is; unpack it")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if kind in ("json", "parquet") and text.lower().startswith(PAGES):
        raise UserError(
            f"'{path}' is a web page or an error in HTML or XML, as servers send it in place of a file; look at it, "
            f"and {GET_IT_AGAIN}"
        )
    if kind == "parquet" and text.startswith((b"{", b"[")):
        raise UserError(f"'{path}' holds JSON, not parquet; let its name end in .jsonl")


class Decompressed(io.RawIOBase):
    """The content of a gzip or zstd file, with all its members or frames; zero bytes after one are padding.

    Args:
        raw: the compressed file, at its start.
        codec: 'gzip' or 'zstd'.
        path: path of the file, for messages.
    """

    def __init__(self, raw: io.BufferedReader, codec: str, path: str) -> None:
        self._raw = raw
        self._codec = codec
        self._path = path
        self._waiting = b""  # read, but not decompressed
        self._member: Any = self._begin()

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer with the next bytes that are at hand; returns their number, 0 at the end.

        Raises:
            UserError: the data are cut off or damaged; the message names the file and the byte.
        """
        while True:
            if self._member.eof and not self._next_member():
                return 0
            if self._codec == "gzip" or self._member.needs_input:
                self._waiting = self._waiting or self._raw.read(CHUNK_BYTES)
                if not self._waiting:
                    raise self._damage("they are not complete")
            try:
                content = self._member.decompress(self._waiting, len(buffer))
            except (zlib.error, zstd.ZstdError) as error:
                raise self._damage(str(error)) from None
            self._waiting = self._member.unconsumed_tail if self._codec == "gzip" else b""
            if content:
                buffer[: len(content)] = content
                return len(content)

    def _begin(self) -> Any:
        return zlib.decompressobj(31) if self._codec == "gzip" else zstd.ZstdDecompressor(options=LARGEST_WINDOW)

    def _next_member(self) -> bool:
        """Goes on to the next member or frame, past padding; False if there is none."""
        waiting = self._member.unused_data.lstrip(b"\0")
        while not waiting:
            chunk = self._raw.read(CHUNK_BYTES)
            if not chunk:
                return False
            waiting = chunk.lstrip(b"\0")
        self._waiting, self._member = waiting, self._begin()
        return True

    def _damage(self, reason: str) -> UserError:
        return UserError(
            f"'{self._path}' is cut off or damaged: its {self._codec} data end at byte {self._raw.tell()} ({reason}); "
            "get it again"
        )
