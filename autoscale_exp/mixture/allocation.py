"""From domain weights or domain tokens to exact whole rows per domain."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError


def allocate_stages(
    starts: Sequence[int], weights: npt.ArrayLike, token_budget: int, seq_len: int
) -> tuple[FloatArray, Int64Array]:
    """Allocates requested tokens and whole rows of a run whose weights change at given token counts.

    A stage goes from its start to that of the next, the last to the end of the run. Starts and end are rounded to the
    nearest whole row, and the rows of each stage are allocated by `allocate_rows`.

    Args:
        starts: (S,) tokens before each stage; the first is 0, the others are the starts in `stages`.
        weights: (S, K) domain weights of each stage.
        token_budget: tokens of the run.
        seq_len: tokens per row.

    Returns:
        (S, K) requested tokens and (S, K) rows.

    Raises:
        UserError: starts do not increase by at least a row, or lie outside the budget; the message names the stage.
    """
    edges = np.array([*starts, token_budget], dtype=np.int64)
    row_edges = (2 * edges + seq_len) // (2 * seq_len)  # the nearest; half a row is rounded up
    for stage in range(1, len(starts)):
        if not row_edges[stage - 1] < row_edges[stage] < row_edges[-1]:
            raise UserError(
                f"stages[{stage - 1}].start is {starts[stage]}; it must be at least a row of {seq_len} tokens above "
                f"{starts[stage - 1]}, where the weights before it start, and below the budget of {token_budget} tokens"
            )
    requested = np.diff(edges)[:, None] * np.asarray(weights, dtype=np.float64)
    realised = np.diff(row_edges)[:, None] * np.asarray(weights, dtype=np.float64) * seq_len
    return requested, np.stack([allocate_rows(domain_tokens, seq_len) for domain_tokens in realised])


def allocate_rows(domain_tokens: npt.ArrayLike, seq_len: int) -> Int64Array:
    """Allocates whole rows to domains by the largest-remainder method (Hamilton's).

    The total is the number of rows nearest to the requested tokens, and each domain gets its quota rounded down
    or up, never further away. Equal remainders go to the earlier domain, so the result is deterministic.

    Args:
        domain_tokens: (K,) requested tokens per domain, >= 0; need not be whole rows.
        seq_len: tokens per row.

    Returns:
        (K,) rows per domain; their sum times `seq_len` is within half a row of the requested total.

    Raises:
        UserError: an entry is negative or not finite, or the total is below one row.
    """
    quota = np.asarray(domain_tokens, dtype=np.float64) / seq_len
    if not np.all(np.isfinite(quota)) or np.any(quota < 0):
        raise UserError(f"domain tokens must be finite and not negative, but are {(quota * seq_len).tolist()}")
    # A quota that is whole up to rounding error must not lose a row.
    quota = np.where(np.abs(quota - np.rint(quota)) < 8 * np.spacing(quota), np.rint(quota), quota)
    total = math.fsum(quota.tolist())
    if total < 1 - 1e-12:
        raise UserError(
            f"the token budget {total * seq_len:.0f} is below one row of {seq_len} tokens; "
            f"token_budget must be at least {seq_len}"
        )
    num_rows = math.floor(total + 0.5)
    rows = np.floor(quota).astype(np.int64)
    largest_remainders = np.argsort(-(quota - rows), kind="stable")
    rows[largest_remainders[: num_rows - int(rows.sum())]] += 1
    return rows
