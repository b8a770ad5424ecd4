import matplotlib.pyplot as plt
import pytest

from autoscale_exp.reporting.comparison import compare
from autoscale_exp.reporting.savings import savings_of
from autoscale_exp.reporting.searches import Searches
from autoscale_exp.reporting.target_figures import (
    plot_budgets,
    plot_differences,
    plot_domain_losses,
    plot_validation_curves,
)
from autoscale_exp.reporting.target_runs import group_by_budget
from tests.reporting.test_comparison import ends
from tests.reporting.test_target_runs import OBJECTIVE, runs


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def curves_of(mixtures):
    savings = savings_of({400: mixtures}, "uniform", Searches({}, {}))
    return plot_validation_curves(mixtures, compare(mixtures, "uniform"), savings, "mean loss")


def test_losses_of_more_than_eight_mixtures_are_drawn():
    figure = plot_domain_losses(ends(**{f"mixture{k}": [1.0 + k] for k in range(10)}), "mixture0")
    assert len(figure.legends[0].get_texts()) == 10


def test_only_mixtures_that_are_better_are_said_to_be_sooner():
    figure = curves_of(ends(uniform=[2.0, 2.1], a=[1.9, 2.3], b=[1.5, 1.6]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["uniform", "a", "b, 13 % sooner"]


def test_no_label_of_ten_mixtures_lies_on_another():
    figure = curves_of(ends(uniform=[2.0, 2.001], **{f"mixture{k}": [1.9, 1.901] for k in range(9)}))
    figure.canvas.draw()
    texts = [*figure.legends[0].get_texts(), *figure.axes[0].texts, figure.axes[0].xaxis.label]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == 11
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1) for box in boxes)


def test_differences_are_drawn_best_first_and_hollow_within_the_noise():
    figure = plot_differences(compare(ends(uniform=[2.0, 2.0], a=[2.2, 1.9], b=[1.5, 1.51]), "uniform"), "uniform")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    best, other = (line for line in axes.lines if len(line.get_xdata()) == 1)
    assert best.get_xdata()[0] == pytest.approx(-24.75)
    assert (best.get_markerfacecolor() == "white", other.get_markerfacecolor() == "white") == (False, True)


def test_finished_runs_are_drawn_at_their_budgets():
    records = [
        run for budget, end in ((100, 3.0), (400, 2.0)) for run in runs("uniform", [9, 8, 7, end], budget=budget)
    ]
    (axes,) = plot_budgets(group_by_budget(records, OBJECTIVE), "uniform", "mean loss").axes
    means = next(line for line in axes.lines if line.get_label() == "uniform")
    assert list(zip(*means.get_data(), strict=True)) == [(100, 3.0), (400, 2.0)]
