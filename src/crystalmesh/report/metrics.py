"""metrics.json: every experiment of a report as one record."""

from crystalmesh import files
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError

FROM_METRICS = (
    "experiment", "dataset", "task", "representation", "model", "split", "fold", "seed", "size",
    "n_train", "n_val", "n_test", "metric", "value", "unit",
)  # fmt: skip
FROM_CARD = ("device", "train_seconds")  # the two that another machine changes


def build(project: Project, report: str) -> None:
    """Write results/<report>/metrics.json from the metrics and cards, in params.yaml's order."""
    records = []
    for name in project.params.group(report):
        metrics = files.read_json(project.metrics(report, name))
        card = files.read_json(project.card(report, name))
        try:
            record = {key: metrics[key] for key in FROM_METRICS}
            records.append(record | {key: card[key] for key in FROM_CARD})
        except (KeyError, TypeError) as error:
            path = project.metrics(report, name)
            raise CrystalmeshError(
                f"{path}: it or its card has no {error}; delete both and run again"
            ) from error
    files.write_json(project.results(report) / "metrics.json", records)
