"""The scales of a study's search, if the user gives none."""

from collections.abc import Sequence

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import round_down, short_label

BELOW_TARGET = 3  # factor from the smaller scale to the larger, and from that to the target
EPOCHS = 2  # most epochs over a domain's text in a proxy run with three times its tokens


def choose_scales(target: int, domain_tokens: Sequence[int]) -> list[int]:
    """Chooses two scales for a search: a third of the target and a third of that, or less if there is little text.

    Args:
        target: token budget of the target runs.
        domain_tokens: (K,) training tokens of each domain's text.

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
