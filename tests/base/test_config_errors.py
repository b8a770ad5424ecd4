"""A mistake in a file of conf/ ends a job with one line: the file, the key, its value, what is allowed."""

import shutil

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from autoscale_exp.base.job import CONF_DIR, describe, to_typed

DATA = """\
defaults: [/schema/files@_here_, _self_]

name: kitchen
domains: [recipes, reviews]
path: corpora/kitchen
store: outputs/stores/${.name}
seq_len: 16
validation_fraction: 0.1
validation_rows: 16
tokenizer: { name: bpe, vocab_size: 300 }
"""
DEFAULTS = "defaults: [/schema/files@_here_, _self_]\n"
LAW = "defaults: [/schema/law@_here_, _self_]\n"
MODEL = "defaults: [/schema/model@_here_, _self_]\n"
GLOBAL = "# @package _global_\n"
LISTS = "a list is written [a,b], also one of a single value"
SCHEMAS = "its defaults name a schema of its group"
# File, its text, and what the line has; the part before the dots is its start.
MISTAKES = {
    "a wrong key": (
        "data",
        f"{DATA}vocab: 3\n",
        "data.vocab is not known; allowed there are name, ... on_bad_document",
    ),
    "a wrong key below": (
        "data",
        DATA.replace("vocab_size", "vocab"),
        "data.tokenizer.vocab is not known; allowed there are name, vocab_size",
    ),
    "a wrong type": ("data", DATA.replace("16", "sixteen"), "data.seq_len is 'sixteen'; it must be of type int"),
    "a number with a unit": (
        "data",
        DATA.replace("seq_len: 16", "seq_len: 1K"),
        "data.seq_len is '1K'; a whole number is written out, as in 1_000",
    ),
    "a number with a unit in a list": (
        "design",
        "defaults: [/schema/ddo@_here_, _self_]\nscales: [.5M, 1e6]\n",
        "design.scales[0] is '.5M'; a whole number is written out, as in 500_000",
    ),
    "a mapping": ("data", DATA.replace("16", "{a: 1}"), "data.seq_len is {'a': 1}; it must be of type int"),
    "a list for a text": ("data", f"{DATA}text_field: [a]\n", "data.text_field is ['a']; it must be of type str"),
    "a list as text": (
        "data",
        DATA.replace("[recipes, reviews]", "recipes, reviews"),
        f"data.domains is 'recipes, reviews'; it must be of type list[str]; {LISTS}",
    ),
    "a list for a mapping": ("data", f"{DATA}sources: [a]\n", f"Cannot merge DictConfig with ListConfig; ... {LISTS}"),
    "a list in all": ("data", "- a\n", f"Invalid type assigned: list is not a subclass of DataConf; ... {SCHEMAS}"),
    "no schema": (
        "data",
        DATA.removeprefix(DEFAULTS),
        f"data.path is not known; allowed there are name, ... tokenizer; allowed with the line {DEFAULTS.strip()}",
    ),
    "a schema that is not there": (
        "data",
        DATA.replace("files@", "file@"),
        "Could not load 'schema/file'; there are ... environment, files, ",
    ),
    "a law": ("law", f"{LAW}nam: linear\n", "law.nam is not known; allowed there are name"),
    "an objective": (
        "objective",
        "metricc: loss\n",
        "objective.metricc is not known; allowed there are name, metric, ",
    ),
    "a mixture": ("mixture", "weigths: [1]\n", "mixture.weigths is not known; allowed there are name, kind, "),
    "a model": (
        "model",
        f"{MODEL}optimizer: {{ lr: fast }}\n",
        "model.optimizer.lr is 'fast'; it must be of type float",
    ),
    "an experiment": ("experiment", f"{GLOBAL}seed: first\n", "seed is 'first'; it must be of type int"),
    "an experiment's key": (
        "experiment",
        f"{GLOBAL}sed: 1\n",
        "sed is not known; allowed there are name, output_dir, ",
    ),
    "an experiment's section": (
        "experiment",
        f"{GLOBAL}design: {{ foo: 1 }}\n",
        "design.foo is not known; allowed there are index, match_repetition",
    ),
    "an experiment as a section": ("experiment", "seed: 1\n", "its first line must be # @package _global_"),
    "an experiment's group": (
        "experiment",
        f"{GLOBAL}defaults: [override /modell: gpt2]\n",
        "Could not override 'modell'. No match in the defaults list.",
    ),
}
NEEDED = {"train": ["data=environment", "token_budget=1"], "prepare": [], "fit": ["runs=runs.csv"]}
JOBS = {"data": "prepare", "law": "fit", "objective": "fit"}


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of conf/, which jobs then read."""
    shutil.copytree(CONF_DIR, tmp_path / "conf")
    return tmp_path / "conf"


def line_of(conf, group, text):
    """What is told of the option `mine` of a group, whose file has this text."""
    (conf / group / "mine.yaml").write_text(text)
    job = JOBS.get(group, "train")
    with (
        initialize_config_dir(str(conf), version_base="1.3"),
        pytest.raises((HydraException, ValueError)) as error,
    ):
        to_typed(compose(job, [*NEEDED[job], f"{group}=mine"]))
    return describe(error.value)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_file_is_told_with_the_file_in_one_line(mistake, conf):
    group, text, told = MISTAKES[mistake]
    line = line_of(conf, group, text)
    start, *others = told.split("...")
    assert line.startswith(f"In '{group}/mine': ")
    assert start.strip() in line
    assert all(part.strip() in line for part in others)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("group", "text", "line"),
    [
        (
            "data",
            DATA.removeprefix(DEFAULTS).replace("path: corpora/kitchen\n", ""),
            "data has no schema; begin its file with the line defaults: [/schema/environment@_here_, _self_], "
            "or files in the place of environment",
        ),
        ("design", "index: 0\n", "begin its file with the line defaults: [/schema/<design>@_here_, _self_], <design> "),
        ("data", DATA.replace("store: outputs/stores/${.name}\n", ""), "data.store is not set; give it a value, as in"),
        (
            "data",
            DATA.replace("{.name}", "{.nam}"),
            "Interpolation key 'nam' not found; a value of the config names it",
        ),
    ],
)
def test_a_file_that_lacks_something_is_told_what(group, text, line, conf):
    assert line in line_of(conf, group, text)


@pytest.mark.parametrize(
    ("group", "text", "message"),
    [
        (
            "data",
            DATA.replace("reviews]", "reviews"),
            "', line 5, is no YAML: while parsing a flow sequence, expected ','",
        ),
        (
            "data",
            f"{DATA}seq_len: 3\n",
            "', line 11, is no YAML: while constructing a mapping, found duplicate key seq_len",
        ),
        ("data", f"{DATA}text_field: a\x01\n", "' is no YAML: unacceptable character #x0001"),
        (
            "data",
            f"{DATA}text_field: café\n",
            "' is no YAML in UTF-8, from after 'text_field: caf' on; save it as UTF-8",
        ),
        ("experiment", f"{GLOBAL}seed: [1\n", "', line 3, is no YAML: while parsing a flow sequence, expected ','"),
        ("data", "defaults: files\n", "Invalid defaults list in 'data/mine', defaults must be a list (got str); write"),
        ("data", "defaults: [{a: b, c: d}]\n", "In data/mine: Too many keys in default item"),
        ("data", DATA.replace("store: outputs/stores/${.name}\n", ""), "data.store is not set; give it a value, as in"),
    ],
)
def test_a_job_whose_config_cannot_be_read_ends_in_one_line(group, text, message, conf, refused):
    (conf / group / "mine.yaml").write_text(text, encoding="latin-1")
    line = refused(JOBS.get(group, "train"), f"--config-dir={conf}", f"{group}=mine")
    assert message in line
    assert ("is no YAML" in line) == line.startswith(f"'{conf / group / 'mine.yaml'}'")


@pytest.mark.parametrize("value", ["null", "3", "true"])
def test_a_value_that_names_no_option_of_a_group_is_told_with_those_there_are(value, refused):
    line = refused("report", "search=somewhere", f"logger={value}")
    assert line == f"logger={value} names no option; there are csv, tensorboard, wandb, and ~logger leaves it out"
