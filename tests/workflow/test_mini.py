"""End to end on tests/workflow/params.yaml: every stage, both engines, and what each repeats."""

import re
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.workflow.conftest import Made, mini, ran, run

# All in one worker: they share a project that takes a minute to make.
pytestmark = pytest.mark.xdist_group("mini")

EXPERIMENT = "log_k-cgcnn-15"
LEDGER = "results/demo/ledger.json"
ENGINES = {"snakemake": ("snakemake", "--cores", "2"), "dvc": ("dvc", "repro")}
OF_EXPERIMENT = ("train", "predict", "evaluate")
OF_REPORT = ("tables", "figures", "paper", "metrics", "ledger")
QUICK = 15  # seconds in which an engine must say that there is nothing to do


def repeat(root: Path, engine: str) -> Counter[str]:
    """Run an engine; how often each stage ran."""
    ended = run(root, *ENGINES[engine])
    assert ended.returncode == 0, ended.stdout
    return ran(engine, ended.stdout)


def idle(root: Path) -> None:
    """Neither engine has anything to do, and both say so soon."""
    for engine in ENGINES:
        start = time.monotonic()
        assert repeat(root, engine) == Counter()
        assert time.monotonic() - start < QUICK


def set_learning_rate(root: Path, lr: float) -> None:
    text = (root / "params.yaml").read_text()
    changed = re.sub(r"training: \{lr: [^}]*\}", f"training: {{lr: {lr}}}", text)
    assert changed != text
    (root / "params.yaml").write_text(changed)


def test_every_stage_runs_once_and_then_none(made: Made) -> None:
    once = ("fetch", "crystals", "split", *OF_REPORT)
    twice = ("represent", *OF_EXPERIMENT)
    assert made.ran == Counter((*once, *twice, *twice))
    idle(made.root)
    assert list(made.root.rglob("*.part")) == []


def test_a_learning_rate_reruns_what_depends_on_it(made: Made) -> None:
    """Each time from what the other engine left.

    The last change is back to the first value: Snakemake has a record of that one, but not of the
    outputs that are there.
    """
    set_learning_rate(made.root, 0.01)
    assert repeat(made.root, "dvc") == Counter((*OF_EXPERIMENT, *OF_REPORT))
    idle(made.root)
    assert (made.root / LEDGER).read_bytes() != made.ledger
    set_learning_rate(made.root, 0.02)
    assert repeat(made.root, "snakemake") == Counter((*OF_EXPERIMENT, *OF_REPORT))
    idle(made.root)
    assert (made.root / LEDGER).read_bytes() == made.ledger


def test_the_other_engine_makes_the_same_bits_from_nothing(made: Made, tmp_path: Path) -> None:
    root = mini(tmp_path / "project")
    assert repeat(root, "dvc") == made.ran
    idle(root)
    assert (root / LEDGER).read_bytes() == made.ledger
    assert EXPERIMENT in run(root, "dvc", "metrics", "show").stdout
