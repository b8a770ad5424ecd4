"""The request to a fit, made from its config and checked against the runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.by_domain import in_order
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.conf import BoundsConf, RequestConf
from autoscale_exp.laws.objective import Objective, make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.reach import ROUNDING
from autoscale_exp.laws.solver.constraints import Constraints, GroupCap, check_text
from autoscale_exp.runs.table import RunTable


@dataclass(frozen=True)
class Request:
    """What is asked of a fit.

    Attributes:
        targets: token budgets to find mixtures for.
        objective: what is minimised.
        constraints: what every mixture must meet.
        kl_weight: weight of the KL divergence from `prior`, which is added to the objective.
        prior: (K,) weights; None for equal ones. A law without slopes draws mixtures about it.
        num_draws: number of draws for intervals; 0 for no intervals.
        seed: seed of the draws.
        num_next_runs: number of proxy runs to propose.
        next_scales: token budgets of proposed runs; empty for those of the present runs.
        next_sizes: model sizes of proposed runs, in parameters; empty for those of the present runs.
        params: model size that the targets are for; None for the largest of the runs.
        unique_tokens: (K,) tokens of the text that mixtures are for; more tokens repeat it. None for the runs' text.
    """

    targets: Sequence[int]
    objective: Objective
    constraints: Constraints
    kl_weight: float = 0.0
    prior: FloatArray | None = None
    num_draws: int = 100
    seed: int = 0
    num_next_runs: int = 3
    next_scales: Sequence[int] = ()
    next_sizes: Sequence[int] = ()
    params: int | None = None
    unique_tokens: FloatArray | None = None


def make_request(conf: RequestConf, table: RunTable) -> Request:
    """Makes the request of the config, checked against the runs.

    Raises:
        UserError: a domain is unknown, or a value is not allowed; the message names the key.
    """
    section = conf.objective
    text = _text_of(conf, table)
    return Request(
        targets=conf.target_tokens,
        objective=make_objective(
            section.name, section.metric, section.weights, table.validation_domains, section.aggregate
        ),
        constraints=_constraints_of(conf, table, text),
        kl_weight=section.kl_weight,
        prior=_prior_of(conf, table, text),
        num_draws=conf.num_draws if conf.uncertainty == "intervals" else 0,
        seed=conf.seed,
        num_next_runs=conf.num_next_runs,
        next_scales=conf.next_scales,
        params=conf.target_params,
        unique_tokens=text if conf.bounds.unique_tokens is not None else None,
    )


def _text_of(conf: RequestConf, table: RunTable) -> FloatArray | None:
    """Returns (K,) tokens of the text that mixtures are for: from the config, or else from the runs, if they tell.

    Raises:
        UserError: the config has fewer tokens of a domain than a run saw in one epoch.
    """
    if conf.bounds.unique_tokens is None:
        return None if table.unique_tokens is None else np.array(table.unique_tokens, dtype=float)
    given = in_order(conf.bounds.unique_tokens, table.domains, key="bounds.unique_tokens")
    text = check_text(given, len(table.domains))
    if table.pool_tokens is not None:
        seen = np.minimum(table.domain_tokens, table.pool_tokens)
        for r, k in np.argwhere(seen > (1 + ROUNDING) * text):
            raise UserError(
                f"bounds.unique_tokens of '{table.domains[k]}' is {text[k]:_.0f}, but run '{table.runs[r]}' saw "
                f"{seen[r, k]:_.0f} tokens of it in one epoch; give all that there are, or leave it out"
            )
    return text


def _constraints_of(conf: RequestConf, table: RunTable, text: FloatArray | None) -> Constraints:
    """Makes the constraints of the `bounds` section, and of `objective.no_worse_than_uniform`.

    Raises:
        UserError: epochs are limited, but the amount of text is unknown; or a bound or group is not allowed.
    """
    limits, num_domains = conf.bounds, len(table.domains)
    if limits.max_epochs is not None and text is None:
        raise UserError(
            f"bounds.unique_tokens is not set, and '{conf.runs}' tells of none, being no sweep's folder and without "
            "columns unique.<domain>; give the tokens that each domain has, in the order of the domains"
        )
    return Constraints(
        make_bounds(limits.lower, limits.upper, table.domains),
        text if limits.max_epochs is not None else None,
        limits.max_epochs,
        _groups_of(limits, table.domains),
        np.full(num_domains, 1 / num_domains) if conf.objective.no_worse_than_uniform else None,
    )


def _groups_of(limits: BoundsConf, domains: Sequence[str]) -> list[GroupCap]:
    """Makes the caps of `bounds.groups`.

    Raises:
        UserError: a group lacks its domains or its limit, or names an unknown domain.
    """
    groups = []
    for name, group in limits.groups.items():
        if not (
            isinstance(group, dict)
            and set(group) == {"domains", "upper"}
            and isinstance(group["domains"], list)
            and isinstance(group["upper"], int | float)
        ):
            raise UserError(f"bounds.groups.{name} is {group}; give it as {{domains: [...], upper: <share>}}")
        unknown = [domain for domain in group["domains"] if domain not in domains]
        if unknown:
            raise UserError(f"bounds.groups.{name} names '{unknown[0]}'; the domains are {', '.join(domains)}")
        groups.append(GroupCap(name, [domains.index(d) for d in group["domains"]], float(group["upper"])))
    return groups


def _prior_of(conf: RequestConf, table: RunTable, text: FloatArray | None) -> FloatArray | None:
    """Returns the (K,) weights of `objective.prior`; None for equal ones.

    Raises:
        UserError: the prior is natural, and the amount of text is unknown; or it is no list of numbers.
    """
    prior = conf.objective.prior
    if prior is None:
        return None
    if prior != "natural":
        return np.array(in_order(prior, table.domains, key="objective.prior"))
    if text is None:
        raise UserError(
            f"objective.prior is natural, but '{conf.runs}' is no sweep's folder to take the domains' tokens from; "
            "give weights, in the order of the domains or by name"
        )
    return text / text.sum()
