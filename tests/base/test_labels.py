import pytest

from autoscale_exp.base.labels import budget_label, short_label


@pytest.mark.parametrize(
    ("tokens", "name", "told"),
    [
        (100_000_000, "0.1B", "100M"),
        (599_872, "0.599872M", "600K"),
        (1_200_000_000, "1.2B", "1.2B"),
        (400, "0.4K", "0.4K"),
    ],
)
def test_files_have_the_papers_labels_and_people_read_whole_units(tokens, name, told):
    assert (budget_label(tokens), short_label(tokens)) == (name, told)
