"""What the target runs tell, in sentences: the answer, then each mixture beside the reference."""

from collections.abc import Mapping

from autoscale_exp.base.labels import number, percent, short_label, signed
from autoscale_exp.laws.fit_file import FitObjective
from autoscale_exp.reporting.comparison import Difference, compare
from autoscale_exp.reporting.noise import MOST_SEEDS
from autoscale_exp.reporting.savings import Saving
from autoscale_exp.reporting.target_runs import MixtureRuns

MANY_TARGETS = 10  # target runs that share a search's cost, told beside the cost for a single one
MOST_WEIGHTS = 8  # that the answer names


def objective_label(objective: FitObjective) -> str:
    """Name of an objective for people, with its metric. A mean with unequal weights is called weighted."""
    name, metric = objective.name.replace("_", " "), objective.metric
    if objective_weights(objective) and name == f"mean {metric}":
        return f"weighted {metric}"
    return name if metric is None or metric in name else f"{metric} ({name})"


def objective_weights(objective: FitObjective) -> str:
    """The weights of an objective's validation domains for people; empty if they are equal or have no effect."""
    weights = objective.weights or {}
    if objective.aggregate != "mean" or len(set(weights.values())) < 2:
        return ""
    return ", ".join(f"{domain} {percent(weight, 0)}" for domain, weight in weights.items())


def saved(difference: Difference, saving: Saving) -> list[str]:
    """Tokens saved for people: by the curves, by annealed runs, net of the search for one target run and for many.

    Each is empty if the difference is within the noise, or nothing is known. A bound is marked as one.
    """
    if difference.within_noise:
        return [""] * 4
    bound = "" if not saving.is_bound else "≥ " if difference.is_better else "≤ "
    shares = [saving.annealed, saving.charged(1), saving.charged(MANY_TARGETS)]
    on_curves = "" if saving.on_curves is None else signed(saving.on_curves, 0)
    return [on_curves, *("" if share is None else bound + signed(share, 0) for share in shares)]


def saved_interval(saving: Saving) -> str:
    """The interval of the tokens saved, for people; empty without one."""
    low, high = saving.interval or (None, None)
    if low is None or high is None:
        end = low if high is None else high
        return "" if end is None else f"{signed(end, 0)} or {'more' if high is None else 'less'}"
    return f"{signed(low, 0).removesuffix(' %')} to {signed(high, 0)}"


def answer(mixtures: Mapping[str, MixtureRuns], reference: str, metric: str, budget: int) -> str:
    """The answer in one sentence, for the person who decides.

    Args:
        mixtures: target runs by mixture.
        reference: the mixture that the others are compared with.
        metric: the name of the objective, as in 'perplexity (reading)'.
        budget: tokens of a target run.
    """
    differences = compare(mixtures, reference)
    lowest = min(differences.values(), key=lambda difference: difference.mean)
    alone, name, after = len(differences) == 1, lowest.mixture, f"after {short_label(budget)} tokens"
    if lowest.num_seeds == 1:
        return (
            f"One seed of each mixture decides nothing: {after} the {metric} of {name} is {_share(lowest)} "
            f"{_side(lowest)} than {reference}'s, which may be noise."
        )
    by = f"{_share(lowest)} {_side(lowest)}"
    if lowest.is_better:
        others = _beside_others(mixtures, name, reference)
        chosen = f"{name}{_weights(mixtures[name])}"
        return f"Train on {chosen}: {after} its {metric} is {by} than {reference}'s ({_interval(lowest)}){others}."
    if lowest.is_worse:
        rest = (
            f"{name} is worse" if alone else f"every other mixture is worse; the best of them, {name}, has a {metric}"
        )
        middle = f", its {metric} is " if alone else " "
        return f"Train on {reference}: {after} {rest}{middle}{by} ({_interval(lowest)})."
    lead = "Undecided: " if alone else f"No mixture is shown to be better than {reference}: the best of the others, "
    return (
        f"{lead}{name}{',' * (not alone)} cannot be told apart from {reference}: {after} its {metric} is "
        f"{by} ({_interval(lowest)}); {_seeds(lowest)}."
    )


def verdict(mixture: MixtureRuns, base: MixtureRuns, difference: Difference, saving: Saving) -> str:
    """Compares a mixture with the reference in sentences; tells tokens saved only of a difference beyond the noise."""
    ends = (number(float(runs.final.mean()), difference.base) for runs in (mixture, base))
    sides = " against ".join(ends)
    if difference.num_seeds == 1:
        return (
            f"{mixture.name} ends {_share(difference)} {_side(difference)} than {base.name} with one seed each "
            f"({sides}), which tells no difference from noise; train at least another seed."
        )
    if difference.within_noise:
        return (
            f"{mixture.name} cannot be told apart from {base.name}: {sides}, {_share(difference)} {_side(difference)} "
            f"({_interval(difference)}); {_seeds(difference)}."
        )
    kind = "better" if difference.is_better else "worse"
    text = f"{mixture.name} is {kind} than {base.name}: {sides}, {_share(difference)} {_side(difference)}"
    if not saving.share:
        return f"{text} ({_interval(difference)})."
    first, second = (mixture.name, base.name) if difference.is_better else (base.name, mixture.name)
    fewer = "at least " * (saving.is_bound) + percent(abs(saving.share), 0)
    text = f"{text} ({_interval(difference)}). {first} gets where {second} ends with {fewer} fewer tokens"
    return f"{text}{_charged(saving) if difference.is_better else ''}."


def worth_saying(
    mixtures: Mapping[str, MixtureRuns],
    differences: Mapping[str, Difference],
    base: MixtureRuns,
    savings: Mapping[str, Saving],
) -> list[str]:
    """The verdict on each mixture; none for a single one within the noise, for which the answer is enough."""
    if len(differences) == 1 and all(difference.within_noise for difference in differences.values()):
        return []
    return [verdict(mixtures[name], base, difference, savings[name]) for name, difference in differences.items()]


def _charged(saving: Saving) -> str:
    """What is left of a saving once the search is paid for."""
    one, many = saving.charged(1), saving.charged(MANY_TARGETS)
    if not saving.search_cost or one is None or many is None:
        return ""
    return f"; net of its search that is {signed(one, 0)} for one target run, and {signed(many, 0)} for each of ten"


def _beside_others(mixtures: Mapping[str, MixtureRuns], best: str, reference: str) -> str:
    """Says whether the best mixture can be told apart from the others, besides the reference."""
    differences = {name: d for name, d in compare(mixtures, best).items() if name != reference}
    if not differences:
        return ""
    open_ones = [name for name, difference in differences.items() if not difference.is_worse]
    if not open_ones:
        return f", and lower than {_listed(list(differences))}'s by more than the noise"
    return f"; {_listed(open_ones)} cannot be told apart from it"


def _listed(names: list[str]) -> str:
    if len(names) > 3:
        return f"{len(names)} others"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _weights(mixture: MixtureRuns) -> str:
    """The largest weights of a mixture, in brackets; empty if they change as it trains."""
    record = mixture.records[0]
    if record.stages is not None:
        return ""
    ordered = sorted(record.requested_weights.items(), key=lambda item: -item[1])
    told = [f"{domain} {percent(weight, 0)}" for domain, weight in ordered[:MOST_WEIGHTS]]
    return f" ({', '.join(told)}{', …' if ordered[MOST_WEIGHTS:] else ''})"


def _share(difference: Difference) -> str:
    return percent(abs(difference.mean / difference.base))


def _side(difference: Difference) -> str:
    return "lower" if difference.mean < 0 else "higher"


def _interval(difference: Difference) -> str:
    """The interval as shares, in the direction of the mean."""
    assert difference.interval is not None
    sign = -1 if difference.mean < 0 else 1
    low, high = sorted(sign * end / difference.base for end in difference.interval)
    return f"90 % interval {percent(low).removesuffix(' %')} to {percent(high)}, {difference.num_seeds} seeds"


def _seeds(difference: Difference) -> str:
    """Says how many seeds would settle the difference."""
    if difference.seeds_to_settle is None:
        return f"not even {MOST_SEEDS} seeds would settle a difference so small"
    return f"about {difference.seeds_to_settle} seeds in all would settle it if the difference stays as it is"
