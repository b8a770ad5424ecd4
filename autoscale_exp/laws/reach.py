"""How far the runs and the text reach: what to say of targets beyond them."""

from collections.abc import Mapping, Sequence

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import short_label
from autoscale_exp.laws.fit_file import FittedMixture

FAR = 10  # times the largest scale; beyond it, the intervals and the back-test say nothing of how far a law may be off
ROUNDING = 0.01  # whole rows make tokens a little more or fewer than a budget
MANY_EPOCHS = 4  # up to which repeated text is worth nearly as much as fresh text (Muennighoff et al., 2305.16264)


def check_targets(targets: Sequence[int], scales: Sequence[float]) -> None:
    """Checks that no target lies below the runs.

    Args:
        targets: token budgets.
        scales: tokens of each scale of the runs, smallest first.

    Raises:
        UserError: one does.
    """
    for index, target in enumerate(targets):
        if target < (1 - ROUNDING) * scales[0]:
            raise UserError(
                f"target_tokens[{index}] is {target:_}, below the smallest scale of the runs, {round(scales[0]):_} "
                "tokens; no law of them reaches there: give a larger target, or train runs of a smaller scale"
            )


def epochs(target: FittedMixture, unique_tokens: Mapping[str, float]) -> dict[str, float]:
    """By domain: times that a mixture's tokens go through the text that there is."""
    return {domain: tokens / max(unique_tokens[domain], 1) for domain, tokens in target.domain_tokens.items()}


def remarks_on(
    targets: Sequence[FittedMixture], largest_scale: int, unique_tokens: Mapping[str, float] | None
) -> list[str]:
    """Sentences on targets far beyond the runs, or beyond the text.

    Args:
        targets: the mixtures found.
        largest_scale: of the runs, in tokens.
        unique_tokens: by domain, or None where that is not known.
    """
    remarks = []
    for target in targets:
        label, times = short_label(target.tokens), target.tokens / largest_scale
        if times > FAR:
            remarks.append(
                f"target {label} is {times:.3g} times the largest scale, {short_label(largest_scale)}; intervals and "
                f"back-test do not tell how far a law is off so far beyond its runs, so add a scale nearer to it"
            )
        repeated = {} if unique_tokens is None else epochs(target, unique_tokens)
        if max(repeated.values(), default=0.0) > MANY_EPOCHS * (1 + ROUNDING):
            told = ", ".join(f"{domain} {times:.1f}" for domain, times in repeated.items())
            remarks.append(
                f"target {label} goes through its text so often: {told} epochs; unless the runs repeat as much, what "
                f"that is worth is a guess, and a run of more than {MANY_EPOCHS} takes max_epochs=...; "
                f"bounds.max_epochs={MANY_EPOCHS} keeps a mixture within its text"
            )
    return remarks
