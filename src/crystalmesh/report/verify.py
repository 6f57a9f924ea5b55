"""Are the published numbers what the code gives? A report made again and held to its ledger."""

import csv
import fnmatch
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from crystalmesh import files, numerics, provenance
from crystalmesh.config import Project, lookup
from crystalmesh.data import registry
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import ledger, paper

# In the order in which a difference spreads.
STAGES = (
    "params", "fetch", "crystals", "split", "represent", "train", "predictions", "evaluate",
    "calibrate", "published", "stability", "maps", "tables", "figures", "paper", "metrics",
    "ledger",
)  # fmt: skip
# All that the stages read beside raw data: what a clean folder is given.
SOURCES = (
    "params.yaml", "Snakefile", "CITATION.cff", "profiles", "paper", "env", "benchmarks",
)  # fmt: skip
SAME = "same"


@dataclass(frozen=True)
class Row:
    """What became of one output: `found` is "same", or how it differs, or "missing"."""

    output: str  # path below the project, or a key of params.yaml
    stage: str
    found: str

    @property
    def same(self) -> bool:
        """Whether it agrees with the ledger."""
        return self.found.startswith(SAME)


def quick(project: Project, report: str) -> list[Row]:
    """The committed files of a report against its ledger and each other, in seconds.

    Every file must have the ledger's checksum; every setting be the one that the report was made
    with; metrics come from predictions; the checkpoint tell the settings of its experiment; the
    PDF come from tables and figures. Nothing is trained or predicted: see `rebuild`.
    """
    published = _ledger(project, report)
    rows = _settings(project, report, published)
    folder = project.results(report)
    for name, digest in published["outputs"].items():
        place = _below(project, folder / name)
        rows.append(Row(place, stage(project, place), _committed(project, place, digest) or SAME))
    declared = {path.relative_to(folder).as_posix() for path in ledger.declared(project, report)}
    for name in sorted(declared - set(published["outputs"])):
        place = _below(project, folder / name)
        rows.append(Row(place, stage(project, place), "not in the ledger"))
    if ledger.documented(project, report):
        rows += [_consistent(project, report, name) for name in project.params.group(report)]
    document = folder / "paper.pdf"
    if document.exists():
        try:
            same = paper.typeset(project, report) == document.read_bytes()
            found = SAME if same else "differs: tables and figures give another PDF"
        except CrystalmeshError as error:
            found = f"missing: {error}"
        rows.append(Row(f"{_below(project, document)} from tables, figures", "paper", found))
    return rows


def rebuild(
    project: Project, report: str, only: str | None, from_checkpoints: bool, cores: int
) -> tuple[list[Row], Path]:
    """Make the report (or the outputs that match the glob `only`) again from raw data.

    In a clean folder, by Snakemake, with the code that is running. With `from_checkpoints` nothing
    is trained: predictions, metrics, tables and PDF come from the committed checkpoints.

    Returns:
        A row an output, and the folder, which holds what was made.

    Raises:
        CrystalmeshError: no ledger; nothing matches `only`; a checkpoint that is needed is missing
            or not the ledger's.
    """
    published = _ledger(project, report)
    results = _below(project, project.results(report))
    expected = {f"{results}/{name}": digest for name, digest in published["outputs"].items()}
    expected |= published["data"]
    chosen = [
        place
        for place in expected
        if only is None
        or any(fnmatch.fnmatch(name, only) for name in (place, place[len(results) + 1 :]))
    ]
    if not chosen:
        raise CrystalmeshError(
            f"verify {report}: no output matches '{only}'; see `outputs` and `data` of"
            f" {project.results(report) / 'ledger.json'}"
        )
    folder = project.scratch / "verify" / report
    _clean(project, folder)
    if from_checkpoints:
        _bring(project, report, published, folder)
    brought = {
        place
        for place in expected
        if stage(project, place) == "train" and (folder / place).exists()
    }
    targets = sorted({_target(place, results) for place in chosen if place not in brought})
    said = _snakemake(project, folder, targets, cores, from_checkpoints)
    rows = _settings(project, report, published)
    for place, digest in expected.items():
        made = folder / place
        if place in chosen or made.exists():
            found = _compare(project, made, place, digest)
            taken = " (taken as it is)" if found == SAME and place in brought else ""
            rows.append(Row(place, stage(project, place), found + taken))
    extra = _extra(folder / results, set(expected), results) if only is None else []
    rows += [Row(place, stage(project, place), "not in the ledger") for place in extra]
    if said:
        print(said, file=sys.stderr)
    return rows, folder


def _ledger(project: Project, report: str) -> dict[str, Any]:
    lookup(project.params.experiments, report, "report")
    path = project.results(report) / "ledger.json"
    content = files.read_json(path)
    if not isinstance(content, dict) or not {"outputs", "data", "settings"} <= set(content):
        raise CrystalmeshError(f"{path}: not a ledger of this version; make the report again")
    return content


def _below(project: Project, path: Path) -> str:
    return path.relative_to(project.root).as_posix()


def stage(project: Project, place: str) -> str:
    """The stage that makes the file at a place below the project."""
    parts = place.split("/")
    if parts[0] == "data":
        of = {"raw": "fetch", "splits": "split", "features": "represent"}
        return of.get(parts[1], parts[1])
    name = Path(place).stem
    of = {
        "checkpoints": "train",
        "history": "train",
        "predictions": "predictions",
        "calibration": "calibrate",
        "metrics": "published" if name in project.params.benchmarks else "evaluate",
        "stability.json": "stability",
        "maps.json": "maps",
        "paper.pdf": "paper",
        "metrics.json": "metrics",
    }
    found = of.get(parts[2], parts[2])
    return found if found in STAGES else "ledger"  # which names something that no stage makes


def _settings(project: Project, report: str, published: dict[str, Any]) -> list[Row]:
    """The settings that are not those the report was made with; nothing of those that are."""
    known = published["settings"]
    now = {key: ledger.checksum(project, key) for key in ledger.settings(project, report)}
    rows = []
    for key in sorted(set(known) | set(now)):
        if key not in now:
            rows.append(Row(key, "params", "missing: the ledger has it"))
        elif key not in known:
            rows.append(Row(key, "params", "not in the ledger"))
        elif known[key] != now[key]:
            rows.append(Row(key, "params", "differs from what the report was made with"))
    return rows


def _committed(project: Project, place: str, digest: str) -> str:
    """What is wrong with the committed file at `place`; "" when nothing is."""
    path = project.root / place
    if not path.exists():
        # Of large checkpoints only the checksum is published: .gitignore names them.
        unpublished = "/checkpoints/" in place and provenance.ignored(path)
        return "" if unpublished else "missing: not committed"
    if files.sha256(path) != digest:
        return "differs: the committed file is not the one of the ledger"
    return ""


def _consistent(project: Project, report: str, name: str) -> Row:
    """Whether an experiment's settings, checkpoint, card, predictions and metrics agree."""
    from crystalmesh.learn.evaluate import compute

    place = _below(project, project.metrics(report, name))

    def row(found: str) -> Row:
        return Row(f"{place} from predictions", "evaluate", found)

    try:
        card = files.read_json(project.card(report, name))
        checkpoint = project.checkpoint(report, name)
        # of large ones only the checksum is published, but their cards are
        note = json.loads(files.read_note(checkpoint)) if checkpoint.exists() else card
        metrics = files.read_json(project.metrics(report, name))
        settings = project.params.settings(project.params.experiment(report, name))
        for key, value in settings.items():
            if not note.get(key, card["settings"][key]) == card["settings"][key] == value:
                return row(f"differs: `{key}` of checkpoint, card and params.yaml are not the same")
        if compute(project, report, name, note) != metrics:
            return row("differs: the predictions give other metrics")
        records = files.read_json(project.results(report) / "metrics.json")
        value = next(one["value"] for one in records if one["experiment"] == name)
        return row(SAME if value == metrics["value"] else "differs: metrics.json has another value")
    except (CrystalmeshError, KeyError, TypeError, StopIteration) as error:
        return row(f"missing: {' '.join(str(error).split()) or 'metrics.json has no record'}")


def _clean(project: Project, folder: Path) -> None:
    """An empty folder with the project's sources."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in SOURCES:
        source = project.root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    # Raw files that lie beside params.yaml: a mirror is found from anywhere.
    params = project.params
    named: list[str | None] = [one.file for one in params.datasets.values()]
    named += [one.file for one in params.benchmarks.values()]
    for name in filter(None, named):
        if (project.root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project.root / name, folder / name)


def _bring(project: Project, report: str, published: dict[str, Any], folder: Path) -> None:
    """What was trained, from the committed files, each checked against the ledger.

    A checkpoint that .gitignore names is not published: it is trained again.
    """
    for name in project.params.group(report):
        checkpoint = project.checkpoint(report, name)
        if not checkpoint.exists() and provenance.ignored(checkpoint):
            continue
        for path in (checkpoint, project.history(report, name)):
            if not path.exists():
                raise CrystalmeshError(
                    f"{path}: not committed; verify {report} without --from-checkpoints"
                )
            relative = path.relative_to(project.results(report)).as_posix()
            if files.sha256(path) != published["outputs"].get(relative):
                raise CrystalmeshError(
                    f"{path}: not the file of the ledger; nothing can rest on it"
                )
        for path in (
            project.checkpoint(report, name),
            project.history(report, name),
            project.card(report, name),
        ):
            target = folder / path.relative_to(project.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def _target(place: str, results: str) -> str:
    """What Snakemake is asked for, to have the file at `place`."""
    parts = place.split("/")
    if place.startswith(f"{results}/") and parts[2] in ("tables", "figures"):
        return "/".join(parts[:3])
    return place


def _snakemake(
    project: Project, folder: Path, targets: Sequence[str], cores: int, trained: bool
) -> str:
    """Run the workflow in `folder`; what to say where it failed."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--keep-going", *targets]
    if trained:
        command += ["--config", "trained=1"]
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


def _compare(project: Project, made: Path, place: str, digest: str) -> str:
    """How the file that was made, and the committed one, agree with the ledger."""
    if wrong := _committed(project, place, digest) if place.startswith("results/") else "":
        return wrong
    if not made.exists():
        return "missing: its stage failed, or one before it"
    if files.sha256(made) == digest:
        return SAME
    committed = project.root / place
    known = committed.exists() and files.sha256(committed) == digest
    return f"differs{difference(committed, made) if known else ''}"


def difference(published: Path, made: Path) -> str:
    """By how much two files of the same kind differ: " by ..." or nothing more to say."""
    try:
        if made.suffix == ".safetensors":
            return _by(load_file(published), load_file(made))
        if made.suffix == ".csv":
            return _by(_columns(published), _columns(made))
        if made.suffix == ".json":
            return _by(_numbers(files.read_json(published)), _numbers(files.read_json(made)))
    except Exception as error:  # whatever is wrong with it, the file differs
        return f": cannot be compared ({type(error).__name__})"
    return f": {published.stat().st_size} and {made.stat().st_size} bytes"


def _by(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The largest difference between arrays of the same names."""
    if set(one) != set(other):
        names = sorted(set(one) ^ set(other))
        return f": only one has {names[0]}"
    worst, where, count, total = 0.0, "", 0, 0
    for name in one:
        a, b = np.asarray(one[name]), np.asarray(other[name])
        if a.shape != b.shape:
            return f": {name} has shape {a.shape} instead of {b.shape}"
        total += a.size
        if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
            unequal = int((a != b).sum())
            count += unequal
            where = where or (name if unequal else "")
            continue
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
        count += int((gap > 0).sum())
        if gap.size and float(gap.max()) > worst:
            worst, where = float(gap.max()), name
    if not count:
        return " in its bytes alone: all values are equal"
    return f" by up to {worst:.3g} in {count} of {total} values ({where})"


def _columns(path: Path) -> dict[str, Any]:
    """Columns of a CSV file, as numbers where they are."""
    header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    columns: dict[str, Any] = {}
    for name, values in zip(header, zip(*rows, strict=True), strict=True):
        try:
            columns[name] = np.array([float(v or "nan") for v in values])
        except ValueError:
            columns[name] = np.array(values)
    return columns


def _numbers(value: Any, place: str = "") -> dict[str, Any]:
    """Every leaf of a JSON value by its place."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = ((str(i), one) for i, one in enumerate(value))  # type: ignore[assignment]
    else:
        return {place: value if isinstance(value, int | float) else str(value)}
    return {k: v for key, one in parts for k, v in _numbers(one, f"{place}.{key}").items()}


def _extra(folder: Path, expected: set[str], results: str) -> list[str]:
    """Compared outputs that were made, but that the ledger does not have."""
    found = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and not inner.startswith(ledger.NOT_COMPARED):
            found += [f"{results}/{inner}"] if f"{results}/{inner}" not in expected else []
    return found


def trace(project: Project, report: str, rows: Iterable[Row], folder: Path) -> list[str]:
    """A line an experiment: its number in the document, back to the checkpoint that gave it.

    `folder` holds the report as it was made again. A line ends in "traced" where every file on the
    way is the published one, and the table of experiments has the value of the metrics.
    """
    found = {row.output: row for row in rows}
    results = project.results(report)
    published = _ledger(project, report)["outputs"]
    document = [_below(project, results / name) for name in ("paper.pdf", "tables/experiments.csv")]
    table = {
        line["experiment"]: line["value"] for line in files.read_csv(folder / document[1])
    } if (folder / document[1]).exists() else {}  # fmt: skip
    lines = []
    for name in project.params.group(report):
        paths = (
            project.metrics(report, name),
            project.predictions(report, name),
            project.checkpoint(report, name),
        )
        way = [*document, *(_below(project, path) for path in paths)]
        broken = [place for place in way if place not in found or not found[place].same]
        metrics = files.read_json(paths[0])
        if not broken and table.get(name) != repr(metrics["value"]):
            broken = [document[1]]
        lines.append(
            f"{name}: {metrics['metric']} {metrics['value']:.4g} {metrics['unit']}: PDF <- table <-"
            f" metrics <- {metrics['n_test']} predictions <- checkpoint"
            f" {published[f'checkpoints/{name}.safetensors'][:12]}:"
            f" {f'broken at {broken[-1]}' if broken else 'traced'}"
        )
    return lines


def first(rows: Iterable[Row]) -> Row | None:
    """The first row, in the order of the stages, that does not agree."""
    wrong = [row for row in rows if not row.same]
    return min(wrong, key=lambda row: STAGES.index(row.stage), default=None)


def reasons(project: Project, report: str) -> list[str]:
    """What here is not as it was where the report was made: where bits may come from."""
    published = _ledger(project, report)
    tier = published["numerics"]
    here = numerics.describe(tier, "cpu")
    found = []
    for key in ("device", "machine", "python"):
        were = {str(one.get(key)) for one in published["experiments"].values()}
        if were and were != {str(here[key])}:
            found.append(f"{key}: {here[key]} here, {', '.join(sorted(were))} there")
    for name, version in here["packages"].items():
        were = {one.get("packages", {}).get(name) for one in published["experiments"].values()}
        if were and were != {version}:
            found.append(f"{name}: {version} here, {', '.join(map(str, were))} there")
    cpus = {one.get("cpu", {}).get("model") for one in published["experiments"].values()}
    if tier == "native" and cpus and cpus != {here["cpu"].get("model")}:
        found.append(f"CPU: {here['cpu'].get('model')} here, {', '.join(map(str, cpus))} there")
    found += [f"{one} (lock)" for one in provenance.unlocked(project.root)]
    return found


def verify(
    project: Project,
    report: str,
    *,
    only: str | None = None,
    from_checkpoints: bool = False,
    committed_only: bool = False,
    cores: int = 1,
) -> bool:
    """Verify a report, and print the table: output, stage, what was found. True: all agree."""
    start = time.monotonic()
    folder: Path | None = None
    if committed_only:
        rows = quick(project, report)
    else:
        rows, folder = rebuild(project, report, only, from_checkpoints, cores)
    wrong = [row for row in rows if not row.same]
    shown = wrong if committed_only else rows
    width = max((len(row.output) for row in shown), default=0)
    for row in shown:
        print(f"{row.output:{width}}  {row.stage:9}  {row.found}")
    traceable = from_checkpoints and only is None and ledger.documented(project, report)
    if folder is not None and traceable:
        print("\n".join(["", *trace(project, report, rows, folder), ""]))
    outputs = [row for row in rows if row.stage != "params"]
    equal = sum(row.same for row in outputs)
    said = f"verify {report}: {equal} of {len(outputs)} {'checks' if committed_only else 'outputs'}"
    changed = sum(not row.same for row in rows) - sum(not row.same for row in outputs)
    said += f" equal{f', {changed} settings changed' if changed else ''}"
    said += f"; {time.monotonic() - start:.0f} s"
    if not committed_only:
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        said += f", largest process {largest:.2f} GiB"
    print(said)
    cause = first(rows)
    if cause is None:
        if folder is not None:
            shutil.rmtree(folder)
        return True
    print(f"first difference: stage {cause.stage}, {cause.output}: {cause.found}")
    for reason in reasons(project, report):
        print(f"not as it was made: {reason}")
    if folder is not None:
        print(f"what was made: {folder}")
    return False


def with_ledger(project: Project) -> list[str]:
    """The reports (and the group of predictors) that have been published here."""
    return [
        report
        for report in project.params.experiments
        if (project.results(report) / "ledger.json").exists()
    ]
