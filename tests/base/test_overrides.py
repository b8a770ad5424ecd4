"""What people type on the command line arrives as they mean it, or the error has the line to type instead."""

import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.base.overrides import dotted_override, override_of, readable


def value_of(argument):
    (override,) = readable([argument])
    return OverridesParser.create().parse_override(override).value()


def composed(job, *arguments):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return to_typed(compose(job, readable(arguments)))


@pytest.mark.parametrize(
    "path",
    [
        "/data/книги",
        "/données/été",
        "/data/v[1]",
        "/data/a(1)",
        "/data/{a}",
        "/a b",
        "it's",
        "a#b",
        "a&b;c!",
        'say "x"',
    ],
)
def test_a_path_with_letters_that_hydra_refuses_needs_no_quotes(path):
    assert value_of(f"data.path={path}") == path


def test_the_home_folder_is_where_tilde_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    home = str(tmp_path / "Zoë")
    monkeypatch.setenv("HOME", home)
    assert value_of("data.path=~") == home
    assert value_of("data.path=~/a") == f"{home}/a"
    assert value_of("data.path=/a/~/b~") == "/a/~/b~"
    assert readable(["~logger"]) == ["~logger"]
    conf = composed("prepare", "data=local", "data.domains=[a]", 'data.path="~/a"', 'data.files=["~/b","/c/~"]')
    assert (conf.data.path, conf.data.files) == (f"{home}/a", [f"{home}/b", "/c/~"])


def test_what_hydra_reads_by_itself_stays_as_it_was():
    given = ["seed=1", "seed=0,1", "x=range(0,3)", "a=[1,2]", "a={b: 1}", 'a="x=y"', "a=null", "a=", "-m", "a=/x/b c"]
    assert readable(given) == given
    once = readable(["data.path=/é", "bounds.lower={web:.1}"])
    assert readable(once) == once


UNREADABLE = {
    "checkpoint=/x/epoch=3-step=100": 'checkpoint="/x/epoch=3-step=100"',
    "data.files=[/x/a=b.jsonl,/x/c(1).jsonl]": 'data.files=["/x/a=b.jsonl","/x/c(1).jsonl"]',
    "+bounds.groups.g={domains: [Wikipedia (en), Pile-CC],upper:.5}": (
        '+bounds.groups.g={domains:["Wikipedia (en)",Pile-CC],upper:.5}'
    ),
    "+model={Wikipedia (en): a=b}": r'+model={Wikipedia\ \(en\):"a=b"}',
    "++data.sources.2024-05.files=[a]": "++data.sources={2024-05: {files: [a]}}",
}


@pytest.mark.parametrize("override", UNREADABLE)
def test_an_override_that_cannot_be_read_is_told_with_what_to_type(override, refused):
    line = refused("evaluate", override)
    key, value = override.lstrip("+").split("=", 1)
    assert line.startswith(f"{key} is '{value}', which Hydra cannot read (")
    (typed,) = shlex.split(line.rpartition("; quote it, as in ")[2])
    assert typed == UNREADABLE[override]
    OverridesParser.create().parse_override(typed)


def test_a_list_without_brackets_is_told_with_them(refused):
    line = refused("prepare", "data=local", "data.domains=веб,Pile (CC)")
    listed, text = """'data.domains=["веб","Pile (CC)"]'""", """'data.domains="веб,Pile (CC)"'"""
    assert line.endswith(f"; write a list as {listed}, a text as {text}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("runs", "'runs' cannot be read; an override is key=value, as in seed=1"),
        ("target_tokens=[1,2", "target_tokens is '[1,2', which has no ] at its end"),
        ("+bounds.groups.g={книги:[1]}", "write it in a YAML in conf/, names in quotes"),
        ("runs=a,b.csv", """a text is quoted, as in 'runs="a,b.csv"'"""),
    ],
)
def test_an_override_for_which_quotes_are_not_enough_says_so(override, message, refused):
    assert message in refused("fit", override)


@pytest.mark.parametrize("name", ["web", "cc.v2", "2024", "2024-05", "1a", "-x"])
def test_an_advised_override_of_an_entry_can_be_typed_whatever_its_name(name):
    typed = shlex.split(dotted_override("data.sources", name, "files", "[a]"))
    conf = composed("prepare", "data=local", "data.domains=[a]", "data.path=x", *typed)
    section = conf.data.sources
    for part in name.split(".") if name == "cc.v2" else [name]:
        section = section.get(part) or section[int(part)]
    assert section == {"files": ["a"]}


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_mapping_by_domain_takes_the_place_of_the_one_in_the_config(plus):
    conf = composed("fit", "objective=quickstart/reading", f"{plus}objective.weights={{web: .5, Wikipedia (en):0.5}}")
    assert conf.objective.weights == "{web: .5, Wikipedia (en):0.5}"


def test_the_last_of_two_mappings_by_domain_counts():
    conf = composed("fit", "bounds.lower={web:.1}", "bounds.lower={code:.2}")
    assert conf.bounds.lower == "{code:.2}"


def test_mappings_by_domain_can_be_swept_over():
    assert [v.text for v in value_of("bounds.lower={a:.1,b:.2},{a:.3}").list] == ["{a:.1,b:.2}", "{a:.3}"]


def test_a_folder_of_a_job_may_be_beneath_home_in_a_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        conf = compose("fit", ['output_dir="~/out"'], return_hydra_config=True)
    assert conf.hydra.run.dir == f"{tmp_path}/out"


NAMES = st.from_regex(r"[a-z][a-z0-9 ._()-]{0,6}[a-z0-9)]", fullmatch=True).filter(lambda name: "  " not in name)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_an_override_gives_the_value_that_it_is_made_of(value):
    parsed = OverridesParser.create().parse_override(override_of("key", value))
    assert parsed.value() == value
