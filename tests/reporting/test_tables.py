from io import StringIO

from rich.console import Console

from autoscale_exp.reporting.tables import print_table, show_fit
from tests.reporting.test_page import FIT, fitted


def printed(width, columns, rows):
    console = Console(file=StringIO(), width=width)
    print_table(console, "title", columns, rows)
    return console.file.getvalue()


def test_a_table_too_wide_for_the_terminal_goes_on_below():
    columns = ["mixture", *(f"domain{k}" for k in range(12))]
    rows = [["fitted", *(f"0.{k:04d}" for k in range(12))], ["uniform", *(f"1.{k:04d}" for k in range(12))]]
    text = printed(60, columns, rows)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 60
    for cell in [*columns, *(cell for row in rows for cell in row)]:
        assert cell in text
    assert text.count("fitted") == text.count("uniform") == text.count("mixture") > 1


def test_a_table_that_fits_is_printed_once():
    text = printed(60, ["mixture", "a"], [["fitted", "1"]])
    assert text.count("mixture") == 1
    assert "continued" not in text


def test_a_fit_of_many_scales_is_shown_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    entries = [fitted(1000 * (k + 1)) for k in range(9)]
    show_fit(type(FIT)(FIT.law, FIT.objective, FIT.domains, entries, [], FIT.diagnostics))
    out = capsys.readouterr().out
    assert "…" not in out
    assert all(f"scale {k + 1}K" in out for k in range(9))
