"""Equal bits on Intel and AMD code paths: the same stages on emulated CPUs.

    make test-emulated                            # the tests of this file, which `make test` omits
    python -m tests.workflow.test_portability     # all stages, both tiers, as a table

Needs qemu's user-mode emulation (Debian: qemu-user). The data and the native results of these tests
are of the CPU they run on, so that three code paths are compared where that one has AVX-512.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from crystalmesh.config import plan
from crystalmesh.config.project import load
from tests.workflow.conftest import ROOT, edit
from tests.workflow.test_independence import Outputs

QEMU = "qemu-x86_64"
CPUS = ("Haswell", "EPYC")  # Intel and AMD, both with AVX2 and FMA
SOME = "stages=train,predictions,embeddings"
pytestmark = pytest.mark.emulated


def emulated(cpu: str, root: Path, *options: str) -> subprocess.Popen[str]:
    """Start the stages of chain.py on an emulated CPU."""
    return subprocess.Popen(
        [QEMU, "-cpu", cpu, sys.executable, "-m", "tests.workflow.chain", str(root), *options],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "ATEN_CPU_CAPABILITY"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def on_both(folder: Path, first: Path | None, *options: str) -> list[Outputs]:
    """What the stages give on each emulated CPU, side by side; in copies of `first`, if given."""
    running = []
    for cpu in CPUS:
        if first is not None:
            shutil.copytree(first, folder / cpu)
            shutil.rmtree(folder / cpu / "results")
            shutil.rmtree(folder / cpu / ".crystalmesh")
        running.append(emulated(cpu, folder / cpu, *options))
    found = []
    for process in running:
        said, complaint = process.communicate()
        assert process.returncode == 0, complaint
        found.append(json.loads(said))
    return found


def differing(one: Outputs, other: Outputs) -> list[str]:
    """The results that only one has, or that are not the same in both."""
    return sorted(key for key in one | other if one.get(key) != other.get(key))


def test_every_model_trains_to_the_same_bits_on_intel_and_amd(tmp_path: Path) -> None:
    first = tmp_path / "first"
    command = [sys.executable, "-m", "tests.workflow.chain", str(first), "models=each"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    intel, amd = on_both(tmp_path, first, SOME, "models=each")
    checkpoints = {Path(key).stem for key in intel if "/checkpoints/" in key}
    assert checkpoints == set(load(first).params.study("demo").runs)
    assert differing(intel, amd) == []
    from tests.workflow import chain

    here = chain.outputs(first)
    assert [key for key, value in intel.items() if here[key] != value] == []


def test_without_the_tier_intel_and_amd_differ(first: Path, tmp_path: Path) -> None:
    root = tmp_path / "native"
    shutil.copytree(first, root)
    edit(root / "studies" / "demo" / "study.yaml", "numerics: portable", "numerics: native")
    plan.write(root)
    intel, amd = on_both(tmp_path, root, "tier=native", "stages=train")
    assert [key for key in differing(intel, amd) if "/checkpoints/" in key] != []


def main() -> None:
    """All stages on each CPU and under each tier, as a table; exit code 1 where it is not so."""
    print("| tier | outputs | differ between Intel and AMD | differ from this CPU |")
    print("|---|---|---|---|")
    good = True
    for tier in ("portable", "native"):
        with tempfile.TemporaryDirectory() as name:
            intel, amd = on_both(Path(name), None, f"tier={tier}")
            ended = subprocess.run(
                [sys.executable, "-m", "tests.workflow.chain", f"{name}/here", f"tier={tier}"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            here = differing(intel, json.loads(ended.stdout))
            between = differing(intel, amd)
            print(f"| {tier} | {len(intel)} | {len(between)} | {len(here)} |", flush=True)
            good &= (not between and not here) if tier == "portable" else bool(between)
    sys.exit(not good)


if __name__ == "__main__":
    main()
