from collections.abc import Iterator

import hydra
import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from autoscale_exp.base.composing import compose
from autoscale_exp.base.job import CONF_DIR


@pytest.fixture(autouse=True)
def config_folder() -> Iterator[None]:
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield


def told_by(compose, job, overrides) -> str:
    with pytest.raises(HydraException) as error:
        compose(job, overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("job", "overrides"),
    [
        ("train", ["experiment=search", "seed=3", "design.scales=[1,2]", "token_budget=null", "seed=4"]),
        ("train", ["+trainer.benchmark=true", "~logger", "trainer={devices: 2}", "trainer.devices=4"]),
        ("train", ["design=ddo", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3", "hydra.mode=MULTIRUN"]),
        ("study", ["experiment=paper_gpt2_smoke", "rivals=[uniform,fitted]", "rivals.fitted.fit=['num_draws=9']"]),
        ("fit", ["objective.weights={web: .5, code: .5}", "runs=${law.name}", "law=linear"]),
    ],
)
def test_a_config_is_that_of_hydra_whatever_was_composed_before(job, overrides, monkeypatch, tmp_path):
    key = "num_threads" if job == "study" else "seed"
    compose(job, [*overrides, f"{key}=7"], with_hydra=True)[key] = 9
    monkeypatch.chdir(tmp_path)
    for with_hydra in (False, True):
        expected = OmegaConf.to_container(hydra.compose(job, overrides, return_hydra_config=with_hydra), resolve=False)
        found = OmegaConf.to_container(compose(job, overrides, with_hydra=with_hydra), resolve=False)
        for conf in (expected, found) if with_hydra else ():
            del conf["hydra"]["job"]["override_dirname"]  # which names no folder of ours
        assert found == expected


@pytest.mark.parametrize(
    "override",
    ["seed=0,1", "model=gpt9", "modell=3", "model.foo=1", "seed=first", "~nothing", "a b", "++model=[gpt2]"],
)
def test_what_hydra_refuses_is_refused_in_its_words(override):
    assert told_by(compose, "train", [override]) == told_by(hydra.compose, "train", [override])
