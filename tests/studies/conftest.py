from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from autoscale_exp.base.composing import compose
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.data.store import TokenStore
from autoscale_exp.runs.rival import RivalConf
from autoscale_exp.studies.commands import Sections
from autoscale_exp.studies.stages import StageList

STUDY = ["design.scales=[320,960]", "design.base_repeats=0", "token_budgets=[1600]", "seeds=[0,1]"]


@pytest.fixture(autouse=True)
def config_folder() -> Iterator[None]:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield


@pytest.fixture
def sections() -> Callable[..., Sections]:
    def composed(*overrides: str) -> Sections:
        conf = compose("study", [*overrides], with_hydra=True)
        return Sections(compose("study", [*overrides]), conf.hydra.runtime.choices, conf.hydra.launcher)

    return composed


@pytest.fixture
def stage_list(store: TokenStore, sections: Callable[..., Sections], tmp_path: Path) -> Callable[..., StageList]:
    def planned(*overrides: str, **rivals: RivalConf) -> StageList:
        asked = [f"store={store.folder}", f"output_dir={tmp_path}/study", *STUDY, *overrides]
        conf = to_typed(compose("study", asked))
        conf.rivals |= rivals
        return StageList(conf, conf.design.scales, sections(*asked), store)

    return planned
