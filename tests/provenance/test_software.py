"""What a result was made with: the code and the packages it ran on."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crystalmesh.errors import CrystalmeshError
from crystalmesh.provenance import software
from tests.conftest import Tree, write_project

ROOT = Path(__file__).parents[2]


def test_the_code_is_told_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.py").write_text("1")
    (tmp_path / "y.py").write_text("2")
    first = software.source_checksum(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("3")
    assert software.source_checksum(tmp_path) == first
    (tmp_path / "y.py").write_text("3")
    second = software.source_checksum(tmp_path)
    (tmp_path / "y.py").rename(tmp_path / "z.py")
    assert len({first, second, software.source_checksum(tmp_path)}) == 3


def test_the_commit(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(
            ["git", *names, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert software._commit(tmp_path) is None
    (tmp_path / "x").write_text("1")
    git("init", "-q")
    git("add", "x")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD")
    assert software._commit(tmp_path) == head
    (tmp_path / "x").write_text("2")
    assert software._commit(tmp_path) == f"{head}+"


def test_the_lock_is_held_to_what_is_installed(tmp_path: Path) -> None:
    assert software.unlocked(tmp_path) == []  # a project without one
    (tmp_path / "env").mkdir()
    version = importlib.metadata.version("numpy")
    lock = tmp_path / "env" / "requirements.lock"
    lock.write_text(f"# a comment\nnumpy=={version} \\\n    --hash=sha256:00\n    # via scipy\n")
    with pytest.raises(CrystalmeshError, match=r"torch\.txt: missing"):
        software.check_lock(tmp_path)
    torch = importlib.metadata.version("torch").partition("+")[0]
    (tmp_path / "env" / "torch.txt").write_text(f"torch=={torch}\n")
    assert software.locked(tmp_path) == {"numpy": version, "torch": torch}
    software.check_lock(tmp_path)
    lock.write_text(f"numpy=={version}.1\nno-such-package==1.0\n")
    assert software.unlocked(tmp_path) == [
        f"numpy {version} instead of {version}.1",
        "no-such-package none instead of 1.0",
    ]
    with pytest.raises(CrystalmeshError, match="not what is installed: numpy"):
        software.check_lock(tmp_path)


def test_versions_are_those_that_python_knows() -> None:
    known = software.installed()
    expected = {one.name: one.version for one in importlib.metadata.distributions()}
    assert {name: known[software._normal(name)] for name in expected} == expected


def test_this_environment_is_the_locked_one() -> None:
    assert software.unlocked(ROOT) == []


def test_a_run_with_other_packages_is_refused(tmp_path: Path, tree: Tree) -> None:
    write_project(tmp_path, tree)
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "requirements.lock").write_text("numpy==0.1\n")
    (tmp_path / "env" / "torch.txt").write_text("")

    def split(**variables: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "crystalmesh.cli", "split", "tiny", "60-20-20"],
            cwd=tmp_path,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        ).stderr

    assert "env/requirements.lock: not what is installed: numpy" in split()
    assert "run the stage that makes it" in split(CRYSTALMESH_UNLOCKED="1")
