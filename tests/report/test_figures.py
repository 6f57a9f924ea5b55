"""Figures: which there are, that their bytes are fixed, and that nothing lies over anything."""

from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import figures
from crystalmesh.report.figures import learning, parity, space_groups, style
from crystalmesh.report.figures.style import STYLE, Drawing
from crystalmesh.report.own import Context
from tests.report.conftest import REPORT, STUDY, Maker, build_project, run
from tests.report.layout import faults

EMBEDDED = {"embeddings": ["log_k-cgcnn-all", "log_k-cgcnn-60"]}
ONE = {"calibration", "parity", "training", "space_groups"}
ALL = ONE | {"accuracy", "learning_curves", "mesh", "stability", "embeddings", "speed"}
ONLY = {"runs": {"a": run("e_form", "cgcnn", "all")}, "benchmark": False, "like": None}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The default project with its figures, and those that the studies of its runs have."""
    made = build_project(tmp_path_factory.mktemp("figures"), report=REPORT | EMBEDDED)
    figures.build(made, STUDY)
    return made


def drawings(project: Project) -> dict[str, Drawing]:
    with matplotlib.rc_context(STYLE):
        return {d.name: d for d in figures.drawings(Context.load(project, STUDY))}


def listed(project: Project) -> dict[str, dict[str, str]]:
    """figures.json, after checking that it lists the pictures that are there."""
    folder = project.results(STUDY) / "figures"
    content: dict[str, dict[str, str]] = files.read_json(folder / "figures.json")
    assert {path.stem for path in folder.glob("*.svg")} == set(content)
    assert all(entry["caption"] and entry["alt"] for entry in content.values())
    return content


def test_all_figures_of_a_full_study(project: Project) -> None:
    captions = listed(project)
    assert set(captions) == ALL
    assert "NaCl (x-7)" in captions["mesh"]["caption"]
    assert "(b) The published mesh: " in captions["mesh"]["caption"]


def test_svg_is_portable_and_a_second_run_gives_the_same_bytes(project: Project) -> None:
    folder = project.results(STUDY) / "figures"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, content in before.items():
        assert b"<dc:date>" not in content
        assert b"<text" not in content, name  # letters are drawn, so no font is needed
        assert len(content) < 2_000_000
    figures.build(project, STUDY)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", sorted(ALL))
def test_no_text_leaves_a_figure_and_no_legend_lies_over_anything(
    project: Project, name: str
) -> None:
    with matplotlib.rc_context(STYLE):
        assert faults(drawings(project)[name].figure) == []


def test_the_figure_of_transfer_learning(make: Maker) -> None:
    made = make(like="transfer")
    with matplotlib.rc_context(STYLE):
        figure = drawings(made)["transfer"].figure
        assert faults(figure) == []
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    assert texts == {"CGCNN", "TL-CGCNN"}


def test_planted_faults_are_found() -> None:
    def figure() -> Figure:
        one = Figure(figsize=(3, 2), layout="constrained")
        one.subplots().plot([0, 1], [0, 1], label="a line")
        return one

    assert faults(figure()) == []
    plants: list[tuple[Callable[[Figure], object], str]] = [
        (lambda one: one.axes[0].legend(loc="upper right"), "a legend lies over data"),
        (lambda one: one.legend(loc="center"), "a legend lies over a panel"),
        (lambda one: one.axes[0].set_title("very long " * 12), "leaves the canvas"),
        (lambda one: [one.axes[0].text(0.2, 0.8, word) for word in ("one", "two")], "lies over"),
        (lambda one: one.legend(loc="center", bbox_to_anchor=(0, 0)), "a legend leaves the canvas"),
    ]
    for plant, found in plants:
        one = figure()
        plant(one)
        assert any(found in fault for fault in faults(one)), found


def test_long_names_make_a_legend_of_fewer_columns() -> None:
    figure, axes = style.grid(1, 2.0)
    with matplotlib.rc_context(STYLE):
        lines = [
            axes[0].plot([0, 1], [0, n], label=f"a model with a very long name, number {n}")[0]
            for n in range(9)
        ]
        style.legend_above(figure, lines)
        assert faults(figure) == []
        beside, axes = style.grid(2, 1.0, columns=2)
        axes[0].plot([0, 1])
        style.legend_beside(beside, lines)
        assert faults(beside) == []


def test_a_study_of_one_graph_network_has_no_meshes(make: Maker) -> None:
    project = make(report={}, **ONLY)
    figures.build(project, STUDY)
    assert set(listed(project)) == ONE


def test_a_study_of_classes_has_no_parity(make: Maker) -> None:
    runs = {"a": run("space_group", "cgcnn", "all")}
    assert "parity" not in drawings(make(runs=runs, benchmark=False, like=None, report={}))


def test_many_test_crystals_become_hexagons(make: Maker) -> None:
    n = 5 * (parity.MANY + 10)
    drawing = parity.draw(Context.load(make(report={}, n=n, **ONLY), STUDY))
    assert drawing is not None
    (hexagons,) = drawing.figure.axes[0].collections
    counted = np.sum(np.asarray(hexagons.get_array()))
    assert counted == pytest.approx(parity.MANY + 10, rel=0.02)


def test_a_mesh_that_is_not_there_is_one_line(make: Maker) -> None:
    runs = {"m": run("log_k", "mesh_release", 60)}
    project = make(runs=runs, benchmark=False, like=None)
    folder = project.features(STUDY, "mesh.published")
    files.write_json(folder / "index.json", {"ids": [], "rejected": {}, "shards": {}})
    with pytest.raises(CrystalmeshError, match="no mesh of x-7"):
        figures.build(project, STUDY)
    assert not (project.results(STUDY) / "figures").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch,val_metric\n", "empty"),
        ("epoch,val_metric\n1,much\n", "damaged"),
        ("a\n1\n", "damaged"),
    ],
)
def test_a_damaged_history_is_one_line(make: Maker, text: str, message: str) -> None:
    project = make(report={}, **ONLY)
    project.history(project.params.run(f"{STUDY}/a")).write_text(text)
    with pytest.raises(CrystalmeshError, match=rf"a\.csv: {message}"):
        learning.training(Context.load(project, STUDY))


@pytest.mark.parametrize(
    "name", [f"results/{STUDY}/stability.json", "benchmarks/representations.json"]
)
def test_damaged_measurements_are_one_line(make: Maker, name: str) -> None:
    project = make(runs={"a": run("e_form", "cgcnn", "all")}, benchmark=False, like="mesh")
    files.write_json(project.root / name, {"displacements": ["far"]})
    with pytest.raises(CrystalmeshError, match="damaged") as error:
        figures.build(project, STUDY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("number", "name"), [(0, "0"), (1, "1–2"), (6, "300–999"), (7, "1,000+")])
def test_bin_names(number: int, name: str) -> None:
    assert space_groups.bin_name(number) == name
