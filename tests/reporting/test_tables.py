from dataclasses import replace
from io import StringIO

from rich.console import Console

from autoscale_exp.laws.fit_file import Backtest
from autoscale_exp.reporting.tables import backtest_text, print_table, show_fit
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


def test_names_in_brackets_are_printed_as_they_are(capsys):
    names = {"a": "web[en]", "b": "code:bug:"}
    entry = fitted(1000)
    entry = replace(entry, weights={names[d]: weight for d, weight in entry.weights.items()}, interval=None)
    entry = replace(entry, active_bounds=["web[en] at most 0.3"])
    diagnostics = replace(FIT.diagnostics, notes=["fit with bounds.upper={web[en]: 0.5}"], backtest=None)
    show_fit(replace(FIT, domains=list(names.values()), scales=[entry], targets=[], diagnostics=diagnostics))
    out = capsys.readouterr().out
    assert out.count("web[en]") == 3
    assert "code:bug:" in out


def test_a_back_test_has_its_unit_and_its_share():
    tested = Backtest("largest budget", 40, 5, level_error=-0.5, difference_error=0.05, difference_spread=0.1)
    scales = [replace(fitted(40), objective_value=2.5)]
    text = backtest_text(replace(FIT, scales=scales), tested)
    assert "their mean off by −0.5000 nats per token (−20.0 %) and" in text
    assert text.endswith("within 0.0500 nats per token (2.0 %), where they spread by 0.1000 nats per token (4.0 %)")
