"""What a study knows alone: tables.py and figures.py of its folder, beside the common ones."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from crystalmesh.config import read
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Report, Study
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import results
from crystalmesh.report.results import Result


@dataclass(frozen=True)
class Context:
    """What tables and figures of a study are made from.

    Attributes:
        project, name: the project, and the study's name.
        found: every run that the study shows and each of its targets; see `results.load`.
        crystals: by dataset, the study's own first.
        numbers: what the text says beside the tables; functions that make tables add to it.
    """

    project: Project
    name: str
    found: list[Result]
    crystals: Mapping[str, Crystals]
    numbers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, project: Project, name: str) -> "Context":
        """Read the predictions of a study.

        Raises:
            CrystalmeshError: the study has no report; predictions are missing or damaged.
        """
        if project.params.study(name).report is None:
            raise CrystalmeshError(
                f"studies/{name}/study.yaml: no `report`; add one (`{{}}` will do)"
            )
        found = results.load(project, name)
        return cls(project, name, found, results.crystals(project, name))

    @property
    def study(self) -> Study:
        return self.project.params.study(self.name)

    @property
    def report(self) -> Report:
        report = self.study.report
        assert report
        return report

    @cached_property
    def published(self) -> Mapping[str, Any]:
        """Values of the literature: published.yaml of this study and of those whose runs it shows.

        Raises:
            CrystalmeshError: one of them is not valid YAML.
        """
        found: dict[str, Any] = {}
        for study in dict.fromkeys([self.name, *(r.run.study for r in self.found)]):
            path = self.project.root / "studies" / study / "published.yaml"
            if path.exists():
                found = (read.yaml(path, self.project.relative(path)) or {}) | found
        return found

    @property
    def plain(self) -> list[Result]:
        """Without the variants that only a table of ablations has."""
        return results.plain(self.found)


def functions(project: Project, study: str, file: str, name: str) -> list[Any]:
    """The list `name` in studies/<study>/<file>.py; empty where the study has no such file.

    Raises:
        CrystalmeshError: the file has no such list.
    """
    path = project.root / "studies" / study / f"{file}.py"
    if not path.exists():
        return []
    spec = importlib.util.spec_from_file_location(f"crystalmesh_study_{study}_{file}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not isinstance(found, list):
        raise CrystalmeshError(f"{path}: no list {name} of functions; add it")
    return found
