"""Nothing but data, settings and code decides a result; and each of these tests can fail.

Every row of `ROWS` is a circumstance that must not matter. All stages of the tiny report are run
under other settings than the first time, and every output must come out the same, to the file mode:
here with all circumstances changed at once, and row by row by

    python -m tests.workflow.test_independence      # prints the rows as a table

Then the stages that a circumstance could reach are run under both settings with its safeguard
switched off (see safeguards.py): now some output must differ.

How many stages run at once, and by which engine, is tested in test_verify.py and test_mini.py.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.workflow import chain
from tests.workflow.forks import OWN, ROOT, Forks

Outputs = dict[str, list[Any]]


@dataclass(frozen=True)
class Setting:
    """How the stages are run: options of chain.py, variables, and the name of the folder."""

    options: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "project"


@dataclass(frozen=True)
class Row:
    """One circumstance: its two settings, and the stages that its safeguard stands in."""

    name: str
    safeguard: str
    stages: str
    other: Setting
    usual: Setting = Setting()

    @property
    def of_interpreter(self) -> bool:
        """Whether the interpreter looks at it when it starts."""
        return any(name.startswith(("PYTHON", "LC_", "OMP_")) for name in self.other.environment)


ROWS = [
    Row("processes of a stage: 1, 2", "processes", "represent", Setting({"jobs": "2"})),
    Row(
        "processors: 1, 4", "threads", "train",
        Setting(environment={"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4", "THREADS": "4"}),
        Setting(environment={"THREADS": "1"}),
    ),
    Row("order of the stages", "order", "train", Setting({"order": "reverse"})),
    Row("folder", "folder", "train", Setting(folder="Ordner mit Umlaut \u00fc")),
    Row(
        "locale: C.UTF-8, POSIX in ASCII", "language", "represent,tables,metrics",
        Setting(environment={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        Setting(environment={"LC_ALL": "C.UTF-8"}),
    ),
    Row(
        "time zone", "zone", "figures",
        Setting(environment={"TZ": "XXX-13:45"}), Setting(environment={"TZ": "UTC"}),
    ),
    Row("clock: now, a day later", "clock", "fetch", Setting({"clock": "86400"})),
    Row("umask: 022, 077", "mask", "split", Setting({"umask": "077"}), Setting({"umask": "022"})),
    Row(
        "hash seed", "hashing", "split",
        Setting(environment={"PYTHONHASHSEED": "2"}), Setting(environment={"PYTHONHASHSEED": "1"}),
    ),
    Row(
        "order in which folders are listed", "listing", "represent,train",
        Setting({"listing": "backwards"}), Setting({"listing": "forwards"}),
    ),
    Row("training: in one run, stopped and resumed", "resuming", "train", Setting({"resume": "1"})),
]  # fmt: skip


def made(root: Path, setting: Setting, forks: Forks | None = None, **more: str) -> Outputs:
    """Run the stages in a process of their own under a setting; the outputs."""
    options = [f"{key}={value}" for key, value in (setting.options | more).items()]
    if forks is not None:
        ended = forks.run("chain", [str(root), *options], environment=setting.environment)
        code, said, complaint = ended
    else:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(OWN)}
        process = subprocess.run(
            [sys.executable, "-m", "tests.workflow.chain", str(root), *options],
            cwd=ROOT,
            env=environment | setting.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        code, said, complaint = process.returncode, process.stdout, process.stderr
    assert code == 0, complaint
    found: Outputs = json.loads(said)
    return found


def everything(rows: list[Row]) -> Setting:
    """The other setting of all rows at once."""
    options, environment, folder = dict[str, str](), dict[str, str](), "project"
    for row in rows:
        options |= row.other.options
        environment |= row.other.environment
        folder = row.other.folder if row.other.folder != "project" else folder
    return Setting(options, environment, folder)


def without(row: Row, setting: Setting, first: Path, folder: Path, forks: Forks) -> Outputs:
    """The outputs of the row's stages, run in a copy of `first` with its safeguard off."""
    root = folder / setting.folder
    shutil.copytree(first, root)
    shutil.rmtree(root / ".crystalmesh")  # the journal would tell what was changed
    able = None if row.of_interpreter else forks
    return made(root, setting, able, off=row.safeguard, stages=row.stages)


def test_nothing_of_all_this_matters(forks: Forks, tmp_path: Path) -> None:
    """Of every architecture and option: a new one is in this test without a word here."""
    setting = everything(ROWS)
    first = made(tmp_path / "first", Setting(), forks, models="kinds")
    assert made(tmp_path / setting.folder, setting, models="kinds") == first


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.safeguard)
def test_it_would_matter_without_its_safeguard(
    row: Row, first: Path, forks: Forks, tmp_path: Path
) -> None:
    one = without(row, row.usual, first, tmp_path / "one", forks)
    other = without(row, row.other, first, tmp_path / "other", forks)
    assert one != other


def main() -> None:
    """Print the table of the rows, or of those named; exit code 1 where one fails."""
    failed, named, forks = False, sys.argv[1:], Forks()
    with tempfile.TemporaryDirectory() as name:
        first = Path(name) / "first"
        made(first, Setting())
        print("| circumstance | outputs compared | equal | safeguard off: other outputs |")
        print("|---|---|---|---|")
        for row in [row for row in ROWS if not named or row.safeguard in named]:
            folder = Path(name) / row.safeguard
            expected = chain.outputs(first)
            found = made(folder / row.other.folder, row.other)
            equal = sum(found.get(key) == value for key, value in expected.items())
            one = without(row, row.usual, first, folder / "one off", forks)
            other = without(row, row.other, first, folder / "other off", forks)
            differ = sum(one.get(key) != other.get(key) for key in one | other)
            print(f"| {row.name} | {len(expected)} | {equal} | {differ} |", flush=True)
            failed |= equal < len(expected) or not differ
    forks.close()
    sys.exit(failed)


if __name__ == "__main__":
    main()
