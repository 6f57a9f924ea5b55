"""crystalmesh verify: what agrees is confirmed, what was changed is named, with its stage."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crystalmesh.config import plan
from crystalmesh.files import read_csv, sha256
from crystalmesh.provenance.difference import difference
from tests.workflow.conftest import BIN, edit, run
from tests.workflow.forks import Forks

Verify = Callable[..., tuple[int, str]]
RUN = "log_k-cgcnn"
RESULTS = Path("results") / "demo"


@pytest.fixture
def report(first: Path, tmp_path: Path) -> Path:
    """The tiny report as a reviewer gets it: results, but neither data nor a journal."""
    root = tmp_path / "project"
    shutil.copytree(first, root)
    shutil.rmtree(root / "data")
    shutil.rmtree(root / ".crystalmesh")
    return root


@pytest.fixture(scope="module")
def verify(forks: Forks) -> Verify:
    """Exit code and output of `crystalmesh verify demo`."""

    def verified(root: Path, *options: str) -> tuple[int, str]:
        mirror = {"CRYSTALMESH_MIRROR": str(root)}
        ended = forks.run("command", ["verify", "demo", *options], root, mirror)
        return ended.code, ended.said + ended.complaint

    return verified


def digit(path: Path) -> None:
    """Change the first decimal of the last number with decimals of a text file."""
    text = path.read_text()
    place = [found.end() for found in re.finditer(r"\d\.(?=\d)", text)][-1]
    path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


def test_the_whole_report_is_made_again_four_stages_at_once(report: Path, verify: Verify) -> None:
    code, said = verify(report, "--cores", "4")
    ledger = json.loads((report / RESULTS / "ledger.json").read_text())
    count = len(ledger["outputs"]) + len(ledger["data"])
    assert code == 0, said
    assert f"verify demo: {count} of {count} checks equal" in said
    assert said.count(" same\n") == count
    assert not (report / "data").exists()
    assert list((report / ".crystalmesh").glob("verify/*")) == []


def test_nothing_is_trained_from_checkpoints_one_stage_at_a_time(
    report: Path, verify: Verify
) -> None:
    code, said = verify(report, "--from-checkpoints", "--cores", "1")
    assert code == 0, said
    assert said.count("same (taken as it is)") == 2 * 4
    assert f"{RESULTS}/predictions/{RUN}/log_k.csv" in said
    # a checkpoint that is not the ledger's is not built on
    path = report / RESULTS / "checkpoints" / f"{RUN}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, said = verify(report, "--from-checkpoints")
    assert code == 2
    assert f"{path.name}: not the file of the ledger" in said


def test_tables_figures_and_document_come_again_from_predictions(
    report: Path, verify: Verify
) -> None:
    code, said = verify(report, "--from-predictions")
    assert code == 0, said
    stages = {line.split()[1] for line in said.splitlines() if line.startswith("results/")}
    assert stages == {"tables", "figures", "document"}
    # what they are made from is held to the ledger first
    digit(report / RESULTS / f"predictions/{RUN}/log_k.csv")
    code, said = verify(report, "--from-predictions")
    assert code == 2
    assert "log_k.csv: not the file of the ledger" in said


def test_the_first_stage_that_differs_is_named(report: Path, verify: Verify) -> None:
    """Another split than the ledger's: crystals agree, and all that follows does not."""
    edit(report / "config" / "all.yaml", "seed: 0", "seed: 5")
    plan.write(report)
    code, said = verify(report, "--only", "predictions/log_k-cgcnn/log_k.csv")
    assert code == 1
    lines = {line.split()[0]: line for line in said.splitlines() if line}
    assert lines["data/crystals/tiny/index.json"].endswith("same")
    assert "differs" in lines["data/splits/tiny/60-20-20.json"]
    assert "differs: only" in said or "differs by up to" in said or "shape" in said
    assert f"what was made: {report}" in said


def digit_of_document(path: Path) -> None:
    """Turn over a bit in the middle of the PDF."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


TAMPERED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a digit of a metric": ("evaluate", lambda root: digit(root / f"metrics/{RUN}.json")),
    "a digit of a prediction": (
        "predictions", lambda root: digit(root / f"predictions/{RUN}/log_k.csv"),
    ),
    "a digit of a table": ("tables", lambda root: digit(root / "tables/runs.json")),
    "a digit of a figure": ("figures", lambda root: digit(root / "figures/parity.svg")),
    "a history that is gone": ("train", lambda root: (root / f"history/{RUN}.csv").unlink()),
    "the document": ("document", lambda root: digit_of_document(root / "paper.pdf")),
    "a run in the ledger": (
        "predictions",
        lambda root: edit(root / "ledger.json", f"predictions/{RUN}/log_k.csv", "x"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", TAMPERED)
def test_what_was_changed_by_hand_is_found_in_a_second(
    report: Path, verify: Verify, change: str
) -> None:
    stage, tamper = TAMPERED[change]
    tamper(report / RESULTS)
    code, said = verify(report, "--quick")
    assert code == 1, said
    assert f"first difference: stage {stage}, " in said


@pytest.mark.parametrize("kind", ["predictions", "metrics", "tables"])
def test_a_lie_is_found_where_the_ledger_tells_it_too(
    report: Path, verify: Verify, kind: str
) -> None:
    """What was changed together with its checksum does not fit what is made from it."""
    name = {"predictions": f"{RUN}/log_k.csv", "metrics": f"{RUN}.json"}
    path = report / RESULTS / kind / name.get(kind, "runs.json")
    before = sha256(path)
    digit(path)
    edit(report / RESULTS / "ledger.json", before, sha256(path))
    code, said = verify(report, "--quick")
    assert code == 1
    expected = {
        "predictions": "the predictions give other metrics",
        "metrics": "the predictions give other metrics",
        "tables": "tables and figures give another PDF",
    }
    assert expected[kind] in said


def test_a_setting_that_was_changed_since_is_named(report: Path, verify: Verify) -> None:
    assert verify(report, "--quick")[0] == 0
    edit(report / "config" / "models" / "cgcnn.yaml", "lr: 0.01", "lr: 0.02")
    code, said = verify(report, "--quick")
    assert (code, said.count("\n")) == (2, 1)
    assert "run `crystalmesh plan`" in said
    plan.write(report)
    code, said = verify(report, "--quick")
    assert code == 1
    assert f"first difference: stage settings, demo: {RUN}: differs" in said
    assert "demo: log_k-mesh " not in said  # its settings are as they were


def test_what_cannot_be_verified(report: Path, verify: Verify) -> None:
    assert "no output matches 'nonesuch'" in verify(report, "--only", "nonesuch")[1]
    assert "give one alone" in verify(report, "--quick", "--only", "x")[1]
    for text in ("{}", "[]"):
        (report / RESULTS / "ledger.json").write_text(text)
        code, said = verify(report, "--quick")
        assert (code, said.count("\n")) == (2, 1)
        assert "not a ledger" in said
    (report / RESULTS / "ledger.json").unlink()
    ended = run(report, "crystalmesh", "verify")
    assert (ended.returncode, ended.stdout.count("\n")) == (2, 1)
    assert "no study has a ledger" in ended.stdout


def test_the_commit_hook_refuses_a_tampered_result(report: Path) -> None:
    """As `make hooks` sets it up."""
    root = Path(__file__).parents[2]
    shutil.copytree(root / ".githooks", report / ".githooks")
    (report / ".venv").symlink_to(BIN.parent)

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(
            ["git", *names, *arguments], cwd=report, capture_output=True, text=True, check=False
        )

    git("config", "core.hooksPath", ".githooks")
    git("add", "results", "config", "studies")
    assert git("commit", "-m", "good").returncode == 0
    digit(report / RESULTS / f"metrics/{RUN}.json")
    refused = git("commit", "-am", "bad")
    assert refused.returncode != 0
    assert f"metrics/{RUN}.json" in refused.stdout + refused.stderr


def test_differences_are_measured(tmp_path: Path) -> None:
    from crystalmesh.files import write_csv, write_json, write_tensors

    def pair(suffix: str) -> tuple[Path, Path]:
        return tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"

    one, other = pair(".csv")
    write_csv(one, ["id", "x"], [("a", 1.0), ("b", 2.0)])
    write_csv(other, ["id", "x"], [("a", 1.0), ("b", 2.25)])
    assert difference(one, other) == " by up to 0.25 in 1 of 4 values (x)"
    write_csv(other, ["id", "x"], [("a", 1.0)])
    assert "shape" in difference(one, other)
    one, other = pair(".json")
    write_json(one, {"a": [1, 2.0], "b": "x"})
    write_json(other, {"a": [1, 2.5], "b": "y"})
    assert difference(one, other).startswith(" by up to 0.5 in 2 of 3 values")
    one, other = pair(".safetensors")
    write_tensors(one, {"w": np.zeros(3)})
    write_tensors(other, {"w": np.zeros(3), "v": np.zeros(1)})
    assert difference(one, other) == ": only one has v"
    write_tensors(other, {"w": np.zeros(3)}, "another note")
    assert "all values are equal" in difference(one, other)


def test_large_checkpoints_may_be_left_out_of_git(report: Path, verify: Verify) -> None:
    path = report / RESULTS / "checkpoints" / f"{RUN}.safetensors"
    path.unlink()
    assert verify(report, "--quick")[0] == 1
    code, said = verify(report, "--from-checkpoints")
    assert code == 2
    assert f"{path.name}: not committed" in said
    with (report / ".gitignore").open("a") as stream:
        stream.write(f"/results/demo/checkpoints/{RUN}.safetensors\n")
    assert verify(report, "--quick")[0] == 0
    # what is not published is trained again, and it alone
    only = ("--only", f"predictions/{RUN}/log_k.csv")
    code, said = verify(report, "--from-checkpoints", *only)
    assert code == 0, said
    assert re.search(rf"{RUN}\.safetensors +train +same\n", said)
    assert said.count("same (taken as it is)") == 2 * 3
    # what was predicted with it is still held to its metrics
    digit(report / RESULTS / f"predictions/{RUN}/log_k.csv")
    assert "the predictions give other metrics" in verify(report, "--quick")[1]


def test_runs_are_verified_one_after_the_other(report: Path, verify: Verify) -> None:
    """At least one a call; a run whose outputs differ is told, and waits for its next turn."""
    path = report / RESULTS / "history" / "log_k-mesh.csv"
    digit(path)
    table = report / RESULTS / "verified.csv"
    code, said = verify(report, "--next", "0")
    assert code == 0, said
    assert f"demo/{RUN}: 4 of 4 outputs equal" in said
    (first,) = read_csv(table)
    assert (first["run"], first["outputs"], first["equal"]) == (RUN, "4", "4")
    code, said = verify(report, "--next", "60")
    assert code == 1, said
    assert f"demo/{RUN}: " not in said  # this one is done
    assert "demo/log_k-mesh: 3 of 4 outputs equal" in said
    assert [row["run"] for row in read_csv(table) if row["equal"] != "4"] == ["log_k-mesh"]
    # by another arithmetic nothing is verified yet
    table.write_text(table.read_text().replace(first["arithmetic"], "0" * 16))
    code, said = verify(report, "--next", "0")
    assert f"demo/{RUN}: 4 of 4 outputs equal" in said
