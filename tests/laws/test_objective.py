import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds


def test_means_of_loss_and_perplexity():
    losses = np.log(np.array([[2.0, 8.0], [4.0, 4.0]]))
    assert make_objective("o", "loss", None, ["a", "b"])(losses) == pytest.approx(np.log([4, 4]))
    assert make_objective("o", "perplexity", None, ["a", "b"])(losses) == pytest.approx([5, 4])
    weighted = make_objective("o", "perplexity", {"b": 1.0}, ["a", "b"])
    assert weighted(losses) == pytest.approx([8, 4])
    assert make_objective("o", "loss", "{b: 1}", ["a", "b"]).weights.tolist() == [0, 1]
    assert make_objective("o", "loss", [0.25, 0.75], ["a", "b"]).weights.tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("metric", "weights", "message"),
    [
        ("accuracy", None, "objective.metric is 'accuracy'; allowed are loss, perplexity"),
        ("loss", {"c": 1.0}, "objective.weights names 'c'; the domains are a, b"),
        ("loss", {"a": 0.4, "b": 0.4}, "objective.weights sum to 0.8"),
        ("loss", {"a": float("nan")}, "objective.weights: the weight of 'a' is nan"),
    ],
)
def test_bad_objectives_are_refused(metric, weights, message):
    with pytest.raises(UserError, match=message):
        make_objective("o", metric, weights, ["a", "b"])


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.1], 1.0, "bounds.lower has 1 entries"),
        (0.6, 1.0, "bounds.lower sum to 1.2"),
        (0.0, 0.4, "bounds.upper sum to 0.8"),
        (0.0, [0.2, 1.5], "bounds.upper of 'b' is 1.5"),
        ([0.5, 0.0], [0.4, 1.0], "bounds.lower of 'a' is 0.5, above"),
        ({"c": 0.5}, 1.0, "bounds.lower names 'c'; the domains are a, b"),
        (0.0, "{b: 2}", "bounds.upper of 'b' is 2"),
    ],
)
def test_bad_bounds_are_refused(lower, upper, message):
    with pytest.raises(UserError, match=message):
        make_bounds(lower, upper, ["a", "b"])


def test_bounds_by_name_leave_the_other_domains_free():
    bounds = make_bounds({"b": 0.25}, "{a: .5}", ["a", "b", "c"])
    assert bounds.lower.tolist() == [0, 0.25, 0]
    assert bounds.upper.tolist() == [0.5, 1, 1]
