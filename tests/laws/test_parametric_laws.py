import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.law import LAWS, fit_law, law_class, own_domains
from autoscale_exp.laws.parametric.linear import LinearLaw
from autoscale_exp.runs.table import RunTable

DOMAINS = ["web", "books", "code", "maths"]
UNIT = 1e6
NOT_PARAMETRIC = ("autoscale", "pooled_transfer", "lightgbm")  # with tests of their own, here or beside their modules
PARAMETRIC = [name for name in LAWS if name not in NOT_PARAMETRIC]

# Laws whose form asks for another limit. A law is added to a list where its form is the reason.
OF_OWN_DOMAIN = ("bimix",)  # a loss depends on the own domain's share alone, so each domain must be trained on
WITHOUT_SCALE = ("mixing_law", "linear")  # where all runs have one budget they have no term of it
# Curvature moves the mean of normal draws off the law: by most of a spread where powers are of sums, and in nats where
# two powers of one law trade off.
CURVED = ("transfer", "joint")
TWO_POWERS = ("joint",)


def true_law(name, *, scaled=True, seed=0):
    """A law with parameters a little off their prior means; its last validation domain is never trained on."""
    cls, rng = law_class(name), np.random.default_rng(seed)
    validation_domains = [*DOMAINS, "law"] if name not in OF_OWN_DOMAIN else DOMAINS
    own = np.array([*range(4), -1][: len(validation_domains)])
    none = np.empty((len(own), 0))
    law = cls(DOMAINS, validation_domains, own, UNIT, scaled, None, None, None, none, none, none, none, none, {})
    prior, _ = law.prior(rng.uniform(3, 5, (len(own), 50)))
    spread = np.minimum(0.6 * prior.spread, 1.0)
    parameters = prior.mean + spread * rng.uniform(-1, 1, prior.mean.shape)
    parameters = np.clip(parameters, prior.lower + 0.05, prior.upper - 0.05)
    return replace(law, parameters=parameters, lower=prior.lower, upper=prior.upper)


def make_table(law, *, num_runs=90, budgets=(0.25, 0.5, 1.0, 2.0), noise=0.0, seed=1):
    rng = np.random.default_rng(seed)
    tokens = rng.dirichlet(np.ones(4), num_runs) * rng.choice(budgets, (num_runs, 1)) * UNIT
    losses = law.predict(tokens) + noise * rng.standard_normal((num_runs, len(law.validation_domains)))
    return table_of(tokens, losses, law.validation_domains)


def table_of(tokens, losses, validation_domains, domains=DOMAINS):
    runs = [f"run{i}" for i in range(len(tokens))]
    return RunTable(runs, list(domains), list(validation_domains), tokens, losses)


def unseen_tokens(num=200):
    rng = np.random.default_rng(5)
    return rng.dirichlet(np.full(4, 2.0), num) * rng.uniform(0.3, 4.0, (num, 1)) * UNIT


@pytest.mark.parametrize("name", PARAMETRIC)
def test_unseen_mixtures_and_budgets_are_predicted_from_runs_without_noise(name):
    truth = true_law(name)
    law = fit_law(name, make_table(truth))
    assert law.diagnostics["converged"]
    # The noise floor of the fit is 1e-4 nats; weak priors and twice the largest budget make more of it.
    np.testing.assert_allclose(law.predict(unseen_tokens()), truth.predict(unseen_tokens()), atol=5e-3)


@pytest.mark.parametrize("name", PARAMETRIC)
def test_slopes_are_those_of_the_predictions(name):
    law = true_law(name)
    tokens = np.array([3e5, 5e4, 1e6, 2e5])
    steps = 1e-4 * np.diag(tokens)
    numeric = (law.predict(tokens + steps) - law.predict(tokens - steps)).T / (2e-4 * tokens)
    np.testing.assert_allclose(law.slopes(tokens), numeric, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("name", PARAMETRIC)
def test_derivatives_by_parameters_are_those_of_the_losses(name, scaled):
    law = true_law(name, scaled=scaled)
    tokens = make_table(law, num_runs=6).domain_tokens / UNIT
    tokens[0, 1] = 0
    derivatives = law._curve(law.parameters, tokens).derivatives
    for index in range(law.parameters.shape[1]):
        step = 1e-5 * (np.arange(law.parameters.shape[1]) == index)
        more, fewer = (law._curve(law.parameters + sign * step, tokens).losses for sign in (1, -1))
        np.testing.assert_allclose(derivatives[:, :, index], (more - fewer).T / 2e-5, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", PARAMETRIC)
def test_the_order_of_runs_and_domains_does_not_matter(name):
    table = make_table(true_law(name), num_runs=60, noise=0.02)
    law = fit_law(name, table)
    rows, columns = np.random.default_rng(2).permutation(60), [2, 0, 3, 1]
    order = np.random.default_rng(3).permutation(len(table.validation_domains))
    shuffled = table_of(
        table.domain_tokens[rows][:, columns],
        table.losses[rows][:, order],
        [table.validation_domains[v] for v in order],
        [DOMAINS[k] for k in columns],
    )
    other = fit_law(name, shuffled)
    # Both stop when a step gains less than a millionth in chi square.
    np.testing.assert_allclose(
        other.predict(unseen_tokens()[:, columns]), law.predict(unseen_tokens())[:, order], atol=2e-3
    )


@pytest.mark.parametrize("name", PARAMETRIC)
def test_more_tokens_in_other_units_are_the_same_law(name):
    table = make_table(true_law(name), num_runs=60, noise=0.02)
    law, scaled_up = fit_law(name, table), fit_law(name, replace(table, domain_tokens=table.domain_tokens * 1024))
    np.testing.assert_allclose(scaled_up.predict(unseen_tokens() * 1024), law.predict(unseen_tokens()), atol=1e-6)


@pytest.mark.parametrize("name", PARAMETRIC)
def test_content_makes_the_same_law_again(name):
    law = fit_law(name, make_table(true_law(name), num_runs=40, noise=0.02))
    content = json.loads(json.dumps(law.content()))
    again = law_class(name).from_content(content)
    assert content["law"] == again.name == name
    assert again.diagnostics == law.diagnostics
    assert again.content() == law.content()
    np.testing.assert_array_equal(again.predict(unseen_tokens()), law.predict(unseen_tokens()))
    first, second = (x.draws(1, np.random.default_rng(0))[0] for x in (law, again))
    np.testing.assert_array_equal(first.predict(unseen_tokens()), second.predict(unseen_tokens()))


@pytest.mark.parametrize("name", PARAMETRIC)
def test_draws_centre_on_the_law_and_cover_the_truth(name):
    truth = true_law(name)
    law = fit_law(name, make_table(truth, noise=0.01))
    tokens = make_table(truth, num_runs=100, seed=9).domain_tokens
    draws = np.array([draw.predict(tokens) for draw in law.draws(200, np.random.default_rng(4))])
    off, spread = np.abs(draws.mean(axis=0) - law.predict(tokens)), draws.std(axis=0)
    assert np.median(off / spread) < (0.8 if name in CURVED else 0.4)
    assert off.mean() < (0.06 if name in TWO_POWERS else 0.01)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    covered = np.mean((low <= truth.predict(tokens)) & (truth.predict(tokens) <= high))
    assert covered > 0.75  # of 90 %: the losses of one fit err together
    np.testing.assert_allclose(np.median(law.run_noise), 0.01, rtol=0.25)


@pytest.mark.parametrize("name", PARAMETRIC)
def test_losses_are_finite_where_domains_have_no_tokens(name):
    law = fit_law(name, make_table(true_law(name), num_runs=40))
    assert np.isfinite(law.predict(np.eye(4) * UNIT)).all()
    assert np.isfinite(law.predict(np.zeros(4))).all()
    assert law.predict(np.ones((2, 3, 4))).shape == (2, 3, len(law.validation_domains))
    assert law.predict(np.ones((0, 4))).shape == (0, len(law.validation_domains))


@pytest.mark.parametrize("name", ["transfer", "ces_transfer", "generic_specific"])
def test_losses_are_convex_in_tokens(name):
    law = true_law(name)
    one, two = unseen_tokens(), unseen_tokens()[::-1]
    assert (law.predict(one) + law.predict(two) - 2 * law.predict((one + two) / 2) > -1e-12).all()


def test_a_domain_never_trained_on_has_no_specific_term():
    law = fit_law("generic_specific", make_table(true_law("generic_specific"), num_runs=60))
    # With generic weights that are alike, only own tokens would set a domain apart.
    more = law.predict(np.diag([1e6] * 4) + 1e5)
    assert more[:4, :4].argmin(axis=0).tolist() == [0, 1, 2, 3]
    changed = replace(law, parameters=law.parameters + 0.3 * np.array([*[0.0] * 8, 1.0, 0.0]))
    moved = np.abs(changed.predict(np.full(4, 1e5)) - law.predict(np.full(4, 1e5)))
    assert moved[4] == 0
    assert (moved[:4] > 0).all()


def test_the_best_mixture_moves_with_the_budget_in_the_joint_law_but_not_in_the_additive():
    weights = np.random.default_rng(0).dirichlet(np.ones(4), 3000)
    best = {
        name: [int(true_law(name).predict(weights * budget).mean(axis=1).argmin()) for budget in (1e4, 1e9)]
        for name in ("additive", "joint")
    }
    assert best["additive"][0] == best["additive"][1]
    assert best["joint"][0] != best["joint"][1]


@pytest.mark.parametrize("name", PARAMETRIC)
def test_a_table_of_one_budget_says_what_other_budgets_rest_on(name):
    law = fit_law(name, make_table(true_law(name), num_runs=40, budgets=(1.0,), noise=0.01))
    assert any("same total tokens" in note for note in law.diagnostics["notes"])
    unscaled = name in WITHOUT_SCALE
    tokens = unseen_tokens()
    assert np.allclose(law.predict(tokens), law.predict(10 * tokens)) == unscaled
    assert any("get the same losses" in note for note in law.diagnostics["notes"]) == unscaled


def test_a_domain_that_no_run_used_is_noted():
    table = make_table(true_law("transfer"))
    table.domain_tokens[:, 2] = 0
    notes = fit_law("transfer", table).diagnostics["notes"]
    assert "no run was trained on 'code': what it does is the priors' guess" in notes


def test_a_parameter_on_its_limit_is_noted_with_its_validation_domain():
    table = make_table(true_law("ces_transfer"), noise=0.001)
    # Domains that are worth more together than apart: rho would have to exceed 1.
    table.losses[:, 1] = 2 + ((table.domain_tokens / UNIT) ** 3).sum(axis=1) ** -0.2
    notes = fit_law("ces_transfer", table).diagnostics["notes"]
    assert "books: on a limit of what the fit allows: substitution" in notes


def test_a_fit_that_does_not_converge_is_flagged(monkeypatch):
    monkeypatch.setattr("autoscale_exp.laws.parametric.robust_fit.STEPS", 1)
    monkeypatch.setattr("autoscale_exp.laws.parametric.robust_fit.ROUNDS", 1)
    law = fit_law("joint", make_table(true_law("joint")))
    assert not law.diagnostics["converged"]
    assert "web: its fit did not converge" in law.diagnostics["notes"]


def test_odd_runs_do_not_bend_a_fit():
    truth = true_law("ces_transfer")
    table = make_table(truth, noise=0.01)
    table.losses[::15] += 1.0
    law = fit_law("ces_transfer", table)
    seen = make_table(truth, seed=9).domain_tokens
    assert np.abs(law.predict(seen) - truth.predict(seen)).mean() < 0.02


@pytest.mark.parametrize("name", PARAMETRIC)
def test_too_few_runs_are_refused_with_the_number_needed(name):
    truth = true_law(name)
    needed = fit_law(name, make_table(truth)).num_free()
    fit_law(name, make_table(truth, num_runs=needed))
    with pytest.raises(UserError, match=f"needs at least {needed} runs for 4 domains, but there are {needed - 1}"):
        fit_law(name, make_table(truth, num_runs=needed - 1))


def test_bimix_refuses_a_validation_domain_that_is_not_trained_on():
    with pytest.raises(UserError, match="'law' is no training domain"):
        fit_law("bimix", make_table(true_law("transfer")))


def test_own_domains_are_found_by_name():
    assert own_domains(["web", "code"], ["code", "law", "web"]).tolist() == [1, -1, 0]


def test_trees_follow_the_runs_and_come_back_from_their_content():
    pytest.importorskip("lightgbm")
    truth = true_law("ces_transfer")
    law = fit_law("lightgbm", make_table(truth, num_runs=300))
    tokens = make_table(truth, num_runs=100, seed=9).domain_tokens
    correlation = [np.corrcoef(p, t)[0, 1] for p, t in zip(law.predict(tokens).T, truth.predict(tokens).T, strict=True)]
    assert min(correlation) > 0.8
    again = law_class("lightgbm").from_content(json.loads(json.dumps(law.content())))
    np.testing.assert_array_equal(again.predict(tokens), law.predict(tokens))
    assert again.content() == law.content()
    assert law.predict(np.zeros((2, 1, 4))).shape == (2, 1, 5)
    assert law.draws(3, np.random.default_rng(0)) == []
    with pytest.raises(NotImplementedError, match="sought by sampling"):
        law.slopes(tokens[0])


def test_trees_of_one_budget_have_no_scale():
    pytest.importorskip("lightgbm")
    law = fit_law("lightgbm", make_table(true_law("linear"), num_runs=60, budgets=(1.0,)))
    np.testing.assert_array_equal(law.predict(unseen_tokens()), law.predict(unseen_tokens() * 8))
    assert any("get the same losses" in note for note in law.diagnostics["notes"])


def test_trees_need_runs_and_lightgbm(monkeypatch):
    table = make_table(true_law("linear"), num_runs=44)
    with pytest.raises(UserError, match="needs at least 45 runs, but there are 44"):
        fit_law("lightgbm", table)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UserError, match=r"pip install autoscale_exp\[lightgbm\]"):
        fit_law("lightgbm", make_table(true_law("linear"), num_runs=45))


class Faulty(LinearLaw):
    """A linear law in which some parts of what the formula gives are not finite."""

    name = "faulty"
    fault = ()  # what is at fault, at which runs, and what it is there

    def formula(self, values, tokens):
        """The linear law's, with the fault."""
        losses, by_name, by_log_tokens = super().formula(values, tokens)
        parts = {"losses": losses, **by_name, "log tokens": by_log_tokens}
        what, at, value = self.fault
        parts[what] = np.array(parts[what])
        parts[what][:, at] = value
        return parts.pop("losses"), {name: parts[name] for name in by_name}, parts["log tokens"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (("losses", slice(None), np.nan), "losses that are not finite, for run 'run0' "),
        (("losses", slice(3, 4), np.inf), "losses that are not finite, for run 'run3' "),
        (("rate", slice(5, None), np.nan), "derivatives by rate that are not finite, for run 'run5' "),
        (("level", slice(None), -np.inf), "derivatives by level that are not finite, for run 'run0' "),
        (("log tokens", slice(2, 3), np.nan), "derivatives by log tokens that are not finite, for run 'run2' "),
    ],
)
def test_a_law_whose_formula_is_not_finite_is_refused_by_name(monkeypatch, fault, told):
    monkeypatch.setattr(Faulty, "fault", fault)
    table = make_table(true_law("linear"))
    with pytest.raises(UserError, match=f"the law 'faulty' gives {told}.*; correct its formula, or choose another"):
        Faulty.fit(table, own_domains(table.domains, table.validation_domains))


def test_a_law_of_another_name_than_its_key_is_refused(monkeypatch):
    monkeypatch.setitem(LAWS, "straight", LAWS["linear"])
    with pytest.raises(
        UserError, match=r"LinearLaw\.name is 'linear', but its key in LAWS is 'straight'; give both one"
    ):
        law_class("straight")


def test_an_unknown_law_is_refused_with_those_allowed():
    with pytest.raises(UserError, match=r"law.name is 'quadratic'; allowed are .*linear"):
        law_class("quadratic")
