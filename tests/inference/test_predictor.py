"""Predictions for anybody's crystals: the pipeline's numbers, whatever shares the batch."""

import copy
import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Structure

import crystalmesh
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.data import splits, structures
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, read_tensors
from crystalmesh.inference import table as tables
from crystalmesh.inference.calibrate import calibrate
from crystalmesh.inference.predictor import Predictor, Space, best
from crystalmesh.inference.table import COLUMNS, stream, table
from crystalmesh.learn.evaluate import evaluate
from crystalmesh.learn.predict import predict
from crystalmesh.learn.train import train
from tests.conftest import TREE, Tree, documents, write_project
from tests.data import odd
from tests.workflow.forks import shared

ROOT = Path(__file__).parents[2]
CGCNN = {"target": "log_k", "model": "cgcnn", "split": "60-20-20", "precision": "double"}
CORNERS = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
RUNS: dict[str, dict[str, Any]] = {
    "log_k-one": CGCNN | {"seed": 2},
    "log_k-ensemble": CGCNN | {"seed": 1, "members": 2},
    "both": {key: value for key, value in CGCNN.items() if key != "target"}
    | {"targets": ["e_form", "log_k"]},
    "space_group-mesh": CGCNN
    | {"target": "space_group", "representation": "mesh.canonical", "model": "mesh_release"},
}
SERVED = [
    (name, target)
    for name, run in RUNS.items()
    for target in (run.get("targets") or [run["target"]])
]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, built: Callable[[Tree], Path]) -> Project:
    content = copy.deepcopy(TREE)
    content["features"]["tiny"] = {"mesh.canonical": {}, "graph.cgcnn": {}}
    content["studies"] = {
        "served": {
            "title": "served",
            "dataset": "tiny",
            "numerics": "native",
            "runs": RUNS,
            "serves": [f"served/{name}" for name in RUNS],
        }
    }
    project = write_project(tmp_path_factory.mktemp("served") / "project", content)
    shutil.copytree(built(content), project.data)
    for name in RUNS:
        run = of(project, name)
        for stage in (train, predict, evaluate):
            stage(project, run)
        for target in run.targets:
            calibrate(project, run, target)
    return project


def of(project: Project, name: str) -> Run:
    return project.params.run(f"served/{name}")


def served(project: Project, name: str, target: str = "log_k") -> Predictor:
    return Predictor(project, of(project, name), target)


@pytest.fixture(scope="module")
def file(ready: Project) -> Path:
    """The raw crystals as one file of Materials Project documents, in another order."""
    content = documents()
    place = content["columns"].index("structure")
    made = [{"material_id": row[0], "structure": row[place]} for row in content["data"]]
    path: Path = ready.root / "all.json"
    path.write_text(json.dumps(made[::-1]), encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "target"), SERVED)
def test_values_are_the_pipelines_bit_for_bit(
    ready: Project, file: Path, name: str, target: str
) -> None:
    network = served(ready, name, target)
    found = {item.id: got for item, got in stream(ready, [str(file)], [network], 1)}
    rows = read_csv(ready.predictions(network.run, target))
    assert rows
    for row in rows:
        got = found[row["id"]]
        assert not isinstance(got, str)
        (one,) = got
        assert (one.target, one.model) == (target, name)
        assert repr(float(one.value)) == repr(float(row["prediction"]))
        if target != "space_group":
            assert [repr(one.lower), repr(one.upper)] == [row["lower"], row["upper"]]
        else:
            assert " ".join(map(str, one.classes)) == row["set"]
            assert repr(one.probability) == row["probability"]


def test_a_value_does_not_depend_on_what_else_is_predicted(ready: Project, file: Path) -> None:
    network = served(ready, "log_k-ensemble")
    entries = structures.read([str(file)], network.rules)
    found = [(item, network.maker.build(item.crystal)) for item in entries if item.crystal]
    together = network.predict(found)
    assert network.predict(found[::-1])[::-1] == together
    assert [network.predict([one])[0] for one in found] == together


def test_the_calibration_is_of_the_training_crystals(ready: Project) -> None:
    stored = read_tensors(ready.calibration(of(ready, "log_k-one"), "log_k"))
    loaded = Crystals.load(ready.crystals("tiny"))
    parts = splits.select(ready, of(ready, "log_k-one"))
    for number in np.flatnonzero(np.bincount(loaded.numbers)):
        having = sum(number in loaded[loaded.position(i)].numbers for i in parts.train)
        assert stored["elements"][number] == having
    assert len(stored["scores"]) == len(stored["distances"]) == len(parts.val)
    assert (np.diff(stored["scores"]) >= 0).all()
    assert (np.diff(stored["distances"]) >= 0).all()
    again = ready.calibration(of(ready, "log_k-one"), "log_k").read_bytes()
    calibrate(ready, of(ready, "log_k-one"), "log_k")
    assert ready.calibration(of(ready, "log_k-one"), "log_k").read_bytes() == again


def test_distance_is_zero_only_where_the_training_crystals_are() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(50, 6)), np.full((50, 1), 3.0)], axis=1)
    space = Space.of(np.repeat(vectors, 5, axis=0))
    np.testing.assert_allclose(space.distance(vectors), 0, atol=1e-5)
    far = vectors + np.array([10.0, 0, 0, 0, 0, 0, 0])
    assert (space.distance(far) > 4).all()
    # what is measured in other units is as far
    scaled = Space.of(np.repeat(vectors * 7 + 1, 5, axis=0))
    np.testing.assert_allclose(scaled.distance(far * 7 + 1), space.distance(far), rtol=1e-5)


def test_warnings_tell_unknown_elements_and_far_crystals(ready: Project) -> None:
    network = served(ready, "log_k-one")
    cell = np.eye(3) * 3.5
    near = network(Structure(cell, ["Na", "Cl"], CORNERS))
    assert near.familiarity > 0
    odd_one = network(Structure(cell, ["Pu", "Cl"], CORNERS))
    assert "Pu is in no training crystal" in odd_one.warning
    far = network(Structure(np.eye(3) * 14, ["Na"], [[0, 0, 0]]))
    assert "a slab or a molecule in a box?" in far.warning
    squeezed = network(Structure(np.eye(3) * 0.9, ["Na"], [[0, 0, 0]]))
    assert squeezed.familiarity < 0.01
    assert "unlike the training crystals" in squeezed.warning


def test_python_api_takes_structures_and_atoms(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ready.root)
    model = crystalmesh.load("log_k")
    structure = Structure(np.eye(3) * 3.5, ["Na", "Cl"], CORNERS)
    one = model(structure)
    assert one.lower is not None
    assert one.upper is not None
    assert one.lower < one.value < one.upper
    assert (one.unit, one.formula, one.target) == ("log10(GPa)", "NaCl", "log_k")
    two = model([structure, structure.to_ase_atoms()])
    assert [p.value for p in two] == [one.value] * 2
    assert "bulk modulus" in repr(model)
    with pytest.raises(CrystalmeshError, match="structure 1: partial occupancy"):
        model([structure, Structure(np.eye(3) * 3, [{"Fe": 0.5}], [[0, 0, 0]])])
    with pytest.raises(CrystalmeshError, match="a str is no crystal"):
        model("NaCl")


def test_best_is_the_one_of_least_error(ready: Project) -> None:
    errors = {
        name: read_json(ready.metrics(of(ready, name)))["targets"]["log_k"]["value"]
        for name, target in SERVED
        if target == "log_k"
    }
    assert len(errors) == 3
    assert best(ready, "log_k").name == min(errors, key=lambda name: errors[name])
    assert best(ready, "log_k", "log_k-one").name == "log_k-one"
    assert best(ready, "e_form").name == "both"
    assert best(ready, "space_group").name == "space_group-mesh"
    for target, model, said in (
        ("gap", "best", "no network predicts it; known: log_k, e_form, space_group"),
        ("log_k", "log_k-oen", "did you mean 'log_k-one'?"),
        ("log_k", "space_group-mesh", "predicts space_group, not log_k"),
    ):
        with pytest.raises(CrystalmeshError, match=said.replace("?", r"\?")):
            best(ready, target, model)


def test_a_damaged_checkpoint_or_calibration_is_named(ready: Project) -> None:
    for path in (
        ready.calibration(of(ready, "log_k-one"), "log_k"),
        ready.checkpoint(of(ready, "log_k-one")),
    ):
        content = path.read_bytes()
        try:
            path.write_bytes(content[: len(content) // 2])
            with pytest.raises(CrystalmeshError, match="damaged"):
                served(ready, "log_k-one")
            path.unlink()
            with pytest.raises(CrystalmeshError, match="missing"):
                served(ready, "log_k-one")
        finally:
            path.write_bytes(content)


def test_only_networks_of_one_fold_are_served(tmp_path: Path, tree: Tree) -> None:
    study = tree["studies"]["demo"]
    study["runs"]["log_k-cgcnn"]["fold"] = "all"
    study["serves"] = ["demo/log_k-cgcnn"]
    with pytest.raises(CrystalmeshError, match="demo/log_k-cgcnn is no network of one fold"):
        write_project(tmp_path, tree)


def test_table_of_odd_files(
    ready: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bad files are named and skipped, the rest is predicted; processes change nothing."""
    odd.write(tmp_path)
    networks = [served(ready, "log_k-one"), served(ready, "space_group-mesh", "space_group")]
    accepted = sum(f.accepted for f in odd.FILES if not f.network)
    refused = sum(len(f.refused) + bool(f.network) for f in odd.FILES)
    out = [tmp_path / name for name in ("one.csv", "two.csv", "all.json")]
    for path in out:
        jobs = 2 if path.name == "two.csv" else 1
        counts = table(ready, [str(tmp_path)], networks, jobs, path)
        assert counts == (refused, accepted)
        path.rename(path.with_suffix(".kept"))  # not read as a crystal file the next time
    said = capfd.readouterr().err
    for one in odd.FILES:
        for part in (*one.refused, *([one.network] if one.network else [])):
            line = next(x for x in said.splitlines() if one.name in x and part in x)
            assert line.startswith("skipped ")
    kept = [path.with_suffix(".kept").read_bytes() for path in out]
    assert kept[0] == kept[1]
    rows = list(csv.DictReader(io.StringIO(kept[0].decode())))
    assert len(rows) == 2 * accepted
    assert tuple(rows[0]) == COLUMNS
    assert [row["target"] for row in rows[:2]] == ["log_k", "space_group"]
    assert all(float(row["lower"]) < float(row["value"]) for row in rows if row["lower"])
    records = json.loads(kept[2])
    assert [f"{r['value']!r}" for r in records] == [row["value"] for row in rows]
    assert all(r["classes"] for r in records if r["target"] == "space_group")


def command(root: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    ended = shared().run("command", ["predict", *arguments], root, heard=stdin)
    return subprocess.CompletedProcess(arguments, *ended)


def test_exit_codes_of_the_command(ready: Project, tmp_path: Path) -> None:
    (tmp_path / "good.cif").write_text(odd.cif())
    (tmp_path / "bad.cif").write_text("")
    good, bad = str(tmp_path / "good.cif"), str(tmp_path / "bad.cif")
    ended = command(ready.root, good, "--target", "log_k")
    assert ended.returncode == 0, ended.stderr
    header, row = ended.stdout.splitlines()
    assert header == ",".join(COLUMNS)
    assert row.startswith(f"{good},good,NaCl,log_k,")
    ended = command(ready.root, good, bad, "--model", "log_k-one")
    assert ended.returncode == 1
    assert len(ended.stdout.splitlines()) == 2
    assert f"skipped {bad}: empty" in ended.stderr
    assert command(ready.root, bad).returncode == 2
    ended = command(ready.root, "-", "--target", "log_k", stdin=odd.cif())
    assert ended.stdout.splitlines()[1].startswith("-,stdin,NaCl,")
    for wrong, said in (
        (["--target", "hardness"], "target 'hardness'"),
        (["--out", str(tmp_path / "t.xlsx")], "ends in .csv or .json"),
        (["--out", str(tmp_path / "no" / "t.csv")], "there is no folder"),
    ):
        ended = command(ready.root, good, *wrong)
        assert ended.returncode == 2
        assert said in ended.stderr
        assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "no").exists()
    kept = tmp_path / "kept.csv"
    kept.write_text("of yesterday")
    ended = command(ready.root, bad, "--out", str(kept))
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: nothing was predicted")
    assert kept.read_text() == "of yesterday"


def test_nothing_is_left_where_predicting_stops(
    ready: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table appears whole or not at all."""
    (tmp_path / "good.cif").write_text(odd.cif())
    network = served(ready, "log_k-one")

    def fails(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tables._Csv, "row", fails)
    with pytest.raises(KeyboardInterrupt):
        table(ready, [str(tmp_path)], [network], 1, tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.cif"]
