"""The viewer: faces as polygons with their shares, the page and the picture, the command."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crystalmesh import files
from crystalmesh.config import plan
from crystalmesh.config.project import Project, load
from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.inference.predictor import Predictor
from crystalmesh.models.mesh import Network
from crystalmesh.report import viewer
from crystalmesh.represent import geometry
from crystalmesh.represent.mesh import Canonical, Published, conventional_cell, tessellate
from tests.report.conftest import NACL, STUDY, Maker, build_project, run, write_network
from tests.test_cli import crystalmesh_in, error_of

PUBLISHED = Published({"symprec": 0.01, "supercell": 5, "tolerance": 0.05})
CANONICAL = Canonical({"symprec": 0.01, "tolerance": 0.001})
PUBLISHED_MESH, CANONICAL_MESH = MESHES = (
    ("mesh.published", PUBLISHED),
    ("mesh.canonical", CANONICAL),
)
TRICLINIC = Crystal(
    "tri", "TiO2", np.array([[4.1, 0.2, -0.3], [0.6, 5.0, 0.4], [-0.9, 0.3, 6.2]]),
    np.array([22, 8, 8, 26, 8]),
    np.array([[0.0, 0, 0], [0.3, 0.2, 0.4], [0.7, 0.6, 0.9], [0.55, 0.1, 0.75], [0.1, 0.7, 0.3]]),
)  # fmt: skip
CIF = """data_NaCl
_symmetry_space_group_name_H-M 'F m -3 m'
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na 0 0 0
Cl1 Cl 0.5 0 0
"""


def network() -> Network:
    torch.manual_seed(0)
    settings = {
        "geometry": "edges", "atoms": [8], "shared": [12, 64], "last_activation": False,
        "head": [8], "dropout": 0.0,
    }  # fmt: skip
    net = Network(settings, 1)
    net(CANONICAL.collate([CANONICAL.build(TRICLINIC), CANONICAL.build(NACL)]))
    return net


def test_a_square_face_is_one_polygon_with_the_shares_of_its_triangles() -> None:
    net = network()
    mesh = viewer.build(NACL, *CANONICAL_MESH, net)
    assert len(mesh.polygons) == 24
    assert {len(polygon) for polygon in mesh.polygons} == {4}
    assert mesh.triangles.tolist() == [4] * 24
    np.testing.assert_allclose(mesh.area, 2.82**2, rtol=1e-6)
    position = mesh.place @ mesh.lattice
    for polygon in mesh.polygons:  # in order around it: all sides, no diagonal
        sides = np.linalg.norm(position[polygon] - position[np.roll(polygon, 1)], axis=1)
        np.testing.assert_allclose(sides, 2.82, rtol=1e-6)
    assert mesh.share is not None
    batch = CANONICAL.collate([CANONICAL.build(NACL)])
    with torch.inference_mode():
        parts = net.eval().deciding(batch).numpy()  # faces come one after the other
    np.testing.assert_allclose(mesh.share, 100 * parts.reshape(24, 4).sum(axis=1), atol=1e-3)
    assert mesh.share.sum() == pytest.approx(100)


@pytest.mark.parametrize("crystal", [NACL, TRICLINIC])
def test_polygons_are_the_faces_of_the_complex(crystal: Crystal) -> None:
    mesh = viewer.build(crystal, *CANONICAL_MESH)
    lattice, frac, _ = conventional_cell(crystal, 0.01)
    found = tessellate(lattice, frac - np.floor(frac), 0.001)
    assert len(mesh.polygons) == found.n_faces
    assert [len(p) for p in mesh.polygons] == np.diff(found.face_pointer).tolist()
    np.testing.assert_allclose(mesh.area, geometry.face_areas(found), rtol=1e-9)
    assert mesh.share is None


def test_faces_of_the_published_mesh_are_its_triangles() -> None:
    mesh = viewer.build(TRICLINIC, *PUBLISHED_MESH, network())
    arrays = PUBLISHED.build(TRICLINIC)
    assert [sorted(p) for p in mesh.polygons] == arrays["faces"].tolist()
    assert mesh.triangles.tolist() == [1] * len(arrays["faces"])
    assert mesh.share is not None
    assert mesh.share.sum() == pytest.approx(100)
    assert 0 < (mesh.share > 0).sum() < len(mesh.polygons)


def test_the_network_is_left_as_it_was() -> None:
    net = network()
    viewer.build(NACL, *CANONICAL_MESH, net)
    assert next(net.parameters()).dtype == torch.float32
    assert net.training


def test_levels_go_with_the_share() -> None:
    mesh = viewer.build(TRICLINIC, *CANONICAL_MESH, network())
    assert mesh.share is not None
    top = viewer.highest([mesh])
    levels = viewer.levels(mesh, top)
    assert ((levels == 0) == (mesh.share == 0)).all()
    assert levels[mesh.share.argmax()] == levels.max() == len(viewer.OPACITY) - 1
    order = np.argsort(mesh.share, kind="stable")
    assert (np.diff(levels[order]) >= 0).all()


def drawn(net: Network | None = None) -> tuple[list[viewer.Mesh], dict[str, Any]]:
    meshes = [viewer.build(NACL, name, maker, net) for name, maker in MESHES]
    row = {"network": "n", "predicts": "p", "value": "1"}
    return meshes, viewer.content(NACL, meshes, [row])


def test_content_is_what_the_page_draws() -> None:
    meshes, content = drawn(network())
    assert content["top"] == pytest.approx(
        max(m.share.max() for m in meshes if m.share is not None), abs=1e-3
    )
    assert sorted(content["elements"]) == ["Cl", "Na"]
    for mesh, given in zip(meshes, content["meshes"], strict=True):
        assert given["faces"] == [list(p) for p in mesh.polygons]
        assert sum(given["share"]) == pytest.approx(100, abs=0.01 * len(given["share"]))
        place = np.array(given["frac"])[np.array(given["vertices"])[:, 0]]
        place = place + np.array(given["vertices"])[:, 1:]
        np.testing.assert_allclose(place, mesh.place, atol=1e-5)
        assert np.array_equal(np.array(given["inside"], dtype=bool), mesh.inside)
    assert viewer.script(content) == viewer.script(drawn(network())[1])


def test_without_a_network_faces_have_one_colour() -> None:
    meshes, content = drawn()
    assert content["top"] == 0
    assert [given["share"] for given in content["meshes"]] == [None, None]
    assert {level for given in content["meshes"] for level in given["level"]} == {0}
    figure = viewer.picture(NACL, meshes)
    assert len(figure.axes) == 2  # and no colour bar


def test_picture_is_a_png_with_the_same_bytes_each_time() -> None:
    meshes, _ = drawn(network())
    one, other = (viewer.png(viewer.picture(NACL, meshes)) for _ in range(2))
    assert one.startswith(b"\x89PNG")
    assert one == other
    assert len(viewer.picture(NACL, meshes).axes) == 3


def test_document_needs_nothing_else() -> None:
    _, content = drawn(network())
    page = viewer.document(content | {"formula": "</script><b>&"})
    assert page.count("<script>") == page.count("</script>") == 4
    assert "<title>&lt;/script&gt;&lt;b&gt;&amp; (x-7)" in page
    own = page.replace(viewer.plotly(), "")
    assert not re.search(r"(src|href)\s*=|@import|url\(", own.split("<script>")[0])
    assert "fetch(" not in own
    assert json.loads(own.split("crystalmesh.draw(")[1].split(");</script>")[0])["id"] == "x-7"


# The command `show` -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that serves a network of each mesh."""
    runs = {
        "log_k-small": run("log_k", "mesh_small", 60),
        "log_k-small-canonical": run("log_k", "mesh_small", 60, representation="mesh.canonical"),
    }
    made = build_project(
        tmp_path_factory.mktemp("shown"), runs=runs, benchmark=False, report={}, like=None
    )
    path = made.root / "studies" / STUDY / "study.yaml"
    path.write_text(path.read_text() + f"serves: [{', '.join(f'{STUDY}/{one}' for one in runs)}]\n")
    plan.write(made.root)
    made = load(made.root)
    for name in runs:
        write_network(made, name)
    return made


@pytest.fixture
def cif(tmp_path: Path) -> str:
    path = tmp_path / "salt.cif"
    path.write_text(CIF)
    return str(path)


def shown(page: Path) -> dict[str, Any]:
    text = page.read_text().split("crystalmesh.draw(")[-1].split(");</script>")[0]
    content: dict[str, Any] = json.loads(text)
    return content


def test_show_with_a_network(project: Project, cif: str, tmp_path: Path) -> None:
    page, picture = tmp_path / "a.html", tmp_path / "a.png"
    viewer.show(project, cif, page, picture, "log_k")
    content = shown(page)
    assert content["formula"] == "NaCl"
    assert [m["title"] for m in content["meshes"]] == ["published mesh", "canonical mesh"]
    assert all(m["share"] for m in content["meshes"])
    rows = content["predictions"]
    assert [row["network"].split(", ")[-1] for row in rows] == ["published mesh", "canonical mesh"]
    network = project.params.run(f"{STUDY}/log_k-small-canonical")
    predictor = Predictor(project, network, known=None)
    maker = predictor.maker
    batch, sizes = maker.collate([maker.build(NACL)]), np.array([len(NACL.numbers)])
    value = float(predictor.members([batch], sizes)[0, 0])
    assert float(rows[1]["value"].split()[0].replace("−", "-")) == pytest.approx(value, abs=6e-4)
    assert picture.read_bytes().startswith(b"\x89PNG")
    before = page.read_bytes()
    viewer.show(project, cif, page, None, "log_k")
    assert page.read_bytes() == before


def test_show_without_a_network(make: Maker, cif: str, tmp_path: Path) -> None:
    made = make(runs={"a": run("log_k", "cgcnn", 60)}, benchmark=False, report={}, like=None)
    viewer.show(made, cif, tmp_path / "a.html", None, viewer.NO_TARGET)
    content = shown(tmp_path / "a.html")
    assert [m["share"] for m in content["meshes"]] == [None, None]
    assert content["predictions"] == []
    with pytest.raises(CrystalmeshError, match=r"'space_group': no network .* known: none"):
        viewer.show(made, cif, tmp_path / "b.html", None, "space_group")


def test_show_refuses(project: Project, cif: str, tmp_path: Path) -> None:
    page, wrong = tmp_path / "a.html", tmp_path / "wrong.cif"

    def error(file: Path | str, target: str = "log_k") -> str:
        with pytest.raises(CrystalmeshError) as caught:
            viewer.show(project, str(file), page, None, target)
        assert not page.exists()
        return str(caught.value)

    assert "log_k" in error(cif, "gap")
    assert "missing.cif: " in error(tmp_path / "missing.cif")
    wrong.write_text("no crystal")
    assert "wrong.cif: " in error(wrong)
    wrong.write_text(CIF.replace("data_NaCl", "data_one") + CIF.replace("data_NaCl", "data_two"))
    assert "holds several structures" in error(wrong)
    path = project.checkpoint(project.params.run(f"{STUDY}/log_k-small"))
    content = path.read_bytes()
    try:
        files.write_bytes(path, content[:50])
        assert "damaged" in error(cif)
    finally:
        files.write_bytes(path, content)


def test_the_command_says_what_it_wrote_or_what_is_wrong(
    project: Project, cif: str, tmp_path: Path
) -> None:
    ended = crystalmesh_in(project.root, "show", cif, "--target", "log_k", "--png", "a.png")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["mesh.html", "a.png"]
    assert shown(project.root / "mesh.html")["formula"] == "NaCl"
    assert (project.root / "a.png").read_bytes().startswith(b"\x89PNG")
    for arguments, said in (
        ((cif, "--out", "mesh.pdf"), "--out mesh.pdf: give a name that ends in .html"),
        ((cif, "--png", "mesh.svg"), "--png mesh.svg: give a name that ends in .png"),
        ((cif,), "target 'space_group': no network on meshes predicts it; known: log_k, none"),
        ((str(tmp_path / "none.cif"), "--target", "log_k"), "none.cif: "),
    ):
        assert said in error_of(crystalmesh_in(project.root, "show", *arguments))
