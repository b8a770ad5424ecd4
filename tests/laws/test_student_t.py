import numpy as np

from autoscale_exp.laws.student_t import NOISE_SD, noise_scale, robust_weights

NOTHING = np.zeros(3)


def test_the_scale_times_its_factor_is_the_standard_deviation_of_gaussian_noise():
    residuals = np.random.default_rng(0).standard_normal((20_000, 3)) * [0.01, 0.02, 0.5]
    scale, _ = noise_scale(residuals, NOTHING, np.full(3, 0.05), floor=1e-4)
    # The factor is a round number; 1.2 would be exact.
    np.testing.assert_allclose(NOISE_SD * scale, [0.01, 0.02, 0.5], rtol=0.05)


def test_a_few_odd_runs_hardly_change_the_scale_and_weigh_little():
    residuals = np.random.default_rng(1).standard_normal((200, 3)) * 0.01
    odd = residuals.copy()
    odd[:4] = 2.0
    (scale, _), (with_odd, weights) = (noise_scale(r, NOTHING, np.full(3, 0.05), floor=1e-4) for r in (residuals, odd))
    assert (with_odd < 1.2 * scale).all()
    assert weights[:4].max() < 0.01 * weights[4:].mean()
    np.testing.assert_allclose(weights[:4], robust_weights(odd[:4], with_odd), rtol=0.05)


def test_residuals_of_nothing_have_the_noise_of_the_floor():
    scale, _ = noise_scale(np.zeros((10, 3)), NOTHING, np.full(3, 0.05), floor=0.002)
    np.testing.assert_array_equal(scale, 0.002)


def test_parameters_that_absorb_residuals_raise_the_scale():
    residuals = np.random.default_rng(2).standard_normal((50, 3)) * 0.01
    few, many = (noise_scale(residuals, np.full(3, used), np.full(3, 0.01), floor=1e-4)[0] for used in (0.0, 30.0))
    assert (many > 1.3 * few).all()
