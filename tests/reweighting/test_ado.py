import logging
from pathlib import Path

import numpy as np
import pytest

from autoscale_exp.mixture.growing_sampler import GrowingSampler
from autoscale_exp.mixture.sampler import MixtureSampler
from autoscale_exp.reweighting.ado import Ado, Policy
from autoscale_exp.reweighting.conf import AdoConf
from autoscale_exp.reweighting.loss_law import LossLaw
from autoscale_exp.training.plan import is_finished, plan_run
from autoscale_exp.training.run import train
from tests.training.test_run import Interrupted, interrupted_after, trained, weights_of

CONF = AdoConf(
    name="ado",
    num_intervals=10,
    ignored_intervals=1,
    policy_rate=0.1,
    history_rate=0.2,
    credit_exponent=0.5,
    least_weight=0.01,
)
LEARNABLE, FLAT = LossLaw(4.0, 0.7, 0.5), LossLaw(-2.0, 1.7, 0.001)


def test_the_weights_of_a_step_follow_the_papers_equations():
    prior = np.array([0.5, 0.3, 0.2])
    policy = Policy(CONF, prior)
    weights, history, preferences, speeds = prior, prior, [prior] * 10, np.array([3.0, 1.0, 0.0])
    for step in (10, 11, 12):
        history = 0.8 * history + 0.2 * weights
        preference = prior * np.sqrt(history) * speeds
        preference = np.maximum(preference / preference.sum(), 0.01)
        preference /= preference.sum()
        weights = 0.1 * preference + 0.9 * np.mean(preferences, axis=0)
        assert policy.take_step(speeds, step) == pytest.approx(weights)
        preferences.append(preference)
    assert preferences[-1][2] == pytest.approx(0.01 / 1.01)


def test_where_no_loss_falls_the_prior_is_preferred():
    policy = Policy(CONF, np.array([0.7, 0.3]))
    assert policy.take_step(np.zeros(2), 5).tolist() == pytest.approx([0.7, 0.3])


def test_the_weights_of_an_interval_are_the_mean_of_its_steps():
    steps, one_by_one = range(20, 26), Policy(CONF, np.array([0.5, 0.5]))
    expected = []
    for step in steps:
        speeds = [law.exponent * np.exp(law.log_scale) * (8 * step) ** (-law.exponent - 1) for law in (LEARNABLE, FLAT)]
        expected.append(one_by_one.take_step(np.array(speeds), step))
    interval = Policy(CONF, np.array([0.5, 0.5]))
    assert interval.of_interval([LEARNABLE, FLAT], steps, 8) == pytest.approx(np.mean(expected, axis=0))
    assert interval.weights == pytest.approx(expected[-1])


def told(pools: list[int], *, num_steps: int = 200, step_rows: int = 8) -> Ado:
    """ADO told of the losses of a domain that is learnt and of one that is flat."""
    rows = num_steps * step_rows
    plan = MixtureSampler(["learnt", "flat"], pools, [rows // 2, rows // 2], seed=0, max_epochs=2)
    ado = Ado(
        CONF,
        GrowingSampler(plan),
        np.array([0.5, 0.5]),
        domains=plan.domains,
        step_rows=step_rows,
        num_steps=num_steps,
    )
    for step in range(1, num_steps + 1):
        learnt = 2 + 20 * (step * step_rows) ** -0.5
        ado.take_step(np.array([4 * learnt, 4 * 5.7]), np.array([4, 4]))
    return ado


def test_a_domain_whose_loss_falls_is_raised_and_every_row_is_told():
    ado = told([2000, 2000])
    weights = np.array(ado.stage_weights)
    assert len(weights) == CONF.num_intervals - CONF.ignored_intervals
    assert weights[0].tolist() == [0.5, 0.5]
    assert (np.diff(weights[:, 0]) > 0).all()
    assert weights[-1, 0] > 0.8
    stages = ado.sampler.sampler.stage_counts
    assert stages.sum(axis=1).tolist() == [320] + [160] * 8
    assert ado.sampler.known_rows == ado.sampler.num_rows == 1600
    assert np.abs(stages - ado.requested_rows()).max() < 1


def test_a_domain_that_is_used_up_gives_its_rows_to_the_others_and_is_named(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        ado = told([401, 2000])
    assert ado.sampler.sampler.row_counts.tolist() == [802, 798]
    asked, given = ado.requested_rows(), ado.sampler.sampler.stage_counts
    assert asked[-1, 0] > 120 > 0 == given[-1, 0]
    assert given.sum(axis=1).tolist() == pytest.approx(asked.sum(axis=1).tolist())
    assert "'learnt' cannot give what ADO asks for" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_raises_a_domain_whose_loss_still_falls_and_not_noise(seed, compose_contrast, contrast_store, tmp_path):
    options = ["reweighting=ado", "reweighting.num_intervals=20", "model.optimizer.lr=0.005", f"seed={seed}"]
    result = trained(plan_run(compose_contrast(*options, steps=400), contrast_store), tmp_path)
    shares = [stage["planned_tokens"]["counting"] / sum(stage["planned_tokens"].values()) for stage in result["stages"]]
    assert len(shares) == 19
    assert shares[0] == 0.5
    assert (np.diff(shares) >= 0).all()
    assert shares[-1] > 0.9
    assert result["mixture"] == "ado"


def test_the_record_has_the_stages_that_were_trained_on(compose_contrast, contrast_store, tmp_path):
    options = ["reweighting=ado", "reweighting.num_intervals=6", "mixture=custom", "mixture.weights=[.25,.75]"]
    plan = plan_run(compose_contrast(*options, steps=62), contrast_store)
    result = trained(plan, tmp_path)
    stages = result["stages"]
    assert [stage["start"] for stage in stages] == [128 * step for step in (0, 21, 31, 41, 52)]
    for domain in contrast_store.domains:
        assert sum(stage["planned_tokens"][domain] for stage in stages) == result["tokens"][domain]
        asked = sum(stage["requested_tokens"][domain] for stage in stages)
        assert result["requested_tokens"][domain] == pytest.approx(asked)
        assert result["epochs"][domain] == result["tokens"][domain] / result["pool_tokens"][domain]
    assert sum(result["tokens"].values()) == result["token_budget"] == 62 * 128
    assert sum(result["requested_weights"].values()) == pytest.approx(1)
    assert result["weights_curve"] is None


@pytest.mark.parametrize(
    ("overrides", "batches"),
    [
        ([], [17, 20]),  # inside an interval, and at the end of one
        (["micro_batch_rows=2", "model.dropout=0.2", "num_validations=3"], [85, 41]),
        (["design.match_repetition=1_000_000", "max_epochs=50"], [21]),
    ],
)
def test_an_interrupted_run_ends_exactly_as_an_uninterrupted_one(
    overrides, batches, compose_contrast, contrast_store, tmp_path: Path
):
    options = ["reweighting=ado", "reweighting.num_intervals=6", "save_model=true", "checkpoint_minutes=0"]
    plan = plan_run(compose_contrast(*options, *overrides, steps=60), contrast_store)
    expected = trained(plan, tmp_path / "whole")
    for num_batches in batches:
        with interrupted_after(num_batches), pytest.raises(Interrupted):
            train(plan, tmp_path / "parts")
    result = trained(plan, tmp_path / "parts")
    for key in ("losses", "tokens", "stages", "validation_curve"):
        assert result[key] == expected[key]
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")


def test_another_rate_is_another_run(compose_contrast, contrast_store, tmp_path):
    options = ["reweighting=ado", "reweighting.num_intervals=6"]
    plan = plan_run(compose_contrast(*options, steps=60), contrast_store)
    train(plan, tmp_path)
    assert is_finished(plan, tmp_path)
    other = plan_run(compose_contrast(*options, "reweighting.policy_rate=.2", steps=60), contrast_store)
    with pytest.raises(ValueError, match=r"reweighting.policy_rate: 0.1, not 0.2"):
        is_finished(other, tmp_path)
    with pytest.raises(ValueError, match=r"run: ado_7.68K_seed0, not uniform_7.68K_seed0; reweighting: .*, not None"):
        is_finished(plan_run(compose_contrast(steps=60), contrast_store), tmp_path)


def test_the_most_epochs_are_part_of_a_run_whose_domains_they_may_limit(compose_contrast, contrast_store):
    def fingerprint(max_epochs: int, steps: int) -> str:  # of a run of 8 rows a step, on 3,000 rows of each domain
        conf = compose_contrast("reweighting=ado", f"max_epochs={max_epochs}", steps=steps)
        return plan_run(conf, contrast_store).identity.fingerprint

    assert fingerprint(1, steps=500) != fingerprint(2, steps=500)
    assert fingerprint(2, steps=500) == fingerprint(3, steps=500)
    assert fingerprint(1, steps=375) == fingerprint(2, steps=375)


def test_masked_models_can_be_steered(masked_overrides, compose_train, masked_store, tmp_path):
    options = ["reweighting=ado", "reweighting.num_intervals=6", f"token_budget={16 * 8 * 40}", "max_epochs=20"]
    conf = compose_train(*masked_overrides, *options)
    result = trained(plan_run(conf, masked_store), tmp_path)
    assert sum(result["tokens"].values()) == 16 * 8 * 40
    assert len(result["stages"]) == 5
