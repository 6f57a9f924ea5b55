"""End to end on tests/workflow/mini: every stage, both engines, and what each repeats.

One file, so that `pytest --dist loadfile` gives the project that takes a minute to one worker.
The stages that the engines start run in forks (see forks.py), but for one of each engine in
test_the_engines_start_the_program_itself.
"""

import os
import re
import resource
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import ase
import ase.io
import psutil
import pytest

from crystalmesh.config import plan
from crystalmesh.data.crystals import Crystals
from crystalmesh.files import read_csv
from tests.workflow.conftest import BIN, Made, edit, mini, ran, run
from tests.workflow.forks import Forks

RUN = "log_k-cgcnn-15"
LEDGER = "results/demo/ledger.json"
STUDY = "studies/demo/study.yaml"
ENGINES = {"snakemake": ("snakemake", "--cores", "2"), "dvc": ("dvc", "repro", "--all-pipelines")}
OF_RUN = ("train", "predictions", "evaluate")
OF_REPORT = ("tables", "figures", "document", "metrics", "ledger", "crate")  # of every report
OF_DEMO = ("embeddings", *OF_REPORT, "site")
QUICK = 15  # CPU seconds in which an engine must say that there is nothing to do


def repeat(root: Path, engine: str, forks: Forks) -> Counter[str]:
    """Run an engine; how often each stage ran."""
    ended = run(root, *ENGINES[engine], PATH=forks.path)
    assert ended.returncode == 0, ended.stdout
    return ran(engine, ended.stdout)


def spent() -> float:
    """CPU seconds of the processes that were started here and have ended: whatever else runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def idle(root: Path, forks: Forks) -> None:
    """Neither engine has anything to do, and both say so soon."""
    for engine in ENGINES:
        start = spent()
        assert repeat(root, engine, forks) == Counter()
        assert spent() - start < QUICK


def git(root: Path, *arguments: str) -> None:
    names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *names, *arguments], cwd=root, check=True, capture_output=True)


def test_every_stage_runs_once_and_then_none(made: Made, forks: Forks) -> None:
    expected = Counter(("fetch", "crystals", "split", "stability", *OF_DEMO))
    expected += Counter({"represent": 3} | dict.fromkeys(OF_RUN, 3))
    expected += Counter(OF_REPORT)  # of the study in front
    expected += Counter((*OF_RUN, "calibrate", "ledger"))  # of the one predictor
    assert made.ran == expected
    run(made.root, "dvc", "repro", PATH=forks.path)  # looks at the demo once, as only DVC does
    idle(made.root, forks)
    assert list(made.root.rglob("*.part")) == []


def test_a_learning_rate_reruns_what_depends_on_it(made: Made, forks: Forks) -> None:
    """Each time from what the other engine left.

    The last change is back to the first value: Snakemake has a record of that one, but not of the
    outputs that are there.
    """
    git(made.root, "add", "config", "studies", "data/dvc.yaml")
    git(made.root, "commit", "-m", "before")
    edit(made.root / STUDY, "lr: 0.02", "lr: 0.01")
    for engine in (
        ENGINES["snakemake"],
        ("dvc", "repro", "studies/demo/dvc.yaml"),
        ("dvc", "repro"),
    ):
        ended = run(made.root, *engine, PATH=forks.path)
        assert ended.returncode != 0
        (line,) = [line for line in ended.stdout.splitlines() if line.startswith("error: ")]
        assert line.startswith("error: studies/demo/plan.json: ")
        assert line.endswith("; run `crystalmesh plan`")
        assert "Traceback" not in ended.stdout

    changed = {"studies/demo/plan.json", "studies/front/plan.json"}
    assert set(run(made.root, "crystalmesh", "plan").stdout.split()) == changed
    said = run(made.root, "dvc", "params", "diff").stdout
    assert re.search(rf"runs\.{RUN}\.settings\.training\.lr +0\.02 +0\.01", said), said

    ended = run(made.root, "dvc", "repro", PATH=forks.path)  # the demo and no other study
    assert ended.returncode == 0, ended.stdout
    assert ran("dvc", ended.stdout) == Counter((*OF_RUN, *OF_DEMO))
    assert "verify demo: " in ended.stdout
    assert repeat(made.root, "dvc", forks) == Counter(OF_REPORT)
    idle(made.root, forks)
    assert (made.root / LEDGER).read_bytes() != made.ledger

    edit(made.root / STUDY, "lr: 0.01", "lr: 0.02")
    plan.write(made.root)
    assert repeat(made.root, "snakemake", forks) == Counter((*OF_RUN, *OF_DEMO, *OF_REPORT))
    idle(made.root, forks)
    assert (made.root / LEDGER).read_bytes() == made.ledger


def test_the_other_engine_makes_the_same_bits_from_nothing(
    made: Made, forks: Forks, tmp_path: Path
) -> None:
    root = mini(tmp_path / "project")
    assert repeat(root, "dvc", forks) == made.ran
    idle(root, forks)
    assert (root / LEDGER).read_bytes() == made.ledger
    assert RUN in run(root, "dvc", "metrics", "show").stdout
    for study in ("demo", "predictors"):  # what a run costs in Git
        lock = (root / "studies" / study / "dvc.lock").read_text()
        assert sum(map(len, re.findall(rf"^  \w+@{RUN}:\n(?:    .*\n)+", lock, re.M))) < 3000


def test_predictors_are_held_to_their_ledger(made: Made) -> None:
    verify = ("crystalmesh", "verify", "predictors", "--quick")
    ended = run(made.root, *verify)
    assert ended.returncode == 0, ended.stdout
    folder = made.root / "results" / "predictors" / "calibration"
    (file,) = folder.rglob(f"{RUN}.*safetensors")
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        ended = run(made.root, *verify)
        assert ended.returncode == 1
        assert "first difference: stage calibrate" in ended.stdout
    finally:
        file.write_bytes(content)


def test_the_command_predicts_with_them(made: Made, tmp_path: Path) -> None:
    """From any folder inside the project, and what the pipeline has predicted."""
    rows = read_csv(made.root / "results" / "predictors" / "predictions" / RUN / "log_k.csv")
    crystals = Crystals.load(made.root / "data" / "crystals" / "emt")
    folder = tmp_path / "files"
    folder.mkdir()
    for row in rows:
        one = crystals[crystals.position(row["id"])]
        atoms = ase.Atoms(one.numbers, cell=one.lattice, scaled_positions=one.frac % 1.0, pbc=True)
        ase.io.write(folder / f"{one.id}.cif", atoms)
    ended = run(made.root, "crystalmesh", "predict", str(folder), "--out", str(tmp_path / "a.csv"))
    assert ended.returncode == 0, ended.stdout
    found = {row["id"]: row for row in read_csv(tmp_path / "a.csv")}
    assert set(found) == {row["id"] for row in rows}
    for row in rows:  # ASE writes coordinates with 16 digits, lengths with fewer
        assert float(found[row["id"]]["value"]) == pytest.approx(float(row["prediction"]), abs=1e-4)


# Ctrl-C in every stage: 130, one line, nothing half-written, and the next run continues.
LINE = "interrupted; run again to continue\n"
STAGES = {
    "fetch emt": "data/raw",
    "crystals emt": "data/crystals",
    "split emt 60-20-20": "data/splits/emt",
    "represent emt graph.cgcnn": "data/features/emt",
    f"train demo/{RUN}": "results/demo/history",
    f"predictions demo/{RUN}": "results/demo/predictions",
    f"evaluate demo/{RUN}": "results/demo/metrics",
    f"calibrate predictors/{RUN} log_k": "results/predictors/calibration",
    "stability demo": "results/demo",
    "embeddings demo": "results/demo",
    "tables demo": "results/demo",
    "figures demo": "results/demo",
    "metrics demo": "results/demo",
    "document demo": "results/demo",
    "ledger demo": "results/demo",
    "ledger predictors": "results/predictors",
    "site demo": "results/demo",
    "crate demo": "results/demo",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_while_it_writes(made: Made, forks: Forks, stage: str) -> None:
    folder = made.root / STAGES[stage]
    before = contents(folder)
    ended = forks.run("interrupted", stage.split(), made.root)
    assert ended.code == 130, ended.complaint
    assert ended.complaint.endswith(LINE)
    assert "Traceback" not in ended.complaint
    assert contents(folder) == before


def start(root: Path, *arguments: str) -> subprocess.Popen[str]:
    """A stage in a process group of its own, as a shell gives it, to be sent Ctrl-C."""
    return subprocess.Popen(
        [str(BIN / "crystalmesh"), *arguments],
        cwd=root,
        env=os.environ | {"CRYSTALMESH_JOBS": "2"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )


def hear_interrupts() -> None:
    """As a terminal starts a command; in the background of a shell, Ctrl-C would be ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(process: subprocess.Popen[str]) -> str:
    """Ctrl-C: to the whole group. What the command says about it."""
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.endswith(LINE), stderr
    assert "Traceback" not in stderr
    return stderr


def test_interrupted_while_others_work_for_it(tmp_path: Path) -> None:
    root = mini(tmp_path / "project")
    settings = root / "config" / "datasets.yaml"
    # the whole of the embedded dataset: longer than this test
    text = settings.read_text()
    settings.write_text("\n".join(line for line in text.splitlines() if "generator:" not in line))
    plan.write(root)
    process = start(root, "fetch", "emt")
    end = time.monotonic() + 60
    while len(psutil.Process(process.pid).children(recursive=True)) < 2:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    children = psutil.Process(process.pid).children(recursive=True)
    assert interrupt(process) == LINE
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert list((root / "data").rglob("*.json*")) == []


def test_interrupted_training_continues(made: Made, tmp_path: Path) -> None:
    root = tmp_path / "project"
    mini(root)
    for one in ("raw", "crystals", "splits", "features"):
        (root / "data" / one).symlink_to(made.root / "data" / one)
    edit(root / STUDY, "{lr: 0.02}", "{epochs: 100000, patience: 100000}")
    plan.write(root)
    process = start(root, "train", f"demo/{RUN}")
    assert process.stderr
    for line in process.stderr:
        if "epoch 20/" in line:
            break
    interrupt(process)
    assert not (root / "results").exists()
    process = start(root, "train", f"demo/{RUN}")
    assert process.stderr
    for line in process.stderr:
        if " epoch " in line:
            break
    assert "epoch 1/" not in line
    interrupt(process)


@pytest.mark.parametrize("engine", [("snakemake", "--cores", "1"), ("dvc", "repro")])
def test_the_engines_start_the_program_itself(engine: tuple[str, ...], tmp_path: Path) -> None:
    root = mini(tmp_path / "project")
    target = "data/raw/emt.json.gz" if engine[0] == "snakemake" else "data/dvc.yaml:fetch@emt"
    ended = run(root, *engine, target)
    assert ended.returncode == 0, ended.stdout
    assert ran(engine[0], ended.stdout) == Counter(["fetch"])
    assert (root / "data" / "raw" / "emt.json.gz").exists()


def test_a_wrong_setting_stops_both_engines(tmp_path: Path) -> None:
    root = mini(tmp_path / "project")
    edit(root / "config" / "models" / "cgcnn.yaml", "epochs: 2", "epochz: 2")
    for command in (("snakemake", "--cores", "1"), ("dvc", "repro"), ("crystalmesh", "plan")):
        ended = run(root, *command)
        assert ended.returncode != 0
        assert "training.epochz: unknown setting; did you mean 'epochs'?" in ended.stdout
        assert "Traceback" not in ended.stdout
