import matplotlib.pyplot as plt
import numpy as np

from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective, FittedMixture, Response
from autoscale_exp.laws.optimum import Optimum
from autoscale_exp.reporting.figures import look, plot_domain_losses, plot_responses, plot_validation_curves


def test_colours_and_markers_do_not_run_out_and_come_again_in_other_pairs():
    assert len({look(index) for index in range(64)}) == 64
    assert len({look(index)[0] for index in range(8)}) == len({look(index)[1] for index in range(8)}) == 8
    assert look(8)[0] == look(0)[0]


def test_losses_of_more_than_eight_mixtures_are_drawn():
    targets = {f"mixture{k}": {"losses": [{"a": 1.0 + k}]} for k in range(10)}
    figure = plot_domain_losses(targets, "mixture0")
    assert len(figure.legends[0].get_texts()) == 10
    plt.close(figure)


def test_responses_at_more_than_eight_scales_are_drawn():
    response = Response("a", points=[(1 / 3, 1.1), (1, 1.0)], curve=[(1 / 3, 1.1), (1, 1.0)])
    uniform = np.full(2, 0.5)
    scales = [FittedMixture.of(Optimum(100 * (k + 1), uniform, [], "given"), list("ab")) for k in range(10)]
    diagnostics = Diagnostics(notes=[], responses=[[response, response]] * 10)
    content = Fit("linear", FitObjective("mean_loss", "loss", None), list("ab"), scales, [], diagnostics)
    figure = plot_responses(content)
    assert len(figure.legends[0].get_texts()) == 10
    plt.close(figure)


def curves_of(better, ends):
    tokens = [100, 200, 300, 400]
    return {
        name: {
            "objective": "mean loss",
            "tokens": tokens,
            "curves": [[4, 3, 2.5, end]],
            "speedup": 0.25,
            "better": name in better,
            "tokens_to_reach_reference": 300,
        }
        for name, end in ends.items()
    }


def test_only_mixtures_that_are_better_are_said_to_be_sooner():
    figure = plot_validation_curves(curves_of({"b"}, {"uniform": 2.0, "a": 1.9, "b": 1.5}), "uniform")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["uniform", "a", "b, 25 % sooner"]
    plt.close(figure)


def test_no_label_of_ten_mixtures_lies_on_another():
    ends = {"uniform": 2.0} | {f"mixture{k}": 1.9 for k in range(9)}
    figure = plot_validation_curves(curves_of(set(ends) - {"uniform"}, ends), "uniform")
    figure.canvas.draw()
    texts = [*figure.legends[0].get_texts(), *figure.axes[0].texts, figure.axes[0].xaxis.label]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == 11
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1) for box in boxes)
    plt.close(figure)
