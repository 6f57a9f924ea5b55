"""Figures: which there are, and that their bytes are fixed and portable."""

import numpy as np
import pytest

from crystalmesh import files
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import figures, results
from tests.report.conftest import Maker

ONE = {"stability", "speed", "accuracy", "calibration", "parity", "learning_curves", "space_groups"}
ALL = ONE | {"mesh", "transfer", "maps"}


def listed(project: Project) -> dict[str, dict[str, str]]:
    """figures.json, after checking that it lists the pictures that are there."""
    folder = project.results("toy") / "figures"
    content: dict[str, dict[str, str]] = files.read_json(folder / "figures.json")
    assert {path.stem for path in folder.glob("*.svg")} == set(content)
    assert all(entry["caption"] and entry["alt"] for entry in content.values())
    return content


def test_all_figures_of_a_full_report(finished: Project) -> None:
    captions = listed(finished)
    assert set(captions) == ALL
    assert "NaCl (x-7)" in captions["mesh"]["caption"]
    assert "799" in captions["mesh"]["caption"] or "855" in captions["mesh"]["caption"]


def test_svg_is_portable_and_has_no_date(finished: Project) -> None:
    for path in (finished.results("toy") / "figures").glob("*.svg"):
        text = path.read_text()
        assert "<dc:date>" not in text
        assert "<text" not in text  # letters are drawn, so no font is needed
        assert len(text) < 2_000_000


def test_a_second_run_gives_the_same_bytes(finished: Project) -> None:
    folder = finished.results("toy") / "figures"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    figures.build(finished, "toy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_report_of_cgcnn_has_no_mesh(make: Maker) -> None:
    project = make(experiments={"a": ("e_form", "cgcnn", "all")}, benchmark=False)
    figures.build(project, "toy")
    assert set(listed(project)) == ONE
    assert "Below" not in listed(project)["learning_curves"]["caption"]  # one size only


def test_a_report_of_classes_has_no_parity(make: Maker) -> None:
    project = make(experiments={"a": ("space_group", "cgcnn", "all")}, benchmark=False)
    figures.build(project, "toy")
    assert "parity" not in listed(project)


def test_many_test_crystals_become_hexagons(make: Maker) -> None:
    n = 5 * (figures.MANY + 10)
    project = make(experiments={"a": ("e_form", "cgcnn", "all")}, benchmark=False, n=n)
    found = results.load(project, "toy")
    drawing = figures.parity(project, found, figures.Looks.of(project, found))
    assert drawing is not None
    axes = drawing.figure.axes[0]
    assert len(axes.collections) == 1
    assert np.sum(np.asarray(axes.collections[0].get_array())) == pytest.approx(
        figures.MANY + 10, rel=0.02
    )


def test_an_empty_mesh_store_is_one_line(make: Maker) -> None:
    project = make(experiments={"m": ("log_k", "mesh_release", 60)}, benchmark=False)
    folder = project.features("toy", "mesh.published")
    files.write_json(folder / "index.json", {"ids": [], "rejected": {}, "shards": {}})
    with pytest.raises(CrystalmeshError, match="holds no mesh"):
        figures.build(project, "toy")
    assert not (project.results("toy") / "figures").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch,val_metric\n", "empty"),
        ("epoch,val_metric\n1,much\n", "damaged"),
        ("a\n1\n", "damaged"),
    ],
)
def test_a_damaged_history_is_one_line(make: Maker, text: str, message: str) -> None:
    project = make(experiments={"a": ("e_form", "cgcnn", "all")}, benchmark=False)
    project.history("toy", "a").write_text(text)
    found = results.load(project, "toy")
    with pytest.raises(CrystalmeshError, match=rf"a\.csv: {message}"):
        figures.learning_curves(project, "toy", found, figures.Looks.of(project, found))


@pytest.mark.parametrize("name", ["results/toy/stability.json", "benchmarks/representations.json"])
def test_damaged_measurements_are_one_line(make: Maker, name: str) -> None:
    project = make(experiments={"a": ("e_form", "cgcnn", "all")}, benchmark=False)
    files.write_json(project.root / name, {"displacements": ["far"]})
    with pytest.raises(CrystalmeshError, match="damaged") as error:
        figures.build(project, "toy")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("number", "name"), [(0, "0"), (1, "1–2"), (6, "300–999"), (7, "1,000+")])
def test_bin_names(number: int, name: str) -> None:
    assert figures._bin_name(number) == name
