import matplotlib.pyplot as plt
import numpy as np

from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective, FittedMixture, Response
from autoscale_exp.laws.optimum import Optimum
from autoscale_exp.reporting.figures import look, plot_responses


def test_colours_and_markers_do_not_run_out_and_come_again_in_other_pairs():
    assert len({look(index) for index in range(64)}) == 64
    assert len({look(index)[0] for index in range(8)}) == len({look(index)[1] for index in range(8)}) == 8
    assert look(8)[0] == look(0)[0]


def test_responses_at_more_than_eight_scales_are_drawn():
    response = Response("a", points=[(1 / 3, 1.1), (1, 1.0)], curve=[(1 / 3, 1.1), (1, 1.0)])
    uniform = np.full(2, 0.5)
    scales = [FittedMixture.of(Optimum(100 * (k + 1), uniform, [], "given"), list("ab")) for k in range(10)]
    diagnostics = Diagnostics(notes=[], responses=[[response, response]] * 10)
    content = Fit("linear", FitObjective("mean_loss", "loss", None), list("ab"), scales, [], diagnostics)
    figure = plot_responses(content)
    assert len(figure.legends[0].get_texts()) == 10
    plt.close(figure)
