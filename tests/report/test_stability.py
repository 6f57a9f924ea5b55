"""Which meshes change when atoms move: counted, whatever the number of processes."""

import pytest

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import stability
from tests.report.conftest import STUDY, Maker, run

ONLY = {"runs": {"a": run("e_form", "cgcnn", "all")}, "benchmark": False, "like": None}


def found(project: Project, jobs: int) -> bytes:
    stability.build(project, STUDY, jobs)
    return (project.results(STUDY) / "stability.json").read_bytes()


def test_rock_salt_keeps_its_canonical_mesh_alone(make: Maker) -> None:
    project = make(**ONLY)
    assert found(project, 1) == found(project, 2)
    content = files.read_json(project.results(STUDY) / "stability.json")
    assert content["crystals"] == 3
    assert content["described anew"]["mesh.canonical"] == 0
    canonical, published = (content["displaced"][f"mesh.{k}"] for k in ("canonical", "published"))
    assert canonical[0] == 0  # 1e-4 Angstrom
    assert published[1] == 1  # 1e-2 Angstrom
    assert content["described anew"]["mesh.published"] > 0


def test_no_crystal_with_a_mesh_is_one_line(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make(**ONLY)

    def none(*_: object) -> None:
        raise CrystalmeshError("no")

    monkeypatch.setattr(stability, "_perimeters", none)
    with pytest.raises(CrystalmeshError, match="no crystal has all meshes"):
        stability.build(project, STUDY, 1)


def test_a_study_without_the_setting_is_one_line(make: Maker) -> None:
    with pytest.raises(CrystalmeshError, match=r"report\.stability: missing"):
        stability.build(make(report={}, **ONLY), STUDY, 1)
