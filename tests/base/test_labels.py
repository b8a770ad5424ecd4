import pytest

from autoscale_exp.base.labels import budget_label, budget_of_label, short_duration, short_label


@pytest.mark.parametrize(
    ("tokens", "name", "told"),
    [
        (100_000_000, "0.1B", "100M"),
        (599_872, "0.599872M", "600K"),
        (1_200_000_000, "1.2B", "1.2B"),
        (400, "0.4K", "0.4K"),
        (1_000_000_000_001, "1.000000000001T", "1T"),
    ],
)
def test_files_have_the_papers_labels_and_people_read_whole_units(tokens, name, told):
    assert (budget_label(tokens), short_label(tokens)) == (name, told)
    assert budget_of_label(name) == tokens


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(99, "99 s"), (150, "2.5 min"), (7200, "2 h"), (4.5e6, "1,250 h"), (float("nan"), "?")],
)
def test_a_duration_is_told_in_the_unit_that_suits_it(seconds, told):
    assert short_duration(seconds) == told
