import itertools
import json
import shlex
import sys
from collections import Counter

import datasets
import pytest
import yaml

from autoscale_exp.base.errors import UserError
from autoscale_exp.export import FORMATS, USES, main, megatron, weights_to_export

# An unquoted no is false in YAML, and 1e-05 is a text.
WEIGHTS = {"web": 1 / 3, "no": 0.1 + 0.2, "Wikipedia (en)": 1 - 1 / 3 - (0.1 + 0.2) - 1e-5, "It's 本": 1e-5}


def read_back(form, text):
    if form == "megatron":  # as a shell splits the text, and get_blend_from_list pairs the words
        words = shlex.split(text)
        return {domain: float(weight) for weight, domain in zip(words[::2], words[1::2], strict=True)}
    if form == "mosaic":
        return {domain: stream["proportion"] for domain, stream in yaml.safe_load(text)["streams"].items()}
    if form == "olmo":
        return {source["source_name"]: source["target_ratio"] for source in yaml.safe_load(text)["sources"]}
    content = json.loads(text)
    return dict(
        zip(content["datasets"], content["probabilities" if form == "hugging_face" else "weights"], strict=True)
    )


@pytest.fixture
def mixture(tmp_path):
    path = tmp_path / "mixture.yaml"

    def written(weights):
        domains = json.dumps(list(weights), ensure_ascii=False)
        path.write_text(f"domains: {domains}\nweights: {json.dumps(list(weights.values()))}\n", encoding="utf-8")
        return path

    return written


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_keeps_domains_and_weights_exactly(form):
    assert read_back(form, FORMATS[form](WEIGHTS)) == WEIGHTS


def test_a_source_of_olmo_core_has_its_three_fields():
    (source,) = yaml.safe_load(FORMATS["olmo"]({"web": 1.0}))["sources"]
    assert source == {"source_name": "web", "target_ratio": 1.0, "paths": []}


def test_a_domain_of_weight_0_is_left_out_and_told(mixture, capsys):
    weights = weights_to_export(mixture({"web": 0.75, "code": 0.25, "books": 0.0, "wiki": 0}))
    assert weights == {"web": 0.75, "code": 0.25}
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "left out, with weight 0: books, wiki\n")


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_stands_alone_where_a_program_reads_it_and_people_are_told_its_use(
    form, mixture, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    asked = [f"mixture_file={mixture({'web': 0.75, 'code': 0.25})}", f"format={form}", "hydra/job_logging=none"]
    for is_terminal, told in ((False, ""), (True, f"next: {USES[form]}\n")):
        monkeypatch.setattr(sys, "argv", ["export", *asked])
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
        main()
        output = capsys.readouterr()
        assert read_back(form, output.out) == {"web": 0.75, "code": 0.25}
        assert output.err == told


def test_hugging_face_draws_from_the_exported_domains_by_their_weights(mixture):
    exported = json.loads(FORMATS["hugging_face"](weights_to_export(mixture({"web": 0.7, "none": 0.0, "code": 0.3}))))
    named = [
        datasets.Dataset.from_dict({"of": [name] * 500}).to_iterable_dataset() for name in exported.pop("datasets")
    ]
    drawn = datasets.interleave_datasets(named, seed=0, **exported)
    counts = Counter(row["of"] for row in itertools.islice(drawn, 600))
    assert counts["web"] + counts["code"] == 600
    assert counts["web"] / 600 == pytest.approx(0.7, abs=4 * (0.7 * 0.3 / 600) ** 0.5)


def test_a_file_for_megatron_has_no_quotes():
    assert megatron({"a(1)": 0.5, "b": 0.5}, for_shell=False) == "0.5 a(1) 0.5 b\n"
    assert megatron({"a(1)": 0.5, "b": 0.5}) == "0.5 'a(1)' 0.5 b\n"
    assert megatron({"книги": 1.0}) == "1.0 книги\n"


@pytest.mark.parametrize(
    ("name", "for_shell", "message"),
    [
        ("Ubuntu IRC", False, "domain 'Ubuntu IRC' has blanks, at which Megatron splits what it reads; rename it, or"),
        (" web", True, "domain ' web' has blanks"),
        ("-web", True, "domain '-web' begins with '-', so that Megatron takes it for an option; rename it"),
    ],
)
def test_a_name_that_megatron_cannot_take_is_refused(name, for_shell, message):
    with pytest.raises(UserError, match=message):
        megatron({name: 1.0}, for_shell=for_shell)


def test_a_file_is_written_only_of_a_sound_mixture(mixture, refused, tmp_path):
    path = mixture({"web": 1.5, "code": -0.5})
    line = refused("export", f"mixture_file={path}", "format=hugging_face", "output=out.json")
    assert line == f"the weights in '{path}': the weight of 'code' is -0.5; allowed are numbers from 0 to 1"
    line = refused("export", f"mixture_file={mixture({'Ubuntu IRC': 1})}", "format=megatron", "output=out.json")
    assert line.startswith("domain 'Ubuntu IRC' has blanks")
    assert not (tmp_path / "out.json").exists()


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
