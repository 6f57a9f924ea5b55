"""ledger.json: the checksum of every output of a report, and what the bits were made with.

The group `predictors`, which has no document, has a ledger of its networks alone.
"""

import hashlib
from pathlib import Path

from crystalmesh import files
from crystalmesh.config import Project
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

    Raises:
        CrystalmeshError: an output is missing, or has changed since a stage wrote it.
    """
    folder = project.results(report)
    experiments = project.params.group(report)
    files.write_json(
        folder / "ledger.json",
        {
            "report": report,
            "numerics": project.params.numerics(report),
            "outputs": {
                path.relative_to(folder).as_posix(): files.verified(path)
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
                for features in params.features.values()
                if features.dataset == dataset
            ),
        ]
    return {path.relative_to(project.root).as_posix(): files.verified(path) for path in paths}


def settings(project: Project, report: str) -> list[str]:
    """Keys of params.yaml that a report depends on."""
    params, datasets = project.params, project.params.datasets_of(report)
    experiments = params.group(report)
    used = {experiment.model for experiment in experiments.values()}
    of_report = [f"reports.{report}"] if documented(project, report) else []
    if of_report:
        of_report += [f"benchmarks.{name}" for name in benchmarks(project, report)]
    return [
        *(f"datasets.{name}" for name in datasets),
        "validation",
        "tasks",
        *of_report,
        *(f"splits.{key}" for key, split in params.splits.items() if split.dataset in datasets),
        *(f"features.{key}" for key, one in params.features.items() if one.dataset in datasets),
        *(f"representations.{module}" for module in params.representations),
        *(f"models.{name}" for name in params.models if name in used),
        *(params.block(report, name) for name in experiments),
    ]


def checksum(project: Project, key: str) -> str:
    """SHA-256 of the value at a key of params.yaml."""
    return hashlib.sha256(files.canonical_json(project.value(key)).encode()).hexdigest()
