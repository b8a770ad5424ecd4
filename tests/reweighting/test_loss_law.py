import numpy as np
import pytest
from scipy.optimize import check_grad, minimize

from autoscale_exp.reweighting.loss_law import STARTS, LossLaw, _cost, fit_loss_law, smoothed

ROWS = 8.0 * np.arange(100, 1000, 10)


def losses_of(law: LossLaw, rows: np.ndarray) -> np.ndarray:
    return np.exp(law.log_floor) + np.exp(law.log_scale) * rows**-law.exponent


@pytest.mark.parametrize("law", [LossLaw(4.0, 1.0, 0.5), LossLaw(2.0, 0.8, 0.25), LossLaw(5.5, 1.5, 0.7)])
def test_a_fit_recovers_the_law_that_made_the_losses(law):
    fitted = fit_loss_law(ROWS, losses_of(law, ROWS))
    assert losses_of(fitted, ROWS) == pytest.approx(losses_of(law, ROWS), rel=1e-3)
    assert fitted.speed(ROWS) == pytest.approx(law.speed(ROWS), rel=0.02)


def test_a_speed_is_the_losses_negative_derivative():
    law = LossLaw(3.0, 0.7, 0.4)
    numeric = (losses_of(law, ROWS - 1e-3) - losses_of(law, ROWS + 1e-3)) / 2e-3
    assert law.speed(ROWS) == pytest.approx(numeric, rel=1e-5)
    assert LossLaw(3.0, 0.7, -0.1).speed(ROWS).tolist() == [0.0] * len(ROWS)


def test_the_best_starts_of_the_grid_lead_where_all_of_them_lead():
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(len(ROWS)))
    losses = losses_of(LossLaw(3.0, 1.0, 0.3), ROWS) * noise
    cost = _cost(np.array(fit_loss_law(ROWS, losses)), np.log(ROWS), np.log(losses))[0]

    def of_all(law):
        value, gradient = _cost(law, np.log(ROWS), np.log(losses))
        return float(value), gradient

    assert len(STARTS) == 512
    least = min(minimize(of_all, start, jac=True, method="L-BFGS-B").fun for start in STARTS[::8])
    assert cost <= 1.01 * least


@pytest.mark.parametrize("law", [[2.0, 1.0, 0.3], [7.0, 0.2, 0.9], [1.0, 0.6, -0.1]])  # within and beyond the limits
def test_the_gradient_is_the_costs(law):
    log_losses = np.log(losses_of(LossLaw(3.0, 1.0, 0.3), ROWS))
    error = check_grad(
        lambda at: _cost(at, np.log(ROWS), log_losses)[0], lambda at: _cost(at, np.log(ROWS), log_losses)[1], law
    )
    assert error < 1e-4


def test_many_laws_at_once_cost_what_each_costs_alone():
    log_losses = np.log(losses_of(LossLaw(3.0, 1.0, 0.3), ROWS))
    together = _cost(STARTS[:5], np.log(ROWS), log_losses)
    alone = [_cost(start, np.log(ROWS), log_losses) for start in STARTS[:5]]
    assert together[0].tolist() == pytest.approx([float(cost) for cost, _ in alone])
    assert together[1] == pytest.approx(np.stack([gradient for _, gradient in alone]))


def test_smoothing_keeps_a_cubic_and_takes_noise_away():
    steps = np.linspace(0, 1, 400)
    cubic = np.stack([5 - 3 * steps + steps**2 - steps**3, 4 + 0 * steps], axis=1)
    assert smoothed(cubic) == pytest.approx(cubic, abs=1e-9)
    noise = np.random.default_rng(0).standard_normal(cubic.shape)
    assert np.std(smoothed(cubic + noise) - cubic) < 0.25
    assert smoothed(cubic[:5]) == pytest.approx(cubic[:5], abs=1e-9)  # as many steps as a cubic needs
