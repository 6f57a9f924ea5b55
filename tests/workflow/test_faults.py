"""Faults in every stage: found, named, and without harm; see faults.py for more of each."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.workflow.conftest import ROOT
from tests.workflow.faults import READERS, STAGES

KILLS = 2
PROBE = """
import json, sys, tempfile
from pathlib import Path
from tests.workflow import faults

with tempfile.TemporaryDirectory() as name:
    root = faults.prepare(Path(name))
    print(json.dumps({
        "kills": {stage: faults.kills(root, stage, int(sys.argv[1]), 1) for stage in faults.STAGES},
        "damages": list(faults.damages(root)),
        "no room": {stage: faults.no_room(root, stage) for stage in faults.STAGES},
        "read only": {stage: faults.read_only(root, stage) for stage in faults.STAGES},
    }))
"""


@pytest.fixture(scope="module")
def found() -> Any:
    """All faults in a process of its own, which forks its stages."""
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, str(KILLS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_moment_a_stage_can_be_run_again(found: Any, stage: str) -> None:
    counts = found["kills"][stage]
    assert counts["runs"] == counts["recovered"]
    assert counts["injected"] == KILLS
    assert counts.get("half-written", 0) == counts.get("lost", 0) == 0


@pytest.mark.parametrize("place", READERS)
def test_a_damaged_file_is_named_by_the_stage_that_reads_it(found: Any, place: str) -> None:
    results = {damage: good for name, damage, good in found["damages"] if name == place}
    assert results == {"cut short": True, "bit flipped": True}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", ["no room", "read only"])
def test_where_nothing_can_be_written_nothing_is_harmed(found: Any, stage: str, fault: str) -> None:
    assert found[fault][stage]
