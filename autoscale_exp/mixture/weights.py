"""Domain weights from the `mixture` section: uniform, natural, given, or read from a mixture file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from autoscale_exp.base import atomic
from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.weights import check_weights
from autoscale_exp.mixture.conf import MixtureConf


def resolve_weights(conf: MixtureConf, domains: Sequence[str], pool_rows: Sequence[int]) -> FloatArray:
    """The weights of a mixture over `domains`.

    Args:
        conf: the `mixture` section.
        domains: (K,) domains of the store, in the order of the result.
        pool_rows: (K,) training rows that each has, for kind natural.

    Returns:
        (K,) weights summing to 1.

    Raises:
        UserError: an unknown kind, a domain that the store or the mixture lacks, or weights that are not shares.
    """
    if conf.kind == "uniform":
        return np.full(len(domains), 1 / len(domains))
    if conf.kind == "natural":
        return np.asarray(pool_rows, dtype=np.float64) / sum(pool_rows)
    if conf.kind == "weights":
        if conf.weights is None:
            raise UserError("mixture.weights is not set; give one weight per domain, in the order of data.domains")
        return _in_order(conf.domains or domains, conf.weights, domains, key="mixture.weights")
    if conf.kind == "file":
        if conf.path is None:
            raise UserError("mixture.path is not set; give a mixture file, as `fit` writes them")
        file = read_mixture_file(Path(conf.path))
        return _in_order(file.domains, file.weights, domains, key=f"the weights in '{conf.path}'")
    raise UserError(f"mixture.kind is '{conf.kind}'; allowed are uniform, natural, weights, file")


class MixtureFile(NamedTuple):
    """What a mixture file says.

    Attributes:
        domains: (K,) names.
        weights: (K,) shares of the tokens.
        token_budget: tokens that the mixture is meant for; None if it does not say.
    """

    domains: list[str]
    weights: list[float]
    token_budget: int | None


def read_mixture_file(path: Path, key: str = "mixture.path") -> MixtureFile:
    """A mixture file, which the config names by `key`: a YAML with lists domains and weights, and maybe token_budget.

    Raises:
        UserError: the file is missing or is no mixture file.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(content, dict)
        budget = content.get("token_budget")
        return MixtureFile(
            [str(d) for d in content["domains"]],
            [float(w) for w in content["weights"]],
            None if budget is None else int(budget),
        )
    except FileNotFoundError:
        raise UserError(f"{key} is '{path}', which does not exist; `fit` writes such files") from None
    except (OmegaConfBaseException, YAMLError, OSError, AssertionError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{key} is '{path}', which is no mixture file; give a YAML with lists domains and weights, as `fit` writes"
        ) from None


def write_mixture_file(path: Path, domains: Sequence[str], weights: FloatArray, token_budget: int, origin: str) -> None:
    """Writes a mixture file, loadable as `mixture=from_file mixture.path=...`.

    Args:
        path: of the file.
        domains: (K,) names.
        weights: (K,) shares summing to 1, written in full precision.
        token_budget: tokens that the mixture is meant for.
        origin: one line on where it comes from.
    """
    names = json.dumps(list(domains), ensure_ascii=False)  # quoted, or YAML reads 'no' as false
    lines = [f"# {origin}", f"token_budget: {token_budget}", f"domains: {names}"]
    lines += ["weights:", *(f"  - {float(w)!r} # {d}" for d, w in zip(domains, weights, strict=True))]
    atomic.write_text(path, "\n".join(lines) + "\n")


def _in_order(named: Sequence[str], weights: Sequence[float], domains: Sequence[str], *, key: str) -> FloatArray:
    """`weights` of the `named` domains in the order of `domains`, which must be the same set."""
    for domain in named:
        if list(named).count(domain) > 1:
            raise UserError(f"{key} name '{domain}' twice; give one weight per domain")
    if set(named) != set(domains):
        missing, unknown = sorted(set(domains) - set(named)), sorted(set(named) - set(domains))
        raise UserError(
            f"{key} are for {', '.join(named)}, but data.domains is {', '.join(domains)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )
    checked = check_weights(weights, named, key=key)
    return checked[[list(named).index(domain) for domain in domains]]
