"""Short names of token budgets, and round ones."""


def budget_label(num_tokens: int) -> str:
    """A short exact name of a token budget, for files and runs: 600_000 is '0.6M', 25_000_000_000 is '25B'."""
    return _label(num_tokens, least=0.1)


def short_label(num_tokens: float) -> str:
    """A number of tokens to three digits, for people: 599_872 is '600K', 100_000_000 is '100M'."""
    return _label(round(float(f"{num_tokens:.3g}")), least=1)


def _label(num_tokens: int, least: float) -> str:
    """The number in the largest unit of which it has at least so many."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if num_tokens >= size * least:
            return f"{num_tokens / size:.12g}{unit}"
    return f"{num_tokens / 1000:.12g}K"


def round_down(tokens: float) -> int:
    """The largest of 1, 2, 3, 5 times a power of ten that is no larger; 0 below 1,000."""
    steps = [step * 10**power for power in range(3, 18) for step in (1, 2, 3, 5)]
    return max((step for step in steps if step <= tokens), default=0)
