"""Token budgets, times and numbers as people read them, and round budgets."""

import math
import re
from decimal import Decimal

UNITS = {"T": 10**12, "B": 10**9, "M": 10**6, "K": 10**3}


def budget_label(num_tokens: int) -> str:
    """A short exact name of a token budget, for files and runs, such as '0.6M' for 600_000 or '25B'."""
    return _label(num_tokens, least=0.1)


def budget_of_label(label: str) -> int | None:
    """The token budget with this `budget_label`; None if it is no such label."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([TBMK])", label)
    return round(Decimal(match[1]) * UNITS[match[2]]) if match else None


def whole_number(text: str) -> int | None:
    """The whole number that people may mean by '2.5M', '10k', '1e6' or '5,000'; None if it is none of these."""
    plain = text.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+", text) else text.upper().replace("_", "")
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)(?:E\+?(\d{1,2})|([TBMK]))?", plain)
    if match is None:
        return None
    number = Decimal(match[1]) * 10 ** int(match[2] or 0) * UNITS.get(match[3], 1)
    return int(number) if number == int(number) else None


def short_label(num_tokens: float) -> str:
    """A number of tokens to three digits, for people, such as '600K' for 599_872 or '100M'."""
    return _label(round(float(f"{num_tokens:.3g}")), least=1)


def _label(num_tokens: int, least: float) -> str:
    """The number in the largest unit in which it is at least `least`."""
    unit = next((unit for unit, size in UNITS.items() if num_tokens >= size * least), "K")
    return f"{(Decimal(int(num_tokens)) / UNITS[unit]).normalize():f}{unit}"


def round_down(tokens: float) -> int:
    """The largest number not above `tokens` that is 1, 2, 3 or 5 times a power of ten; 0 below 1,000."""
    steps = [step * 10**power for power in range(3, 18) for step in (1, 2, 3, 5)]
    return max((step for step in steps if step <= tokens), default=0)


def short_duration(seconds: float) -> str:
    """A duration to two or three digits, for people, such as '42 s', '4.2 min' or '1,250 h'; '?' if unknown."""
    if math.isnan(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.2g} min" if seconds < 5700 else f"{float(f'{seconds / 3600:.3g}'):,.12g} h"


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 for people."""
    return f"{100 * share:.{digits}f} %".replace("-", "−")


def signed(share: float, digits: int = 1) -> str:
    """A difference as a share of 1 for people, with its sign."""
    return f"{100 * share:+.{digits}f} %".replace("-", "−")


def signed_interval(interval: tuple[float, float], base: float) -> str:
    """An interval of a difference as shares of `base` for people."""
    low, high = (signed(end / base) for end in interval)
    return f"{low.removesuffix(' %')} to {high}"


def number(value: float, level: float) -> str:
    """A value of an objective for people, in as many digits as objectives of that level deserve."""
    return f"{value:.{4 if abs(level) < 10 else 2}f}".replace("-", "−")


def number_interval(interval: tuple[float, float], level: float) -> str:
    """An interval of an objective for people, in as many digits as `number`."""
    return " to ".join(number(end, level) for end in interval)


def plural(count: int, noun: str) -> str:
    """A count with its noun, such as '1 run' or '2 runs'."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
