"""Which meshes change when atoms move: counted, whatever the number of processes."""

import pytest

from crystalmesh import files
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import stability
from tests.report.conftest import Maker


def found(project: Project, jobs: int) -> bytes:
    stability.build(project, "toy", jobs)
    return (project.results("toy") / "stability.json").read_bytes()


def test_rock_salt_keeps_its_canonical_mesh_alone(make: Maker) -> None:
    project = make(experiments={"a": ("e_form", "cgcnn", "all")}, benchmark=False)
    assert found(project, 1) == found(project, 2)
    content = files.read_json(project.results("toy") / "stability.json")
    assert content["crystals"] == 3
    assert content["described anew"]["mesh.canonical"] == 0
    canonical, published = (content["displaced"][f"mesh.{k}"] for k in ("canonical", "published"))
    assert canonical[0] == 0  # 1e-4 Angstrom
    assert published[1] == 1  # 1e-2 Angstrom
    assert content["described anew"]["mesh.published"] > 0


def test_no_crystal_with_a_mesh_is_one_line(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make(experiments={"a": ("e_form", "cgcnn", "all")}, benchmark=False)

    def none(*_: object) -> None:
        raise CrystalmeshError("no")

    monkeypatch.setattr(stability, "_perimeters", none)
    with pytest.raises(CrystalmeshError, match="no crystal has both meshes"):
        stability.build(project, "toy", 1)
