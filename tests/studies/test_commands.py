from collections.abc import Callable

import pytest
from hydra import compose
from omegaconf import OmegaConf

from autoscale_exp.base.by_domain import in_order
from autoscale_exp.base.overrides import readable
from autoscale_exp.studies.commands import Command, Sections


def test_a_job_is_asked_only_for_what_it_does_not_do_by_itself(sections: Callable[..., Sections]):
    of_study = sections("token_budgets=[1000]")
    assert of_study.command("train", ["experiment=search"], ["model", "trainer", "max_epochs"]).overrides == [
        "experiment=search"
    ]


@pytest.mark.parametrize(
    ("overrides", "added"),
    [
        (["model=gpt2"], ["model=gpt2"]),
        (["model=gpt2", "model.n_layer=3"], ["model=gpt2", "model.n_layer=3"]),
        (["trainer=bf16", "trainer.devices=2"], ["trainer=bf16", "trainer.devices=2"]),
        (["+trainer.benchmark=true"], ["++trainer.benchmark=true"]),
        (["~trainer.precision"], ["~trainer.precision"]),
        (["max_epochs=7"], ["max_epochs=7"]),
        (["~logger"], ["~logger"]),
    ],
)
def test_what_a_study_has_otherwise_is_told(overrides: list[str], added: list[str], sections: Callable[..., Sections]):
    of_study = sections("token_budgets=[1000]", *overrides)
    command = of_study.command("train", ["seed=1"], ["model", "trainer", "logger", "max_epochs"])
    assert command.overrides == [*added, "seed=1"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective=mean_loss", "objective.weights={web: .5, Wikipedia (en): .5}", "bounds.lower={web: .1}"],
        ["+bounds.groups.code={domains: [python, cpp], upper: .3}", "objective.kl_weight=1e-3"],
        ["objective=quickstart/reading", "bounds.upper=[.5,.5,.5,.5]", "objective.name=my purpose"],
    ],
)
def test_a_fit_gets_the_studys_objective_and_bounds(overrides: list[str], sections: Callable[..., Sections]):
    of_study = sections("token_budgets=[1000]", *readable(overrides))
    command = of_study.command("fit", ["runs=runs.csv"], ["objective", "bounds"])
    fit = compose("fit", readable(command.overrides))
    for key in ("objective", "bounds"):
        assert OmegaConf.to_container(fit[key]) == OmegaConf.to_container(of_study.conf[key])


def test_weights_in_a_yaml_are_told_by_name_whatever_its_letters(sections: Callable[..., Sections]):
    of_study = sections("token_budgets=[1000]")
    weights = {"数学": 0.5, "Wikipedia (en), cleaned": 0.5}
    of_study.conf.objective.weights = weights
    fit = compose("fit", readable(of_study.command("fit", ["runs=runs.csv"], ["objective"]).overrides))
    assert in_order(fit.objective.weights, list(weights), key="weights") == [0.5, 0.5]


def test_what_is_asked_of_a_job_goes_before_what_the_study_has(sections: Callable[..., Sections]):
    of_study = sections("token_budgets=[1000]", "objective.kl_weight=.2")
    command = of_study.command("fit", ["objective.kl_weight=.1"], ["objective"])
    assert command.overrides == ["objective.kl_weight=.1"]


def test_training_is_launched_as_the_study_is_told_to(sections: Callable[..., Sections]):
    basic = sections("token_budgets=[1000]", "hydra/launcher=basic")
    assert basic.command("train", [], [], launched=True).overrides == []
    assert basic.command("train", ["experiment=search"], [], launched=True).overrides == [
        "experiment=search",
        "hydra/launcher=basic",
    ]
    four = sections("token_budgets=[1000]", "hydra.launcher.n_jobs=4")
    assert four.command("train", ["experiment=search"], [], launched=True).overrides == [
        "experiment=search",
        "hydra.launcher.n_jobs=4",
    ]


def test_a_command_can_be_pasted_into_a_shell():
    command = Command("train", ["mixture.weights=[.5, .5]", "name=a b"], ["seed=0,1"])
    assert command.text == "python -m autoscale_exp.train 'mixture.weights=[.5, .5]' 'name=a b' seed=0,1"


def test_the_configs_of_a_multirun_are_those_of_its_runs():
    command = Command("train", ["token_budget=1000", "hydra.mode=MULTIRUN"], ["mixture=uniform,natural", "seed=0,1"])
    assert [(conf.mixture.name, conf.seed) for conf in command.configs()] == [
        ("uniform", 0),
        ("uniform", 1),
        ("natural", 0),
        ("natural", 1),
    ]
