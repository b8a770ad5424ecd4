import logging

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.sheet import parse_sheet, read_sheet

TABLE = "run,tokens.web,loss.web\nr1,1500.5,2.25\nr2,2000,3\n"
NUMBERS = {"tokens.web": [1500.5, 2000.0], "loss.web": [2.25, 3.0]}


def numbers_of(sheet):
    return {column: values.tolist() for column, values in sheet.numbers(dict.fromkeys(NUMBERS, 0.0)).items()}


@pytest.mark.parametrize(
    "text",
    [
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\r"),
        TABLE.replace("\n", "\n\n"),
        TABLE.replace("\n", "\n,,\n"),
        TABLE.replace("\n", ",,\n"),  # columns deleted in a spreadsheet
        TABLE.replace("2.25", "2.25,").replace("3\n", "3,,\n"),
        TABLE.replace(",", "\t"),
        TABLE.replace(",", ";").replace(".5", ",5").replace(".25", ",25"),
        "sep=;\n" + TABLE.replace(",", ";").replace(".5", ",5").replace(".25", ",25"),
        TABLE.replace(",", "\t").replace(".5", ",5").replace(".25", ",25"),
        TABLE.replace(".5", ",5").replace("1500,5", '"1500,5"').replace("2.25", '"2,25"'),
        TABLE.replace(",", " , ").replace("tokens.web", "tokens . web"),
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in TABLE.splitlines()),
    ],
)
def test_a_table_says_the_same_however_a_program_wrote_it(text):
    sheet = parse_sheet(text, "t.csv")
    assert sheet.columns == ["run", "tokens.web", "loss.web"]
    assert sheet.names("run") == ["r1", "r2"]
    assert numbers_of(sheet) == NUMBERS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_says_the_same_in_any_unicode(encoding, tmp_path):
    (tmp_path / "t.csv").write_bytes(TABLE.replace("r1", "médecine").encode(encoding))
    sheet = read_sheet(tmp_path / "t.csv", "runs")
    assert sheet.names("run") == ["médecine", "r2"]
    assert numbers_of(sheet) == NUMBERS


def test_a_file_of_western_excel_is_read_with_a_word(tmp_path, caplog):
    (tmp_path / "t.csv").write_bytes(TABLE.replace("r1", "médecine").encode("cp1252"))
    assert read_sheet(tmp_path / "t.csv", "runs").names("run") == ["médecine", "r2"]
    assert "is not UTF-8; it is read as Windows-1252, so check names such as 'médecine'" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"PK\x03\x04...",
            "which is a workbook of Excel or LibreOffice, or a zip archive; save the table as CSV in UTF-8",
        ),
        (b"\x1f\x8b...", "which is compressed with gzip; save"),
        (b"run\xff\x00", "which is not UTF-8 text"),
        (b"run\x81", "which is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_table_of_text_is_named_for_what_it_is(content, message, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_sheet(tmp_path / "t.csv", "runs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            TABLE.replace(",", ";").replace(".25", ",25"),
            "row 2, column loss.web: '2,25' has a comma, but '1500.5' in row 2",
        ),
        (TABLE.replace("2000", '"2,000,000"'), "row 3, column tokens.web: '2,000,000' has marks between thousands"),
        (TABLE.replace("2000", "2.000.000"), "'2.000.000' has marks between thousands; write the number without"),
        (TABLE.replace("2000", '"2,000.5"'), "'2,000.5' has marks between thousands"),
        ('run,tokens.web,loss.web\nr,"20,000",3\n', "'20,000' may be thousands or decimals; write decimals with a"),
    ],
)
def test_numbers_that_could_be_others_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        numbers_of(parse_sheet(text, "t.csv"))


def test_a_comma_between_digits_is_decimal_where_semicolons_part_cells():
    sheet = parse_sheet("run;tokens.web;loss.web\nr;2000;3,125\n", "t.csv")
    assert numbers_of(sheet) == {"tokens.web": [2000.0], "loss.web": [3.125]}


def test_rows_are_numbered_as_a_spreadsheet_shows_them():
    with pytest.raises(UserError, match=r"row 6, column loss\.web: 'x' is not a number"):
        numbers_of(parse_sheet(TABLE.replace("\n", "\n\n").replace("2.25", "2").replace("3\n", "3\nr3,1,x\n"), "t.csv"))


def test_a_quote_that_is_not_closed_takes_no_rows_with_it():
    with pytest.raises(UserError, match=r"'t\.csv' is no CSV: unexpected end of data"):
        parse_sheet(TABLE.replace("r1", '"r1'), "t.csv")


def test_another_separator_is_told(caplog):
    caplog.set_level(logging.INFO)
    parse_sheet(TABLE.replace(",", ";"), "t.csv")
    assert "'t.csv' has semicolons between its cells" in caplog.text
