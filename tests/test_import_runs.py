from types import SimpleNamespace

import pytest
import wandb


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source=excel"], "source is 'excel'; allowed are regmix, olmix, sweep, wandb"),
        (["source=regmix", "tokens=5"], "source=regmix needs mixtures=... and losses=..."),
        (["source=sweep"], "source=sweep needs folder=..."),
        (["source=sweep", "folder=."], "'.' has no finished run"),
    ],
)
def test_a_request_that_cannot_be_is_refused(overrides, message, refused):
    assert refused("import_runs", *overrides, "output=runs.csv").startswith(message)


def test_a_project_that_wandb_does_not_give_is_refused_with_its_reason(refused, monkeypatch: pytest.MonkeyPatch):
    def no_runs(project: str) -> None:
        raise wandb.Error(f"Could not find project {project}")

    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(runs=no_runs))
    line = refused("import_runs", "source=wandb", "project=me/gone", "output=runs.csv")
    assert line == "project is 'me/gone', which W&B does not give: Could not find project me/gone"
