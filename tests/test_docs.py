"""The pages: their links and pictures are there, and the formats have every key."""

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from autoscale_exp.data.manifest import (
    DomainEntry,
    FileEntry,
    Manifest,
    TokenizerEntry,
    TrainEntry,
    ValidationEntry,
)
from autoscale_exp.laws.fit_file import (
    Backtest,
    Diagnostics,
    Fit,
    FitObjective,
    FittedMixture,
    Gain,
    NextRun,
    Response,
    Risk,
)
from autoscale_exp.runs.identity import RunIdentity
from autoscale_exp.runs.record import CurvePoint, RunRecord, StageRecord, WeightsPoint
from autoscale_exp.runs.sweep_file import SweepFile

ROOT = Path(__file__).parent.parent
PAGES = [page for pattern in ("*.md", "docs/**/*.md", "tests/**/*.md") for page in sorted(ROOT.glob(pattern))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
MOST_LINES = 120  # of the README
SCALES = ("0.4M", "1.2M")  # of the quickstart's search


def percents(values):
    """The least and the greatest as text, the least one in size first."""
    return " to ".join(f"{100 * value:+.1f}".replace("-", "−") for value in sorted([min(values), max(values)], key=abs))


def test_readme_expects_what_the_committed_quickstart_ended_with():
    result = json.loads((ROOT / "benchmarks/results/quickstart.json").read_text())
    proxies, ends = result["proxy_runs"], {name: np.array(of) for name, of in result["final"].items()}
    base = {at: np.array([end for run, end in proxies.items() if re.match(rf"base.*_{at}", run)]) for at in SCALES}
    level, spread = [*base.values(), ends["uniform"]], "its standard deviation over seeds"
    rows = [f"| uniform mixture | {' | '.join(f'{of.mean():.1f}' for of in level)} |"]
    rows += [f"| {spread} | {' | '.join(f'{of.std(ddof=1):.2f}'.lstrip('0') for of in level)} |"]
    for times, change in {"x3": "times 3", "x0.333": "divided by 3"}.items():
        ratios = [
            [end / base[at].mean() - 1 for run, end in proxies.items() if f"_{times}_{at}" in run] for at in SCALES
        ]
        rows.append(f"| one domain's tokens {change} | {' | '.join(map(percents, ratios))} | |")
    for name, law in {"fitted": "default", "autoscale": "published"}.items():
        of, lower = ends[name], -100 * result["difference_vs_uniform"][name]["relative"]
        sooner = 100 * result["savings_vs_uniform"][name]["on_curves"]
        trained = f"{of.mean():.1f} ± {of.std(ddof=1):.1f}".replace("± 0", "± ")
        rows.append(
            f"| mixture of the {law} law, trained | | | {trained}: {lower:.1f} % lower, {sooner:.0f} % sooner |"
        )
    gain = result["gain_expected"]
    low, high = (100 * end * gain["relative"] / gain["median"] for end in gain["interval"])
    expected = f"{100 * gain['relative']:.1f} % ({low:.1f} to {high:.1f} %)".replace("-", "−")
    rows.append(f"| gain over uniform that the fit expects (90 % interval) | | | {expected} |")
    readme = (ROOT / "README.md").read_text()
    assert [row for row in rows if row not in readme] == []


def without_blocks(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text):
    """What GitHub makes of headings: lower case, punctuation left out, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_pictures_lead_somewhere(page):
    for link in LINK.findall(without_blocks(page.read_text())):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: there is no such file"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{link}: there is no such heading"


def test_the_pages_are_found():
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "docs/formats.md"} <= names


def test_anchors_are_those_of_github():
    assert anchors("# A run's law.json\n```\n# no heading\n```\n## Two words") == {"a-runs-lawjson", "two-words"}


def test_the_readme_links_every_page_of_docs():
    links = LINK.findall((ROOT / "README.md").read_text())
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= set(links)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


def test_no_page_names_a_folder_of_one_machine():
    for page in PAGES:
        assert not re.search(r"/(home|root|Users|tmp|work)/", page.read_text()), page


@pytest.mark.parametrize(
    ("heading", "schemas", "more"),
    [
        ("result.json", [RunRecord, CurvePoint, StageRecord, WeightsPoint], {"format"}),
        ("identity.json", [RunIdentity], {"format"}),
        ("sweep.json", [SweepFile], {"format"}),
        (
            "fit.json",
            [Fit, FitObjective, FittedMixture, Gain, NextRun, Risk, Diagnostics, Backtest, Response],
            {"format"},
        ),
        (
            "manifest.json",
            [Manifest, TokenizerEntry, DomainEntry, TrainEntry, ValidationEntry, FileEntry],
            {"format", "fingerprint", "checksum"},
        ),
    ],
)
def test_the_formats_have_every_key_of_a_file_and_no_other(heading, schemas, more):
    text = (ROOT / "docs" / "formats.md").read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    keys = {field.name for schema in schemas for field in fields(schema)} | more
    named = set(re.findall(r"`(\w+)`", section))
    assert keys <= named, f"{sorted(keys - named)} are not told of"
    rows = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert rows <= keys, f"{sorted(rows - keys)} are no keys"


def test_the_owners_of_formats_are_there():
    text = (ROOT / "docs" / "formats.md").read_text()
    owners = re.findall(r"\| `([\w/]+\.py)` \|", text)
    assert len(owners) == 14
    assert all((ROOT / "autoscale_exp" / owner).is_file() for owner in owners)


def test_the_table_of_faults_has_all_that_were_tried():
    faults = json.loads((ROOT / "benchmarks" / "faults.json").read_text())
    table = (ROOT / "docs" / "clusters.md").read_text().split("## Faults")[1]
    assert re.findall(r"^\| ([^|]+?) \| ", table, re.MULTILINE)[1:] == list(faults)
    assert all(fault["equal"] and fault["trained_again"] == 0 for fault in faults.values())
    assert not any("TRACEBACK" in fault["said"] for fault in faults.values())


def test_pictures_are_small():
    for picture in (ROOT / "docs").glob("*.png"):
        assert picture.stat().st_size < 300_000
