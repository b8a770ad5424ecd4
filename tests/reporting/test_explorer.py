import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from autoscale_exp.base.labels import short_label, signed
from autoscale_exp.laws.fit_file import read_fit, write_fit
from autoscale_exp.laws.law import fit_law
from autoscale_exp.laws.law_file import read_law, write_law
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.prediction import compare, predict_losses
from autoscale_exp.laws.request import Request
from autoscale_exp.laws.solution import solve
from autoscale_exp.laws.solver.constraints import Constraints
from autoscale_exp.reporting import explorer
from autoscale_exp.reporting.explorer import EXPLORER, write_explorer
from autoscale_exp.runs.table import RunTable

CHROMIUM = shutil.which("chromium")
NAMES, HELD_OUT = ["web", "code", "books"], "news"
RIVALS = {"uniform": dict.fromkeys(NAMES, 1 / 3), "mine": dict(zip(NAMES, [0.5, 0.3, 0.2], strict=True))}


TEXT = [2_000_000, 1_000_000, 3_000_000]  # of the domains
SIZES = {"no size": None, "one size": np.full(14, 1e5), "two sizes": np.tile([1e5, 2e5], 7)}


def runs(params):
    """Two budgets of three domains, validated on a fourth as well; runs that tell their sizes tell their text, too."""
    rng = np.random.default_rng(0)
    tokens = rng.dirichlet(np.ones(3), 14) * np.repeat([1e6, 3e6], 7)[:, None]
    use = np.array([[1.0, 0.1, 0.3], [0.1, 1.0, 0.1], [0.2, 0.1, 1.0], [0.6, 0.1, 0.5]])
    losses = 2 + 3 * ((tokens / 1e6) ** 0.5 @ use.T + 0.2) ** -0.5
    losses *= 1 if params is None else (params / 1e5)[:, None] ** -0.1
    losses += 0.01 * rng.standard_normal(losses.shape)
    names = [f"run{r}" for r in range(14)]
    labels = [
        f"{budget}, {size:g}"
        for budget, size in zip(np.repeat([1, 3], 7), [0] * 14 if params is None else params, strict=True)
    ]
    table = RunTable(names, NAMES, [*NAMES, HELD_OUT], tokens, losses, labels, params=params)
    return table if params is None else replace(table, unique_tokens=TEXT, pool_tokens=np.tile(TEXT, (14, 1)))


def request_of(metric):
    weights = {"web": 0.5, "books": 0.3, "news": 0.2}
    objective = make_objective("purpose", metric, weights, [*NAMES, HELD_OUT])
    bounds = make_bounds(0.2, 1.0, NAMES)
    return Request([6_000_000], objective, Constraints(bounds), num_next_runs=0)


@pytest.fixture(scope="module", params=[*SIZES])
def fit_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A fit with its page: of loss for models of two sizes, of perplexity otherwise."""
    folder, metric = tmp_path_factory.mktemp("fit"), "loss" if request.param == "two sizes" else "perplexity"
    fit, law = solve("pooled_transfer", runs(SIZES[request.param]), request_of(metric))
    write_law(folder, law.content())
    write_fit(folder, fit)
    assert write_explorer(folder, read_fit(folder, "fit"), read_law(folder / "law.json"), RIVALS)
    return folder


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser, fit_folder):
    page = browser.new_page(viewport={"width": 420, "height": 900})
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(f"file://{fit_folder / EXPLORER}")
    page.wait_for_selector("body[data-ready=yes]")
    yield page
    page.close()


def content_of(html):
    """What the page is told, but for the arrays."""
    (found,) = re.findall(r'<script type="application/json" id="content">(.*?)</script>', html)
    return json.loads(found)


def text(page, element):
    return page.locator(f"#{element}").inner_text()


def shares(page):
    return page.evaluate("explorer.shares")


def test_the_numbers_of_the_page_are_those_of_predict(page, fit_folder):
    law, objective = read_law(fit_folder / "law.json"), read_fit(fit_folder, "fit").objective.over([*NAMES, HELD_OUT])
    for weights, budget, size in [
        ((0.6, 0.1, 0.3), 4e6, 1e5),
        ((0.0, 0.3, 0.7), 5e5, 2e5),
        ((0.2, 0.4, 0.4), 2e7, 8e5),
    ]:
        size = size if law.formula.reference_params else law.params  # only runs of several sizes tell of others
        of_size = law if size is None else law.at_size(size)
        draws = of_size.draws(100, np.random.default_rng(0))
        tokens = np.array([weights]) * budget
        losses = predict_losses(of_size, draws, tokens)
        expected = {}
        for columns in compare(of_size, draws, objective, tokens, np.full((1, 3), np.nan)):
            expected |= columns
        page.evaluate(
            f"Object.assign(explorer, {{shares: {list(weights)}, budget: {budget}, size: {size or 'null'}}}).show()"
        )
        for element, column in {"objective": "objective", "gain": "gain_over_uniform"}.items():
            low, high = (f"{expected[f'{column}.{end}'][0]:.4f}" for end in ("low", "high"))
            assert text(page, element) == f"{expected[column][0]:.4f}"
            assert text(page, f"{element}-interval") == f"{low} to {high}"
        shown = [row.split("\t")[:2] for row in text(page, "losses").splitlines()]
        assert shown == [[v, f"{losses[f'loss.{v}'][0]:.4f}"] for v in [*NAMES, HELD_OUT]]


def test_a_share_that_is_moved_takes_from_the_others_in_proportion_and_leaves_locked_ones(page):
    typed = page.locator("input[type=number]")
    for k, percent in enumerate(["50", "30"]):
        typed.nth(k).fill(percent)
        typed.nth(k).blur()
    web, code, books = shares(page)
    assert code == pytest.approx(0.3)
    assert web + code + books == pytest.approx(1)
    page.locator("#lock-1").check()
    typed.nth(0).fill("90")
    typed.nth(0).blur()
    assert shares(page) == pytest.approx([0.7, 0.3, 0.0])  # what the locked one leaves, and no more
    typed.nth(2).fill("35")
    typed.nth(2).blur()
    assert shares(page) == pytest.approx([0.35, 0.3, 0.35])
    page.locator("#lock-0").check()
    typed.nth(2).fill("90")
    typed.nth(2).blur()
    assert shares(page) == pytest.approx([0.35, 0.3, 0.35])  # nothing is left to give


def test_marked_are_uniform_the_optimum_with_and_without_bounds_and_the_rivals(page, fit_folder):
    assert page.locator("#marks button").all_inner_texts() == ["uniform", "optimum, 6M", "without bounds, 6M", "mine"]
    page.get_by_role("button", name="optimum, 6M").click()
    weights = read_fit(fit_folder, "fit").targets[0].weights
    assert shares(page) == pytest.approx([*weights.values()])
    assert min(weights.values()) == pytest.approx(0.2)
    page.get_by_role("button", name="without bounds, 6M").click()
    assert min(shares(page)) < 0.19
    assert float(text(page, "gain")) > 0


def test_the_page_is_whole_without_a_network_and_fits_a_phone(page, fit_folder):
    assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.errors == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#map .contourlayer").count() == 1
    assert (fit_folder / EXPLORER).stat().st_size < 6e6


def test_a_fit_without_intervals_has_a_page_without_them(browser, tmp_path):
    asked = replace(request_of("loss"), num_draws=0)
    fit, law = solve("pooled_transfer", runs(None), asked)
    assert write_explorer(tmp_path, fit, law)
    page = browser.new_page()
    page.goto(f"file://{tmp_path / EXPLORER}")
    page.wait_for_selector("body[data-ready=yes]")
    assert float(text(page, "gain")) > 0
    assert text(page, "gain-interval") == text(page, "probability") == ""
    assert page.locator("#shown option").all_inner_texts() == ["gain over uniform"]
    page.close()


def test_half_of_the_map_of_uncertainty_is_in_the_lower_half_of_its_colours(page):
    """Although the interval is a point at uniform, and very wide where domains are missing."""
    page.locator("#shown").select_option("width")
    page.get_by_role("button", name="uniform").click()
    z, most = page.evaluate("(({ z, zmax }) => [z.flat().filter((at) => at !== null), zmax])(element('map').data[0])")
    assert min(z) == pytest.approx(0, abs=most / 10)
    assert np.median(z) == pytest.approx(most / 2)


def test_numbers_of_tokens_are_those_of_the_other_pages(page):
    for count in (1234, 999_499, 999_700, 12_345_678, 2e9):
        assert page.evaluate(f"short({count})") == short_label(count)


def test_two_domains_have_a_line_in_the_place_of_the_map(browser, tmp_path):
    table, names = runs(None), NAMES[:2]
    two = replace(table, domains=names, domain_tokens=table.domain_tokens[:, :2])
    objective = make_objective("news", "loss", {HELD_OUT: 1.0}, [*NAMES, HELD_OUT])
    constraints = Constraints(make_bounds(0.0, 1.0, names))
    fit, law = solve("pooled_transfer", two, Request([6_000_000], objective, constraints, num_next_runs=0))
    assert write_explorer(tmp_path, fit, law)
    page = browser.new_page()
    page.goto(f"file://{tmp_path / EXPLORER}")
    page.wait_for_selector("body[data-ready=yes]")
    low, high, median, *_ = page.evaluate("element('map').data")
    assert not page.locator(".axes").is_visible()
    for x in (0.25, 0.75):
        of_law = [law.predict(np.array([share, 1 - share]) * 6e6)[3] for share in (x, 0.5)]
        at = median["x"].index(x)
        assert median["y"][at] == pytest.approx(100 * (1 - of_law[0] / of_law[1]), abs=1)
        page.evaluate(f"Object.assign(explorer, {{shares: [{x}, {1 - x}]}}).show()")
        assert text(page, "relative-interval") == " to ".join(signed(-line["y"][at] / 100) for line in (high, low))
    page.close()


def test_a_page_stays_below_six_megabytes_however_large_the_law():
    assert len(explorer.plotly()) + 8 * explorer.MOST_NUMBERS * 4 / 3 < 5.9e6


def test_a_law_too_large_for_draws_has_a_page_without_them(monkeypatch):
    fit, law = solve("pooled_transfer", runs(None), request_of("loss"))
    monkeypatch.setattr(explorer, "MOST_NUMBERS", 10)
    assert content_of(explorer.render_explorer(fit, law, request_of("loss").objective, {}))["shapes"]["theta"][0] == 1


@pytest.mark.parametrize("sizes", ["one size", "two sizes"])
def test_the_page_opens_at_the_model_size_of_the_target(sizes):
    request = replace(request_of("loss"), params=3 * 10**6, num_draws=5)
    fit, law = solve("pooled_transfer", runs(SIZES[sizes]), request)
    content = content_of(explorer.render_explorer(fit, law, request.objective, {}))
    assert content["size"] == 3e6
    assert 3e6 in content["sizes"]


def test_a_law_of_another_form_has_no_page(tmp_path, fit_folder):
    law = fit_law("linear", runs(np.full(14, 1e5)))
    assert not write_explorer(tmp_path, read_fit(fit_folder, "fit"), law)
    assert not (tmp_path / EXPLORER).exists()
