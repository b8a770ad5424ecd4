from dataclasses import replace

import pytest

from autoscale_exp.reporting.comparison import Difference
from autoscale_exp.reporting.savings import Saving
from autoscale_exp.reporting.verdicts import answer, saved, saved_interval, verdict
from tests.reporting.test_comparison import ends


def said(**finals):
    return answer(ends(**finals), "uniform", "mean loss", 10_000_000)


@pytest.mark.parametrize(
    ("finals", "sentence"),
    [
        ({"ours": [1.8, 1.81]}, "Train on ours (b 67 %, a 33 %): after 10M tokens its mean loss is 10.0 % lower "),
        (
            {"ours": [2.2, 2.21]},
            "Train on uniform: after 10M tokens ours is worse, its mean loss is 10.0 % higher (90 ",
        ),
        (
            {"a": [2.2, 2.21], "b": [2.4, 2.4]},
            "Train on uniform: after 10M tokens every other mixture is worse; the best of them, a, has a mean",
        ),
        (
            {"ours": [1.8, 2.15]},
            "Undecided: ours cannot be told apart from uniform: after 10M tokens its mean loss is 1.5 % lower",
        ),
        (
            {"a": [1.9, 2.15], "b": [2.3, 1.9]},
            "No mixture is shown to be better than uniform: the best of the others, a, cannot be told apart from ",
        ),
        (
            {"a": [1.8, 1.81], "b": [1.6, 1.61]},
            "Train on b (b 67 %, a 33 %): after 10M tokens its mean loss is 20.0 % lower ",
        ),
    ],
)
def test_the_answer_is_one_sentence(finals, sentence):
    text = said(uniform=[2.0, 2.01], **finals)
    assert text.startswith(sentence)
    assert text.endswith(".")
    assert ". " not in text


def test_the_best_is_set_beside_the_others():
    finals = {"uniform": [2.0, 2.01], "b": [1.6, 1.6]}
    assert said(**finals, a=[1.8, 1.81]).endswith("and lower than a's by more than the noise.")
    assert said(**finals, a=[1.6, 1.61]).endswith("; a cannot be told apart from it.")
    many = {f"m{k}": [1.6, 1.61] for k in range(5)}
    assert said(**finals, **many).endswith("; 5 others cannot be told apart from it.")


def test_an_open_answer_says_how_many_seeds_would_settle_it():
    assert "about 3 seeds in all would settle it" in said(uniform=[2.0, 2.0], ours=[1.8, 1.9])
    assert "not even 100 seeds would settle" in said(uniform=[2.0, 1.0], ours=[1.0, 1.999])


def test_one_seed_decides_nothing():
    assert said(uniform=[2.0], ours=[1.8]).startswith("One seed of each mixture decides nothing: after 10M tokens the")


DIFFERENCE = Difference("ours", "uniform", -0.1, (-0.2, -0.05), 2.0, 3, None)
SAVING = Saving(on_curves=0.33, annealed=0.27, is_bound=False, interval=(0.2, 0.35), search_tokens=500, search_cost=1.0)


def test_savings_are_told_off_curves_off_finished_runs_and_net_of_the_search():
    assert saved(DIFFERENCE, SAVING) == ["+33 %", "+27 %", "−73 %", "+17 %"]
    bound = replace(SAVING, is_bound=True)
    assert saved(DIFFERENCE, bound) == ["+33 %", "≥ +27 %", "≥ −73 %", "≥ +17 %"]
    worse = replace(DIFFERENCE, mean=0.1, interval=(0.05, 0.2))
    assert saved(worse, replace(bound, annealed=-0.27))[1] == "≤ −27 %"


def test_the_interval_of_a_saving_says_where_it_is_open():
    assert saved_interval(SAVING) == "+20 to +35 %"
    assert saved_interval(replace(SAVING, interval=(0.2, None))) == "+20 % or more"
    assert saved_interval(replace(SAVING, interval=(None, -0.2))) == "−20 % or less"
    assert (
        saved_interval(replace(SAVING, interval=None)) == saved_interval(replace(SAVING, interval=(None, None))) == ""
    )


def test_nothing_is_told_to_be_saved_within_the_noise():
    assert saved(replace(DIFFERENCE, interval=(-0.2, 0.01)), SAVING) == ["", "", "", ""]


def test_a_verdict_charges_the_search():
    mixtures = ends(uniform=[2.0, 2.01, 2.0], ours=[1.9, 1.91, 1.9])
    text = verdict(mixtures["ours"], mixtures["uniform"], DIFFERENCE, SAVING)
    assert text.endswith(
        "ours gets where uniform ends with 27 % fewer tokens; net of its search that is −73 % for one target run, and "
        "+17 % for each of ten."
    )
    free = verdict(mixtures["ours"], mixtures["uniform"], DIFFERENCE, replace(SAVING, search_cost=0, is_bound=True))
    assert free.endswith("ours gets where uniform ends with at least 27 % fewer tokens.")
