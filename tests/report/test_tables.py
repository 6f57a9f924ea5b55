"""Tables as CSV and JSON, and the numbers of the prose."""

from pathlib import Path

import pytest

from crystalmesh import files
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import tables
from crystalmesh.report.tables import Column, Table
from tests.report.conftest import Maker


def rows(project: Project, name: str) -> list[dict[str, str]]:
    return files.read_csv(project.results("toy") / "tables" / f"{name}.csv")


def cells(project: Project, name: str) -> list[list[str]]:
    content = files.read_json(project.results("toy") / "tables" / f"{name}.json")
    width = len(content["columns"])
    assert all(len(row) == width for row in content["rows"])
    groups = content["groups"]
    assert not groups or groups[-1]["end"] == width
    found: list[list[str]] = content["rows"]
    return found


def test_entries(finished: Project) -> None:
    assert {row["what"]: row["entries"] for row in rows(finished, "entries")} == {
        "read": "162",
        "rejected: duplicate id": "1",
        "rejected: no atoms": "1",
        "accepted": "160",
    }


def test_labels_add_up(finished: Project) -> None:
    by_task = {row["task"]: row for row in rows(finished, "labels")}
    own = by_task["log_k"]
    assert (own["labelled"], own["rejected"], own["missing"]) == ("155", "1", "4")
    assert (own["train"], own["val"], own["test"]) == ("93", "31", "31")
    assert by_task["gap"]["train"] == "0"


def test_main_puts_published_and_ours_side_by_side(finished: Project) -> None:
    row = rows(finished, "main")[0]
    metrics = files.read_json(finished.metrics("toy", "log_k-cgcnn-60"))
    assert row["task"] == "log_k"
    assert (row["published_train"], row["published_mesh"]) == ("4585", "0.072")
    assert (row["mesh_train"], row["cgcnn_train"]) == ("36", "93")
    assert float(row["cgcnn_same"]) == pytest.approx(metrics["value"])
    canonical = files.read_json(finished.metrics("toy", "log_k-mesh_release-canonical-60"))
    assert float(row["canonical_same"]) == float(row["canonical"]) == canonical["value"]
    printed = cells(finished, "main")
    assert printed[0][0] == "bulk modulus (MAE, log₁₀(GPa))"
    assert printed[1][2:4] == ["86.9", "46.0"]


def test_experiments_have_all_that_a_reader_needs(finished: Project) -> None:
    for row in rows(finished, "experiments"):
        low, value, high = (float(row[key]) for key in ("low", "value", "high"))
        assert low <= value <= high
        assert row["parameters"] == "12345"
    printed = cells(finished, "experiments")
    assert [row[0] == "" for row in printed] == [False, True, True, True, False, True]


def test_equal_compares_the_same_crystals(finished: Project) -> None:
    row = rows(finished, "equal")[0]
    assert float(row["difference"]) == pytest.approx(float(row["mesh"]) - float(row["cgcnn"]))
    assert float(row["low"]) > 0  # the made-up mesh is three times worse
    numbers = files.read_json(finished.results("toy") / "tables" / "numbers.json")
    verdicts = [int(numbers[f"equal.{key}"]) for key in ("cgcnn", "mesh", "open")]
    assert sum(verdicts) == int(numbers["equal.all"]) == 3


def test_kinds_compares_the_two_meshes(finished: Project) -> None:
    (row,) = rows(finished, "kinds")
    assert (row["task"], row["model"], row["n_train"]) == ("log_k", "mesh_release", "36")
    expected = float(row["canonical"]) - float(row["published"])
    assert float(row["difference"]) == pytest.approx(expected)
    # only one crystal of this project has meshes: NaCl, eight cubes of six squares, shared by two
    if row["triangles_canonical"]:
        assert (row["triangles_canonical"], row["triangles_published"]) == ("96.0", "799.0")


def test_matbench_has_published_and_ours(finished: Project) -> None:
    printed = cells(finished, "matbench")
    assert printed[0][0] == "crystals"
    assert printed[1][:2] == ["close", "0.2500"]
    assert printed[2][0] == "dummy (mean)"
    assert printed[-1][0] == "CGCNN (this work)"
    assert printed[-1][2].endswith("(on 31)")


def test_space_groups_count_every_test_crystal(finished: Project) -> None:
    own = [r for r in rows(finished, "space_groups") if r["experiment"] == "log_k-cgcnn-all"]
    assert sum(int(row["n_test"]) for row in own) == 31
    assert sum(int(row["n_train"]) for row in own) <= 93


def test_settings_checksums_and_software(finished: Project) -> None:
    settings = {row["block"]: row["setting"] for row in rows(finished, "settings")}
    assert settings["representations.graph.cgcnn"] == "neighbours 12, cutoff 8"
    assert "standardise true" in settings["models.cgcnn.training"]
    assert "models.mesh_talk.training" not in settings  # not in this report
    assert [row["name"] for row in rows(finished, "checksums")] == ["toy", "bench_log_k"]
    assert {row["package"]: row["version"] for row in rows(finished, "software")} == {
        "numpy": "2.4.6",
        "torch": "2.13.0+cpu",
    }


def test_numbers_are_printable(finished: Project) -> None:
    numbers = files.read_json(finished.results("toy") / "tables" / "numbers.json")
    assert numbers["tasks"] == ["log_k", "space_group"]
    assert numbers["log_k.cgcnn.train"] == "93"
    assert numbers["mesh.published.supercell"] == "5"
    assert all(isinstance(value, str | bool | list) for value in numbers.values())


def test_a_second_run_gives_the_same_bytes(finished: Project) -> None:
    folder = finished.results("toy") / "tables"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    tables.build(finished, "toy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_report_of_one_cgcnn_and_no_benchmark(make: Maker) -> None:
    project = make(experiments={"gone": ("e_form", "cgcnn", "all")}, benchmark=False)
    tables.build(project, "toy")
    numbers = files.read_json(project.results("toy") / "tables" / "numbers.json")
    assert (numbers["mesh"], numbers["equal"], numbers["matbench"]) == ([], False, False)
    assert cells(project, "equal") == []
    assert rows(project, "main")[0]["mesh"] == ""


def test_a_mesh_without_its_equal(make: Maker) -> None:
    project = make(experiments={"m": ("log_k", "mesh_release", 60)}, benchmark=False)
    tables.build(project, "toy")
    row = cells(project, "main")[0]
    assert row[6] != tables.NONE
    assert row[7:] == [tables.NONE] * 6


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("paper/published.yaml", None, "published.yaml: missing"),
        ("paper/published.yaml", "study: [", "published.yaml: not the published values"),
        ("paper/published.yaml", "study: {}", "not the published values .'dft'"),
        ("env/requirements.lock", None, "requirements.lock: missing"),
    ],
)
def test_a_broken_source_is_one_line(
    make: Maker, path: str, content: str | None, message: str
) -> None:
    project = make(experiments={"gone": ("e_form", "cgcnn", "all")}, benchmark=False)
    source = project.root / path
    source.unlink()
    if content is not None:
        source.write_text(content)
    with pytest.raises(CrystalmeshError, match=message) as error:
        tables.build(project, "toy")
    assert "\n" not in str(error.value)
    assert not (project.results("toy") / "tables").exists()


def test_groups_of_columns(tmp_path: Path) -> None:
    table = Table("t", ("a",), (Column("a", left=True), Column("b", "g"), Column("c", "g")))
    table.add((1.5,), ("x", "1", "2"))
    table.add((None,), ("x", "3", "4"))
    table.merge()
    table.write(tmp_path)
    content = files.read_json(tmp_path / "t.json")
    assert content["groups"] == [
        {"title": "", "start": 0, "end": 1},
        {"title": "g", "start": 1, "end": 3},
    ]
    assert content["rows"] == [["x", "1", "2"], ["", "3", "4"]]
    assert (tmp_path / "t.csv").read_text() == 'a\n1.5\n""\n'
