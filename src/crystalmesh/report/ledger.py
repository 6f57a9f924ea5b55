"""ledger.json: the checksum of every output of a report, and what the bits were made with.

The group `predictors`, which has no document, has a ledger of its networks alone.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crystalmesh import files, provenance
from crystalmesh.config import Features, Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report.results import benchmarks

# Wall times and machines differ from run to run: these are kept, but never compared.
NOT_COMPARED = (
    "cards", "ledger.json", "metrics.json", "ro-crate-metadata.json", "README.md", "site",
)  # fmt: skip


def build(project: Project, report: str) -> None:
    """Write results/<report>/ledger.json.

    `outputs`: path below results/<report> -> sha256; equal for equal code, data and tier.
    `data`: path below the project -> sha256, of what the outputs were made from (of features the
    index, which holds the checksums of its shards).
    `settings`: key of params.yaml -> sha256 of its value as canonical JSON.
    `experiments`: name -> the numerics block of its card (device, CPU, package versions); it
    explains a difference and is not compared.

    The checkpoint of an experiment that Git leaves out and that is not here keeps the checksum of
    the ledger before, as long as the experiment's settings, history, predictions and metrics are
    those of that ledger: an experiment more does not ask for all others to be trained again.

    Raises:
        CrystalmeshError: an output is missing, or has changed since a stage wrote it.
    """
    folder = project.results(report)
    experiments = project.params.group(report)
    path = folder / "ledger.json"
    before = files.read_json(path) if path.exists() else {"outputs": {}, "settings": {}}
    files.write_json(
        path,
        {
            "report": report,
            "numerics": project.params.numerics(report),
            "outputs": {
                path.relative_to(folder).as_posix(): _kept(project, report, path, before)
                or files.verified(path)
                for path in outputs(project, report)
            },
            "data": data(project, report),
            "settings": {key: checksum(project, key) for key in settings(project, report)},
            "not_compared": list(NOT_COMPARED),
            "experiments": {
                name: files.read_json(project.card(report, name))["numerics"]
                for name in experiments
            },
        },
    )


def _kept(project: Project, report: str, path: Path, before: Mapping[str, Any]) -> str | None:
    """The checksum that a checkpoint keeps, which is neither here nor in Git; else None."""
    name = path.stem
    if path.parent.name != "checkpoints" or path.exists() or not provenance.ignored(path):
        return None
    made = (project.history, project.predictions, project.metrics)
    keys = ["tasks", f"models.{project.params.experiment(report, name).model}"]
    same = all(
        before["outputs"].get(one.relative_to(project.results(report)).as_posix())
        == files.verified(one)
        for one in (of(report, name) for of in made)
    ) and all(
        before["settings"].get(key) == checksum(project, key)
        for key in [*keys, project.params.block(report, name)]
    )
    digest: str | None = before["outputs"].get(f"checkpoints/{path.name}")
    return digest if same else None


def documented(project: Project, report: str) -> bool:
    """Whether the group of experiments has a document, and all that is made for it."""
    return report in project.params.reports


def declared(project: Project, report: str) -> list[Path]:
    """Every file that params.yaml says the report has, but for those in tables/ and figures/."""
    folder = project.results(report)
    if documented(project, report):
        paths = [folder / name for name in ("paper.pdf", "stability.json", "maps.json")]
        paths += [project.metrics(report, name) for name in benchmarks(project, report)]
    else:
        paths = [project.calibration(report, name) for name in project.params.group(report)]
    for name in project.params.group(report):
        paths += [
            project.checkpoint(report, name),
            project.history(report, name),
            project.predictions(report, name),
            project.metrics(report, name),
        ]
    return paths


def outputs(project: Project, report: str) -> list[Path]:
    """Every file of the report that is compared; what an old setting left is not one."""
    paths = declared(project, report)
    for part in ("tables", "figures") if documented(project, report) else ():
        folder = project.results(report) / part
        if not folder.is_dir():
            raise CrystalmeshError(f"{folder}: missing; run the stage that makes it")
        paths += [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(paths)


def data(project: Project, report: str) -> dict[str, str]:
    """The data that a report is made from, with checksums; without a document, by the cards."""
    params = project.params
    if not documented(project, report):
        cards = [files.read_json(project.card(report, name)) for name in params.group(report)]
        found = {place: digest for card in cards for place, digest in card["data"].items()}
        # a checkpoint that a training started from is an output of its own group
        return {place: digest for place, digest in found.items() if place.startswith("data/")}
    paths: list[Path] = []
    for dataset in params.datasets_of(report):
        names = [split.split for split in params.splits.values() if split.dataset == dataset]
        names += [name for name, b in params.benchmarks.items() if b.dataset == dataset]
        folder = project.crystals(dataset)
        paths += [
            project.raw(dataset),
            *(folder / name for name in ("crystals.safetensors", "index.json", "rejected.csv")),
            *(project.split(dataset, name) for name in names),
            *(
                project.features(dataset, features.representation) / "index.json"
                for features in _features(project, report).values()
                if features.dataset == dataset
            ),
        ]
    return {path.relative_to(project.root).as_posix(): files.verified(path) for path in paths}


def settings(project: Project, report: str) -> list[str]:
    """Keys of params.yaml that a report depends on."""
    params, datasets = project.params, project.params.datasets_of(report)
    experiments = params.group(report)
    used = {experiment.model for experiment in experiments.values()}
    features = _features(project, report)
    modules = {one.representation.partition(".")[0] for one in features.values()}
    of_report = [f"reports.{report}"] if documented(project, report) else []
    if of_report:
        of_report += [f"benchmarks.{name}" for name in benchmarks(project, report)]
    return [
        *(f"datasets.{name}" for name in datasets),
        "validation",
        "tasks",
        *of_report,
        *(f"splits.{key}" for key, split in params.splits.items() if split.dataset in datasets),
        *(f"features.{key}" for key in features),
        *(f"representations.{module}" for module in params.representations if module in modules),
        *(f"models.{name}" for name in params.models if name in used),
        *(params.block(report, name) for name in experiments),
    ]


def _features(project: Project, report: str) -> dict[str, Features]:
    """The blocks of `features` that a report is made from: its experiments', and the meshes."""
    used = {(e.dataset, e.representation) for e in project.params.group(report).values()}
    if documented(project, report):
        dataset = project.params.reports[report].dataset
        used |= {(dataset, "mesh.published"), (dataset, "mesh.canonical")}
    return {
        key: one
        for key, one in project.params.features.items()
        if (one.dataset, one.representation) in used
    }


def checksum(project: Project, key: str) -> str:
    """SHA-256 of the value at a key of params.yaml."""
    return hashlib.sha256(files.canonical_json(project.value(key)).encode()).hexdigest()
