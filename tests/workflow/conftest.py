"""A copy of the project in an empty folder, with its own Git, DVC and settings."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
MINI = ROOT / "tests" / "workflow" / "params.yaml"
FILES = (
    ".dvcignore",
    "CITATION.cff",
    "Snakefile",
    "dvc.yaml",
    "params.yaml",
    ".dvc/config",
    ".dvc/.gitignore",
)
FOLDERS = ("paper", "profiles")
BIN = Path(sys.executable).parent


def run(root: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment in the project; its output is in `stdout`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "CRYSTALMESH"))}
    environment |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | variables
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def copy_project(root: Path) -> Path:
    """The files that make the project, without data and results."""
    measured = [f"benchmarks/{name}.json" for name in ("models", "representations")]
    more = ("env/requirements.lock", "env/torch.txt", ".gitignore", *measured)
    for name in (*FILES, *more):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def ran(engine: str, output: str) -> Counter[str]:
    """How often each stage ran, as the engine says; it must say so if none did."""
    if engine == "snakemake":
        names = re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)$", output, re.M)
        assert names or "Nothing to be done (all requested files are present" in output, output
        # without the target; and rules that have not the name of their stage
        of = {"document": "paper", "ledger_of_predictors": "ledger"}
        return Counter(of.get(name, name) for name in names if name != "all")
    names = re.findall(r"^Running stage '([a-z]+)", output, re.M)
    assert names or "Data and pipelines are up to date." in output, output
    return Counter(names)


def mini(root: Path) -> Path:
    """A project that takes all stages, but only a minute."""
    copy_project(root)
    shutil.copy(MINI, root)
    return root


class Made(NamedTuple):
    """A mini project in which Snakemake has run once, what it ran, and the ledger of that run."""

    root: Path
    ran: Counter[str]
    ledger: bytes


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Shared: a test leaves it up to date, and made of the same settings."""
    root = mini(tmp_path_factory.mktemp("mini") / "project")
    ended = run(root, "snakemake", "--cores", "2")
    assert ended.returncode == 0, ended.stdout
    ledger = root / "results" / "demo" / "ledger.json"
    return Made(root, ran("snakemake", ended.stdout), ledger.read_bytes())


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny report, all its stages run in one process by chain.py; only to be copied."""
    root = tmp_path_factory.mktemp("first") / "project"
    ended = subprocess.run(
        [sys.executable, "-m", "tests.workflow.chain", str(root)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project")
