"""The `predict` job: losses that a fitted law expects of mixtures not trained on."""

import csv
import io
import json
import logging
from pathlib import Path

import numpy as np

from autoscale_exp import atomic
from autoscale_exp.config import PredictConf
from autoscale_exp.job import job
from autoscale_exp.laws.law import law_class
from autoscale_exp.runs.record import read_mixtures

log = logging.getLogger(__name__)


@job("standalone/predict")
def main(conf: PredictConf) -> None:
    """Writes a CSV with a row per mixture: its losses, and how far the fit may be off."""
    path = Path(conf.law)
    if not path.is_file():
        raise ValueError(f"law is '{conf.law}', which does not exist; `fit` writes law.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("law") in ("ddo", "autoscale_path"):
        raise ValueError(
            f"'{conf.law}' is of law '{content['law']}', which predicts mixtures but no losses; fit another law"
        )
    law = law_class(content.get("law", "")).from_content(content)
    names, tokens = read_mixtures(Path(conf.runs), law.domains)
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
