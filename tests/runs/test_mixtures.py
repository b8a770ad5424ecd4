import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.mixture.weights import write_mixture_file
from autoscale_exp.runs.mixtures import read_mixtures


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "mixtures.csv").write_text(text)
        return str(tmp_path / "mixtures.csv")

    return write


def test_tokens_are_read_in_the_laws_order(table):
    names, tokens = read_mixtures(table("tokens.b,run,tokens.a\n2000,m,1000\n"), ["a", "b"], None)
    assert names == ["m"]
    np.testing.assert_array_equal(tokens, [[1000, 2000]])


def test_shares_are_read_at_the_budget_that_is_asked_for_or_else_at_their_own(table):
    text = "run,weights.b,weights.a,tokens\nm,0.6,0.4,2000\nn,0.333,0.666,3000\n"
    _, own = read_mixtures(table(text), ["a", "b"], None)
    np.testing.assert_allclose(own, [[800, 1200], [2000, 1000]])
    _, asked = read_mixtures(table(text), ["a", "b"], 6000)
    np.testing.assert_allclose(asked, [[2400, 3600], [4000, 2000]])


def test_mixture_files_are_read_one_by_one_as_a_list_or_as_a_folder(tmp_path):
    write_mixture_file(tmp_path / "1M.yaml", ["b", "a"], np.array([0.25, 0.75]), 1_000_000, "by hand")
    write_mixture_file(tmp_path / "2M.yaml", ["a", "b"], np.array([0.5, 0.5]), 2_000_000, "by hand")
    (tmp_path / "notes.txt").write_text("no mixture")
    one, two = str(tmp_path / "1M.yaml"), str(tmp_path / "2M.yaml")
    for source, names in ((one, ["1M"]), ([two, one], ["2M", "1M"]), (str(tmp_path), ["1M", "2M"])):
        found, tokens = read_mixtures(source, ["a", "b"], None)
        assert found == names
        expected = {"1M": [750_000, 250_000], "2M": [1_000_000, 1_000_000]}
        np.testing.assert_allclose(tokens, [expected[name] for name in names])
    np.testing.assert_allclose(read_mixtures(one, ["a", "b"], 4000)[1], [[3000, 1000]])


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [str(tmp_path / folder / "1M.yaml") for folder in ("fit", "autoscale")]
    for path in paths:
        write_mixture_file(type(tmp_path)(path), ["a", "b"], np.array([0.5, 0.5]), 1_000_000, "by hand")
    assert read_mixtures(paths, ["a", "b"], None)[0] == paths


@pytest.mark.parametrize(
    ("text", "budget", "message"),
    [
        (
            "run,tokens.a,tokens.b\nm,1000,2000\n",
            None,
            r"columns run and tokens.<domain>, or weights.<domain>, for a, c",
        ),
        ("run,tokens.a,tokens.c,tokens.c\nm,1000,2000,9\n", None, "has column 'tokens.c' more than once"),
        ("run,tokens.a,tokens.c\nm,1000,2000\nm,1,2000\n", None, "row 3, column run: 'm' is also in row 2"),
        ("run,tokens.a,tokens.c\nm,1000,nan\n", None, "row 2, column tokens.c: nan must be finite"),
        ("run,tokens.a,tokens.c\nm,0.3,0.7\n", None, "row 2: 1 tokens in all, .*name the columns weights.<domain>"),
        ("run,tokens.a,tokens.c\nm,0,0\n", None, "row 2: all tokens are 0"),
        ("run,tokens.a,tokens.c\nm,1000,1000\n", 5000, "tokens is 5000, but '.*' says tokens.<domain>; give shares"),
        ("run,weights.a,weights.c\nm,0.5,0.5\n", None, "has shares without a budget; give tokens=..., or a column"),
        ("run,weights.a,weights.c\nm,50,50\n", 5000, "row 2: the weights sum to 100, not to 1"),
        ("run,weights.a,weights.c\nm,1.5,-0.5\n", 5000, "row 2, column weights.c: -0.5 must be finite and at least 0"),
        ("run,weights.a,weights.c\nm,0.5,0.5\n", 5, "tokens is 5; it must be at least 1000"),
        ("run,tokens.a,tokens.c\n", None, "has no runs"),
    ],
)
def test_tables_that_hold_no_mixtures_of_the_law_are_refused(table, text, budget, message):
    with pytest.raises(UserError, match=message):
        read_mixtures(table(text), ["a", "c"], budget)


def test_mixture_files_that_are_not_of_the_law_or_have_no_budget_are_refused(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text("domains: [a, b]\nweights: [0.5, 0.5]\n")
    with pytest.raises(UserError, match=r"m.yaml' is a mixture of a, b, but the law is of a, c"):
        read_mixtures(str(path), ["a", "c"], 5000)
    with pytest.raises(UserError, match=r"m.yaml' has no token_budget; give tokens="):
        read_mixtures(str(path), ["a", "b"], None)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none', which has no mixture file"):
        read_mixtures(str(tmp_path / "none"), ["a", "b"], None)
