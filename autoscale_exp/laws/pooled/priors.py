"""The parameters of the pooled transfer law's formula, and their priors.

A parameter of all validation domains is a population. Its prior is for the population's mean and spread.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from autoscale_exp.laws.pooled.model_size import Size
from autoscale_exp.laws.repetition import DATA_DECAY, EXCESS_DECAY


class Scalar(IntEnum):
    """Columns of the parameters (V, P), before the specific weights log c (K) and the generic weights log g (K)."""

    IRREDUCIBLE = 0  # log E
    SPECIFIC_AMPLITUDE = 1  # log A
    SPECIFIC_DECAY = 2  # log gamma
    OWN_EXPONENT = 3  # logit rho
    OTHER_EXPONENT = 4  # logit sigma - logit rho
    SPECIFIC_OFFSET = 5  # log s
    GENERIC_AMPLITUDE = 6  # log B
    GENERIC_DECAY = 7  # log alpha
    BUDGET_PART = 8  # logit lambda
    RESPONSE_GROWTH = 9  # psi
    REPETITION = 10  # log R of repeated tokens


class Prior(NamedTuple):
    """Prior of a parameter over validation domains: a Gaussian population whose mean is itself uncertain.

    Attributes:
        mean: expected mean of the population.
        mean_sd: standard deviation of that mean.
        spread: standard deviation over validation domains, to start from.
    """

    mean: float
    mean_sd: float
    spread: float


# "Tuned": chosen on RegMix's training runs, synthetic truths, and leaving seven_tiny's larger scale out.
PRIORS = {
    # In units of the smallest losses. Irreducible losses in the literature are about half of what small models reach.
    Scalar.IRREDUCIBLE: Prior(float(np.log(0.55)), 0.3, 0.15),
    # Amplitudes are in units of the gap between the median loss and the irreducible one. Most of the gap is specific.
    # Any value is possible, since the amplitude trades off against the weights c.
    Scalar.SPECIFIC_AMPLITUDE: Prior(0.5, 1.0, 0.5),
    # Data exponents of language models are .1 to .4; .2 halves the error of leaving the larger scale out (tuned).
    Scalar.SPECIFIC_DECAY: Prior(float(np.log(0.2)), 0.3, 0.2),
    # rho about .6, between sharp diminishing returns and perfect substitution.
    Scalar.OWN_EXPONENT: Prior(0.5, 0.7, 0.35),
    # sigma well below rho: other text's help fades with scale (tuned).
    Scalar.OTHER_EXPONENT: Prior(-1.0, 0.4, 0.25),
    # Effective data without any tokens, as a part of the reference's. It bounds the loss of untrained domains.
    Scalar.SPECIFIC_OFFSET: Prior(-1.0, 1.0, 0.5),
    # About an eighth of the gap at EARLY_TOKENS. Narrow, as a large one from a single scale extrapolates absurdly.
    Scalar.GENERIC_AMPLITUDE: Prior(-2.0, 0.3, 0.3),
    # alpha about 2: what any text teaches is learnt early (tuned on scales; one scale cannot see it).
    Scalar.GENERIC_DECAY: Prior(0.7, 0.8, 0.2),
    # lambda about .57: halves the errors of level at three times the largest budget (tuned on seven_tiny's targets
    # and on checkpoints of the ladder).
    Scalar.BUDGET_PART: Prior(0.3, 0.5, 0.2),
    # psi about .1: differences between mixtures that the law has not seen, at 1.3 to 3 times the largest budget, are
    # 1.03 to 1.26 times as large as at psi = 0 (tuned on the ladder, seven_tiny and docs/evidence.md's searches).
    Scalar.RESPONSE_GROWTH: Prior(0.1, 0.05, 0.05),
    # All further epochs are worth at most some 15 fresh ones (Muennighoff et al., arXiv 2305.16264). Narrow, as runs of
    # hundreds of epochs, whose overfitting no such law can express, would pull it up (tuned on data_constrained).
    Scalar.REPETITION: Prior(float(np.log(DATA_DECAY)), 0.15, 0.1),
}
# What any text teaches is learnt within some ten million tokens. If the smallest runs have more, the prior amplitude is
# lower by EARLY_DECAY times the log ratio, and less sure by a third of that (tuned on the ladder).
EARLY_TOKENS, EARLY_DECAY = 1e7, 0.5
# log c: that of v's own domain is some 90 times that of others, which range from close relatives to unrelated text.
OWN_WEIGHT = Prior(2.5, 1.0, 1.0)
OTHER_WEIGHT = Prior(-2.0, 1.0, 1.2)
SIZE_PRIORS = {
    # Some 40 % of the gap at the sizes of the runs, as at Chinchilla's optimum (Hoffmann et al., arXiv 2203.15556).
    Size.AMPLITUDE: Prior(float(np.log(0.4)), 0.4, 0.2),
    Size.DECAY: Prior(float(np.log(0.25)), 0.3, 0.15),  # exponents of size in the literature are .1 to .4
    # A mixture matters 5 % less to a model e times as large (seen on the ladder, sizes up to 680M).
    Size.EASE: Prior(0.05, 0.05, 0.03),
    Size.EXCESS: Prior(float(np.log(EXCESS_DECAY)), 0.1, 0.05),  # Muennighoff et al.; narrow for the same reason
}
# log g: nearly equal, as all text teaches what any text teaches. Freer weights overfit 32 runs.
GENERIC_WEIGHT = Prior(0.0, 0.05, 0.05)
