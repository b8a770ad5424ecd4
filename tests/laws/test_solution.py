import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.laws.fit_file import read_fit, write_fit
from autoscale_exp.laws.fit_folder import write_mixtures, write_next_runs
from autoscale_exp.laws.law_file import read_law, write_law
from autoscale_exp.laws.request import make_request
from autoscale_exp.laws.solution import solve
from autoscale_exp.mixture.weights import read_mixture_file
from autoscale_exp.runs.proposal import read_proposals
from autoscale_exp.runs.table import select_runs
from tests.laws.synthetic import DOMAINS, ddo_table, true_losses


def request_for(table, *overrides):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        conf = to_typed(compose("fit", overrides=["runs=x", "num_draws=40", *overrides]))
    return make_request(conf, table)


def best_of_grid(budget, mean=lambda losses: losses.mean(axis=1)):
    steps = np.linspace(0, 1, 101)
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-9])
    return grid[mean(true_losses(grid * budget)).argmin()]


@pytest.fixture(scope="module")
def clean():
    table = ddo_table(noise=0.002, repeats=2)
    return solve("pooled_transfer", table, request_for(table, "objective=mean_loss", "target_tokens=[300_000]"))


def test_the_runs_proposed_for_a_target_are_a_table_that_an_optimal_design_trains(clean, tmp_path):
    fit = clean[0]
    write_next_runs(tmp_path, fit)
    (target,) = fit.targets
    proposals = read_proposals(tmp_path / "next_runs" / "0.3M.csv", DOMAINS)
    assert len(proposals) == len(target.next_runs) == 3
    for proposal, run in zip(proposals, target.next_runs, strict=True):
        assert (proposal.run, proposal.seed, proposal.token_budget) == (run.run, run.seed, run.token_budget)
        assert list(proposal.tokens) == list(run.domain_tokens.values())
    assert 0 <= target.risk.after <= target.risk.now <= 0.5
    write_fit(tmp_path, fit)
    write_next_runs(tmp_path, replace(fit, targets=[replace(target, next_runs=None)]))
    assert not list((tmp_path / "next_runs").iterdir())


def test_so_many_runs_are_proposed_as_are_asked_for_at_the_token_budgets_asked_for():
    table = ddo_table(noise=0.002, repeats=2)
    asked = ["objective=mean_loss", "target_tokens=[300_000]", "num_next_runs=5", "next_scales=[60_000]"]
    fit, _ = solve("transfer", table, request_for(table, *asked))
    assert [run.token_budget for run in fit.targets[0].next_runs] == [60_000] * 5


def test_no_run_is_proposed_where_each_repeats_its_text_too_often():
    table = replace(ddo_table(noise=0.002), unique_tokens=[30_000] * 3)
    fit, _ = solve("transfer", table, request_for(table, "objective=mean_loss", "next_scales=[900_000]"))
    assert [scale.next_runs for scale in fit.scales] == [[], []]


def test_a_natural_prior_is_the_shares_of_the_domains_text():
    table = replace(ddo_table(), unique_tokens=[600, 300, 100])
    np.testing.assert_allclose(request_for(table, "objective.prior=natural").prior, [0.6, 0.3, 0.1])
    given = ["bounds.unique_tokens=[1,1,2]", "bounds.max_epochs=4"]
    np.testing.assert_allclose(request_for(table, "objective.prior=natural", *given).prior, [0.25, 0.25, 0.5])
    with pytest.raises(UserError, match=r"objective.prior is natural, but 'x' is no sweep's folder"):
        request_for(ddo_table(), "objective.prior=natural")


def test_every_entry_has_the_contracts_keys_and_weights_that_sum_to_one(clean):
    content = asdict(clean[0])
    assert {"law", "objective", "domains", "scales", "targets", "diagnostics"} <= set(content)
    assert content["objective"]["aggregate"] == "mean"
    for entry in content["scales"] + content["targets"]:
        assert {"tokens", "weights", "domain_tokens", "objective_value", "active_bounds", "interval", "method"} <= set(
            entry
        )
        assert sum(entry["weights"].values()) == pytest.approx(1, abs=1e-9)
        assert sum(entry["domain_tokens"].values()) == pytest.approx(entry["tokens"])


def test_the_offer_is_near_the_true_optimum_and_far_from_uniform(clean):
    offered = np.array(list(clean[0].targets[0].weights.values()))
    best = best_of_grid(300_000)
    loss = lambda weights: true_losses(weights * 300_000).mean()  # noqa: E731
    uniform = loss(np.full(3, 1 / 3))
    assert uniform - loss(offered) > 0.7 * (uniform - loss(best))


def test_a_clear_gain_is_called_better_and_noise_is_not(clean):
    assert clean[0].targets[0].gains["uniform"].probability >= 0.9
    noisy = ddo_table(noise=0.3, seed=3, repeats=2)
    content, _ = solve("pooled_transfer", noisy, request_for(noisy, "objective=mean_loss", "target_tokens=[300_000]"))
    target = content.targets[0]
    assert target.verdict.startswith("cannot be told apart from uniform")
    assert min(target.weights.values()) > 0.1


def test_the_law_written_predicts_as_the_law_fitted(clean, tmp_path):
    content, law = clean
    write_law(tmp_path, law.content())
    write_mixtures(tmp_path, content)
    write_fit(tmp_path, content)
    assert json.dumps(asdict(read_fit(tmp_path, "fit"))) == json.dumps(asdict(content))
    again = read_law(tmp_path / "law.json")
    target = content.targets[0]
    predicted = again.predict(np.array(list(target.domain_tokens.values())))
    np.testing.assert_allclose(predicted, list(target.losses.values()), rtol=1e-9)
    file = read_mixture_file(tmp_path / "mixtures" / "0.3M.yaml")
    assert dict(zip(file.domains, file.weights, strict=True)) == target.weights
    assert file.token_budget == 300_000
    mine = tmp_path / "mixtures" / "mine.yaml"
    mine.write_text("not of a fit")
    write_mixtures(tmp_path, replace(content, targets=[]))
    assert list((tmp_path / "mixtures").iterdir()) == [mine]


def test_constraints_of_the_config_hold():
    table = ddo_table(noise=0.002, repeats=2)
    options = [
        "objective=mean_loss",
        "uncertainty=none",
        "target_tokens=[300_000]",
        "bounds.lower=0.05",
        "bounds.max_epochs=2",
        "bounds.unique_tokens=[1_000_000,40_000,1_000_000]",
        "+bounds.groups.rest={domains:[a,b],upper:0.55}",
    ]
    content, _ = solve("pooled_transfer", table, request_for(table, *options))
    weights = content.targets[0].weights
    assert weights["b"] <= 2 * 40_000 / 300_000 + 1e-9
    assert weights["a"] + weights["b"] <= 0.55 + 1e-9
    assert content.targets[0].interval is None


def test_weights_of_the_objective_are_given_by_validation_domain():
    objective = request_for(ddo_table(), "objective.weights={a:0.75,c:0.25}").objective
    np.testing.assert_array_equal(objective.weights, [0.75, 0, 0.25])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["bounds.max_epochs=2"], "bounds.unique_tokens is not set"),
        (["bounds.unique_tokens=[1,1]"], "bounds.unique_tokens must be 3 numbers of at least 0"),
        (["bounds.unique_tokens=[1,1,-1]"], "bounds.unique_tokens must be 3 numbers of at least 0"),
        (["+bounds.groups.g={domains:[z],upper:0.5}"], "bounds.groups.g names 'z'"),
        (["+bounds.groups.g={domains:[a]}"], "give it as {domains"),
        (["objective.aggregate=median"], "objective.aggregate is 'median'"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        request_for(ddo_table(), *options)


def test_targets_are_of_the_size_asked_for():
    params = np.repeat([1e6, 4e6], 7)
    table = replace(ddo_table(noise=0.002, scales=(100_000, 100_001)), params=params)
    table = replace(table, losses=table.losses + 0.3 * (params[:, None] / 1e6) ** -0.3)
    asked = ("objective=mean_loss", "target_tokens=[300_000]", "num_draws=10")
    fit, _ = solve("pooled_transfer", table, request_for(table, *asked, "target_params=16_000_000"))
    assert [entry.params for entry in fit.scales + fit.targets] == [1_000_000, 4_000_000, 16_000_000]
    assert [entry.runs for entry in fit.scales] == [7, 7]
    assert fit.targets[0].objective_value < fit.scales[1].objective_value < fit.scales[0].objective_value
    assert "beyond all runs in both" in fit.diagnostics.notes[-1]
    largest, _ = solve("pooled_transfer", table, request_for(table, *asked))
    assert largest.targets[0].params == 4_000_000
    one = replace(ddo_table(), params=np.full(14, 1e6))
    far, _ = solve("pooled_transfer", one, request_for(one, *asked, "target_params=16_000_000"))
    assert (
        "All runs are of models with 1M parameters, so the effect of 16M comes from the priors."
        in far.diagnostics.notes
    )


def test_objective_and_losses_hold_what_the_law_is_off_by(clean):
    fit, law = clean
    target = fit.targets[0]
    weights = np.array(list(target.weights.values()))
    draws = law.draws(40, np.random.default_rng(0))
    values = [draw.predict(weights * 300_000).mean() for draw in draws]
    assert target.objective_value == pytest.approx(np.median(values), abs=1e-9)
    assert target.objective_value != pytest.approx(
        np.median([draw.by_formula().predict(weights * 300_000).mean() for draw in draws]), abs=1e-7
    )


def test_autoscale_takes_no_model_size():
    table = replace(ddo_table(), params=np.full(14, 1e6))
    with pytest.raises(UserError, match=r"target_params is 9, but law\.name=autoscale takes no model sizes"):
        solve("autoscale", table, request_for(table, "target_params=9"))


def test_autoscale_refuses_what_it_cannot_meet():
    table = ddo_table(repeats=1)
    with pytest.raises(UserError, match=r"law=autoscale knows no objective.kl_weight.*law=default"):
        solve("autoscale", table, request_for(table, "objective.kl_weight=0.1"))


def test_autoscale_has_intervals_only_where_runs_repeat():
    for repeats in (0, 2):
        table = ddo_table(noise=0.003, repeats=repeats)
        content, _ = solve("autoscale", table, request_for(table, "objective=mean_loss", "bounds.lower=0.02"))
        interval = content.scales[0].interval
        if repeats:
            weights = content.scales[0].weights
            assert all(interval[d][0] <= weights[d] <= interval[d][1] for d in DOMAINS)
        else:
            assert interval is None
            assert any("the noise is unknown" in note for note in content.diagnostics.notes)


def test_the_order_of_rows_does_not_matter():
    table = ddo_table(noise=0.002, repeats=1)
    shuffled = select_runs(table, np.random.default_rng(0).permutation(len(table.runs)))
    asked = ("objective=mean_loss", "uncertainty=none", "target_tokens=[300_000]")
    first, second = (solve("pooled_transfer", t, request_for(t, *asked))[0] for t in (table, shuffled))
    for one, two in zip(first.targets, second.targets, strict=True):
        np.testing.assert_allclose(list(one.weights.values()), list(two.weights.values()), atol=1e-4)
