import json

import pytest
import yaml

from autoscale_exp.export import FORMATS

WEIGHTS = {"web": 1 / 3, "no": 0.1 + 0.2, "books": 1 - 1 / 3 - (0.1 + 0.2)}  # an unquoted no is false in YAML


def read_back(form, text):
    if form == "megatron":
        words = text.split()
        return {domain: float(weight) for weight, domain in zip(words[::2], words[1::2], strict=True)}
    if form == "mosaic":
        return {domain: stream["proportion"] for domain, stream in yaml.safe_load(text)["streams"].items()}
    if form == "olmo":
        return {source["source_name"]: source["target_ratio"] for source in yaml.safe_load(text)["source_configs"]}
    content = json.loads(text)
    return dict(
        zip(content["datasets"], content["probabilities" if form == "hugging_face" else "weights"], strict=True)
    )


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_keeps_domains_and_weights_exactly(form):
    assert read_back(form, FORMATS[form](WEIGHTS)) == WEIGHTS


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["format=csv"], "format is 'csv'; allowed are megatron, hugging_face, mosaic, litdata, olmo"),
        (["format=olmo"], "mixture_file is 'x.yaml', which does not exist; `fit` writes such files"),
        (["format=olmo", "mixture_file=."], "mixture_file is '.', which is no mixture file; give a YAML with lists"),
    ],
)
def test_a_request_that_cannot_be_is_refused(overrides, message, refused):
    assert refused("export", "mixture_file=x.yaml", *overrides).startswith(message)
