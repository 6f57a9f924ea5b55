"""Checkpoints of version 0.1: one of them, as it was published, must go on to be read."""

import shutil
from pathlib import Path

import pytest

from crystalmesh import files
from crystalmesh.config.project import Project, load
from crystalmesh.errors import CrystalmeshError
from crystalmesh.learn.predict import FORMAT, Checkpoint
from crystalmesh.provenance import ledger, legacy

ROOT = Path(__file__).parents[2]
OLD = Path(__file__).with_name("data") / "version-0.1.safetensors"
RUN = "demo/e_form-cgcnn-400"

COUNT = 170  # runs of version 0.1 that stayed


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The settings of this repository, and the table of version 0.1, without any result."""
    for name in ("config", "studies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "paper").symlink_to(ROOT / "paper")
    (tmp_path / "results").mkdir()
    shutil.copy(ROOT / legacy.TABLE, tmp_path / legacy.TABLE)
    return load(tmp_path)


def test_a_checkpoint_of_version_0_1_is_taken_over(project: Project) -> None:
    run = project.params.run(RUN)
    legacy.convert(project, run, OLD)
    checkpoint = Checkpoint.load(project, run)  # its settings are those of the run
    assert checkpoint.network(project, "")
    assert ledger.content(checkpoint.tensors) == ledger.content(files.read_tensors(OLD))
    assert legacy.FORMAT == FORMAT


def test_written_as_then_it_has_the_checksum_of_then(project: Project) -> None:
    run = project.params.run(RUN)
    legacy.convert(project, run, OLD)
    checkpoint = Checkpoint.load(project, run)
    known = legacy.checksum(project.root, run)
    assert legacy.written(project.root, run, checkpoint.tensors, checkpoint.note) == known
    other = dict(checkpoint.tensors)
    name = min(other)
    other[name] = other[name] + 1
    assert legacy.written(project.root, run, other, checkpoint.note) != known


def test_another_file_is_refused(project: Project) -> None:
    run = project.params.run("demo/log_k-cgcnn-400")
    with pytest.raises(CrystalmeshError, match=r"not version 0\.1's checkpoint of demo/log_k"):
        legacy.convert(project, run, OLD)
    assert not project.checkpoint(run).exists()


def test_the_table_has_every_run_that_was_there_before(project: Project) -> None:
    """And no run that is gone."""
    runs = {run.reference for one in project.params.studies.values() for run in one.runs.values()}
    table = files.read_json(project.root / legacy.TABLE)
    assert set(table) <= runs
    assert len(table) == COUNT
