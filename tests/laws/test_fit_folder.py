import logging
from dataclasses import replace

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import FIT, FitObjective, write_fit
from autoscale_exp.laws.fit_folder import check_place, with_earlier_targets, write_mixtures
from tests.reporting.test_page import FIT as EARLIER
from tests.reporting.test_page import fitted

READING = FitObjective("reading", "loss", {"b": 0.75, "a": 0.25})


def test_a_fit_replaces_one_of_the_same_law_and_objective(tmp_path):
    check_place(tmp_path, "linear", READING)  # nothing lies there
    write_fit(tmp_path, EARLIER)
    check_place(tmp_path, EARLIER.law, EARLIER.objective)
    (tmp_path / FIT).write_text('{"format": 1}')  # of another version
    check_place(tmp_path, "linear", READING)


@pytest.mark.parametrize(
    ("law", "objective", "told"),
    [
        (
            EARLIER.law,
            READING,
            "holds the fit of law autoscale, objective mean_loss; this one is of law autoscale, objective reading "
            r"\(b 0.75, a 0.25\): give it its own folder, as in output_dir=.*/fit_reading, or delete that one",
        ),
        ("linear", EARLIER.objective, "this one is of law linear, objective mean_loss: .*=.*/fit_linear, or"),
    ],
)
def test_a_fit_does_not_replace_one_that_answers_another_question(law, objective, told, tmp_path):
    write_fit(tmp_path / "fit", EARLIER)
    with pytest.raises(UserError, match=told):
        check_place(tmp_path / "fit", law, objective)


def test_earlier_targets_stay_while_the_runs_give_the_same_answer(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_mixtures(tmp_path, EARLIER)
    write_fit(tmp_path, EARLIER)
    fit = with_earlier_targets(replace(EARLIER, targets=[fitted(3_000_000)], overrides=["target_tokens=[3]"]), EARLIER)
    assert [target.tokens for target in fit.targets] == [3_000_000, 400]
    assert caplog.messages == ["the mixtures that an earlier fit found for 0.4K tokens stay"]
    write_mixtures(tmp_path, fit)
    assert sorted(path.name for path in (tmp_path / "mixtures").iterdir()) == ["0.4K.yaml", "3M.yaml"]
    first = (tmp_path / "mixtures" / "3M.yaml").read_text().splitlines()[0]
    assert first == "# the mixture for 3M tokens by law autoscale, objective mean_loss (given); see ../fit.json"


MOVED = replace(fitted(40), weights={"a": 0.31, "b": 0.69})


@pytest.mark.parametrize("changed", [{"scales": [MOVED]}, {"overrides": ["bounds.lower=0.1"]}])
def test_earlier_targets_of_other_runs_or_settings_are_removed_and_told(changed, tmp_path, caplog):
    write_mixtures(tmp_path, EARLIER)
    write_fit(tmp_path, EARLIER)
    fit = with_earlier_targets(replace(EARLIER, targets=[fitted(3_000_000)], **changed), EARLIER)
    assert [target.tokens for target in fit.targets] == [3_000_000]
    (line,) = caplog.messages
    assert line.startswith("the mixtures for 0.4K tokens, which an earlier fit found with other runs or settings, are ")
    assert "target_tokens=[400,3_000_000] finds them anew" in line
    write_mixtures(tmp_path, fit)
    assert [path.name for path in (tmp_path / "mixtures").iterdir()] == ["3M.yaml"]


def test_without_an_earlier_fit_there_are_the_targets_asked_for():
    assert with_earlier_targets(EARLIER, None) is EARLIER
