"""Checks of a study's fits before any of their runs is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autoscale_exp.base.errors import UserError
from autoscale_exp.config import StudyConf
from autoscale_exp.laws.autoscale.solution import bounds_alone
from autoscale_exp.laws.fewest_runs import fewest_runs
from autoscale_exp.laws.fit_file import FitObjective
from autoscale_exp.laws.fit_folder import earlier_fit
from autoscale_exp.laws.reach import check_targets
from autoscale_exp.laws.request import Request
from autoscale_exp.laws.solver.constraints import check_constraints
from autoscale_exp.runs.record import RunRecord, read_records
from autoscale_exp.runs.scales import differ_in_budget
from autoscale_exp.studies.stages import StageList


def check_numbers_of_runs(stages: StageList, totals: Mapping[str, Sequence[int]]) -> None:
    """Checks that the search of every rival has as many runs as its law needs.

    Args:
        stages: the stages of a study.
        totals: by its stage, the total tokens of each run of a search.

    Raises:
        UserError: a search has fewer; the message says how to get enough.
    """
    store, scales = stages.store, stages.scales
    for name, fit in stages.fits.items():
        search = stages.conf.rivals[name].search
        stage = "search" if search is None else f"search {search}"
        if stage not in totals:  # the search of another study, whose runs are there
            continue
        count, scaled = len(totals[stage]), differ_in_budget(np.array(totals[stage])[:, None])
        needed = fewest_runs(fit.law.name, store.domains, store.validation_domains, scaled=scaled)
        if count >= needed:
            continue
        told = f"rival {name}: law={fit.law.name} needs {needed} runs, but '{stage}' has {count}"
        if search is None:
            raise UserError(f"{told}; add scales to design.scales, or to their runs (see design)")
        more = -(-(needed * min(scales) - stages.search_tokens) // sum(scales))
        repeats = stages.conf.design.base_repeats + more  # type: ignore[attr-defined]
        raise UserError(
            f"{told}, as many as the study's own search pays for; with design.base_repeats={repeats} that search pays "
            f"for enough, or leave {name} out of rivals"
        )


def check_scales(stages: StageList, requests: Mapping[str, Request]) -> None:
    """Checks that the proxy runs are large enough to have rows of every domain, and that fits can answer for targets.

    Args:
        stages: of a study.
        requests: by rival what its fit will be asked.

    Raises:
        UserError: a run would lack a domain, a target is smaller than the runs, or bounds leave no mixture for it.
    """
    smallest, store = min(stages.scales), stages.store
    if smallest < (least := len(store.domains) * store.seq_len):
        raise UserError(
            f"design.scales has {smallest:_}, but a row of each of the {len(store.domains)} domains takes {least:_} "
            "tokens; give larger scales"
        )
    budgets = stages.conf.token_budgets
    for name, request in requests.items():
        if stages.conf.rivals[name].search is None:
            check_targets(budgets, [float(smallest)], "token_budgets")
        try:
            check_constraints(request.constraints, budgets[-1], store.domains)
        except UserError as error:
            raise UserError(f"rival {name}: {error}") from None


def check_objective(stages: StageList, requests: Mapping[str, Request]) -> None:
    """Checks that a study's folder has no fits for another objective, by which its target runs are judged.

    Args:
        stages: the stages of a study.
        requests: the request to each rival's fit, by rival.

    Raises:
        UserError: it has such a fit; the message says how two studies can share a search.
    """
    domains, conf = stages.store.validation_domains, stages.conf
    for name, request in requests.items():
        asked, before = FitObjective.of(request.objective, domains), earlier_fit(Path(stages.fits[name].output_dir))
        if before is not None and before.objective != asked:
            raise UserError(
                f"objective is '{asked.name}', but the study in '{conf.output_dir}' has a fit for "
                f"'{before.objective.name}'; a study of this one takes a name of its own and the same proxy runs: "
                f"name={conf.name}_{asked.name} search={conf.search or conf.output_dir}"
            )


def check_ratios(stages: StageList, requests: Mapping[str, Request]) -> None:
    """Checks that the published method will find ratios of all domain tokens between two scales.

    Args:
        stages: the stages of a study.
        requests: the request to each rival's fit, by rival.

    Raises:
        UserError: the method cannot do what is asked, or an optimum may have none of a domain.
    """
    domains = stages.store.domains
    for name, request in requests.items():
        if stages.fits[name].law.name != "autoscale":
            continue
        lower, fifth = bounds_alone(request).lower, 0.2 / len(domains)
        if not (lower > 0).all():
            raise UserError(
                f"bounds.lower of '{domains[int(lower.argmin())]}' is 0, but rival {name} extrapolates by ratios of "
                f"domain tokens, and an optimum may have none of that domain; add bounds.lower={fifth:.2g} (a fifth of "
                f"an equal share, the authors' choice), or leave {name} out of rivals"
            )


def first_of_search(conf: StudyConf) -> RunRecord:
    """Reads a run of the search that a study takes over.

    Raises:
        UserError: there is none, or its model is not that of the study.
    """
    record = read_records(Path(str(conf.search)))[0]
    if record.model != conf.model.name:
        raise UserError(
            f"search is '{conf.search}', whose runs are of model '{record.model}', but model is '{conf.model.name}'; "
            f"add model={record.model}, or leave out search"
        )
    return record
