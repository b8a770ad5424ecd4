import pytest

from autoscale_exp.reporting.savings import savings_of
from autoscale_exp.reporting.terminal import show
from tests.reporting.test_page import FIT, SEARCHES, run, seeds, summarised


@pytest.fixture
def printed(monkeypatch, capsys):
    """What is printed of target runs, in lines of any length."""

    def of(*targets):
        monkeypatch.setenv("COLUMNS", "1000")
        budgets, summary = summarised(*targets)
        (mixtures,) = budgets.values()
        savings = savings_of(budgets, "uniform", SEARCHES)
        show(summary, FIT, mixtures, "uniform", savings, [], {})
        return capsys.readouterr().out

    return of


def test_the_terminal_begins_with_the_answer_and_has_a_row_for_each_mixture(printed):
    text = printed(*seeds("uniform", [4, 3, 2.5, 2.0], 0, 0.01), *seeds("fitted", [3, 2.2, 1.8, 1.6], 0, 0.02))
    assert text.startswith("Train on fitted (b 67 %, a 33 %): after 0.4K tokens its mean loss is 15.8 % lower")
    (row,) = (line for line in text.splitlines() if line.startswith("│ fitted") and "better" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == [
        "fitted",
        "2.1100 ± 0.0141",
        "−15.8 % (−17.0 to −14.5 %)",
        "better",
        "+37 %",
        "0.4K",
        "−63 %",
        "+27 %",
    ]


def test_many_mixtures_are_told_of_in_the_table_alone(printed):
    many = [target for k in range(4) for target in seeds(f"m{k}", [4, 3, 2.5, 1.9], 0.01 * k, 0)]
    text = printed(*seeds("uniform", [4, 3, 2.5, 2.0], 0, 0.01), *many)
    assert "m0 is better" not in text
    assert all(f"│ m{k} " in text for k in range(4))


def test_a_column_that_nothing_fills_is_left_out(printed):
    text = printed(run("uniform", [4, 3, 2.5, 2.0]), run("ours", [3, 2.2, 1.8, 1.6]))
    assert "by finished runs" not in text
    assert "tokens saved" not in text
