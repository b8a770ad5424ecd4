"""What a law gets wrong: a Gaussian process, against the textbook's formulas."""

import json

import numpy as np
import pytest

from autoscale_exp.laws.discrepancy import (
    LEAST_PART,
    NUM_FEATURES,
    SEEDS,
    Discrepancy,
    seed_variance,
)
from autoscale_exp.laws.mixture_kernel import kernel_between, num_rough

NUM_DOMAINS = 3


def process(num_runs=12, sd=0.05, noise=0.01, shared=0.0, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.dirichlet(np.ones(NUM_DOMAINS), num_runs) * 1e9
    losses = rng.normal(3.0, sd, (num_runs, 2))
    seeds = np.full((num_runs, 2), noise**2)
    sizes, slopes = np.full(num_runs, 1e8), np.array([0.1, 0.2])
    return Discrepancy(tokens, sizes, None, losses, np.array([sd, 2 * sd]), 0.0, seeds, shared, slopes)


def test_the_mean_is_that_of_regression_by_a_gaussian_process():
    discrepancy, tokens = process(), np.random.default_rng(1).dirichlet(np.ones(NUM_DOMAINS), 5) * 1e9
    points = discrepancy.coordinates(tokens, 1e8, None)
    corrected = discrepancy.mean(np.full((12, 2), 3.0))(tokens, 1e8, None)
    for v, sd in enumerate((0.05, 0.1)):
        covariance = sd**2 * sum(kernel_between(discrepancy.run_points, discrepancy.run_points)) + 1e-4 * np.eye(12)
        cross = sd**2 * sum(kernel_between(points, discrepancy.run_points))
        expected = cross @ np.linalg.solve(covariance, discrepancy.losses[:, v] - 3.0)
        np.testing.assert_allclose(corrected[:, v], expected, rtol=1e-8, atol=1e-12)


def test_draws_have_the_mean_and_spread_of_the_process():
    discrepancy, tokens = process(), np.random.default_rng(1).dirichlet(np.ones(NUM_DOMAINS), 5) * 1e9
    points, predicted = discrepancy.coordinates(tokens, 1e8, None), np.full((12, 2), 3.0)
    draws = np.stack([discrepancy.draw(predicted, np.random.default_rng(i))(tokens, 1e8, None) for i in range(600)])
    covariance = 0.05**2 * sum(kernel_between(discrepancy.run_points, discrepancy.run_points)) + 1e-4 * np.eye(12)
    cross = 0.05**2 * sum(kernel_between(points, discrepancy.run_points))
    left = 0.05**2 - np.einsum("xr,rx->x", cross, np.linalg.solve(covariance, cross.T))
    np.testing.assert_allclose(draws.mean(axis=0), discrepancy.mean(predicted)(tokens, 1e8, None), atol=0.02)
    # Features stand for the kernel with a relative error of about sqrt(1 / F).
    np.testing.assert_allclose(draws[:, :, 0].std(axis=0), np.sqrt(left), rtol=0.3)


def test_products_of_features_are_the_kernel_on_average():
    discrepancy = process(num_runs=30)
    kernel, features = discrepancy.seen_from(discrepancy.run_points.tobytes())
    assert np.abs(features @ features.T - kernel).mean() < 2 / np.sqrt(NUM_FEATURES)
    np.testing.assert_allclose(np.diag(kernel), 1.0)


def test_runs_pull_their_own_mixture_to_what_they_measured():
    discrepancy = process(noise=1e-4)
    corrected = 3.0 + discrepancy.mean(np.full((12, 2), 3.0))(discrepancy.domain_tokens, 1e8, None)
    np.testing.assert_allclose(corrected, discrepancy.losses, atol=1e-3)


@pytest.mark.parametrize("changed", ["tokens", "params"])
def test_away_from_the_scales_of_the_runs_levels_and_differences_are_less_sure(changed):
    discrepancy, spreads = process(), []
    mixtures = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])
    for factor in (1, 3, 9):
        tokens = mixtures * 1e9 * (factor if changed == "tokens" else 1)
        params = 1e8 * (factor if changed == "params" else 1)
        draws = np.stack(
            [
                discrepancy.draw(np.full((12, 2), 3.0), np.random.default_rng(i))(tokens, params, None)
                for i in range(300)
            ]
        )
        spreads.append([draws.mean(axis=(1, 2)).std(), (draws[:, 0] - draws[:, 1]).std()])
    assert (np.diff(spreads, axis=0) > 0).all()


def test_validation_domains_share_what_is_rough_as_they_share_noise_and_nothing_smooth():
    rough = slice(num_rough(NUM_FEATURES))

    def correlations(shared):
        paths = [process(shared=shared).draw(np.full((12, 2), 3.0), np.random.default_rng(i)) for i in range(40)]
        features = np.stack([path.features for path in paths], axis=1)  # (V, draws, F)
        parts = (features[:, :, rough], np.delete(features, rough, axis=2))
        return [np.corrcoef(part.reshape(2, -1))[0, 1] for part in parts]

    np.testing.assert_allclose(correlations(0.0), [0.0, 0.0], atol=0.05)
    np.testing.assert_allclose(correlations(0.9), [0.9, 0.0], atol=0.05)


def variance_over_seeds(tokens, losses, about_law, params=1e8, shared=0.0, pools=None):
    no_seeds, sizes = np.zeros_like(losses), np.broadcast_to(params, len(tokens))
    runs = Discrepancy(tokens, sizes, pools, losses, about_law, 0.0, no_seeds, shared, about_law).run_points
    return seed_variance(runs, losses, about_law, np.ones(len(tokens)), shared)


def usual_variance(tokens):
    return (SEEDS.sd * (tokens / SEEDS.tokens) ** -SEEDS.decay) ** 2


def test_runs_that_nothing_repeats_have_what_seeds_usually_do_at_their_budget():
    rng = np.random.default_rng(0)
    tokens, about_law = rng.dirichlet(np.ones(3), 10) * 1e9, np.array([0.04, 0.01])
    once = variance_over_seeds(tokens, rng.normal(3.0, 0.1, (10, 2)), about_law)
    np.testing.assert_allclose(once, usual_variance(1e9))
    assert usual_variance(1e6) > 4 * usual_variance(1e9)


def test_seeds_are_never_all_that_runs_scatter_by_about_the_law():
    rng = np.random.default_rng(0)
    tokens, about_law = rng.dirichlet(np.ones(3), 10) * 1e9, np.array([1e-6, 0.01])
    once = variance_over_seeds(tokens, rng.normal(3.0, 0.1, (10, 2)), about_law)
    np.testing.assert_allclose(once[:, 0], (1 - LEAST_PART) * 1e-6)


def test_repeats_of_one_mixture_tell_the_variance_over_seeds_of_all():
    rng = np.random.default_rng(0)
    tokens, about_law = np.tile([[1e8, 2e8, 3e8]], (40, 1)), np.array([0.04, 0.01])
    losses = rng.normal(3.0, [0.02, 0.06], (40, 2))
    squares = 39 * losses.var(axis=0, ddof=1)
    pooled = (SEEDS.repeats * usual_variance(6e8) + squares) / (SEEDS.repeats + 39)
    np.testing.assert_allclose(variance_over_seeds(tokens, losses, about_law), np.tile(pooled, (40, 1)))


def test_an_erratic_mixture_has_more_variance_over_seeds_and_so_have_those_near_it():
    rng = np.random.default_rng(1)
    calm, erratic, between = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.25, 0.65]]) * 1e9
    tokens = np.array([calm] * 6 + [erratic] * 6 + [between])
    noise = np.repeat([0.004, 0.02, 0.0], [6, 6, 1])
    losses = 3.0 + noise[:, None] * rng.standard_normal((13, 4))
    seeds = variance_over_seeds(tokens, losses, np.full(4, 1e-3))
    assert seeds[6, 0] > 5 * seeds[0, 0]
    assert seeds[0, 0] < seeds[12, 0] < seeds[6, 0]


def test_where_noise_is_does_not_change_how_much_there_is():
    rng = np.random.default_rng(2)
    mixtures = rng.dirichlet(np.ones(3), 8) * 1e9
    tokens, noise = np.repeat(mixtures, 3, axis=0), np.repeat(0.001 * 25 ** rng.uniform(0, 1, 8), 3)
    losses = 3.0 + noise[:, None] * rng.standard_normal((24, 4))
    about_law = np.full(4, 1e-4)
    squares = ((losses.reshape(8, 3, 4) - losses.reshape(8, 3, 4).mean(axis=1, keepdims=True)) ** 2).sum(axis=(0, 1))
    pooled = (SEEDS.repeats * usual_variance(1e9) + squares) / (SEEDS.repeats + 16)
    np.testing.assert_allclose(variance_over_seeds(tokens, losses, about_law).mean(axis=0), pooled)


@pytest.mark.parametrize("changed", ["size", "text"])
def test_runs_of_another_size_or_text_are_no_repeats(changed):
    tokens = np.tile([[1e8, 2e8, 3e8]], (2, 1))
    losses, about_law = np.array([[3.0], [2.0]]), np.array([0.01])
    pools = np.array([[1e8, 2e8, 3e8], [1e7, 2e7, 3e7]]) if changed == "text" else None
    params = [1e8, 2e8] if changed == "size" else 1e8
    seeds = variance_over_seeds(tokens, losses, about_law, params, pools=pools)
    assert seeds.max() < 1e-4  # as repeats, 1 nat apart, they would tell of a variance of .1


def test_content_makes_the_same_process_again():
    discrepancy = process(shared=0.3)
    again = Discrepancy.from_content(json.loads(json.dumps(discrepancy.content())))
    tokens, predicted = np.array([[3e9, 3e8, 4e8]]), np.full((12, 2), 3.0)
    one, other = (each.draw(predicted, np.random.default_rng(5))(tokens, 1e8, None) for each in (discrepancy, again))
    np.testing.assert_array_equal(one, other)
