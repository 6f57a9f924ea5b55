"""ledger.json: the checksum of every output of a report, and what the bits were made with."""

from pathlib import Path

from crystalmesh import files
from crystalmesh.config import Project, lookup
from crystalmesh.report.results import benchmarks

# Wall times and machines differ from run to run: these are kept, but never compared.
NOT_COMPARED = ("cards", "ledger.json", "metrics.json")


def build(project: Project, report: str) -> None:
    """Write results/<report>/ledger.json.

    `outputs`: path below results/<report> -> sha256; equal for equal code, data and tier.
    `experiments`: name -> the numerics block of its card (device, CPU, package versions); it
    explains a difference and is not compared.
    """
    folder = project.results(report)
    experiments = lookup(project.params.experiments, report, "report")
    files.write_json(
        folder / "ledger.json",
        {
            "report": report,
            "numerics": project.params.numerics(report),
            "outputs": {
                path.relative_to(folder).as_posix(): files.sha256(path)
                for path in outputs(project, report)
            },
            "not_compared": list(NOT_COMPARED),
            "experiments": {
                name: files.read_json(project.card(report, name))["numerics"]
                for name in experiments
            },
        },
    )


def outputs(project: Project, report: str) -> list[Path]:
    """Every file that params.yaml says the report has; what an old setting left is not one."""
    folder = project.results(report)
    paths = [folder / "paper.pdf", folder / "stability.json"]
    for name in project.params.experiments[report]:
        paths += [
            project.checkpoint(report, name),
            project.history(report, name),
            project.predictions(report, name),
            project.metrics(report, name),
        ]
    paths += [project.metrics(report, name) for name in benchmarks(project, report)]
    for part in ("tables", "figures"):
        paths += [path for path in (folder / part).iterdir() if not path.name.startswith(".")]
    return sorted(paths)
