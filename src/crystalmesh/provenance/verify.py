"""Are the published numbers what the code gives? A study made again and held to its ledger."""

import fnmatch
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crystalmesh import files, numerics
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.errors import CrystalmeshError
from crystalmesh.provenance import ledger, legacy, software
from crystalmesh.provenance.difference import difference

# In the order in which a difference spreads.
STAGES = (
    "settings", "fetch", "crystals", "split", "represent", "train", "predictions", "evaluate",
    "calibrate", "stability", "embeddings", "tables", "figures", "document", "metrics", "ledger",
)  # fmt: skip
# All that the stages read beside raw data: what a clean folder is given.
SOURCES = (
    "config", "studies", "Snakefile", "rules", "CITATION.cff", "profiles", "paper", "env",
    "benchmarks",
)  # fmt: skip
LEDGER = ("outputs", "data", "settings", "runs")  # blocks that are read here
DRAWN = ("tables", "figures", "document")  # what is made from predictions
SAME = "same"
# What a clean folder is given besides, and so is not made again.
From = Literal["raw", "checkpoints", "predictions"]
BROUGHT: dict[str, tuple[str, ...]] = {
    "raw": (),
    "checkpoints": ("checkpoints", "history", "cards"),
    "predictions": (
        "checkpoints", "history", "cards", "predictions", "metrics", "calibration",
        "stability.json", "embeddings.json",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What became of one output: `found` is "same", or how it differs, or "missing"."""

    output: str  # path below the project, or a name of settings
    stage: str
    found: str

    @property
    def same(self) -> bool:
        """Whether it agrees with the ledger."""
        return self.found.startswith(SAME)


def quick(project: Project, study: str) -> list[Row]:
    """The committed files of a study against its ledger and each other, in seconds.

    Every file must have the ledger's checksum; every setting be the one that the study was made
    with; metrics come from predictions; the checkpoint tell the settings of its run; the PDF come
    from tables and figures. Nothing is trained or predicted: see `rebuild`.
    """
    published = read_ledger(project, study)
    rows = list(_settings(project, study, published))
    folder = project.results(study)
    for name, digest in published["outputs"].items():
        place = project.relative(folder / name)
        rows.append(Row(place, stage(place), _committed(project, place, digest) or SAME))
    for path in ledger.declared(project, study):
        name, place = path.relative_to(folder).as_posix(), project.relative(path)
        unpublished = path.parent.name == "checkpoints" and software.ignored(path)
        if name not in published["outputs"] and not unpublished:
            rows.append(Row(place, stage(place), "not in the ledger"))
    own = project.params.study(study)
    rows += [_consistent(project, run, bool(own.report)) for run in own.runs.values()]
    if own.report:
        rows.append(_document(project, study))
    return rows


def rebuild(
    project: Project, studies: Sequence[str], given: From, only: str | None, cores: int
) -> tuple[dict[str, list[Row]], Path]:
    """Make studies (or of them the outputs that match the glob `only`) again, from raw data.

    In a clean folder, by Snakemake, with the code that is running. `given` is what is not made
    again: from checkpoints come predictions, metrics, tables and PDF; from predictions come tables,
    figures and PDF.

    Returns:
        By study a row an output; and the folder, which holds what was made.

    Raises:
        CrystalmeshError: no ledger; nothing matches `only`; what is given is not the ledger's.
    """
    folder = project.scratch / "verify" / "-".join(studies)[:80]
    clean(project, folder)
    expected: dict[str, dict[str, str]] = {}
    brought: set[str] = set()
    for study in project.params.studies:
        if BROUGHT[given]:
            brought |= set(_bring(project, study, folder, BROUGHT[given]))
    chosen: set[str] = set()
    for study in studies:
        expected[study] = own = _expected(project, study, given)
        place = project.relative(project.results(study))
        chosen |= {name for name in own if _chosen(name, place, only)}
    if not chosen:
        raise CrystalmeshError(f"verify: no output matches '{only}'; see `outputs` of the ledgers")
    targets = {target(name) for name in chosen - brought}
    said = snakemake(project, folder, sorted(targets), cores, given)
    rows = {
        study: [*_settings(project, study, read_ledger(project, study))]
        + [
            _row(project, folder, name, digest, brought)
            for name, digest in own.items()
            if name in chosen or (folder / name).exists()
        ]
        + (_extra(project, folder, study, {*own, *brought}) if only is None else [])
        for study, own in expected.items()
    }
    if said:
        print(said, file=sys.stderr)
    return rows, folder


def _expected(project: Project, study: str, given: From) -> dict[str, str]:
    """What is to come out, with its checksum."""
    published, place = read_ledger(project, study), project.relative(project.results(study))
    own = {f"{place}/{name}": digest for name, digest in published["outputs"].items()}
    if given == "predictions":
        return {name: digest for name, digest in own.items() if stage(name) in DRAWN}
    data: dict[str, str] = published["data"]
    return own | data


def _chosen(name: str, place: str, only: str | None) -> bool:
    """Whether an output matches the glob, by its path or by that below its study's results."""
    names = (name, name.removeprefix(f"{place}/"))
    return only is None or any(fnmatch.fnmatch(one, only) for one in names)


def _row(project: Project, folder: Path, place: str, digest: str, brought: set[str]) -> Row:
    found = compare(project, folder / place, place, digest)
    taken = " (taken as it is)" if found == SAME and place in brought else ""
    return Row(place, stage(place), found + taken)


def read_ledger(project: Project, study: str) -> dict[str, Any]:
    project.params.study(study)  # an unknown name is told before a missing file
    path = project.results(study) / "ledger.json"
    published: Any = files.read_json(path)
    blocks = [published.get(key) for key in LEDGER] if isinstance(published, dict) else [None]
    if not all(isinstance(block, dict) for block in blocks):
        raise CrystalmeshError(f"{path}: not a ledger; make it again, or restore it")
    found: dict[str, Any] = published
    return found


def _settings(project: Project, study: str, published: dict[str, Any]) -> Iterator[Row]:
    """A row for each run (and the report) whose settings are not those of the ledger."""
    now = ledger.settings(project, study)
    for name in sorted({*now, *published["settings"]}):
        if now.get(name) != published["settings"].get(name):
            yield Row(f"{study}: {name}", "settings", "differs: not the study's settings then")


def stage(place: str) -> str:
    """The stage that makes the file at `place`."""
    parts = place.split("/")
    if parts[0] == "data":
        names = {"raw": "fetch", "crystals": "crystals", "splits": "split"}
        return names.get(parts[1], "represent")
    names = {
        "checkpoints": "train", "history": "train", "cards": "train", "predictions": "predictions",
        "metrics": "evaluate", "calibration": "calibrate", "tables": "tables",
        "figures": "figures", "stability.json": "stability", "embeddings.json": "embeddings",
        "paper.pdf": "document", "metrics.json": "metrics",
    }  # fmt: skip
    return names.get(parts[2], "ledger")


def _committed(project: Project, place: str, digest: str) -> str:
    """What is wrong with the committed file at `place`; "" when nothing is."""
    path = project.root / place
    if not path.exists():
        # Of large checkpoints only the checksum is published: .gitignore names them.
        unpublished = path.parent.name == "checkpoints" and software.ignored(path)
        return "" if unpublished else "missing: not committed"
    try:
        same = _digest(path) == digest
    except CrystalmeshError as error:
        return f"differs: {error}"
    return "" if same else "differs: the committed file is not the one of the ledger"


def _digest(path: Path) -> str:
    if path.parent.name == "checkpoints":
        return ledger.content(files.read_tensors(path))
    return files.sha256(path)


def _document(project: Project, study: str) -> Row:
    """Whether the PDF comes from tables, figures and text as they are."""
    from crystalmesh.report import document

    path = project.results(study) / "paper.pdf"
    try:
        same = path.exists() and document.typeset(project, study) == path.read_bytes()
        found = SAME if same else "differs: tables and figures give another PDF"
    except CrystalmeshError as error:
        found = f"missing: {error}"
    return Row(f"{project.relative(path)} from tables, figures", "document", found)


def _consistent(project: Project, run: Run, listed: bool) -> Row:
    """Whether a run's settings, checkpoint, card, predictions and metrics agree."""
    from crystalmesh.learn.evaluate import compute

    place = project.relative(project.metrics(run))

    def row(found: str) -> Row:
        return Row(f"{place} from predictions", "evaluate", found)

    try:
        card = files.read_json(project.card(run))
        checkpoint = project.checkpoint(run)
        # of large ones only the checksum is published, but their cards are
        note = json.loads(files.read_note(checkpoint)) if checkpoint.exists() else card
        metrics = files.read_json(project.metrics(run))
        for key, value in project.params.settings(run).items():
            if not note.get(key, card["settings"][key]) == card["settings"][key] == value:
                return row(f"differs: `{key}` of checkpoint, card and settings are not the same")
        if compute(project, run, note) != metrics:
            return row("differs: the predictions give other metrics")
        if not listed:
            return row(SAME)
        records = files.read_json(project.results(run.study) / "metrics.json")
        own = {one["target"]: one["value"] for one in records if one["run"] == run.name}
        same = own == {name: one["value"] for name, one in metrics["targets"].items()}
        return row(SAME if same else "differs: metrics.json has another value")
    except (CrystalmeshError, KeyError, TypeError) as error:
        return row(f"missing: {' '.join(str(error).split()) or 'metrics.json has no record'}")


def clean(project: Project, folder: Path) -> None:
    """An empty folder with the project's sources."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in SOURCES:
        source = project.root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    # Raw files that lie in the project: a mirror is found from anywhere.
    params = project.params
    named: list[str | None] = [one.file for one in params.datasets.values()]
    named += [one.file for one in params.benchmarks.values()]
    for name in filter(None, named):
        if (project.root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project.root / name, folder / name)


def _bring(project: Project, study: str, folder: Path, kinds: Sequence[str]) -> Iterator[str]:
    """Copy what is not made again, each file checked against the ledger; yields the places.

    A checkpoint that .gitignore names is not published: without predictions it is trained again.

    Raises:
        CrystalmeshError: a file is not that of the ledger.
    """
    top = project.results(study)
    if not (top / "ledger.json").exists():
        return
    published = read_ledger(project, study)["outputs"]
    runs = project.params.study(study).runs
    for path in map(project.checkpoint, runs.values()):
        if not path.exists() and not software.ignored(path):
            raise CrystalmeshError(f"{path}: not committed; restore it, or verify from raw data")
    for kind in kinds:
        base = top / kind
        paths = sorted(base.rglob("*")) if base.is_dir() else [base] if base.exists() else []
        # Snakemake keeps the time of a folder in a hidden file.
        for path in (one for one in paths if one.is_file() and not one.name.startswith(".")):
            name = path.relative_to(top).as_posix()
            run = runs.get(path.stem) if kind in ("history", "cards") else None
            if run and "predictions" not in kinds and not project.checkpoint(run).exists():
                continue  # without its checkpoint a run is trained anew
            if kind != "cards" and _digest(path) != published.get(name):
                raise CrystalmeshError(
                    f"{path}: not the file of the ledger; nothing can rest on it"
                )
            target = folder / project.relative(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            yield project.relative(path)


def target(place: str) -> str:
    """What Snakemake is asked for, to have the file at `place`."""
    parts = place.split("/")
    if parts[0] == "results" and parts[2] in ("tables", "figures"):
        return "/".join(parts[:3])
    if parts[0] == "results" and parts[2] == "predictions":
        return "/".join(parts[:4])
    return place


def snakemake(
    project: Project, folder: Path, targets: Sequence[str], cores: int, given: From
) -> str:
    """Run the workflow in `folder`; what to say where it failed."""
    from crystalmesh.data import registry

    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--keep-going", *targets]
    if given != "raw":
        command += ["--config", f"given={given}"]
    known = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    log = folder / "verify.log"
    with log.open("wb") as stream:
        ended = subprocess.run(
            command,
            cwd=folder,
            env=known | {"CRYSTALMESH_MIRROR": str(registry.mirror(project).absolute())},
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if ended.returncode == 0:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.strip() for line in lines if line.strip().startswith("error: ")]
    first = errors[0] if errors else "a stage failed"
    return f"{first} (all that was said: {log})"


def compare(project: Project, made: Path, place: str, digest: str) -> str:
    """How the file that was made, and the committed one, agree with the ledger."""
    if wrong := _committed(project, place, digest) if place.startswith("results/") else "":
        return wrong
    if not made.exists():
        return "missing: its stage failed, or one before it"
    if _digest(made) == digest:
        return SAME
    committed = project.root / place
    known = committed.exists() and _digest(committed) == digest
    return f"differs{difference(committed, made) if known else ''}"


def _extra(project: Project, folder: Path, study: str, expected: set[str]) -> list[Row]:
    """Outputs that were made but that the ledger does not have; checkpoints by version 0.1."""
    top, runs = folder / "results" / study, project.params.study(study).runs
    rows = []
    for path in sorted(top.rglob("*")):
        inner = path.relative_to(top).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(top).parts)
        place = f"results/{study}/{inner}"
        if not path.is_file() or hidden or place in expected:
            continue
        if inner.startswith(ledger.NOT_COMPARED):
            continue
        found = "not in the ledger"
        if path.parent.name == "checkpoints" and path.stem in runs:
            found = as_before(project, runs[path.stem], path)
        rows.append(Row(place, stage(place), found))
    return rows


def as_before(project: Project, run: Run, path: Path) -> str:
    """Whether a checkpoint that the ledger does not have is that of version 0.1."""
    known = legacy.checksum(project.root, run)
    if known is None:
        return "not in the ledger"
    facts = json.loads(files.read_note(path))
    same = legacy.written(project.root, run, files.read_tensors(path), facts) == known
    return "same as version 0.1's" if same else "differs from version 0.1's"


def first(rows: Iterable[Row]) -> Row | None:
    """The first row, in the order of the stages, that does not agree."""
    wrong = [row for row in rows if not row.same]
    return min(wrong, key=lambda row: STAGES.index(row.stage), default=None)


def reasons(project: Project, study: str) -> list[str]:
    """What here is not as it was where the study was made: where bits may come from."""
    published = read_ledger(project, study)
    runs, tier = published["runs"].values(), published["numerics"]
    here = numerics.describe(tier, "cpu")
    found = []
    for key in ("device", "machine", "python"):
        were = {str(one.get(key)) for one in runs}
        if were and were != {str(here[key])}:
            found.append(f"{key}: {here[key]} here, {', '.join(sorted(were))} there")
    for name, version in here["packages"].items():
        were = {one.get("packages", {}).get(name) for one in runs}
        if were and were != {version}:
            found.append(f"{name}: {version} here, {', '.join(map(str, were))} there")
    cpus = {one.get("cpu", {}).get("model") for one in runs}
    if tier == "native" and cpus and cpus != {here["cpu"].get("model")}:
        found.append(f"CPU: {here['cpu'].get('model')} here, {', '.join(map(str, cpus))} there")
    found += [f"{one} (lock)" for one in software.unlocked(project.root)]
    return found


def verify(
    project: Project,
    studies: Sequence[str],
    *,
    given: From | Literal["all"] = "raw",
    only: str | None = None,
    cores: int = 1,
) -> bool:
    """Verify studies, and print a table: output, stage, what was found. True: all agree.

    With `given` "all" nothing is made: see `quick`.
    """
    began = time.monotonic()
    folder: Path | None = None
    if given == "all":
        rows = {study: quick(project, study) for study in studies}
    else:
        rows, folder = rebuild(project, studies, given, only, cores)
    agree = [_report(project, study, own, given == "all") for study, own in rows.items()]
    same = all(agree)
    said = f"{time.monotonic() - began:.0f} s"
    if folder is not None:
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        said += f", largest process {largest:.2f} GiB"
        if same:
            shutil.rmtree(folder)
        else:
            said += f"; what was made: {folder}"
    print(said)
    return same


def _report(project: Project, study: str, rows: Sequence[Row], only_wrong: bool) -> bool:
    """Print the rows of a study and a summary; whether all agree."""
    shown = [row for row in rows if not (only_wrong and row.same)]
    width = max((len(row.output) for row in shown), default=0)
    for row in shown:
        print(f"{row.output:{width}}  {row.stage:9}  {row.found}")
    equal = sum(row.same for row in rows)
    print(f"verify {study}: {equal} of {len(rows)} checks equal")
    cause = first(rows)
    if cause is None:
        return True
    print(f"first difference: stage {cause.stage}, {cause.output}: {cause.found}")
    for reason in reasons(project, study):
        print(f"not as it was made: {reason}")
    return False


def with_ledger(project: Project) -> list[str]:
    """The studies that have been published here."""
    return [
        study
        for study in project.params.studies
        if (project.results(study) / "ledger.json").exists()
    ]
