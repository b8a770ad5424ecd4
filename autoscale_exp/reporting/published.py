"""A published study's numbers beside those of this study, for a report."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoscale_exp.base.labels import budget_label, percent, short_label, signed
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.reporting.conf import PublishedConf
from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.reporting.savings import savings_of
from autoscale_exp.reporting.searches import Searches
from autoscale_exp.reporting.target_runs import MixtureRuns, NamedObjective
from autoscale_exp.runs.record import RunRecord

METHOD = "autoscale"  # the method that the numbers are of
OURS = (METHOD, "fitted")  # mixtures that are no baselines


@dataclass(frozen=True)
class Beside:
    """Published tables with this study's numbers beside them.

    Attributes:
        note: what the two studies share, and what not.
        tables: columns and rows, by title.
    """

    note: str
    tables: dict[str, tuple[list[str], list[list[str]]]]


def beside(
    published: PublishedConf,
    autoscale: Fit | None,
    budgets: Mapping[int, Mapping[str, MixtureRuns]],
    searches: Searches,
    objective: NamedObjective,
    downstream: DownstreamTable,
) -> Beside:
    """Puts this study's numbers beside the published ones.

    Args:
        published: the numbers.
        autoscale: the fit of the published method, or None.
        budgets: target runs by token budget, smallest first, and mixture.
        searches: the searches, with the proxy runs.
        objective: the objective of the study.
        downstream: scores by task and mixture.
    """
    *_, (target, mixtures) = budgets.items()
    record = next(iter(mixtures.values())).records[0]
    here = f"here {short_label(record.params)} parameters and {short_label(target)} tokens"
    note = f"Published: {published.model}, {short_label(published.target)} tokens; {here}."
    if list(record.tokens) != published.domains or target != published.target:
        note += " They differ in scale or data, so only the shape of the numbers compares."
    tables = {
        "Weights by token budget": _weights(published, autoscale),
        "What a domain's tokens do to the objective": _effects(published, searches.runs.get(".", []), objective),
        "Tokens saved by the published method": _savings(published, budgets, searches),
        "Scores against uniform": _scores(published, downstream),
    }
    return Beside(note, {title: table for title, table in tables.items() if table[1]})


def _weights(published: PublishedConf, autoscale: Fit | None) -> tuple[list[str], list[list[str]]]:
    """A row per domain and a column per token budget, of either study."""
    if not published.weights:
        return [], []
    entries = [] if autoscale is None else sorted(autoscale.scales + autoscale.targets, key=lambda entry: entry.tokens)
    columns = [f"published {short_label(tokens)}" for tokens in published.weights]
    columns += [f"here {short_label(entry.tokens)}" for entry in entries]
    there = {
        tokens: dict(zip(published.domains, weights, strict=True)) for tokens, weights in published.weights.items()
    }
    shares: list[Mapping[str, float]] = [*there.values(), *(entry.weights for entry in entries)]
    domains = dict.fromkeys([*published.domains, *(autoscale.domains if autoscale else [])])
    return ["domain", *columns], [
        [domain, *(percent(weights[domain]) if domain in weights else "" for weights in shares)] for domain in domains
    ]


def _effects(
    published: PublishedConf, runs: Sequence[RunRecord], objective: NamedObjective
) -> tuple[list[str], list[list[str]]]:
    """A row per domain of either study; at each scale, columns with fewer and with more of its tokens."""
    if not published.effects:
        return [], []
    scales = {budget: effects_of(runs, budget, objective) for budget in sorted({run.token_budget for run in runs})}
    scales = {budget: effects for budget, effects in scales.items() if effects}
    columns = ["published, less", "published, more"]
    columns += [f"here {short_label(budget)}, {side}" for budget in scales for side in ("less", "more")]
    domains = dict.fromkeys([*published.effects, *(domain for effects in scales.values() for domain in effects)])
    return ["domain", *columns], [
        [domain, *(cell for of in (published.effects, *scales.values()) for cell in _pair(of.get(domain)))]
        for domain in domains
    ]


def _pair(effect: Sequence[float] | None) -> list[str]:
    return ["", ""] if effect is None else [signed(change) for change in effect]


def effects_of(runs: Sequence[RunRecord], budget: int, objective: NamedObjective) -> dict[str, list[float]]:
    """Changes of the objective with fewer and with more tokens of a domain than in the base run, as shares, by domain.

    Args:
        runs: the runs of a search.
        budget: token budget of the scale.
        objective: the objective to compare.
    """
    of_scale = [run for run in runs if run.token_budget == budget]
    base = next((run for run in of_scale if run.run == f"base_{budget_label(budget)}"), None)
    if base is None:
        return {}
    changes: dict[str, list[tuple[int, float]]] = {}
    for run in of_scale:
        changed = [domain for domain, tokens in run.tokens.items() if tokens != base.tokens[domain]]
        if len(changed) == 1 and run.seed == base.seed:
            entry = (run.tokens[changed[0]], objective(run.losses) / objective(base.losses) - 1)
            changes.setdefault(changed[0], []).append(entry)
    return {d: [change for _, change in sorted(changes[d])] for d in base.tokens if len(changes.get(d, [])) == 2}


def _savings(
    published: PublishedConf, budgets: Mapping[int, Mapping[str, MixtureRuns]], searches: Searches
) -> tuple[list[str], list[list[str]]]:
    """A row per reference, read off the validation curves as in the published study."""
    if not published.savings:
        return [], []
    *_, mixtures = budgets.values()
    baselines = {name: runs.final.mean() for name, runs in mixtures.items() if name not in OURS}
    references = {"uniform": "uniform", "best baseline": min(baselines, key=lambda name: baselines[name], default="")}
    rows = []
    for reference, share in published.savings.items():
        name = references.get(reference, reference)
        here = "not trained"
        if METHOD in mixtures and name in mixtures:
            saving = savings_of(budgets, name, searches)[METHOD].on_curves
            here = "not known" if saving is None else signed(saving, 0)
        rows.append([f"against {reference}", signed(share, 0), here if name == reference else f"{here} ({name})"])
    return ["", "published", "here, off the curves"], rows


def _scores(published: PublishedConf, downstream: DownstreamTable) -> tuple[list[str], list[list[str]]]:
    """A row per task: the gain of the method over uniform in the task's mean, or else in its first score."""
    rows = []
    for task, gain in published.scores.items():
        named = [name for name in downstream if re.match(rf"{re.escape(task)}\b", name)]
        name = next((name for name in named if "mean of" in name), named[0] if named else "")
        own, base = (downstream.get(name, {}).get(mixture) for mixture in (METHOD, "uniform"))
        here = "not evaluated"
        if own and base and own.values and base.values:
            here = f"{signed(own.mean / base.mean - 1)} ({name})" if base.mean > 0 else f"not known ({name})"
        rows.append([task, signed(gain), here])
    return ["task", "published", "here"], rows
