"""Every stage as a job of Slurm, on one node that this test starts; and how many processes it gets.

make test-slurm     # the tests of this file that need Slurm, which `make test` omits
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from crystalmesh.config import plan
from tests.workflow import slurm_node
from tests.workflow.conftest import copy_project, mini, ran, run

LEDGER = "results/demo/ledger.json"
PROFILE = (
    *("snakemake", "--workflow-profile", "profiles/slurm", "--max-threads", "2"),
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"),
)


def small(root: Path) -> Path:
    """The mini project with one of its runs."""
    mini(root)
    for study in ("front", "predictors"):
        shutil.rmtree(root / "studies" / study)
    path = root / "studies" / "demo" / "study.yaml"
    tree = yaml.safe_load(path.read_text())
    (block,) = tree["runs"]
    del block["runs"][1:]
    del tree["report"]["site"]
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    plan.write(root)
    return root


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if not slurm_node.installed():
        pytest.skip("needs slurm-wlm and root")
    with slurm_node.node(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.mark.slurm
def test_the_ledger_of_a_cluster_is_that_of_one_machine(
    variables: dict[str, str], tmp_path: Path
) -> None:
    here, there = small(tmp_path / "here"), small(tmp_path / "there")
    ended = run(here, "snakemake", "--cores", "2", "demo")
    assert ended.returncode == 0, ended.stdout
    stages = ran("snakemake", ended.stdout) - Counter(["demo"])
    ended = run(there, *PROFILE, "demo", **variables)
    assert ended.returncode == 0, ended.stdout
    assert ran("snakemake", ended.stdout) - Counter(["demo"]) == stages
    assert (there / LEDGER).read_bytes() == (here / LEDGER).read_bytes()

    jobs = asked(variables)
    assert sum(jobs.values()) == stages.total()  # all were jobs
    for stage, request in {
        "fetch": ("2", "5000M", "1:00:00"),
        "represent": ("2", "5000M", "1:00:00"),
        "train": ("1", "8000M", "1-00:00:00"),
        "tables": ("1", "4000M", "1:00:00"),
    }.items():
        assert jobs[stage, *request] == stages[stage], jobs

    # both engines know of it, and a job that fails says why
    for command in (
        ("snakemake", "--cores", "2", "demo"),
        ("dvc", "repro", "studies/demo/dvc.yaml"),
    ):
        ended = run(there, *command)
        assert ended.returncode == 0, ended.stdout
        assert ran(command[0], ended.stdout) == Counter()
    raw = there / "data" / "raw" / "emt.json.gz"
    raw.write_bytes(raw.read_bytes()[:-1])
    ended = run(there, *PROFILE, "data/crystals/emt/index.json", **variables)
    assert ended.returncode != 0
    assert f"error: {raw}: broken gzip" in ended.stdout


def asked(variables: dict[str, str]) -> Counter[tuple[str, ...]]:
    """How often a stage's jobs asked for (CPUs, memory, time); Slurm still knows what ended."""
    ended = subprocess.run(
        ["squeue", "--states=all", "--noheader", "--format=%k %C %m %l"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in ended.stdout.splitlines()]
    return Counter((row[0].split("_")[1], *row[1:]) for row in rows)


def test_a_stage_has_as_many_processes_as_threads(tmp_path: Path) -> None:
    root = copy_project(tmp_path / "project")
    stand_in = tmp_path / "bin" / "crystalmesh"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$1 has $CRYSTALMESH_JOBS"\nexit 1\n')
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"

    def processes(*options: str, **variables: str) -> str:
        command = ("snakemake", "--cores", "3", *options, "data/raw/emt.json.gz")
        said = run(root, *command, PATH=path, **variables).stdout
        return next(line for line in said.splitlines() if line.startswith("fetch has "))

    assert processes() == "fetch has 3"
    assert processes("--max-threads", "2") == "fetch has 2"
    assert processes(CRYSTALMESH_JOBS="5") == "fetch has 5"
