"""Domain weights from the `mixture` section: by the sizes of the domains, as given, or from a mixture file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoscale_exp.base import atomic
from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.by_domain import in_order
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.weights import check_weights
from autoscale_exp.mixture.conf import MixtureConf

KINDS = ("uniform", "natural", "temperature", "unimax", "weights", "file")


def resolve_weights(conf: MixtureConf, domains: Sequence[str], pool_rows: Sequence[int], num_rows: float) -> FloatArray:
    """Returns the weights of a mixture over `domains`.

    Args:
        conf: the `mixture` section.
        domains: (K,) domains of the store, in the order of the result.
        pool_rows: (K,) training rows that each has, for kinds natural, temperature and unimax.
        num_rows: rows of the run, for kind unimax; need not be a whole number.

    Returns:
        (K,) weights summing to 1.

    Raises:
        UserError: an unknown kind, a domain that the store or the mixture lacks, weights that are not shares, or a cap
            that no mixture meets.
    """
    if conf.kind == "uniform":
        return np.full(len(domains), 1 / len(domains))
    if conf.kind == "natural":
        return np.asarray(pool_rows, dtype=np.float64) / sum(pool_rows)
    if conf.kind == "temperature":
        return temperature_weights(pool_rows, conf.temperature)
    if conf.kind == "unimax":
        return unimax_weights(pool_rows, num_rows, conf.max_epochs)
    if conf.kind == "weights":
        if conf.weights is None:
            raise UserError("mixture.weights is not set; give one weight per domain, by name or in their order")
        if isinstance(conf.weights, list):
            return _in_order(conf.domains or domains, conf.weights, domains, key="mixture.weights")
        return check_weights(in_order(conf.weights, domains, key="mixture.weights"), domains, key="mixture.weights")
    if conf.kind == "file":
        if conf.path is None:
            raise UserError("mixture.path is not set; give a mixture file, as `fit` writes them")
        file = read_mixture_file(Path(conf.path))
        return _in_order(file.domains, file.weights, domains, key=f"the weights in '{conf.path}'")
    raise UserError(f"mixture.kind is '{conf.kind}'; allowed are {', '.join(KINDS)}")


def temperature_weights(pool_rows: Sequence[int], temperature: float | None) -> FloatArray:
    """Returns (K,) natural shares to the power 1 / temperature, normalised: 1 is natural, more is nearer to uniform.

    Source: mT5 (Xue et al., arXiv 2010.11934, section 3.1), whose alpha is 1 / temperature.

    Raises:
        UserError: the temperature is not a positive number.
    """
    if temperature is None or not 0 < temperature < np.inf:
        raise UserError(f"mixture.temperature is {temperature}; it must be a positive number, and 1 is natural")
    largest = np.asarray(pool_rows, dtype=np.float64) / max(pool_rows)  # so that no power overflows
    powers = np.where(largest > 0, largest, 1.0) ** (1 / temperature) * (largest > 0)
    return powers / powers.sum()


def unimax_weights(pool_rows: Sequence[int], num_rows: float, max_epochs: float | None) -> FloatArray:
    """Returns (K,) weights as equal as a cap on the epochs of each domain allows.

    Source: UniMax (Chung et al., arXiv 2304.09151, algorithm 1): from the smallest domain on, each gets an equal part
    of what is left, or `max_epochs` of its rows if that is less. Departure: if the caps leave rows over, the paper
    repeats every domain more often; here that is refused.

    Args:
        pool_rows: (K,) rows that each domain has.
        num_rows: rows of the run.
        max_epochs: times that a domain may be repeated; need not be whole.

    Raises:
        UserError: max_epochs is not positive, or that many epochs of all domains have fewer rows than the run.
    """
    if max_epochs is None or not 0 < max_epochs < np.inf:
        raise UserError(f"mixture.max_epochs is {max_epochs}; for kind unimax it must be a positive number of epochs")
    caps = np.asarray(pool_rows, dtype=np.float64) * max_epochs
    if caps.sum() < num_rows * (1 - 1e-12):
        share, least = caps.sum() / num_rows, np.ceil(1000 * num_rows / sum(pool_rows)) / 1000
        raise UserError(
            f"mixture.max_epochs is {max_epochs:g}, but that many epochs of all text are only {share:.3g} of the "
            f"run's tokens; set it to at least {least:g}, or lower the token budget"
        )
    rows, left = np.zeros(len(caps)), float(num_rows)
    for position, domain in enumerate(np.argsort(caps, kind="stable")):
        rows[domain] = min(caps[domain], left / (len(caps) - position))
        left -= rows[domain]
    return rows / rows.sum()


class MixtureFile(NamedTuple):
    """The content of a mixture file.

    Attributes:
        domains: (K,) names.
        weights: (K,) shares of the tokens.
        token_budget: tokens that the mixture is meant for; None if it does not say.
    """

    domains: list[str]
    weights: list[float]
    token_budget: int | None


def read_mixture_file(path: Path, key: str = "mixture.path") -> MixtureFile:
    """Reads a mixture file, which the config names by `key`: a YAML with lists domains and weights, maybe token_budget.

    Raises:
        UserError: the file is missing or is no mixture file, a domain is in it twice, or a weight is no share.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
        spelt = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # names as spelt: `no` is not False
        assert isinstance(content, dict)
        budget = content.get("token_budget")
        assert isinstance(spelt["domains"], list)
        assert all(isinstance(domain, str) for domain in spelt["domains"])
        file = MixtureFile(
            spelt["domains"], [float(w) for w in content["weights"]], None if budget is None else int(budget)
        )
    except FileNotFoundError:
        raise UserError(f"{key} is '{path}', which does not exist; `fit` writes such files") from None
    except (OmegaConfBaseException, yaml.YAMLError, OSError, AssertionError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{key} is '{path}', which is no mixture file; give a YAML with lists domains and weights, as `fit` writes"
        ) from None
    _check_shares(file, f"the weights in '{path}'")
    return file


def _check_shares(file: MixtureFile, key: str) -> None:
    """Checks that each domain is there once and has a share."""
    _check_once(file.domains, key)
    if len(file.weights) != len(file.domains):
        raise UserError(
            f"{key} are {len(file.weights)}, but its domains are {len(file.domains)}: {', '.join(file.domains)}; "
            "give one weight per domain"
        )
    check_weights(file.weights, file.domains, key=key)


def _check_once(domains: Sequence[str], key: str) -> None:
    for domain in domains:
        if list(domains).count(domain) > 1:
            raise UserError(f"{key} name '{domain}' twice; give one weight per domain")


def write_mixture_file(
    path: Path, domains: Sequence[str], weights: FloatArray, token_budget: int | None, origin: str
) -> None:
    """Writes a mixture file, loadable as `mixture=from_file mixture.path=...`.

    Args:
        path: path of the file.
        domains: (K,) names.
        weights: (K,) shares summing to 1, written in full precision.
        token_budget: tokens that the mixture is meant for; None for any.
        origin: a line on where the mixture comes from.
    """
    names = json.dumps(list(domains), ensure_ascii=False)  # quoted, or YAML reads 'no' as false
    budget = [] if token_budget is None else [f"token_budget: {token_budget}"]
    lines = [f"# {origin}", *budget, f"domains: {names}"]
    lines += ["weights:", *(f"  - {float(w)!r} # {d}" for d, w in zip(domains, weights, strict=True))]
    atomic.write_text(path, "\n".join(lines) + "\n")


def _in_order(named: Sequence[str], weights: Sequence[float], domains: Sequence[str], *, key: str) -> FloatArray:
    """`weights` of the `named` domains in the order of `domains`, which must be the same set."""
    _check_once(named, key)
    if set(named) != set(domains):
        missing, unknown = sorted(set(domains) - set(named)), sorted(set(named) - set(domains))
        raise UserError(
            f"{key} are for {', '.join(named)}, but data.domains is {', '.join(domains)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )
    checked = check_weights(in_order(list(weights), named, key=key), named, key=key)
    return checked[[list(named).index(domain) for domain in domains]]
