import numpy as np

from autoscale_exp.runs.table import RunTable

DOMAINS = ["a", "b", "c"]
# Floor, gain and exponent of each validation domain; how much each training domain's tokens tell it.
FLOOR = np.array([1.5, 2.0, 1.8])
EXPONENT = np.array([0.25, 0.3, 0.2])
USE = np.array([[1.0, 0.15, 0.05], [0.1, 1.0, 0.2], [0.02, 0.05, 1.0]])


def true_losses(domain_tokens):
    effective = domain_tokens @ USE.T + 500
    return FLOOR + 20 * effective**-EXPONENT


def ddo_table(noise=0.0, seed=0, scales=(30_000, 100_000), repeats=0):
    rng = np.random.default_rng(seed)
    runs, labels, tokens = [], [], []
    for scale in scales:
        base = np.full(3, scale / 3)
        variants = {f"base{r or ''}": base for r in range(repeats + 1)}
        for i, domain in enumerate(DOMAINS):
            for factor in (3, 1 / 3):
                changed = base.copy()
                changed[i] *= factor
                variants[f"{domain}_x{factor:.2f}"] = changed
        for name, row in variants.items():
            runs.append(f"{name}_{scale}")
            labels.append(str(scale))
            tokens.append(row)
    tokens = np.array(tokens)
    losses = true_losses(tokens) + noise * rng.standard_normal((len(tokens), 3))
    return RunTable(runs, DOMAINS, DOMAINS, tokens, losses, labels)
