"""A mistake on the command line ends a job with one line that says what is allowed."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from autoscale_exp.base.job import CONF_DIR, describe, to_typed

MISTAKES = {
    "train model=gpt3": "In 'train': Could not find 'model/gpt3'; there are bert_base, bert_large, bert_tiny, gpt2, ",
    "evaluate task=mnli": "In 'evaluate': Could not find 'task/mnli'; there are glue, harness, perplexity, squad",
    "train token_buget=1": "token_buget is not known; allowed there are name, output_dir, run_name, store, data, ",
    "train design.foo=1": "design.foo is not known; allowed there are index, match_repetition",
    "train data.tokenizer.vocab=9": "data.tokenizer.vocab is not known; allowed there are name, vocab_size",
    "train +model.optimizer.rate=3": "model.optimizer.rate is not known; allowed there are lr, betas, ",
    "train ++modell=3": "modell is not known; allowed there are name, ",
    "train +stages=[{start:5,weigths:[1]}]": "weigths is not known; allowed there are start, weights",
    "prepare data.sources.web.keep={}": (
        "data.sources has no 'web' yet; put a + before the key to add it, as in +data.sources.web=..."
    ),
    "train data.domains=web,code": "Ambiguous value for argument 'data.domains=web,code'; a list is written [a,b]",
    "fit target_tokens=5": "Error merging override target_tokens=5 Invalid value assigned: int is not a ListConfig, ",
    "train seed=first": "Error merging override seed=first Value 'first' of type 'str' could not be converted",
}
NEEDED = {"train": ["token_budget=1"], "prepare": ["data=local"], "evaluate": [], "fit": ["runs=runs.csv"]}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_told_in_one_line(command):
    job, override = command.split(" ")
    with (
        initialize_config_dir(str(CONF_DIR), version_base="1.3"),
        pytest.raises((HydraException, ValueError)) as error,
    ):
        to_typed(compose(job, [*NEEDED[job], override]))
    line = describe(error.value)
    assert line.startswith(MISTAKES[command])
    assert "\n" not in line
    assert ("a list is written [a,b], also one of a single value" in line) == ("list" in line.lower())


def test_a_value_that_is_not_set_is_named_by_its_whole_key():
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), pytest.raises(OmegaConfBaseException) as error:
        to_typed(compose("prepare", ["data=local", "data.path=x"]))
    assert describe(error.value) == "data.domains is not set; give it a value, as in data.domains=..."


def test_the_line_is_all_that_is_printed(tmp_path: Path):
    command = [sys.executable, "-m", "autoscale_exp.fit", "runs=runs.csv", "law=best"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: In 'fit': Could not find 'law/best'; there are additive, autoscale, ")
    assert done.stderr.count("\n") == 1
