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

from crystalmesh.config import plan
from tests.workflow.forks import Forks, shared

ROOT = Path(__file__).parents[2]
MINI = ROOT / "tests" / "workflow" / "mini"
# What both engines need beside settings: the stages, and files that stages read.
FILES = (
    ".dvcignore", ".gitignore", "CITATION.cff", "Snakefile", "dvc.yaml", "data/dvc.yaml",
    ".dvc/config", ".dvc/.gitignore", "env/requirements.lock", "env/torch.txt",
    "benchmarks/models.json", "benchmarks/representations.json",
)  # fmt: skip
FOLDERS = ("rules", "paper", "profiles")
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


def copy_engines(root: Path) -> Path:
    """The files that make the project, without settings, data and results."""
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name)
    # all checkpoints are published here
    ignored = (root / ".gitignore").read_text().splitlines(keepends=True)
    kept = [line for line in ignored if "/checkpoints/" not in line]
    (root / ".gitignore").write_text("".join(kept))
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def copy_project(root: Path) -> Path:
    """The project with its settings, without data and results."""
    copy_engines(root)
    for name in ("config", "studies"):
        unwanted = shutil.ignore_patterns("dvc.lock", "__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=unwanted)
    return root


def mini(root: Path) -> Path:
    """A project that takes all stages, but only a minute; its plans are written."""
    copy_engines(root)
    shutil.copytree(MINI, root, dirs_exist_ok=True)
    plan.write(root)
    return root


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that stands in the file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# Stages that make nothing, and so are of one engine alone: `crystalmesh plan --check`, the check of
# the demo at the top, and what Snakemake tells DVC.
CHECKS = ("plan", "demo", "dvc")


def ran(engine: str, output: str) -> Counter[str]:
    """How often each stage ran, as the engine says; it must say so if none did."""
    if engine == "snakemake":
        names = re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)$", output, re.M)
        assert names or "Nothing to be done (all requested files are present" in output, output
        return Counter(name for name in names if name not in ("all", *CHECKS))
    names = re.findall(r"^Running stage '(?:[\w/.]+:)?([a-z_]+)", output, re.M)
    assert names or "Data and pipelines are up to date." in output, output
    return Counter(name for name in names if name not in CHECKS)


class Made(NamedTuple):
    """A mini project in which Snakemake has run once, what it ran, and the ledger of that run."""

    root: Path
    ran: Counter[str]
    ledger: bytes


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Made:
    """Shared: a test leaves it up to date, and made of the same settings."""
    root = mini(tmp_path_factory.mktemp("mini") / "project")
    ended = run(root, "snakemake", "--cores", "2", PATH=forks.path)
    assert ended.returncode == 0, ended.stdout
    ledger = root / "results" / "demo" / "ledger.json"
    return Made(root, ran("snakemake", ended.stdout), ledger.read_bytes())


@pytest.fixture(scope="session")
def forks() -> Forks:
    """Where commands run, each as in a process of its own."""
    return shared()


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """The tiny report, all its stages run in one process by chain.py; only to be copied."""
    root = tmp_path_factory.mktemp("first") / "project"
    ended = forks.run("chain", [str(root)])
    assert ended.code == 0, ended.complaint
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project")
