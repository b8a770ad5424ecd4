import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.fit import with_remarks
from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective, FittedMixture
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.reach import check_targets, remarks_on
from autoscale_exp.laws.request import Request
from autoscale_exp.laws.solver.constraints import Constraints
from tests.laws.synthetic import DOMAINS, ddo_table


def target(tokens):
    weights = {"web": 0.75, "code": 0.25}
    domain_tokens = {domain: tokens * weight for domain, weight in weights.items()}
    return FittedMixture(tokens, weights, domain_tokens, None, [], None, "given", None)


def test_a_target_below_the_smallest_scale_is_refused():
    check_targets([300_000, 5_000_000], [300_032, 900_000])  # whole rows are no other scale
    with pytest.raises(
        UserError, match=r"target_tokens\[1\] is 100_000, below the smallest scale of the runs, 300_032"
    ):
        check_targets([900_000, 100_000], [300_032, 900_000])


def test_the_smallest_scale_is_the_one_of_fewest_tokens_whatever_the_models():
    small_model, large_model = target(100_000_000), target(20_000_000)  # in the order of FLOPs
    check_targets([50_000_000], [small_model.tokens, large_model.tokens])

    objective = make_objective("mean_loss", "loss", None, DOMAINS)
    request = Request([], objective, Constraints(make_bounds(0.0, 1.0, DOMAINS)))
    diagnostics, scales = Diagnostics(notes=[]), [small_model, large_model]
    fit = Fit("law", FitObjective.of(objective, DOMAINS), DOMAINS, scales, [target(900_000_000)], diagnostics)
    assert with_remarks(fit, ddo_table(), request).diagnostics.notes == []


def test_a_target_far_beyond_the_runs_is_told_in_multiples_of_the_largest_scale():
    (remark,) = remarks_on([target(9_000_000), target(100_000_000)], 900_000, None)
    assert remark.startswith("target 100M is 111 times the largest scale, 900K; ")

    (remark,) = remarks_on([target(2_345_000_000)], 1_000_000, None)
    assert remark.startswith("target 2.34B is 2,340 times the largest scale, 1M; ")


def test_a_target_beyond_the_text_is_told_in_epochs_of_each_domain():
    unique = {"web": 1_000_000, "code": 1_000_000}
    assert not remarks_on([target(5_340_000)], 3_000_000, unique)  # 4.005 epochs of web, as whole rows may make of 4
    (remark,) = remarks_on([target(6_000_000)], 3_000_000, unique)
    assert remark.startswith("target 6M repeats its text (web 4.5, code 1.5 epochs); ")


def test_a_domain_without_text_is_gone_through_without_end():
    (remark,) = remarks_on([target(1_000)], 1_000, {"web": 0, "code": 1_000})
    assert "web 750.0" in remark
