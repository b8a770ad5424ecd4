import json
import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from autoscale_exp.data.store import TokenStore
from tests.training.processes import Start, ended, table_of

pytestmark = pytest.mark.slow

PROXY_RUNS = ["base", "fruit_x3", "fruit_x0.333", "code_x3", "code_x0.333", "sums_x3", "sums_x0.333"]
DDO = [
    "design=ddo",
    "design.scales=[640,1280]",
    "design.base_repeats=0",
    "design.index=range(0,14)",
    "checkpoint_minutes=0",
]
FIRST_SCALE = "design.index=range(0,7)"
NAMES = [f"{run}_{scale}" for scale in ("0.64K", "1.28K") for run in PROXY_RUNS]


@pytest.fixture(scope="module")
def finished(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "out"
    process = ended(start(folder, *DDO))
    assert process.returncode == 0, process.stderr
    assert f"14 runs are finished; their table is '{folder}/runs.csv'" in process.stdout
    return folder


def test_a_sweep_ends_with_a_table_of_all_its_runs(finished: Path, store: TokenStore):
    table = table_of(finished)
    assert sorted(table) == sorted(NAMES)
    base = {"fruit": 14, "code": 13, "sums": 13}
    for name in NAMES[:7]:
        rows = dict(base)
        for domain in base:
            if name.startswith(domain):
                rows[domain] = base[domain] * 3 if "x3" in name else round(base[domain] / 3)
        assert {d: float(table[name][f"tokens.{d}"]) for d in base} == {d: n * 16 for d, n in rows.items()}
    result = json.loads((finished / "runs" / "code_x3_1.28K" / "result.json").read_text())
    assert {d: float(table["code_x3_1.28K"][f"loss.{d}"]) for d in store.domains} == result["losses"]
    assert len({row["loss.fruit"] for row in table.values()}) == 14


def test_choices_of_a_group_may_be_named_by_a_glob(start: Start, tmp_path: Path):
    process = ended(start(tmp_path / "out", "mixture=glob(unif*)", "token_budget=640"))
    assert process.returncode == 0, process.stderr
    assert [path.name for path in (tmp_path / "out" / "runs").iterdir()] == ["uniform_0.64K_seed0"]


def test_a_finished_sweep_is_not_trained_again(finished: Path, start: Start):
    results = sorted(finished.glob("runs/*/result.json"))
    before = [path.stat().st_mtime_ns for path in results]
    table = (finished / "runs.csv").read_text()
    process = ended(start(finished, *DDO, FIRST_SCALE))
    assert process.returncode == 0, process.stderr
    assert [path.stat().st_mtime_ns for path in results] == before
    assert (finished / "runs.csv").read_text() == table


def test_a_sweep_tells_of_runs_of_another_design(finished: Path, start: Start):
    process = ended(start(finished, *DDO, "design.scales=[640]", FIRST_SCALE))
    assert process.returncode == 0, process.stderr
    assert f"'{finished}' has 7 finished runs of another design (base_1.28K, code_x0.333_1.28K, " in process.stdout


def test_a_sweep_over_folders_of_other_runs_is_refused_before_it_starts(finished: Path, train_overrides, refused):
    before = sorted(finished.rglob("*"))
    of_sweep = [*train_overrides, f"output_dir={finished}", *DDO, "hydra.mode=MULTIRUN"]
    line = refused("train", *of_sweep, "model.optimizer.lr=1e-3")
    assert line.startswith(f"'{finished}/runs/base_0.64K' holds run 'base_0.64K' with another config")
    assert "model.optimizer.lr: 0.002, not 0.001" in line
    assert sorted(finished.rglob("*")) == before


def test_a_finished_run_asked_for_alone_is_not_trained_again(finished: Path, start: Start):
    result = finished / "runs" / "fruit_x3_0.64K" / "result.json"
    before = result.stat().st_mtime_ns
    process = ended(start(finished, *DDO[:3], "design.index=1", mode="RUN"))
    assert process.returncode == 0, process.stderr
    assert result.stat().st_mtime_ns == before


def test_another_run_is_refused_the_folder_of_a_finished_one(finished: Path, train_overrides, refused):
    of_run = [*train_overrides, f"output_dir={finished}", *DDO[:3], "design.index=1", "hydra.mode=RUN"]
    line = refused("train", *of_run, "seed=7")
    assert "fruit_x3_0.64K' with another config (seed: 0, not 7); delete that folder" in line
    assert not (finished / "runs" / "fruit_x3_0.64K" / "failed.json").exists()


def test_a_killed_sweep_goes_on_to_the_same_losses_with_another_launcher(finished: Path, start: Start, tmp_path: Path):
    folder = tmp_path / "out"
    process = start(folder, *DDO, FIRST_SCALE)
    while not (list(folder.glob("runs/*/result.json")) and list(folder.glob("runs/*/resume.ckpt"))):
        assert process.poll() is None, process.stderr
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)
    results = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}
    assert 0 < len(results) < 7
    if (folder / "runs.csv").exists():  # after each run it has those finished by then
        assert set(table_of(folder)) <= {path.parent.name for path in results}
    process = ended(start(folder, *DDO, FIRST_SCALE, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"))
    assert process.returncode == 0, process.stderr
    assert {path: path.stat().st_mtime_ns for path in results} == results
    assert table_of(folder) == {name: row for name, row in table_of(finished).items() if name in NAMES[:7]}


def test_a_run_that_diverges_ends_with_one_line(start: Start, tmp_path: Path):
    process = ended(start(tmp_path / "out", "model.optimizer.lr=1e12", mode="RUN"))
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith("error: the ")
    assert "Traceback" not in process.stderr
    assert list(tmp_path.glob("out/runs/*/failed.json"))


def test_a_run_that_fails_does_not_stop_the_others(start: Start, compose_train, tmp_path: Path):
    folder = tmp_path / "out"
    process = ended(start(folder, "model.optimizer.lr=1e12,1e-3,2e-3", "run_name=lr_${model.optimizer.lr}"))
    assert process.returncode == 1
    assert sorted(path.parent.name for path in folder.glob("runs/*/result.json")) == ["lr_0.001", "lr_0.002"]
    assert sorted(table_of(folder)) == ["lr_0.001", "lr_0.002"]
    failure = json.loads((folder / "runs" / "lr_1000000000000.0" / "failed.json").read_text())
    assert failure["run"] == "lr_1000000000000.0"
    assert failure["error"].startswith("DivergedError: the ")
    assert "Traceback" not in process.stdout + process.stderr
    told = [line for line in process.stdout.splitlines() if failure["error"] in line]
    assert len(told) == 2  # once when it happened
    assert told[1] == f"lr_1000000000000.0 failed: {failure['error']}"
    assert "1 of 3 runs failed" in process.stdout
    (command,) = (line for line in process.stdout.splitlines() if line.startswith("  again: "))
    words = shlex.split(command)
    assert words[1:4] == ["python", "-m", "autoscale_exp.train"]
    assert words[-1] == "hydra.mode=RUN"
    again = compose_train(*words[4:-1])
    assert (again.run_name, again.model.optimizer.lr) == ("lr_1000000000000.0", 1e12)


def test_an_error_that_is_not_the_users_keeps_its_traceback(start: Start, tmp_path: Path):
    process = ended(start(tmp_path / "out", "seed=0,1", "model.optimizer.lr=1e30", "+trainer.detect_anomaly=true"))
    assert process.returncode == 1
    for folder in tmp_path.glob("out/runs/*"):
        written = (folder / "train.log").read_text()
        assert written.count("RuntimeError: Function 'LogSoftmaxBackward0' returned nan values") == 1
        assert process.stdout.count(f"{folder.name} failed\nTraceback") == 1
        assert "returned nan values" in json.loads((folder / "failed.json").read_text())["error"]
    assert "2 of 2 runs failed" in process.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs is 0; it must be a number of"),
        (
            ["hydra/launcher=local", "hydra.launcher.hang_minutes=-1"],
            "hydra.launcher.hang_minutes is -1; it must be a positive number of minutes",
        ),
        (
            ["hydra/launcher=gpus", "hydra.launcher.devices=[0]", "trainer.devices=2"],
            "hydra.launcher.devices is ['0'], but run 'uniform_1.472K_seed0' asks for 2; name more of them",
        ),
        (
            ["trainer.num_nodes=2", "trainer.devices=2"],
            "trainer.num_nodes is 2 in a sweep, whose launcher starts runs on this machine alone; use hydra/launcher=",
        ),
        (
            ["trainer.strategy=fsdp"],
            "trainer.strategy is 'fsdp', which shards a model over several devices, but the",
        ),
        (["trainer.devices=2", "trainer.strategy=deepspeed"], "trainer.strategy is 'deepspeed', with which runs"),
        (["mixture=custom", "mixture.weights=[0.5,0.6,0.1]"], "mixture.weights sum to 1.2, not to 1"),
        (
            ["name=a,b", "output_dir=out/${name}", "run_name=${name}_${seed}"],
            "runs 'a_0' and 'b_0' have different folders ('out/a' and 'out/b'), but a sweep has one; give output_dir",
        ),
        (
            ["trainer=packed,default", "run_name=${trainer._target_}_${seed}"],
            "runs 'autoscale_exp.training.packed_trainer.PackedTrainer_0' and 'pytorch_lightning.Trainer_0' have",
        ),
        (["run_name=same"], "two runs of the sweep have the name 'same'; set run_name so that they differ"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_any_run_has_a_folder(
    overrides, message, store: TokenStore, train_overrides, refused, tmp_path: Path
):
    line = refused("train", *train_overrides, "output_dir=out", "seed=0,1", *overrides, "hydra.mode=MULTIRUN")
    assert line.startswith(message)
    assert not (tmp_path / "out" / "runs").exists()
