"""Faults of every kind in every stage of the tiny report, and what became of them.

    python -m tests.workflow.faults [KILLS] > table.md      # kills a stage: 20 unless told

kill -9 at a random moment of each stage; a full disk; a folder that may not be written to; every
kind of file cut short, and with one bit turned over. A fault is lost when a stage ends well on a
damaged input, when a file that was there is harmed, or when the next run does not give the ledger
of a run without faults.

Stages run in processes that are forked from this one, which has everything imported already: a
kill then hits the stage, and not the import of torch.
"""

import contextlib
import ctypes
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystalmesh import numerics
from tests.workflow import chain
from tests.workflow.conftest import ROOT

NAME = "log_k-cgcnn"
OTHER = "log_k-canonical"
# A command of each stage, and what it makes.
STAGES: dict[str, tuple[str, ...]] = {
    "fetch tiny": ("data/raw/tiny.json.gz",),
    "crystals tiny": ("data/crystals/tiny",),
    "split tiny 60-20-20": ("data/splits/tiny/60-20-20.json",),
    "represent tiny mesh.canonical": ("data/features/tiny/mesh.canonical",),
    f"train demo/{OTHER}": tuple(
        f"results/demo/{folder}/{OTHER}.{suffix}"
        for folder, suffix in (
            ("checkpoints", "safetensors"), ("history", "csv"), ("cards", "json"),
        )
    ),
    f"predictions demo/{NAME}": (f"results/demo/predictions/{NAME}",),
    f"evaluate demo/{NAME}": (f"results/demo/metrics/{NAME}.json",),
    "stability demo": ("results/demo/stability.json",),
    "embeddings demo": ("results/demo/embeddings.json",),
    "tables demo": ("results/demo/tables",),
    "figures demo": ("results/demo/figures",),
    "document demo": ("results/demo/paper.pdf",),
    "metrics demo": ("results/demo/metrics.json",),
    "ledger demo": ("results/demo/ledger.json",),
    "crate demo": ("results/demo/ro-crate-metadata.json", "results/demo/README.md"),
}  # fmt: skip
# Files of every kind, and a command that reads each.
READERS = {
    "tiny.json.gz": "fetch tiny",
    "data/raw/tiny.json.gz": "crystals tiny",
    "data/crystals/tiny/crystals.safetensors": "split tiny 60-20-20",
    "data/crystals/tiny/index.json": "represent tiny graph.cgcnn",
    "data/splits/tiny/60-20-20.json": f"train demo/{NAME}",
    "data/features/tiny/graph.cgcnn/shard-0000.safetensors": f"train demo/{NAME}",
    "data/features/tiny/graph.cgcnn/index.json": f"predictions demo/{NAME}",
    f"results/demo/checkpoints/{NAME}.safetensors": f"predictions demo/{NAME}",
    f"results/demo/predictions/{NAME}/log_k.csv": f"evaluate demo/{NAME}",
    f"results/demo/metrics/{NAME}.json": "tables demo",
    f"results/demo/cards/{NAME}.json": "metrics demo",
    f"results/demo/history/{NAME}.csv": "figures demo",
    "results/demo/stability.json": "figures demo",
    "results/demo/embeddings.json": "figures demo",
    "results/demo/tables/runs.json": "document demo",
    "results/demo/figures/parity.svg": "document demo",
    "results/demo/paper.pdf": "ledger demo",
    "config/models/cgcnn.yaml": "tables demo",
    "studies/demo/study.yaml": "tables demo",
    "studies/demo/plan.json": "tables demo",
}
CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24


@dataclass(frozen=True)
class Ended:
    """A command that ended: its exit code (negative: the signal), and what it said on stderr."""

    code: int
    said: str

    @property
    def told(self) -> bool:
        """Whether it failed as it should: exit code 2, and one line (after those of epochs)."""
        last = self.said.splitlines()[-1] if self.said else ""
        return self.code == 2 and last.startswith("error: ") and "Traceback" not in self.said


@dataclass(frozen=True)
class Started:
    """A command in a process of its own; `said` is what it writes to stderr, to be read."""

    process: int
    said: int

    def finish(self) -> Ended:
        """Wait for its end."""
        with os.fdopen(self.said) as stream:
            said = stream.read()
        _, status = os.waitpid(self.process, 0)
        return Ended(os.waitstatus_to_exitcode(status), said)


def start(root: Path, command: str, before: Callable[[], None] | None = None) -> Started:
    """Start a command in a forked process, in which `before` runs first."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return Started(process, reading)
    code = 70
    try:
        os.setsid()
        os.chdir(root)
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if before is not None:
            before()
        from crystalmesh import cli

        sys.argv = ["crystalmesh", *command.split()]
        cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # never into the code of the parent


def run(root: Path, command: str, before: Callable[[], None] | None = None) -> Ended:
    """Run a command to its end."""
    return start(root, command, before).finish()


def contents(root: Path) -> dict[str, list[Any]]:
    """Every output, the ledger too."""
    ledger = root / "results" / "demo" / "ledger.json"
    from crystalmesh.files import sha256

    return chain.outputs(root) | {"ledger": [sha256(ledger) if ledger.exists() else None]}


def remove(root: Path, places: tuple[str, ...]) -> None:
    """Remove what a stage makes."""
    for place in places:
        path = root / place
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def kills(root: Path, command: str, count: int, seed: int) -> Counter[str]:
    """kill -9 the stage at `count` random moments; each time what is there, and the next run.

    Returns:
        runs, injected (kills in time), recovered (runs after which all was as it should be),
        half-written (moments at which an output was there, but not whole), lost.
    """
    expected, places = contents(root), STAGES[command]
    remove(root, places)
    begun = time.monotonic()
    assert run(root, command).code == 0
    seconds = time.monotonic() - begun
    chance = random.Random(f"{seed} {command}")
    counts: Counter[str] = Counter()
    # a kill that comes when the stage has ended is none: again, but not for ever
    while counts["injected"] < count and counts["runs"] < 5 * count:
        remove(root, places)
        started = start(root, command)
        time.sleep(chance.uniform(0, seconds))
        os.kill(started.process, signal.SIGKILL)
        counts["injected"] += started.finish().code == -signal.SIGKILL
        counts["runs"] += 1
        # what is there by then is whole
        harmed = any(value != expected.get(key) for key, value in whole(root).items())
        again = run(root, command)
        counts["recovered" if again.code == 0 and contents(root) == expected else "lost"] += 1
        counts["half-written"] += harmed
    return counts


def whole(root: Path) -> dict[str, list[Any]]:
    """The outputs that are there at this moment; unfinished ones have hidden names."""
    found = contents(root)
    return {k: v for k, v in found.items() if "/." not in k and v[0] is not None}


def cut(content: bytes) -> bytes:
    """The file as a copy that was broken off leaves it."""
    return content[: len(content) * 2 // 3]


def flipped(content: bytes) -> bytes:
    """One bit turned over, in the middle."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def damages(root: Path) -> Iterator[tuple[str, str, bool]]:
    """(file, damage, whether it was found and named, and nothing else changed) for every file."""
    for place, command in READERS.items():
        for name, damage in (("cut short", cut), ("bit flipped", flipped)):
            path = root / place
            content, before = path.read_bytes(), contents(root)
            path.write_bytes(damage(content))
            damaged = contents(root)
            ended = run(root, command)
            # a setting that is another one makes its plan old
            names = (Path(place).name, Path(place).parent.name, "plan.json")
            named = any(name in ended.said for name in names[: 3 if "config/" in place else 2])
            unharmed = contents(root) == damaged
            path.write_bytes(content)
            yield place, name, ended.told and named and unharmed and contents(root) == before


def full_disk() -> None:
    """No file may grow beyond a few bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))


def obey_modes() -> None:
    """Let file modes hold for this process, also where it is root's."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)

        class Header(ctypes.Structure):
            _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

        class Data(ctypes.Structure):
            _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inherit")]

        header, data = Header(0x20080522, 0), (Data * 2)()
        assert libc.capset(ctypes.byref(header), ctypes.byref(data)) == 0


def no_room(root: Path, command: str) -> bool:
    """Whether a full disk is told, and does no harm."""
    before = contents(root)
    ended = run(root, command, full_disk)
    return ended.told and contents(root) == before


def read_only(root: Path, command: str) -> bool:
    """Whether a folder that may not be written to is told, and nothing is harmed."""
    before = contents(root)
    folders = {(root / place).parent for place in STAGES[command]}
    for folder in folders:
        folder.chmod(0o555)
    try:
        ended = run(root, command, obey_modes)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    return ended.told and contents(root) == before


def prepare(folder: Path) -> Path:
    """The tiny report, made once; this process then has imported and compiled what it will use.

    In a process of its own, as Typst's threads would not outlive a fork.
    """
    root = folder / "project"
    subprocess.run(
        [sys.executable, "-m", "tests.workflow.chain", str(root)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    here = Path.cwd()
    with contextlib.redirect_stderr(io.StringIO()):
        numerics.prepare("portable")
        os.environ |= {"CRYSTALMESH_JOBS": "1", "CRYSTALMESH_MIRROR": str(root)}
        chain.run(root, ["represent", "train", "predictions", "figures"], backwards=False)
    os.chdir(here)
    return root


def main() -> None:
    """Print the table of faults; exit code 1 where one is lost."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    lost = 0
    with tempfile.TemporaryDirectory() as name:
        root = prepare(Path(name))
        print("| fault | injected | detected | recovered | lost |\n|---|---|---|---|---|")
        for command in STAGES:
            counts = kills(root, command, count, 0)
            bad = counts["lost"] + counts["half-written"]
            print(
                f"| kill -9 in `{command.split()[0]}` | {counts['injected']} | |"
                f" {counts['recovered'] - (counts['runs'] - counts['injected'])} | {bad} |",
                flush=True,
            )
            lost += bad
        kinds: dict[str, list[bool]] = {}
        for _, damage, found in damages(root):
            kinds.setdefault(f"a file {damage} ({len(READERS)} kinds)", []).append(found)
        kinds["full disk, in each stage"] = [no_room(root, command) for command in STAGES]
        kinds["folder without leave to write, in each stage"] = [
            read_only(root, command) for command in STAGES
        ]
        for kind, results in kinds.items():
            bad = results.count(False)
            good = len(results) - bad
            print(f"| {kind} | {len(results)} | {good} | {good} | {bad} |")
            lost += bad
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
