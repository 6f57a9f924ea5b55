"""crystalmesh.cli: what can go wrong is one line and an exit code; see also tests/workflow."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import crystalmesh
from crystalmesh import cli
from crystalmesh.errors import CrystalmeshError

MINI = Path(__file__).parent / "workflow" / "params.yaml"
STAGES = {
    "fetch": 1, "crystals": 1, "split": 1, "folds": 1, "represent": 1, "train": 2, "predictions": 2,
    "evaluate": 2, "calibrate": 2, "published": 2, "tables": 1, "figures": 1, "site": 1,
    "metrics": 1, "paper": 1, "ledger": 1, "crate": 1,
}  # fmt: skip


def crystalmesh_in(
    root: Path, *arguments: str, limit: int | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder; `limit` bytes are the most that it may write to a file."""

    def restrict() -> None:
        if limit is not None:
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
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(MINI.read_text())
    return tmp_path


def test_version_and_help(tmp_path: Path) -> None:
    assert (
        crystalmesh_in(tmp_path, "--version").stdout == f"crystalmesh {crystalmesh.__version__}\n"
    )
    for arguments in ([], ["--help"]):
        text = crystalmesh_in(tmp_path, *arguments).stdout
        assert all(f"\n  {stage} " in text for stage in STAGES)


@pytest.mark.parametrize(("arguments", "message"), [
    (["trian"], "No such command 'trian'"),
    (["fetch"], "Missing argument"),
    (["fetch", "emt", "more"], "unexpected extra argument"),
    (["fetch", "--fast", "emt"], "No such option"),
])  # fmt: skip
def test_a_wrong_command_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in error_of(crystalmesh_in(tmp_path, *arguments))


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_name(project: Path, stage: str) -> None:
    error = error_of(crystalmesh_in(project, stage, *["nonesuch"] * STAGES[stage]))
    assert "params.yaml" in error
    assert "nonesuch" in error
    assert sorted(path.name for path in project.iterdir()) == [".crystalmesh", "params.yaml"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["crystals", "emt"],
        ["split", "emt-60-20-20"],
        ["represent", "emt-graph_cgcnn"],
        ["train", "demo", "log_k-cgcnn-15"],
        ["predictions", "demo", "log_k-cgcnn-15"],
        ["evaluate", "demo", "log_k-cgcnn-15"],
        ["tables", "demo"],
        ["figures", "demo"],
        ["metrics", "demo"],
        ["paper", "demo"],
        ["ledger", "demo"],
        ["crate", "demo"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_missing_input(project: Path, arguments: list[str]) -> None:
    error_of(crystalmesh_in(project, *arguments))
    assert sorted(path.name for path in project.iterdir()) == [".crystalmesh", "params.yaml"]


def test_a_typo_in_params(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("seed: 0", "sede: 0", 1))
    error = error_of(crystalmesh_in(project, "fetch", "emt"))
    assert "splits.emt-60-20-20.sede: unknown setting; did you mean 'seed'?" in error
    assert [path.name for path in project.iterdir()] == ["params.yaml"]


def test_no_project_and_wrong_jobs(tmp_path: Path, project: Path) -> None:
    for jobs in ("0", "two", ""):
        error = error_of(crystalmesh_in(project, "fetch", "emt", CRYSTALMESH_JOBS=jobs))
        assert f"CRYSTALMESH_JOBS={jobs}: " in error
    (project / "params.yaml").unlink()
    assert "no params.yaml here or above" in error_of(crystalmesh_in(tmp_path, "fetch", "emt"))


def test_no_room_for_the_output(project: Path) -> None:
    arguments = ("fetch", "emt")
    error_of(crystalmesh_in(project, "fetch", "nonesuch"))  # leaves the settings files
    error = error_of(crystalmesh_in(project, *arguments, limit=1000))
    assert "File too large; mend that and run again" in error
    assert list((project / "data" / "raw").iterdir()) == []
    # and the next run continues
    assert crystalmesh_in(project, *arguments).returncode == 0
    assert [path.name for path in (project / "data" / "raw").iterdir()] == ["emt.json.gz"]


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
