"""How far the runs and the text reach, and what to say of targets beyond them."""

from collections.abc import Mapping, Sequence

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import short_label
from autoscale_exp.laws.fit_file import FittedMixture

FAR = 10  # times the largest scale; beyond it, intervals and back-test no longer tell how far off a law may be
ROUNDING = 0.01  # tokens differ from a budget by less than this, since runs train on whole rows
MANY_EPOCHS = 4  # up to here, repeated text is worth nearly as much as fresh text (Muennighoff et al., 2305.16264)


def check_targets(targets: Sequence[int], scales: Sequence[float], key: str = "target_tokens") -> None:
    """Checks that no target lies below the runs.

    Args:
        targets: token budgets.
        scales: tokens of each scale of the runs.
        key: of the targets, for people.

    Raises:
        UserError: a target is smaller than the smallest scale.
    """
    smallest = min(scales)
    for index, target in enumerate(targets):
        if target < (1 - ROUNDING) * smallest:
            raise UserError(
                f"{key}[{index}] is {target:_}, below the smallest scale of the runs, {round(smallest):_} "
                "tokens; no law reaches below its runs: give a larger target, or train runs of a smaller scale"
            )


def _three_digits(number: float) -> str:
    return f"{float(f'{number:.3g}'):,.12g}"


def epochs(target: FittedMixture, unique_tokens: Mapping[str, float]) -> dict[str, float]:
    """Epochs over each domain's text that a mixture takes, by domain."""
    return {domain: tokens / max(unique_tokens[domain], 1) for domain, tokens in target.domain_tokens.items()}


def remarks_on(
    targets: Sequence[FittedMixture], largest_scale: int, unique_tokens: Mapping[str, float] | None
) -> list[str]:
    """Makes a sentence for each target far beyond the runs, or with text repeated many times.

    Args:
        targets: the mixtures found.
        largest_scale: the largest scale of the runs, in tokens.
        unique_tokens: tokens of each domain's text, by domain; None if unknown.
    """
    remarks = []
    for target in targets:
        label, times = short_label(target.tokens), target.tokens / largest_scale
        if times > FAR:
            remarks.append(
                f"target {label} is {_three_digits(times)} times the largest scale, {short_label(largest_scale)}; "
                "intervals and back-test do not tell how far a law is off so far beyond its runs, so add a scale "
                "nearer to it"
            )
        repeated = {} if unique_tokens is None else epochs(target, unique_tokens)
        if max(repeated.values(), default=0.0) > MANY_EPOCHS * (1 + ROUNDING):
            told = ", ".join(f"{domain} {times:.1f}" for domain, times in repeated.items())
            remarks.append(
                f"target {label} repeats its text ({told} epochs); unless the runs repeat theirs as much, what that is "
                f"worth is a guess, and a run of more than {MANY_EPOCHS} epochs needs max_epochs=...; "
                f"bounds.max_epochs={MANY_EPOCHS} keeps a mixture within its text"
            )
    return remarks
