"""CSV files from any program: cells by row and column name, with any common encoding, separator and decimal mark."""

import codecs
import csv
import io
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError, refusal

log = logging.getLogger(__name__)

PREFIXES = ("tokens", "weights", "unique", "loss", "perplexity")  # of columns per domain, as in tokens.web
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# A mark of UTF-32 begins with that of UTF-16, so it is looked for first.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NO_TEXT = {
    b"PK\x03\x04": "a workbook of Excel or LibreOffice, or a zip archive",
    b"\xd0\xcf\x11\xe0": "a workbook of an old Excel",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
}
POINT = re.compile(r"[+-]?\d*\.\d*([eE][+-]?\d+)?")
COMMA = re.compile(r"[+-]?\d*,\d*([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?\d{1,3}([.,]\d{3})+")


@dataclass(frozen=True)
class Sheet:
    """A table of text cells.

    Attributes:
        name: name of the file, for messages.
        columns: names of the columns; "" for one that has none but is not empty.
        rows: number and cells of each row that is not blank; the header is row 1, as in a spreadsheet.
        separator: the separator between cells.
    """

    name: str
    columns: list[str]
    rows: list[tuple[int, list[str]]]
    separator: str

    def suffixes(self, prefix: str) -> list[str]:
        """For all columns that begin with `prefix` and a dot, the part after these."""
        return [name.removeprefix(f"{prefix}.") for name in self.columns if name.startswith(f"{prefix}.")]

    def cells(self, column: str) -> list[str]:
        """The cells of a column.

        Raises:
            UserError: the sheet has the column more than once.
        """
        if self.columns.count(column) > 1:
            raise UserError(f"'{self.name}' has column '{column}' more than once; keep one of them")
        copy = re.fullmatch(r"(.+)\.\d+", column)
        if copy and copy[1] in self.columns and copy[1] not in PREFIXES:
            raise UserError(
                f"'{self.name}' has column '{column}' beside '{copy[1]}', as pandas names a column that is there "
                "twice; keep one of them, or give the domain another name"
            )
        index = self.columns.index(column)
        return [cells[index] for _, cells in self.rows]

    def names(self, column: str) -> list[str]:
        """The cells of a column that identifies rows.

        Raises:
            UserError: a cell is empty or stands in two rows.
        """
        seen: dict[str, int] = {}
        for (number, _), cell in zip(self.rows, self.cells(column), strict=True):
            if not cell or cell in seen:
                what = f"'{cell}' is also in row {seen[cell]}" if cell else "the name is missing"
                raise UserError(
                    f"'{self.name}', row {number}, column {column}: {what}; give every run a name of its own"
                )
            seen[cell] = number
        return list(seen)

    def numbers(self, least: Mapping[str, float]) -> dict[str, FloatArray]:
        """Reads columns of finite numbers, each with the least number allowed in it.

        One call reads all numbers of a sheet, so that a comma means the same in all of them.

        Raises:
            UserError: a cell is no number or too small, or its comma or point is ambiguous.
        """
        cells = {column: self.cells(column) for column in least}
        commas = self._has_decimal_commas(cells)
        return {
            column: np.array(
                [
                    self._number(number, column, cell.replace(",", ".") if commas else cell, cell, least[column])
                    for (number, _), cell in zip(self.rows, of_column, strict=True)
                ],
                dtype=np.float64,
            )
            for column, of_column in cells.items()
        }

    def tell_unread(self, read: Iterable[str], allowed: str) -> None:
        """Logs which columns are left out; `allowed` says which are read."""
        left_out = [name or "one without a name" for name in self.columns if name not in set(read)]
        if left_out:
            log.warning("'%s': columns left out: %s; what is read: %s", self.name, ", ".join(left_out), allowed)

    def _has_decimal_commas(self, cells: Mapping[str, Sequence[str]]) -> bool:
        points: list[tuple[int, str, str]] = []
        commas: list[tuple[int, str, str]] = []
        for column, of_column in cells.items():
            for (number, _), cell in zip(self.rows, of_column, strict=True):
                place = (number, column, cell)
                if len(re.findall(r"[.,]", cell)) > 1 and re.fullmatch(r"[+-]?\d{1,3}([.,]\d{3})+([.,]\d+)?", cell):
                    raise UserError(f"{self._at(*place)} has marks between thousands; write the number without them")
                (points if POINT.fullmatch(cell) else commas if COMMA.fullmatch(cell) else []).append(place)
        if commas and points:
            number, column, cell = points[0]
            raise UserError(
                f"{self._at(*commas[0])} has a comma, but '{cell}' in row {number}, column {column} has a point; "
                "write decimals with a point in all cells, and no marks between thousands"
            )
        if commas and self.separator != ";" and all(THOUSANDS.fullmatch(cell) for _, _, cell in commas):
            raise UserError(
                f"{self._at(*commas[0])} may be thousands or decimals; write decimals with a point, and no marks "
                "between thousands"
            )
        return bool(commas)

    def _number(self, row: int, column: str, text: str, cell: str, least: float) -> float:
        try:
            value = float(text)
        except ValueError:
            raise UserError(f"{self._at(row, column, cell)} is not a number; correct that cell") from None
        if not math.isfinite(value) or value < least:
            raise UserError(f"'{self.name}', row {row}, column {column}: {cell} must be finite and at least {least:g}")
        return value

    def _at(self, row: int, column: str, cell: str) -> str:
        return f"'{self.name}', row {row}, column {column}: '{cell}'"


def read_sheet(path: Path, key: str) -> Sheet:
    """Reads the table in a file that the config names by `key`.

    Raises:
        UserError: the file cannot be read or is no table of text.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{key} is '{path}', which does not exist; give the path of a CSV file") from None
    except OSError as error:
        raise UserError(f"{key} is '{path}', which cannot be read: {refusal(error)}; give a CSV file") from None
    return parse_sheet(_decode(content, str(path), key), str(path))


def parse_sheet(text: str, name: str) -> Sheet:
    """Parses a table with a header; `name` is for messages.

    The separator is the comma, semicolon or tab that gives the header most columns. Blank rows, and
    blank columns without a name, are left out.

    Raises:
        UserError: the text is no CSV, has no row, or a row has not as many cells as the header.
    """
    first, _, rest = text.partition("\n")
    told = re.fullmatch(r"sep=([,;\t])\s*", first)  # a line of Excel's own
    try:
        separator = told[1] if told else max(SEPARATORS, key=lambda mark: len(_header(text, mark)))
        records = list(_records(rest if told else text, separator))
    except csv.Error as error:
        raise UserError(f"'{name}' is no CSV: {error}; give a table with commas and a header") from None
    rows = [(number, cells) for number, cells in enumerate(records, start=2 if told else 1) if any(cells)]
    if len(rows) < 2:
        raise UserError(f"'{name}' has no runs; it needs a header and a row per run")
    (_, header), rows = rows[0], rows[1:]
    kept = [index for index, column in enumerate(header) if column or any(any(cells[index:][:1]) for _, cells in rows)]
    for number, cells in rows:
        width = max((index + 1 for index, cell in enumerate(cells) if cell), default=0)
        if width > len(header) or len(cells) <= max(index for index in kept if header[index]):
            raise UserError(f"'{name}', row {number}: {len(cells)} cells, but the header has {len(header)} columns")
    if separator != ",":
        log.info("'%s' has %s between its cells", name, SEPARATORS[separator])
    padded = [(number, cells + [""] * len(header)) for number, cells in rows]
    return Sheet(
        name,
        [_tidy(header[index]) for index in kept],
        [(number, [cells[index] for index in kept]) for number, cells in padded],
        separator,
    )


def _records(text: str, separator: str, strict: bool = True) -> Iterable[list[str]]:
    # Strict, or a quote that is not closed takes all rows below it into one cell.
    lines = io.StringIO(text, newline=None)
    for record in csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=strict):
        yield [cell.strip() for cell in record]


def _header(text: str, separator: str) -> list[str]:
    return next((record for record in _records(text, separator, strict=False) if any(record)), [])


def _tidy(column: str) -> str:
    """A name without blanks around the dot after its prefix."""
    return re.sub(rf"^({'|'.join(PREFIXES)})\s*\.\s*", r"\1.", column)


def _decode(content: bytes, path: str, key: str) -> str:
    for signature, kind in NO_TEXT.items():
        if content.startswith(signature):
            raise UserError(f"{key} is '{path}', which is {kind}; save the table as CSV in UTF-8")
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
    if encoding is None and content[1:2] == b"\0" != content[:1]:
        encoding = "utf-16-le"
    elif encoding is None and content[:1] == b"\0" != content[1:2]:
        encoding = "utf-16-be"
    try:
        return content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        refused = UserError(f"{key} is '{path}', which is not UTF-8 text: {error}; give a CSV file in UTF-8")
        if encoding or b"\0" in content:
            raise refused from None
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        raise refused from None
    words = [word for word in re.split(r"[\s,;]+", text) if not word.isascii()]
    log.warning(
        "'%s' is not UTF-8; it is read as Windows-1252, so check names such as '%s', or save it as CSV in UTF-8",
        path,
        words[0],
    )
    return text
