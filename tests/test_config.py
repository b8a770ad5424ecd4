import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.help import is_experiment_of
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.config import TrainConf
from autoscale_exp.resolvers import DEFAULT_LAW
from autoscale_exp.runs.proposal import Proposal, write_proposals
from autoscale_exp.runs.record import write_record
from autoscale_exp.training.run import OWN_KEYS
from tests.runs.records import make_record

ROOT = Path(__file__).parent.parent
JOBS = [path.stem for path in sorted(CONF_DIR.glob("*.yaml"))]
GROUPS = [path for path in sorted(CONF_DIR.glob("*/*.yaml")) if path.parent.name != "experiment"]
EXPERIMENTS = [path.stem for path in sorted((CONF_DIR / "experiment").glob("*.yaml"))]
STUDIES = [e for e in EXPERIMENTS if is_experiment_of(CONF_DIR / "experiment" / f"{e}.yaml", "study")]
NEXT_RUNS = ROOT / "tests" / "runs" / "next_runs.csv"  # of the domains of data=environment
FOUND = [
    "fitted",
    "autoscale",
    "regmix",
    "mixing_law",
    "olmix",
    "doremi",
    "doge",
    "grid",
]  # mixtures that searches find
# What a user must give, for options that have no sensible default.
GIVEN = {
    "data=local": ["data.domains=[a,b]", "data.path=somewhere"],
    "data=seven": ["data.path=somewhere"],
    "data=seven_bert": ["data.path=somewhere"],
    "mixture=custom": ["mixture.weights=[1]"],
    "mixture=from_file": ["mixture.path=x.yaml"],
    "design=ddo": ["design.scales=[1000]"],
    "design=dirichlet": ["design.scales=[1000]", "design.num_runs=2"],
    "design=grid": ["design.scales=[1000]"],
    "design=optimal": [f"design.path={NEXT_RUNS}"],
    "experiment=next_runs": ["search=somewhere", "store=null", "name=a_search", f"design.path={NEXT_RUNS}"],
    **{f"mixture={name}": ["search=somewhere"] for name in FOUND},
    "experiment=search": ["design.scales=[1000]"],
    "experiment=targets": ["search=somewhere", "store=null", "token_budget=1000"],
}
NEEDED = {
    "train": ["token_budget=1000"],
    "study": ["token_budgets=[1000]"],
    "export": ["mixture_file=x.yaml", "format=megatron"],
    "predict": ["law_file=law.json", "mixtures=table.csv", "output=out.csv"],
    "report": ["search=somewhere"],
    "import_runs": ["source=sweep", "output=out.csv"],
    "dashboard": ["sweep=somewhere"],
    "design": ["format=olmo", "output_dir=out", "domains=[a,b]", "seq_len=8", "batch_rows=8", "design.scales=[1000]"],
    "status": ["sweep=somewhere"],
}
JOB_OF_GROUP = {"law": "fit", "objective": "fit", "task": "evaluate", "rivals": "study", "published": "report"}


def composed(job, *overrides):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return to_typed(compose(job, overrides=[*overrides]))


@pytest.mark.parametrize("job", JOBS)
def test_every_job_composes(job):
    assert composed(job, *NEEDED.get(job, [])) is not None


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_of_every_group_composes(path):
    group, option = path.parent.name, path.stem
    job = JOB_OF_GROUP.get(group, "train")
    given = GIVEN.get(f"{group}={option}", [])
    budget = NEEDED.get(job, [])
    conf = composed(job, f"{group}={option}", *budget, *given)
    assert getattr(conf, group) is not None


@pytest.mark.parametrize("experiment", STUDIES)
def test_every_study_composes(experiment):
    conf = composed("study", f"experiment={experiment}")
    assert conf.reference in conf.rivals
    assert any(rival.fit is not None for rival in conf.rivals.values())


@pytest.mark.parametrize("experiment", [experiment for experiment in EXPERIMENTS if experiment not in STUDIES])
def test_every_experiment_instantiates(experiment, tmp_path):
    conf = composed("train", f"experiment={experiment}", *GIVEN.get(f"experiment={experiment}", []))
    assert isinstance(conf, TrainConf)
    of_lightning = {key: value for key, value in conf.trainer.items() if key not in OWN_KEYS}
    trainer = instantiate({**of_lightning, "accelerator": "cpu"}, logger=False, default_root_dir=str(tmp_path))
    assert trainer.num_devices == 1


@pytest.mark.parametrize("job", JOBS)
def test_every_job_is_a_module_and_a_console_script(job):
    scripts = re.findall(r'autoscale-(\w+) = "autoscale_exp\.(\w+):main"', (ROOT / "pyproject.toml").read_text())
    assert (job, job) in scripts
    assert (ROOT / "autoscale_exp" / f"{job}.py").is_file()


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("autoscale_exp.laws.autoscale.ddo", "torch,hydra,omegaconf,pytorch_lightning,transformers,matplotlib"),
        ("autoscale_exp.laws.autoscale.law", "torch,hydra,omegaconf,pytorch_lightning,transformers,matplotlib"),
        ("autoscale_exp.mixture.allocation", "torch,hydra,omegaconf,pytorch_lightning,transformers,scipy"),
        ("autoscale_exp.mixture.sampler", "torch,hydra,omegaconf,pytorch_lightning,transformers,scipy"),
        ("autoscale_exp.runs.designs", "torch,hydra,omegaconf,pytorch_lightning,transformers,scipy"),
        ("autoscale_exp.runs.record", "torch,hydra,omegaconf,pytorch_lightning,transformers,scipy"),
        ("autoscale_exp.fit", "torch,pytorch_lightning,transformers,datasets,wandb,matplotlib"),
        ("autoscale_exp.train", "torch,pytorch_lightning,transformers,datasets,wandb"),
    ],
)
def test_pure_modules_stay_light(module, forbidden):
    code = f"import sys, {module}; print([m for m in '{forbidden}'.split(',') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def commands(text):
    return re.findall(r"python -m autoscale_exp\.\w+[^\n`|]*", text.replace("\\\n", " "))


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README_COMMANDS = commands((ROOT / "README.md").read_text())
COMMANDS = [
    pytest.param(command, id=f"{page.name}-{index}")
    for page in PAGES
    for index, command in enumerate(commands(page.read_text()))
    if "--help" not in command
]


@pytest.fixture(scope="session")
def stand_ins(store, tmp_path_factory):
    """A store, and a search with a run on it, for commands that read them when they are composed."""
    search = tmp_path_factory.mktemp("search")
    write_record(search / "runs" / "base", make_record("base", store=str(store.folder)))
    next_runs = search / "next_runs.csv"
    write_proposals(next_runs, store.domains, [Proposal("next0_1K", 1000, 0, (500.0, 300.0, 200.0))])
    return {"store": f"store={store.folder}", "search": f"search={search}", "design.path": f"design.path={next_runs}"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_pages_composes(command, stand_ins):
    job, *arguments = shlex.split(command.removeprefix("python -m autoscale_exp."), comments=True)
    kept = [a for a in arguments if not a.startswith(("hydra", "--")) and "range(" not in a]
    overrides = [stand_ins.get(a.split("=")[0], a) for a in kept]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        assert to_typed(compose(job, overrides)) is not None


def test_make_quickstart_is_the_readmes_command():
    makefile = (ROOT / "Makefile").read_text().replace("$(RUN)", "python -m autoscale_exp")
    assert commands(makefile) == ["python -m autoscale_exp.study experiment=quickstart"]
    assert commands(makefile)[0] in [command.split("#")[0].strip() for command in README_COMMANDS]


@pytest.mark.parametrize("prefix", ["+", "++"])
def test_the_files_of_a_domain_may_be_named_on_the_command_line(prefix):
    override = f"{prefix}data.sources.web.keep={{meta.language: en}}"
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        conf = to_typed(compose("prepare", ["data=local", "data.domains=[web]", "data.path=x", override]))
    assert conf.data.sources == {"web": {"keep": {"meta.language": "en"}}}


@pytest.mark.parametrize(
    ("mixture", "given", "missing"),
    [
        ("fitted", ["token_budget=1000"], "search is not set; a mixture that a search finds"),
        ("doremi", [], "search is not set; a mixture that a search finds"),
        ("fitted", ["search=somewhere"], "token_budget is not set; a mixture that a fit finds"),
    ],
)
def test_a_mixture_of_a_search_says_what_it_needs(mixture, given, missing):
    with pytest.raises(UserError) as error:
        composed("train", f"mixture={mixture}", "run_name=r", *given)
    assert str(error.value) == f"{missing} needs search=<folder> token_budget=..."


def test_the_default_law_is_the_one_whose_fit_reports_take():
    assert composed("fit", "law=default").law.name == DEFAULT_LAW


def test_an_objective_takes_the_place_of_an_experiments_own_as_a_whole():
    conf = composed("study", "experiment=quickstart", "objective=mean_loss")
    assert (conf.objective.name, conf.objective.metric, conf.objective.weights) == ("mean_loss", "loss", None)


@pytest.mark.parametrize(("law", "folder"), [("default", "fit"), ("autoscale", "autoscale"), ("linear", "linear")])
def test_the_fit_of_a_sweep_goes_beside_its_runs_in_a_folder_of_its_law(law, folder, tmp_path):
    assert composed("fit", f"runs={tmp_path}", f"law={law}").output_dir == f"{tmp_path}/{folder}"
    assert composed("fit", "runs=runs.csv", f"law={law}").output_dir == "outputs/fit"
