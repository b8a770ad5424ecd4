import numpy as np
import pytest

from autoscale_exp.laws.law import LAWS, fit_law
from autoscale_exp.laws.solver import ensemble
from autoscale_exp.laws.solver.ensemble import Ensemble
from tests.laws.synthetic import DOMAINS, ddo_table, true_losses

TABLE = ddo_table(noise=0.01, repeats=5)
TOKENS = np.random.default_rng(0).dirichlet(np.ones(3), (2, 4)) * 5e4


@pytest.mark.parametrize("numbers_at_once", [4_000_000, 100])
@pytest.mark.parametrize(
    "name", [name for name, entry in LAWS.items() if {"losses", "intervals"} <= {*entry.abilities}]
)
def test_draws_evaluated_at_once_are_those_evaluated_one_by_one(name, numbers_at_once, monkeypatch):
    monkeypatch.setattr(ensemble, "NUMBERS_AT_ONCE", numbers_at_once)
    draws = fit_law(name, TABLE).draws(5, np.random.default_rng(1))
    together = Ensemble(draws)
    assert together.whole is not None
    np.testing.assert_allclose(together.predict(TOKENS), [draw.predict(TOKENS) for draw in draws], rtol=1e-12)
    slopes = [draw.slopes(TOKENS[0, 0]) for draw in draws]
    np.testing.assert_allclose(together.slopes(TOKENS[0, 0]), slopes, rtol=1e-12)


def test_laws_that_cannot_be_joined_are_evaluated_one_by_one():
    class Truth:
        validation_domains = DOMAINS

        def predict(self, tokens):
            return true_losses(tokens)

        def slopes(self, tokens):
            return np.ones((3, 3))

    laws = [Truth(), Truth()]
    np.testing.assert_array_equal(Ensemble(laws).predict(TOKENS), [true_losses(TOKENS)] * 2)
    assert Ensemble(laws).slopes(TOKENS[0, 0]).shape == (2, 3, 3)
