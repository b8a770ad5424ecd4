"""Checks of single numbers in a config."""

import math
from collections.abc import Mapping

from autoscale_exp.base.errors import UserError

LARGEST_SEED = 2**32 - 1  # the largest that generators of both NumPy and torch take


def check_range(numbers: Mapping[str, float | None], least: float, most: float = math.inf) -> None:
    """Checks that numbers are finite and between `least` and `most`.

    Args:
        numbers: numbers by config key; None, for a key that is not set, passes.
        least: smallest allowed value.
        most: largest allowed value.

    Raises:
        UserError: a number is not; the message names key, value and what is allowed.
    """
    for key, number in numbers.items():
        if number is not None and not (least <= number <= most and number < math.inf):
            allowed = f"be at least {least}" if most == math.inf else f"lie between {least} and {most}"
            raise UserError(f"{key} is {number}; it must {allowed}")
