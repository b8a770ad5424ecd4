"""What a study chooses by itself where the user does not: the scales of its search."""

from collections.abc import Sequence

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import round_down, short_label

BELOW_TARGET = 3  # the largest scale is so many times smaller than the target, and the smallest than the largest
EPOCHS = 2  # times that a proxy run with three times a domain's tokens may go through its text


def choose_scales(target: int, domain_tokens: Sequence[int]) -> list[int]:
    """Two scales for a search: a third of the target and a third of that, less where there is little text.

    Args:
        target: token budget of the target runs.
        domain_tokens: (K,) training tokens that there are of each domain.

    Raises:
        UserError: the target is too small for two scales below it.
    """
    of_text = EPOCHS * min(domain_tokens) * len(domain_tokens) / BELOW_TARGET
    largest = round_down(min(target / BELOW_TARGET, of_text))
    smallest = round_down(largest / BELOW_TARGET)
    if smallest < 1:
        raise UserError(
            f"token_budgets ends with {target}, which leaves no room for two smaller scales (a domain has "
            f"{short_label(min(domain_tokens))} tokens); give a larger target, more text, or design.scales=[...]"
        )
    return [smallest, largest]
