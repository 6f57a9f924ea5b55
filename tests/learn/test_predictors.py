"""Predictions for anybody's crystals: the pipeline's numbers, whatever shares the batch."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Structure

import crystalmesh
from crystalmesh import config
from crystalmesh.config import PREDICTORS, Project
from crystalmesh.data import registry, splits, structures, validation
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, read_tensors
from crystalmesh.learn import predictors
from crystalmesh.learn.evaluate import evaluate
from crystalmesh.learn.predict import predict
from crystalmesh.learn.predictors import COLUMNS, Predictor, Space, best, calibrate, stream, table
from crystalmesh.learn.train import train
from crystalmesh.represent import store
from tests.conftest import SOME, TREE, documents, write_project
from tests.data import odd

ROOT = Path(__file__).parents[2]
CGCNN = SOME | {
    "task": "log_k", "representation": "graph.cgcnn", "model": "cgcnn", "precision": "double",
}  # fmt: skip
CORNERS = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "log_k-one": CGCNN | {"seed": 2},
    "log_k-ensemble": CGCNN | {"members": 2},
    "space_group-mesh": CGCNN
    | {"task": "space_group", "representation": "mesh.canonical", "model": "mesh_release"},
}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("predictors") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMESH_MIRROR", str(root))
        content = json.loads(json.dumps(TREE))
        content["experiments"] |= {PREDICTORS: EXPERIMENTS}
        project = write_project(root, content)
        registry.fetch(project, "tiny", 1)
        validation.build(project, "tiny", 1)
        splits.build(project, "tiny-60-20-20")
        for key in ("tiny-mesh_canonical", "tiny-graph_cgcnn"):
            store.build(project, key, 1)
        for name in EXPERIMENTS:
            for stage in (train, predict, evaluate, calibrate):
                stage(project, PREDICTORS, name)
    return project


@pytest.fixture(scope="module")
def file(ready: Project) -> Path:
    """The raw crystals as one file of Materials Project documents, in another order."""
    content = documents()
    place = content["columns"].index("structure")
    made = [{"material_id": row[0], "structure": row[place]} for row in content["data"]]
    path: Path = ready.root / "all.json"
    path.write_text(json.dumps(made[::-1]), encoding="utf-8")
    return path


def test_values_are_the_pipelines_bit_for_bit(ready: Project, file: Path) -> None:
    for name, experiment in EXPERIMENTS.items():
        network = Predictor(ready, PREDICTORS, name)
        found = {item.id: got for item, got in stream(ready, [str(file)], [network], 1)}
        rows = read_csv(ready.predictions(PREDICTORS, name))
        assert rows
        for row in rows:
            got = found[row["id"]]
            assert not isinstance(got, str)
            (one,) = got
            assert repr(float(one.value)) == repr(float(row["prediction"]))
            if experiment["task"] == "log_k":
                assert [repr(one.lower), repr(one.upper)] == [row["lower"], row["upper"]]
            else:
                assert " ".join(map(str, one.classes)) == row["set"]
                assert repr(one.probability) == row["probability"]


def test_a_value_does_not_depend_on_what_else_is_predicted(ready: Project, file: Path) -> None:
    network = Predictor(ready, PREDICTORS, "log_k-ensemble")
    entries = structures.read([str(file)], network.rules)
    found = [(item, network.maker.build(item.crystal)) for item in entries if item.crystal]
    together = network.predict(found)
    assert network.predict(found[::-1])[::-1] == together
    assert [network.predict([one])[0] for one in found] == together


def test_the_calibration_is_of_the_training_crystals(ready: Project) -> None:
    stored = read_tensors(ready.calibration(PREDICTORS, "log_k-one"))
    loaded = Crystals.load(ready.crystals("tiny"))
    parts = splits.select(ready, ready.params.experiment(PREDICTORS, "log_k-one"))
    for number in np.flatnonzero(np.bincount(loaded.numbers)):
        having = sum(number in loaded[loaded.position(i)].numbers for i in parts.train)
        assert stored["elements"][number] == having
    assert len(stored["scores"]) == len(stored["distances"]) == len(parts.val)
    assert (np.diff(stored["scores"]) >= 0).all()
    assert (np.diff(stored["distances"]) >= 0).all()
    again = ready.calibration(PREDICTORS, "log_k-one").read_bytes()
    calibrate(ready, PREDICTORS, "log_k-one")
    assert ready.calibration(PREDICTORS, "log_k-one").read_bytes() == again


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
    network = Predictor(ready, PREDICTORS, "log_k-one")
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
    assert (one.unit, one.formula, one.task) == ("log10(GPa)", "NaCl", "log_k")
    two = model([structure, structure.to_ase_atoms()])
    assert [p.value for p in two] == [one.value] * 2
    assert "bulk modulus" in repr(model)
    with pytest.raises(CrystalmeshError, match="structure 1: partial occupancy"):
        model([structure, Structure(np.eye(3) * 3, [{"Fe": 0.5}], [[0, 0, 0]])])
    with pytest.raises(CrystalmeshError, match="a str is no crystal"):
        model("NaCl")


def test_best_is_the_one_of_least_error(ready: Project) -> None:
    errors = {
        name: read_json(ready.metrics(PREDICTORS, name))["value"]
        for name in ("log_k-one", "log_k-ensemble")
    }
    assert best(ready, "log_k") == min(errors, key=lambda name: errors[name])
    assert best(ready, "log_k", "log_k-one") == "log_k-one"
    assert best(ready, "space_group") == "space_group-mesh"
    for task, model, said in (
        ("gap", "best", "no network predicts it; known: log_k, space_group"),
        ("log_k", "log_k-oen", "did you mean 'log_k-one'?"),
        ("log_k", "space_group-mesh", "predicts space_group, not log_k"),
    ):
        with pytest.raises(CrystalmeshError, match=said.replace("?", r"\?")):
            best(ready, task, model)


def test_a_damaged_checkpoint_or_calibration_is_named(ready: Project) -> None:
    for path in (
        ready.calibration(PREDICTORS, "log_k-one"),
        ready.checkpoint(PREDICTORS, "log_k-one"),
    ):
        content = path.read_bytes()
        try:
            path.write_bytes(content[: len(content) // 2])
            with pytest.raises(CrystalmeshError, match="damaged"):
                Predictor(ready, PREDICTORS, "log_k-one")
            path.unlink()
            with pytest.raises(CrystalmeshError, match="missing"):
                Predictor(ready, PREDICTORS, "log_k-one")
        finally:
            path.write_bytes(content)


def test_only_one_fold_and_networks_are_calibrated(ready: Project) -> None:
    tree = json.loads(json.dumps(ready.tree))
    tree["experiments"][PREDICTORS]["folds"] = CGCNN | {"fold": "all"}
    folds = config.Project(ready.root, config.Params.model_validate(tree), tree)
    with pytest.raises(CrystalmeshError, match="predictors need a network, and of one fold"):
        calibrate(folds, PREDICTORS, "folds")


def test_table_of_odd_files(
    ready: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bad files are named and skipped, the rest is predicted; processes change nothing."""
    odd.write(tmp_path)
    networks = [Predictor(ready, PREDICTORS, n) for n in ("log_k-one", "space_group-mesh")]
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
    assert [row["task"] for row in rows[:2]] == ["log_k", "space_group"]
    assert all(float(row["lower"]) < float(row["value"]) for row in rows if row["lower"])
    records = json.loads(kept[2])
    assert [f"{r['value']!r}" for r in records] == [row["value"] for row in rows]
    assert all(r["classes"] for r in records if r["task"] == "space_group")


def command(root: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crystalmesh.cli", "predict", *arguments],
        cwd=root,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def test_exit_codes_of_the_command(ready: Project, tmp_path: Path) -> None:
    (tmp_path / "good.cif").write_text(odd.cif())
    (tmp_path / "bad.cif").write_text("")
    good, bad = str(tmp_path / "good.cif"), str(tmp_path / "bad.cif")
    ended = command(ready.root, good, "--task", "log_k")
    assert ended.returncode == 0, ended.stderr
    header, row = ended.stdout.splitlines()
    assert header == ",".join(COLUMNS)
    assert row.startswith(f"{good},good,NaCl,log_k,")
    ended = command(ready.root, good, bad, "--model", "log_k-one")
    assert ended.returncode == 1
    assert len(ended.stdout.splitlines()) == 2
    assert f"skipped {bad}: empty" in ended.stderr
    assert command(ready.root, bad).returncode == 2
    ended = command(ready.root, "-", "--task", "log_k", stdin=odd.cif())
    assert ended.stdout.splitlines()[1].startswith("-,stdin,NaCl,")
    for wrong, said in (
        (["--task", "hardness"], "task 'hardness'"),
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
    network = Predictor(ready, PREDICTORS, "log_k-one")

    def fails(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predictors._Csv, "row", fails)
    with pytest.raises(KeyboardInterrupt):
        table(ready, [str(tmp_path)], [network], 1, tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.cif"]


def quality() -> str:
    """The table of docs/predict.md, from the committed metrics."""
    lines = [
        "| network | reads | trained on | test error | 90 % intervals or sets hold |",
        "|---|---|---|---|---|",
    ]
    project = config.load(ROOT)
    for name, experiment in project.params.group(PREDICTORS).items():
        one = read_json(project.metrics(PREDICTORS, name))
        error = f"{one['metric']} {one['value']:.4g} {one['unit']}"
        lines.append(
            f"| `{name}` | `{experiment.representation}` | {one['n_train']:,} | {error} on"
            f" {one['n_test']:,} | {100 * one['coverage']:.1f} % |"
        )
    return "\n".join(lines)


def test_documentation_has_the_committed_metrics() -> None:
    assert quality() in (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
