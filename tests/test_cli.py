"""crystalmesh.cli: what can go wrong is one line and an exit code; see also tests/workflow."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import crystalmesh
from crystalmesh import cli
from crystalmesh.errors import CrystalmeshError
from tests.conftest import Tree, write_project
from tests.workflow.forks import shared

STUDIES = (
    "stability",
    "embeddings",
    "tables",
    "figures",
    "site",
    "metrics",
    "document",
    "ledger",
    "crate",
)
# Each stage with arguments of which nothing is there, and with some whose inputs are missing.
UNKNOWN = {
    "fetch": ["nonesuch"],
    "crystals": ["nonesuch"],
    "split": ["tiny", "nonesuch"],
    "folds": ["nonesuch"],
    "published": ["nonesuch"],
    "represent": ["tiny", "mesh.nonesuch"],
    "train": ["demo/nonesuch"],
    "predictions": ["nonesuch/log_k-mesh"],
    "evaluate": ["demo/nonesuch"],
    "calibrate": ["demo/nonesuch", "log_k"],
} | {stage: ["nonesuch"] for stage in STUDIES}
MISSING = {
    "crystals": ["tiny"],
    "split": ["tiny", "60-20-20"],
    "represent": ["tiny", "graph.cgcnn"],
    "train": ["demo/log_k-cgcnn"],
    "predictions": ["demo/log_k-cgcnn"],
    "evaluate": ["demo/log_k-cgcnn"],
    "calibrate": ["demo/log_k-cgcnn", "log_k"],
}


def crystalmesh_in(
    root: Path, *arguments: str, limit: int | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder; `limit` bytes are the most that it may write to a file."""
    if limit is None:
        own = {name: value for name, value in os.environ.items() if name.startswith("CRYSTALMESH")}
        ended = shared().run("command", arguments, root, own | variables)
        return subprocess.CompletedProcess(arguments, *ended)

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "crystalmesh.cli", *arguments],
        cwd=root,
        env=os.environ | variables,
        preexec_fn=restrict,
        capture_output=True,
        text=True,
        check=False,
    )


def error_of(ended: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed as it should."""
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


@pytest.fixture
def root(tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of the tiny project and its raw file."""
    monkeypatch.setenv("CRYSTALMESH_MIRROR", str(tmp_path))
    return write_project(tmp_path, tree).root


def contents(root: Path) -> dict[str, bytes]:
    """Every file but those that only hold digests of the plans."""
    paths = (path for path in root.rglob("*") if path.is_file())
    return {str(p): p.read_bytes() for p in paths if ".crystalmesh" not in p.parts}


def test_version_and_help(tmp_path: Path) -> None:
    assert (
        crystalmesh_in(tmp_path, "--version").stdout == f"crystalmesh {crystalmesh.__version__}\n"
    )
    for arguments in ([], ["--help"]):
        text = crystalmesh_in(tmp_path, *arguments).stdout
        assert all(f"\n  {stage} " in text for stage in (*UNKNOWN, "plan"))


@pytest.mark.parametrize(("arguments", "message"), [
    (["trian"], "No such command 'trian'"),
    (["fetch"], "Missing argument"),
    (["fetch", "tiny", "more"], "unexpected extra argument"),
    (["fetch", "--fast", "tiny"], "No such option"),
])  # fmt: skip
def test_a_wrong_command_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in error_of(crystalmesh_in(tmp_path, *arguments))


@pytest.mark.parametrize("stage", [one for one in UNKNOWN if one not in STUDIES[1:]])
def test_an_unknown_name(root: Path, stage: str) -> None:
    before = contents(root)
    assert "nonesuch" in error_of(crystalmesh_in(root, stage, *UNKNOWN[stage]))
    assert contents(root) == before


@pytest.mark.parametrize("stage", MISSING)
def test_a_missing_input(root: Path, stage: str) -> None:
    before = contents(root)
    error_of(crystalmesh_in(root, stage, *MISSING[stage]))
    assert contents(root) == before


def test_a_run_is_named_with_its_study(root: Path) -> None:
    error = error_of(crystalmesh_in(root, "train", "log_k-cgcnn"))
    assert "log_k-cgcnn: give a run as STUDY/RUN" in error


def test_a_plan_is_written_and_an_older_one_stops_every_stage(root: Path) -> None:
    assert crystalmesh_in(root, "plan", "--check").returncode == 0
    path = root / "studies" / "demo" / "study.yaml"
    path.write_text(path.read_text().replace("seed: 1", "seed: 2", 1))
    error = error_of(crystalmesh_in(root, "fetch", "tiny"))
    assert "studies/demo/plan.json: older than" in error
    assert "run `crystalmesh plan`" in error
    assert "not up to date" in crystalmesh_in(root, "plan", "--check").stderr
    ended = crystalmesh_in(root, "plan")
    assert (ended.returncode, ended.stdout) == (0, "studies/demo/plan.json\n")
    assert crystalmesh_in(root, "fetch", "tiny").returncode == 0


def test_a_typo_in_the_settings(root: Path) -> None:
    path = root / "config" / "all.yaml"
    path.write_text(path.read_text().replace("seed: 0", "sede: 0", 1))
    error = error_of(crystalmesh_in(root, "fetch", "tiny"))
    assert "splits.tiny.60-20-20.sede: unknown setting; did you mean 'seed'?" in error
    assert not (root / "data").exists()


def test_no_project_and_wrong_jobs(root: Path) -> None:
    for jobs in ("0", "two", ""):
        error = error_of(crystalmesh_in(root, "fetch", "tiny", CRYSTALMESH_JOBS=jobs))
        assert f"CRYSTALMESH_JOBS={jobs}: " in error
    shutil.rmtree(root / "config")
    assert "no config/ here or above" in error_of(crystalmesh_in(root, "fetch", "tiny"))


def test_no_room_for_the_output(root: Path) -> None:
    arguments = ("fetch", "tiny")
    error = error_of(crystalmesh_in(root, *arguments, limit=1000))
    assert "File too large; mend that and run again" in error
    assert list((root / "data" / "raw").iterdir()) == []
    # and the next run continues
    assert crystalmesh_in(root, *arguments).returncode == 0
    assert [path.name for path in (root / "data" / "raw").iterdir()] == ["tiny.json.gz"]


def interrupted_by_lightning() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def raising(error: BaseException) -> Callable[[], None]:
    def stage() -> None:
        raise error

    return stage


def run_as_a_stage(monkeypatch: pytest.MonkeyPatch, stage: Callable[[], None]) -> None:
    """Let `cli.main` find the command line `crystalmesh stage`."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("stage")(stage)
    app.command("another")(lambda: None)
    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["crystalmesh", "stage"])


@pytest.mark.parametrize(
    ("stage", "code", "line"),
    [
        (raising(CrystalmeshError("file: bad;\n  mend it")), 2, "error: file: bad; mend it"),
        (raising(OSError(errno.ENOSPC, "No space left", "x")), 2, "error: x: No space left; mend"),
        (raising(OSError("no network")), 2, "error: no network; mend that and run again"),
        (raising(KeyboardInterrupt()), 130, "interrupted; run again to continue"),
        (interrupted_by_lightning, 130, "interrupted; run again to continue"),
        (raising(SystemExit(7)), 7, ""),
        (raising(typer.Exit(3)), 3, ""),
        (lambda: None, 0, ""),
    ],
)
def test_exit_codes_and_lines(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: Callable[[], None],
    code: int,
    line: str,
) -> None:
    run_as_a_stage(monkeypatch, stage)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert capsys.readouterr().err.startswith(line)


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    run_as_a_stage(monkeypatch, raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main()
