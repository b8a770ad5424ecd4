"""The folder of a fit: an earlier fit there and what of it stays valid, mixtures, and proposed runs."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import budget_label, short_label
from autoscale_exp.laws.fit_file import FIT, Fit, FitObjective, FittedMixture, read_fit
from autoscale_exp.mixture.weights import write_mixture_file
from autoscale_exp.runs.proposal import FOLDER as PROPOSALS
from autoscale_exp.runs.proposal import Proposal, write_proposals

log = logging.getLogger(__name__)

SAME = 1e-6  # largest difference between weights that count as the same


def earlier_fit(folder: Path) -> Fit | None:
    """Reads the fit in a folder; None if there is none, or one of another version, whose files stay."""
    try:
        return read_fit(folder, "output_dir")
    except UserError:
        return None


def check_place(folder: Path, law: str, objective: FitObjective) -> None:
    """Checks that no fit of another law or objective would be replaced, since target runs may be judged by it.

    Raises:
        UserError: such a fit lies in the folder.
    """
    before = earlier_fit(folder)
    if before is None or (before.law, before.objective) == (law, objective):
        return
    own = re.sub(r"\W+", "_", objective.name if before.law == law else law)
    raise UserError(
        f"output_dir is '{folder}', which holds the fit of {_described(before.law, before.objective)}; this one is of "
        f"{_described(law, objective)}: give it its own folder, as in output_dir={folder}_{own}, or delete that one"
    )


def _described(law: str, objective: FitObjective) -> str:
    """A law and an objective in a few words, with the weights if they differ."""
    weights: Mapping[str, float] = objective.weights or {}
    shares = ", ".join(f"{domain} {weight:.3g}" for domain, weight in weights.items())
    return f"law {law}, objective {objective.name}" + (f" ({shares})" if len(set(weights.values())) > 1 else "")


def with_earlier_targets(fit: Fit, before: Fit | None) -> Fit:
    """Adds the targets of an earlier fit that are still valid to those of a fit. Logs which stay, and which do not.

    They are valid if the command was the same but for the targets, and every scale has the same mixture, as it has only
    with the same runs.
    """
    asked = {target.tokens for target in fit.targets}
    others = [] if before is None else [target for target in before.targets if target.tokens not in asked]
    if before is None or not others:
        return fit
    budgets = ", ".join(short_label(target.tokens) for target in others)
    if _settings(fit) == _settings(before) and _same_scales(fit, before):
        log.info("the mixtures that an earlier fit found for %s tokens stay", budgets)
        return replace(fit, targets=[*fit.targets, *others])
    again = ",".join(f"{target.tokens:_}" for target in [*others, *fit.targets])
    log.warning(
        "the mixtures for %s tokens, which an earlier fit found with other runs or settings, are removed; "
        "target_tokens=[%s] finds them anew",
        budgets,
        again,
    )
    return fit


def _settings(fit: Fit) -> list[str]:
    return sorted(override for override in fit.overrides if not override.startswith("target_tokens="))


def _same_scales(fit: Fit, before: Fit) -> bool:
    if [scale.tokens for scale in fit.scales] != [scale.tokens for scale in before.scales]:
        return False
    return all(
        abs(one.weights[domain] - other.weights.get(domain, np.inf)) <= SAME
        for one, other in zip(fit.scales, before.scales, strict=True)
        for domain in fit.domains
    )


def write_mixtures(folder: Path, fit: Fit) -> None:
    """Writes a mixture file for each target, and removes those that only the earlier fit has."""
    targets = {budget_label(target.tokens): target for target in fit.targets}
    for label in _written_before(folder) - targets.keys():
        (folder / "mixtures" / f"{label}.yaml").unlink(missing_ok=True)  # fit.json will no longer tell of it
    for label, target in targets.items():
        origin = (
            f"the mixture for {short_label(target.tokens)} tokens by law {fit.law}, objective {fit.objective.name} "
            f"({target.method}); see ../{FIT}"
        )
        weights = np.array(list(target.weights.values()))
        path = folder / "mixtures" / f"{label}.yaml"
        write_mixture_file(path, fit.domains, weights, target.tokens, origin)


def proposals_path(folder: Path, target: FittedMixture) -> Path:
    """The path of the table of runs that a fit proposes for a target."""
    return folder / PROPOSALS / f"{budget_label(target.tokens)}.csv"


def write_next_runs(folder: Path, fit: Fit) -> None:
    """Writes a table of proposed runs for each target, and removes those of the earlier fit; see `runs.proposal`."""
    targets = {budget_label(target.tokens): target for target in fit.targets if target.next_runs}
    for label in _written_before(folder) - targets.keys():
        (folder / PROPOSALS / f"{label}.csv").unlink(missing_ok=True)
    for target in targets.values():
        proposals = [
            Proposal(run.run, run.token_budget, run.seed, tuple(run.domain_tokens.values()), run.params)
            for run in target.next_runs or []
        ]
        write_proposals(proposals_path(folder, target), fit.domains, proposals)


def _written_before(folder: Path) -> set[str]:
    """Labels of the targets whose files the earlier fit wrote; all other files in the folder are left alone."""
    before = earlier_fit(folder)
    return {budget_label(target.tokens) for target in before.targets} if before else set()
