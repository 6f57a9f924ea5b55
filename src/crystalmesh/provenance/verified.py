"""verified.csv of a study: which of its runs were made again from raw data, and came out the same.

It has dates and CPUs, which differ from one making to the next: it stands outside the ledger.
"""

import csv
import datetime
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from crystalmesh import files, numerics
from crystalmesh.config import plan
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.provenance import software, verify

NAME = "verified.csv"
COLUMNS = ("run", "when", "commit", "arithmetic", "cpu", "outputs", "equal", "cpu_hours")


def arithmetic(project: Project, study: str) -> str:
    """What decides how numbers are rounded, as sixteen digits: packages, tier, kernels."""
    here = numerics.describe(project.params.study(study).numerics, "cpu")
    kernels = files.sha256(Path(numerics.__file__))
    return plan.digest({key: here[key] for key in ("tier", "machine", "packages")}, kernels)


def table(project: Project, study: str) -> dict[str, dict[str, str]]:
    """The rows of the table by run; empty where nothing was verified yet."""
    path = project.results(study) / NAME
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["run"]: row for row in csv.DictReader(stream)}


def waiting(project: Project, study: str) -> list[Run]:
    """Runs that the current arithmetic has not made again: never verified ones first, then by age.

    A run whose outputs differed waits too.
    """
    rows, now = table(project, study), arithmetic(project, study)
    runs = [
        run
        for run in project.params.study(study).runs.values()
        if not _counts(rows.get(run.name), now)
    ]
    return sorted(runs, key=lambda run: rows[run.name]["when"] if run.name in rows else "")


def hours(project: Project, study: str) -> tuple[float, float]:
    """CPU-hours of the study's trainings: verified by the current arithmetic, and in all."""
    rows, now = table(project, study), arithmetic(project, study)
    verified = total = 0.0
    for run in project.params.study(study).runs.values():
        own = _hours(project, run)
        total += own
        verified += own if _counts(rows.get(run.name), now) else 0.0
    return verified, total


def verify_next(project: Project, study: str, minutes: float, cores: int) -> bool:
    """Make runs again that wait, one after the other, for so long; whether all came out the same.

    At least one, and none is begun after the time. Data and features stay in
    .crystalmesh/verify/next-STUDY until code or settings change. After each run its row is in the
    table.

    Raises:
        CrystalmeshError: no ledger.
    """
    until, same = time.monotonic() + 60 * minutes, True
    folder = _folder(project, study)
    for number, run in enumerate(waiting(project, study)):
        if number and time.monotonic() > until:
            break
        rows = list(_made_again(project, run, folder, cores))
        equal = sum(row.same for row in rows)
        _note(project, run, len(rows), equal)
        print(f"{run.reference}: {equal} of {len(rows)} outputs equal", flush=True)
        for row in rows:
            if not row.same:
                print(f"  {row.output}: {row.found}")
        same &= equal == len(rows)
    done, total = hours(project, study)
    print(f"verified {study}: {done:.2f} of {total:.2f} CPU-hours ({done / (total or 1):.0%})")
    return same


def _counts(row: dict[str, str] | None, now: str) -> bool:
    return row is not None and row["arithmetic"] == now and row["outputs"] == row["equal"]


def _hours(project: Project, run: Run) -> float:
    return float(files.read_json(project.card(run))["cpu_seconds"]) / 3600


def _folder(project: Project, study: str) -> Path:
    """The folder in which runs are made: a new one where code or settings are others."""
    folder = project.scratch / "verify" / f"next-{study}"
    stamp, made_of = folder / ".made-of", [software.code()["source"]]
    made_of += [plan.sources(project.root, one) for one in plan.names(project.root)]
    wanted = plan.digest(made_of)
    if not stamp.exists() or stamp.read_text(encoding="ascii") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        verify.clean(project, folder)
        stamp.write_text(wanted, encoding="ascii")
    return folder


def _made_again(project: Project, run: Run, folder: Path, cores: int) -> Iterator[verify.Row]:
    """A row an output of the run, after it was made in the folder."""
    published = verify.read_ledger(project, run.study)["outputs"]
    top = project.results(run.study)
    paths = [project.checkpoint(run), project.history(run), project.metrics(run)]
    paths += [project.predictions(run, target) for target in run.targets]
    targets = sorted({verify.target(project.relative(path)) for path in paths})
    said = verify.snakemake(project, folder, targets, cores, "raw")
    if said:
        print(said, flush=True)
    for path in paths:
        place = project.relative(path)
        digest = published.get(path.relative_to(top).as_posix())
        made = folder / place
        if digest is None and path == project.checkpoint(run) and made.exists():
            found = verify.as_before(project, run, made)
        else:
            found = verify.compare(project, made, place, digest or "")
        yield verify.Row(place, verify.stage(place), found)


def _note(project: Project, run: Run, outputs: int, equal: int) -> None:
    """Write the row of a run; runs stay in the order of their study."""
    rows = table(project, run.study)
    code = software.code()
    now = datetime.datetime.now(datetime.UTC)
    values = (
        run.name, now.isoformat(timespec="seconds"), (code["commit"] or code["source"])[:12],
        arithmetic(project, run.study), numerics.cpu().get("model", ""), outputs, equal,
        f"{_hours(project, run):.4f}",
    )  # fmt: skip
    rows[run.name] = dict(zip(COLUMNS, map(str, values), strict=True))
    order = [name for name in project.params.study(run.study).runs if name in rows]
    files.write_csv(
        project.results(run.study) / NAME,
        COLUMNS,
        [[rows[name][column] for column in COLUMNS] for name in order],
    )
