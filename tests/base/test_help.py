import re
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import autoscale_exp.config  # noqa: F401 - registers the schemas
from autoscale_exp.base.help import _comments, describe_job
from autoscale_exp.base.job import CONF_DIR

JOBS = sorted(path.stem for path in CONF_DIR.glob("*.yaml"))
REPO = ConfigStore.instance().repo
SCHEMAS = {name: node.node for name, node in {**REPO, **REPO["schema"]}.items() if hasattr(node, "node")}
OURS = {name: node for name, node in SCHEMAS.items() if is_dataclass(OmegaConf.get_type(node))}


def keys_of(text):
    return re.findall(r"^  (\S+?)=", text[text.index("\nKeys\n") :], re.MULTILINE)


@pytest.mark.parametrize("job", JOBS)
def test_every_job_lists_its_own_groups_and_keys(job):
    text = describe_job(CONF_DIR, job, "a purpose", [])
    assert text.startswith(f"python -m autoscale_exp.{job}: a purpose\n")
    assert keys_of(text)
    assert ("\n  data " in text) == (job in ("prepare", "train", "study"))
    assert ("\n  law " in text) == (job == "fit")


@pytest.mark.parametrize("name", [name for name in OURS if "autoscale_exp" in str(OmegaConf.get_type(OURS[name]))])
def test_every_key_of_a_schema_says_what_it_is(name):
    schema = OmegaConf.get_type(OURS[name])
    comments = _comments(schema)
    silent = {
        key
        for key, field in schema.__dataclass_fields__.items()
        if key not in comments and not is_dataclass(field.type) and not is_dataclass(field.default_factory)
    }
    assert not silent


def test_a_choice_changes_the_keys_that_are_listed():
    assert "design.factor" not in keys_of(describe_job(CONF_DIR, "train", "", []))
    text = describe_job(CONF_DIR, "train", "", ["design=ddo"])
    line = next(line for line in text.splitlines() if line.startswith("  design.factor=3.0 "))
    assert line.endswith("multiplies or divides the tokens of one domain; those of the others stay")
    assert "  design.index=0 " in text


@pytest.mark.parametrize("job", JOBS)
def test_the_example_of_an_option_is_one_of_the_job(job):
    text = describe_job(CONF_DIR, job, "", [])
    lead, _, groups = text.partition("\nKeys\n")[0].partition("\nGroups\n")
    example = re.search(r"`--help (\w+)=(\w+)`", lead)
    assert bool(example) == bool(groups)
    if example:
        options = re.search(rf"^  {example[1]} +(.*)", groups, re.MULTILINE)
        assert example[2] in options[1].split(" | ")
    assert ("rivals" in lead) == (job == "study")


def test_a_key_of_a_trainer_says_whose_it_is():
    lines = describe_job(CONF_DIR, "train", "", []).splitlines()
    of_trainer = [line for line in lines if line.startswith("  trainer.")]
    assert of_trainer
    assert all(line.endswith("  arguments of Lightning's Trainer") for line in of_trainer)


def test_experiments_are_listed_for_the_job_that_their_command_names():
    listed = {job: re.search(r"^  experiment +(.*)", describe_job(CONF_DIR, job, "", []), re.M) for job in JOBS}
    options = {job: match[1].split(" | ") for job, match in listed.items() if match}
    assert set(options) == {"train", "study"}
    assert [of_job.pop(0) for of_job in options.values()] == ["null", "null"]
    assert sorted(options["train"] + options["study"]) == sorted(p.stem for p in CONF_DIR.glob("experiment/*.yaml"))


def test_help_is_printed_and_nothing_is_done(tmp_path: Path):
    command = [sys.executable, "-m", "autoscale_exp.train", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.startswith("python -m autoscale_exp.train: a single run, or one of a design")
    assert not list(tmp_path.iterdir())


def test_a_mistake_beside_help_is_told_in_one_line(tmp_path: Path):
    command = [sys.executable, "-m", "autoscale_exp.train", "--help", "model=gpt3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: In 'train': Could not find 'model/gpt3'; there are ")
