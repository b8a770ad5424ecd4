"""The `predict` job: losses that a fitted law expects of mixtures not trained on."""

import csv
import io
import logging
from pathlib import Path

import numpy as np

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.base.ranges import LARGEST_SEED, check_range
from autoscale_exp.config import PredictConf
from autoscale_exp.laws.law import predicts_losses
from autoscale_exp.laws.law_file import read_law
from autoscale_exp.runs.table import read_mixtures

log = logging.getLogger(__name__)


@job("predict")
def main(conf: PredictConf) -> None:
    """Writes a CSV with a row per mixture: its losses, and how far the fit may be off."""
    check_range({"num_draws": conf.num_draws}, 0)
    check_range({"seed": conf.seed}, 0, LARGEST_SEED)
    law = read_law(Path(conf.law_file))
    if not predicts_losses(law):
        raise UserError(
            f"law_file is '{conf.law_file}', of law '{law.name}', which predicts mixtures but no losses; fit another "
            "law"
        )
    names, tokens = read_mixtures(Path(conf.mixtures), law.domains)
    losses = law.predict(tokens)
    draws = law.draws(conf.num_draws, np.random.default_rng(conf.seed))
    spread = np.std([draw.predict(tokens) for draw in draws], axis=0) if draws else np.full_like(losses, np.nan)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    domains = law.validation_domains
    writer.writerow(["run", *(f"loss.{v}" for v in domains), *(f"std.{v}" for v in domains)])
    for name, row, deviation in zip(names, losses, spread, strict=True):
        writer.writerow([name, *(f"{x:.6f}" for x in row), *("" if np.isnan(x) else f"{x:.6f}" for x in deviation)])
    atomic.write_text(Path(conf.output), text.getvalue())
    log.info("%d mixtures predicted in '%s'", len(names), conf.output)


if __name__ == "__main__":
    main()
