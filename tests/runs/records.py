"""Records of runs that never were."""

from pathlib import Path

import yaml

from autoscale_exp.runs.record import CurvePoint, RunRecord, write_record


def make_record(run="run", **changes):
    """A record of domains a and b; `changes` replace what it says by key."""
    by_domain = {"a": 10, "b": 20}
    content = {
        "run": run,
        "experiment": "test",
        "mixture": "uniform",
        "scale": "1K",
        "token_budget": 1000,
        "seed": 0,
        "model": "gpt2_tiny",
        "params": 1000,
        "steps": 2,
        "requested_weights": {"a": 1 / 3, "b": 2 / 3},
        "requested_tokens": {"a": 10.0, "b": 20.0},
        "tokens": by_domain,
        "unique_tokens": by_domain,
        "pool_tokens": by_domain,
        "epochs": {"a": 0.1, "b": 0.2},
        "losses": {"a": 1.5, "b": 2.0},
        "validation_curve": [],
        "seconds": 2.0,
        "tokens_per_second": 200.0,
        "finished": "2026-01-01T00:00:00Z",
        "versions": {},
        "git_commit": None,
        "store": "outputs/stores/test",
        "fingerprint": "0" * 16,
    }
    return RunRecord(**content | changes)


def make_curve(tokens, losses):
    """Points of a validation curve from losses by domain."""
    return [CurvePoint(t, of) for t, of in zip(tokens, losses, strict=True)]


def started(sweep: Path, run: str, overrides: list[str], choices: dict[str, str], **record: object) -> None:
    """Writes a record, and what Hydra notes of how its run was started."""
    folder = sweep / "runs" / run
    write_record(folder, make_record(run, **record))
    (folder / ".hydra").mkdir(exist_ok=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": choices}}}))
