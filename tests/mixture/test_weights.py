from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.config import MixtureConf
from autoscale_exp.mixture.allocation import allocate_rows
from autoscale_exp.mixture.weights import (
    read_mixture_file,
    resolve_weights,
    temperature_weights,
    unimax_weights,
    write_mixture_file,
)

DOMAINS = ["web", "books", "code"]
POOL_ROWS = [600, 300, 100]
NUM_ROWS = 500.0


def test_uniform_weights_are_equal():
    assert resolve_weights(MixtureConf(kind="uniform"), DOMAINS, POOL_ROWS, NUM_ROWS).tolist() == [1 / 3] * 3


def test_natural_weights_are_the_shares_of_the_pool():
    assert resolve_weights(MixtureConf(kind="natural"), DOMAINS, POOL_ROWS, NUM_ROWS).tolist() == [0.6, 0.3, 0.1]


def test_a_temperature_of_one_is_natural_and_two_takes_square_roots():
    mixture = MixtureConf(kind="temperature", temperature=1)
    np.testing.assert_allclose(resolve_weights(mixture, DOMAINS, POOL_ROWS, NUM_ROWS), [0.6, 0.3, 0.1])
    np.testing.assert_allclose(temperature_weights([16, 4, 1], 2), [4 / 7, 2 / 7, 1 / 7])
    np.testing.assert_allclose(temperature_weights([16, 4, 0], 2), [2 / 3, 1 / 3, 0])


def test_a_high_temperature_is_uniform_and_a_low_one_is_the_largest_domain():
    np.testing.assert_allclose(temperature_weights(POOL_ROWS, 1e9), [1 / 3] * 3, rtol=1e-8)
    np.testing.assert_allclose(temperature_weights(POOL_ROWS, 1e-3), [1, 0, 0], atol=1e-200)


def test_unimax_shares_equally_what_capped_domains_leave():
    """Of 500 rows code gets all of its 100, and the others half of the rest each."""
    mixture = MixtureConf(kind="unimax", max_epochs=1)
    assert resolve_weights(mixture, DOMAINS, POOL_ROWS, 500).tolist() == [0.4, 0.4, 0.2]
    assert unimax_weights(POOL_ROWS, 900, 1).tolist() == [5 / 9, 3 / 9, 1 / 9]


def test_unimax_within_its_caps_is_uniform_and_on_all_of_them_natural():
    np.testing.assert_allclose(unimax_weights(POOL_ROWS, 300, 1), [1 / 3] * 3)
    np.testing.assert_allclose(unimax_weights(POOL_ROWS, 1500, 1.5), [0.6, 0.3, 0.1])


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6), st.floats(0.1, 20), st.floats(1e-3, 1))
def test_unimax_is_below_its_caps_and_equal_off_them(pool_rows, max_epochs, part):
    num_rows = part * max_epochs * sum(pool_rows)
    assume(num_rows >= 1)
    weights = unimax_weights(pool_rows, num_rows, max_epochs)
    caps = max_epochs * np.array(pool_rows) / num_rows
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert np.all(weights <= caps * (1 + 1e-9))
    free = weights < caps * (1 - 1e-9)
    np.testing.assert_allclose(weights[free], weights.max(), rtol=1e-9)
    rows = allocate_rows(weights * num_rows * 16, 16)
    assert np.all(rows <= np.ceil(max_epochs * np.array(pool_rows) * (1 - 1e-12)))


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=6), st.floats(0.2, 50))
def test_temperature_keeps_the_order_of_the_domains(pool_rows, temperature):
    weights = temperature_weights(pool_rows, temperature)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert np.all(np.diff(weights[np.argsort(pool_rows, kind="stable")]) >= 0)


def test_weights_without_names_are_in_the_order_of_the_domains():
    mixture = MixtureConf(kind="weights", weights=[0.5, 0.2, 0.3])
    assert resolve_weights(mixture, DOMAINS, POOL_ROWS, NUM_ROWS).tolist() == [0.5, 0.2, 0.3]


def test_named_weights_are_put_in_the_order_of_the_domains():
    mixture = MixtureConf(kind="weights", domains=["code", "web", "books"], weights=[0.5, 0.2, 0.3])
    assert resolve_weights(mixture, DOMAINS, POOL_ROWS, NUM_ROWS).tolist() == [0.2, 0.3, 0.5]


@pytest.mark.parametrize("weights", ["{code: .5, web: .2, books: .3}", {"code": 0.5, "web": 0.2, "books": 0.3}])
def test_weights_by_name_are_put_in_the_order_of_the_domains(weights):
    mixture = MixtureConf(kind="weights", weights=weights)
    assert resolve_weights(mixture, DOMAINS, POOL_ROWS, NUM_ROWS).tolist() == [0.2, 0.3, 0.5]


def test_a_mixture_file_is_read_as_it_was_written(tmp_path: Path):
    weights = np.array([0.1 + 0.2, 1 / 3, 1 - (0.1 + 0.2) - 1 / 3])
    path = tmp_path / "3M.yaml"
    write_mixture_file(path, ["code", "web", "books"], weights, 3_000_000, "a test")
    assert read_mixture_file(path)[:2] == (["code", "web", "books"], weights.tolist())
    resolved = resolve_weights(MixtureConf(kind="file", path=str(path)), DOMAINS, POOL_ROWS, NUM_ROWS)
    np.testing.assert_allclose(resolved, weights[[1, 2, 0]], rtol=1e-15)


@pytest.mark.parametrize("name", ["no", "null", "1e3", "a: b", "日本"])
def test_any_domain_name_survives_a_mixture_file(name, tmp_path: Path):
    path = tmp_path / "mixture.yaml"
    write_mixture_file(path, ["web", name], np.array([0.5, 0.5]), 1000, "a test")
    assert read_mixture_file(path)[0] == ["web", name]


def test_a_mixture_file_may_be_written_by_hand(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("domains: [books, web, code]\nweights: [0.25, 0.5, 0.25]\n")
    weights = resolve_weights(MixtureConf(kind="file", path=str(path)), DOMAINS, POOL_ROWS, NUM_ROWS)
    assert weights.tolist() == [0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (
            MixtureConf(kind="random"),
            "mixture.kind is 'random'; allowed are uniform, natural, temperature, unimax, weights, file",
        ),
        (MixtureConf(kind="temperature"), "mixture.temperature is None; it must be a positive number"),
        (MixtureConf(kind="temperature", temperature=0.0), "mixture.temperature is 0.0; it must be a positive"),
        (MixtureConf(kind="unimax"), "mixture.max_epochs is None; for kind unimax it must be a positive number"),
        (
            MixtureConf(kind="unimax", max_epochs=0.3),
            "mixture.max_epochs is 0.3, but that many epochs of all text are only 0.6 of the run's tokens; set it to "
            "at least 0.5, or lower the token budget",
        ),
        (MixtureConf(kind="weights"), "mixture.weights is not set"),
        (MixtureConf(kind="weights", weights=[0.5, 0.5]), "mixture.weights has 2 entries but data.domains has 3"),
        (
            MixtureConf(kind="weights", weights="{web: .5, code: .5}"),
            "mixture.weights does not name 'books'; give each of web, books, code a number",
        ),
        (
            MixtureConf(kind="weights", weights={"wiki": 1.0}),
            "mixture.weights names 'wiki'; the domains are web, books",
        ),
        (MixtureConf(kind="weights", weights=[0.5, 0.6, -0.1]), "the weight of 'code' is -0.1"),
        (MixtureConf(kind="file"), "mixture.path"),
        (MixtureConf(kind="file", path="no/such.yaml"), "mixture.path is 'no/such.yaml', which does not exist"),
        (
            MixtureConf(kind="weights", domains=["web", "books", "wiki"], weights=[0.2, 0.3, 0.5]),
            "missing: code; unknown: wiki",
        ),
        (MixtureConf(kind="weights", domains=["web", "books"], weights=[0.5, 0.5]), "missing: code$"),
        (
            MixtureConf(kind="weights", domains=["web", "web", "books", "code"], weights=[0.2, 0.2, 0.3, 0.3]),
            "mixture.weights.*'web' twice",
        ),
    ],
)
def test_a_mixture_that_does_not_fit_is_an_error(mixture, message):
    with pytest.raises(UserError, match=message):
        resolve_weights(mixture, DOMAINS, POOL_ROWS, NUM_ROWS)


@pytest.mark.parametrize(
    "content", ["weights: [1.0]", "domains: [web]", "[1, 2]", "domains: 3\nweights: [1]", "a: [", ""]
)
def test_a_file_that_is_no_mixture_is_an_error(content, tmp_path: Path):
    path = tmp_path / "mixture.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"mixture.yaml', which is no mixture file; .* domains and weights"):
        read_mixture_file(path)


@pytest.mark.parametrize("spelt", ["no", "on", "2024.10", "1e3", "null", "'no'"])
def test_a_name_in_a_mixture_file_is_read_as_it_is_spelt(spelt, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"domains: [web, {spelt}]\nweights: [0.25, 0.75]\n")
    assert read_mixture_file(path).domains == ["web", spelt.strip("'")]


@pytest.mark.parametrize(
    ("domains", "weights", "message"),
    [
        ("web, code", "0.5, 0.3, 0.2", "weights in '.*' are 3, but its domains are 2: web, code; give one weight per"),
        ("web, code", "1.5, -0.5", "weights in '.*': the weight of 'code' is -0.5"),
        ("web, code", ".nan, 0.5", "weights in '.*': the weight of 'web' is nan"),
        ("web, code", "0.5, .inf", "weights in '.*': the weight of 'code' is inf"),
        ("web, code", "0, 0", "weights in '.*' sum to 0, not to 1"),
        ("web, code", "30, 70", "weights in '.*' sum to 100, not to 1; divide each weight by 100"),
        ("web, web, code", "0.2, 0.3, 0.5", "weights in '.*' name 'web' twice"),
        ("", "", "weights in '.*' sum to 0, not to 1"),
    ],
)
def test_a_mixture_file_whose_weights_are_no_shares_is_refused(domains, weights, message, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"domains: [{domains}]\nweights: [{weights}]\n")
    with pytest.raises(UserError, match=message):
        read_mixture_file(path)
