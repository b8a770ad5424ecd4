from pathlib import Path

import pytest
import yaml

from autoscale_exp.base.job import CONF_DIR

JOBS = sorted(path.stem for path in CONF_DIR.glob("*.yaml"))


def test_two_fits_of_a_multirun_into_one_folder_are_refused_before_the_first(refused, tmp_path: Path):
    line = refused("fit", "-m", "runs=runs.csv", "output_dir=out", "law=default,linear")
    assert line == (
        "two jobs of the multirun write to output_dir 'out', where the second would overwrite the first; give each a "
        "place of its own, as in 'output_dir=out/${law.name}'"
    )
    assert "'output_dir=out/${seed}'" in refused("fit", "-m", "runs=runs.csv", "output_dir=out", "seed=0,1")
    assert not any(tmp_path.glob("**/fit.json"))
    assert not (tmp_path / "multirun").exists()


def test_two_exports_of_a_multirun_into_one_file_are_refused(refused):
    line = refused("export", "-m", "mixture_file=m.yaml", "format=megatron,olmo", "output=blend")
    assert "write to output 'blend'" in line
    assert line.endswith("as in 'output=blend/${format}'")


def test_a_job_of_a_multirun_that_does_not_compose_is_told_in_one_line(refused):
    line = refused("fit", "-m", "runs=runs.csv", "law=linear,best", "output_dir=${law.name}")
    assert line.startswith("In 'fit': Could not find 'law/best'; there are additive, ")


def test_fits_of_a_multirun_with_folders_of_their_own_begin(refused):
    line = refused(
        "fit", "-m", "runs=runs.csv", "law=linear,bimix", "output_dir=${law.name}", "hydra/hydra_logging=none"
    )
    assert line.startswith("runs is 'runs.csv', which does not exist")


@pytest.mark.parametrize("job", JOBS)
def test_no_job_leaves_a_folder_multirun(job):
    hydra = yaml.safe_load((CONF_DIR / f"{job}.yaml").read_text(encoding="utf-8"))["hydra"]
    assert hydra["sweep"]["dir"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["mixture=fitted", "token_budget=1000", "run_name=${seed}"],
            "search is not set; a mixture that a search finds needs search=<folder> token_budget=...",
        ),
        (["experiment=targets", "token_budget=1000"], "search is not set; give the folder of a search, as in search="),
    ],
)
def test_a_resolvers_error_in_a_sweep_reads_like_that_of_a_single_run(overrides, line, refused):
    single = refused("train", *overrides, "hydra.mode=RUN")
    assert single.startswith(line)
    assert refused("train", "-m", *overrides, "seed=0,1") == single
