"""Short names of token budgets and of times, and round budgets."""

import math
import re

UNITS = {"T": 10**12, "B": 10**9, "M": 10**6, "K": 10**3}


def budget_label(num_tokens: int) -> str:
    """A short exact name of a token budget, for files and runs: 600_000 is '0.6M', 25_000_000_000 is '25B'."""
    return _label(num_tokens, least=0.1)


def budget_of_label(label: str) -> int | None:
    """The token budget that `budget_label` names so; None if it is no such name."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([TBMK])", label)
    return round(float(match[1]) * UNITS[match[2]]) if match else None


def short_label(num_tokens: float) -> str:
    """A number of tokens to three digits, for people: 599_872 is '600K', 100_000_000 is '100M'."""
    return _label(round(float(f"{num_tokens:.3g}")), least=1)


def _label(num_tokens: int, least: float) -> str:
    """The number in the largest unit of which it has at least so many."""
    unit = next((unit for unit, size in UNITS.items() if num_tokens >= size * least), "K")
    return f"{num_tokens / UNITS[unit]:.12g}{unit}"


def round_down(tokens: float) -> int:
    """The largest of 1, 2, 3, 5 times a power of ten that is no larger; 0 below 1,000."""
    steps = [step * 10**power for power in range(3, 18) for step in (1, 2, 3, 5)]
    return max((step for step in steps if step <= tokens), default=0)


def short_duration(seconds: float) -> str:
    """A time for people: '42 s', '4.2 min', '5.0 h'; '?' if it is not known."""
    if math.isnan(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
