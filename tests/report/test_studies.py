"""The studies of this repository: their tables can be made of what is committed."""

from pathlib import Path

import pytest

from crystalmesh.config import project as folder
from crystalmesh.config.project import Project
from crystalmesh.report import own, tables
from crystalmesh.report.own import Context
from tests.report.conftest import ROOT

PROJECT = folder.load(ROOT)
REPORTED = [name for name, study in PROJECT.params.studies.items() if study.report is not None]


def lacking(project: Project, study: str) -> Path | None:
    """The first file that is not at hand; data are made by the pipeline, not committed."""
    for run in project.params.shown(study):
        needed = [
            project.crystals(run.dataset) / "index.json",
            project.split(run.dataset, run.split),
            project.features(run.dataset, run.representation) / "index.json",
            project.metrics(run),
            *(project.predictions(run, target) for target in run.targets),
        ]
        for path in needed:
            if not path.exists():
                return path
    return None


@pytest.mark.parametrize("study", REPORTED)
def test_the_tables_of_a_study(study: str) -> None:
    if (path := lacking(PROJECT, study)) is not None:
        pytest.skip(f"{PROJECT.relative(path)} is not there")
    context = Context.load(PROJECT, study)
    names = []
    for make in [*own.functions(PROJECT, study, "tables", "TABLES"), *tables.COMMON]:
        table = make(context)
        names.append(table.name)
        assert all(len(row) == len(table.keys) for row in table.rows), table.name
        assert all(len(row) == len(table.columns) for row in table.cells), table.name
        assert table.title or not table.columns, table.name
    assert len(set(names)) == len(names)
    shown = {
        (run.reference, target) for run in PROJECT.params.shown(study) for target in run.targets
    }
    assert {(r.run.reference, r.target) for r in context.found} == shown
