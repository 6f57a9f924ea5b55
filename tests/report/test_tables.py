"""Tables as CSV and JSON, and the numbers of the text."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import scipy.stats

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import results, tables
from crystalmesh.report.tables.table import NONE, Column, Table, p_value
from tests.report.conftest import REPEATED, STUDY, Maker, run


def rows(project: Project, name: str) -> list[dict[str, str]]:
    return files.read_csv(project.results(STUDY) / "tables" / f"{name}.csv")


def cells(project: Project, name: str) -> list[list[str]]:
    content = files.read_json(project.results(STUDY) / "tables" / f"{name}.json")
    width = len(content["columns"])
    assert all(len(row) == width for row in content["rows"])
    groups = content["groups"]
    assert not groups or groups[-1]["end"] == width
    found: list[list[str]] = content["rows"]
    return found


def numbers(project: Project) -> dict[str, object]:
    found: dict[str, object] = files.read_json(project.results(STUDY) / "tables" / "numbers.json")
    return found


def test_entries(finished: Project) -> None:
    assert {row["what"]: row["entries"] for row in rows(finished, "entries")} == {
        "read": "162",
        "rejected: duplicate id": "1",
        "rejected: no atoms": "1",
        "accepted": "160",
    }


def test_labels_add_up(finished: Project) -> None:
    split = {r["target"]: r for r in rows(finished, "labels") if r["split"] == "60/20/20"}
    own = split["log_k"]
    assert (own["labelled"], own["rejected"], own["missing"]) == ("155", "1", "4")
    assert (own["train"], own["val"], own["test"]) == ("93", "31", "31")
    assert set(split) == {"e_form", "log_k", "log_g", "space_group"}  # not those without labels
    printed = {(row[0], row[1]) for row in cells(finished, "labels")}  # only what runs are on
    assert printed == {
        ("bulk modulus", "60/20/20"), ("space group", "60/20/20"), ("bulk modulus", "repeated"),
        ("bulk modulus", "bench_log_k, fold 0"),
    }  # fmt: skip


def test_main_puts_published_and_ours_side_by_side(finished: Project) -> None:
    row = rows(finished, "main")[0]
    found = {r.name: r for r in results.load(finished, STUDY)}
    assert row["target"] == "log_k"
    assert (row["published_train"], row["published_mesh"]) == ("4585", "0.072")
    assert (row["mesh_train"], row["cgcnn_train"]) == ("36", "93")
    assert float(row["cgcnn_same"]) == found["log_k-cgcnn-60"].value
    canonical = found["log_k-mesh_release-canonical-60"].value
    assert float(row["canonical_same"]) == float(row["canonical"]) == canonical
    printed = cells(finished, "main")
    assert printed[0][0] == "bulk modulus (MAE, log₁₀(GPa))"
    assert printed[1][2:4] == ["86.9", "46.0"]


def test_runs_have_all_that_a_reader_needs(finished: Project) -> None:
    for row in rows(finished, "runs"):
        low, value, high = (float(row[key]) for key in ("low", "value", "high"))
        assert low <= value <= high
        assert row["parameters"] == "12345"
    printed = cells(finished, "runs")
    assert [row[0] == "" for row in printed] == [False, *[True] * 7, False, True]


def test_equal_compares_the_same_crystals(finished: Project) -> None:
    row = rows(finished, "equal")[0]
    assert float(row["difference"]) == pytest.approx(float(row["mesh"]) - float(row["cgcnn"]))
    assert float(row["low"]) > 0  # the made-up mesh is three times worse
    said = numbers(finished)
    verdicts = [int(str(said[f"equal.{key}"])) for key in ("cgcnn", "mesh", "open")]
    assert sum(verdicts) == int(str(said["equal.all"])) == 3


def test_kinds_compares_the_two_meshes(finished: Project) -> None:
    (row,) = rows(finished, "kinds")
    assert (row["target"], row["model"], row["n_train"]) == ("log_k", "mesh_release", "36")
    expected = float(row["canonical"]) - float(row["published"])
    assert float(row["difference"]) == pytest.approx(expected)
    # only one crystal of this project has meshes: NaCl, eight cubes of six squares, shared by two
    if row["triangles_canonical"]:
        assert (row["triangles_canonical"], row["triangles_published"]) == ("96.0", "799.0")


def test_models_has_every_model_of_the_shared_crystals(finished: Project) -> None:
    found = {(r["model"], r["representation"]): r for r in rows(finished, "models")}
    assert set(found) == {
        ("cgcnn", "graph.cgcnn"), ("random_forest", "descriptors.structure"),
        ("mesh_release", "mesh.published"), ("mesh_release", "mesh.canonical"), ("constant", ""),
    }  # fmt: skip
    forest = found["random_forest", "descriptors.structure"]
    own = next(r for r in results.load(finished, STUDY) if r.name == "log_k-random_forest-60")
    assert forest["seeds"] == "3"
    assert float(forest["std"]) > 0
    assert float(forest["mean"]) == pytest.approx(float(own.of_members().mean()))
    assert found["cgcnn", "graph.cgcnn"]["std"] == ""
    printed = {row[0]: row[1] for row in cells(finished, "models")}
    assert "±" in printed["random forest"]
    assert "±" not in printed["CGCNN"]


def test_uncertainty_counts_what_the_intervals_hold(finished: Project) -> None:
    for row in rows(finished, "uncertainty"):
        path = finished.results(row["study"]) / "predictions" / row["run"] / f"{row['target']}.csv"
        predicted = files.read_csv(path)
        if "set" in predicted[0]:
            held = [r["target"] in r["set"].split() for r in predicted]
        else:
            held = [float(r["lower"]) <= float(r["target"]) <= float(r["upper"]) for r in predicted]
        assert float(row["coverage"]) == pytest.approx(sum(held) / len(held))
        assert float(row["low"]) <= float(row["coverage"]) <= float(row["high"])


def test_space_groups_count_every_test_crystal(finished: Project) -> None:
    own = [r for r in rows(finished, "space_groups") if r["run"] == "log_k-cgcnn-all"]
    assert sum(int(row["n_test"]) for row in own) == 31
    assert sum(int(row["n_train"]) for row in own) <= 93


def test_settings_checksums_and_software(finished: Project) -> None:
    settings = {row["block"]: row["setting"] for row in rows(finished, "settings")}
    assert settings["representations.graph.cgcnn"] == "neighbours 12, cutoff 8"
    assert "standardise true" in settings["models.cgcnn.training"]
    assert settings["splits.toy.60-20-20"] == "ratio [3, 1, 1], seed 0"
    assert "models.mesh_talk.training" not in settings  # not in this report
    assert [row["name"] for row in rows(finished, "checksums")] == [STUDY, "bench_log_k"]
    assert {row["package"]: row["version"] for row in rows(finished, "software")} == {
        "numpy": "2.4.6",
        "torch": "2.13.0+cpu",
    }


def test_numbers_are_printable(finished: Project) -> None:
    said = numbers(finished)
    assert said["targets"] == ["log_k", "space_group"]
    assert (said["log_k.cgcnn.train"], said["mesh.published.supercell"]) == ("93", "5")
    assert said["tables"] == [
        "main", "equal", "kinds", "entries", "labels", "runs", "models", "uncertainty", "settings",
        "checksums", "software",
    ]  # fmt: skip
    assert all(isinstance(value, str | bool | list) for value in said.values())


def test_a_second_run_gives_the_same_bytes(finished: Project) -> None:
    folder = finished.results(STUDY) / "tables"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    tables.build(finished, STUDY)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


PRETRAINED = REPEATED | {"start": f"{STUDY}/log_k-cgcnn-all"}


def test_transfer_is_tested_repeat_by_repeat(make: Maker) -> None:
    project = make(
        runs={
            "log_k-cgcnn-all": run("log_k", "cgcnn", "all"),
            "anew": run("log_k", "cgcnn", 50, **REPEATED),
            "pretrained": run("log_k", "cgcnn", 50, **PRETRAINED),
        },
        benchmark=False,
        like="transfer",
    )
    tables.build(project, STUDY)
    (row,) = rows(project, "transfer")
    assert (row["pretrained"], row["size"], row["repeats"]) == ("log_k-cgcnn-all", "50", "3")
    found = {r.name: r for r in results.load(project, STUDY)}
    ours, plain = found["pretrained"], found["anew"]
    assert float(row["p"]) == pytest.approx(
        scipy.stats.ttest_rel(ours.of_folds(), plain.of_folds()).pvalue
    )
    assert float(row["p_corrected"]) > float(row["p"])
    assert float(row["difference"]) == pytest.approx(
        float(row["transfer"]) - float(row["plain"]), abs=1e-12
    )
    assert results.paired_test(plain, plain) == results.PairedTest(3, 0.0, 1.0, 1.0)
    repeated = {(r["model"], r["pretrained"]): r for r in rows(project, "repeated")}
    assert set(repeated) == {("cgcnn", ""), ("cgcnn", "log_k-cgcnn-all")}
    own = repeated["cgcnn", "log_k-cgcnn-all"]
    assert float(own["mean"]) == pytest.approx(ours.of_folds().mean())
    assert float(own["std"]) == pytest.approx(ours.of_folds().std(ddof=1))
    assert [line[0] for line in cells(project, "repeated")] == ["CGCNN", "TL-CGCNN"]


def test_the_delaunay_network_beside_cgcnn_and_its_ablations(make: Maker) -> None:
    project = make(
        runs={
            "log_k-cgcnn-60": run("log_k", "cgcnn", 60),
            "log_k-cgcnn-restart-60": run("log_k", "cgcnn", 60, start=f"{STUDY}/log_k-cgcnn-60"),
            "log_g-cgcnn-60": run("log_g", "cgcnn", 60),
            # from another target: not the same training gone on
            "log_g-cgcnn-pretrained-60": run("log_g", "cgcnn", 60, start=f"{STUDY}/log_k-cgcnn-60"),
            "delaunay-60": run("log_k,log_g", "delaunay", 60),
            "ablation_narrow-60": run("log_k", "ablation_narrow", 60, members=3),
            "ablation_cells-80": run("log_k", "ablation_cells", 80, members=3),
        },
        benchmark=False,
        like="moduli",
    )
    tables.build(project, STUDY)
    found = {(r.name, r.target): r for r in results.load(project, STUDY)}
    beside = {row["target"]: row for row in rows(project, "delaunay")}
    own, graph = found["delaunay-60", "log_k"], found["log_k-cgcnn-restart-60", "log_k"]
    once = len(results.history(project, own.run)[0])
    row = beside["log_k"]  # CGCNN's longest training, a warm restart too
    assert float(row["cgcnn"]) == graph.value
    assert (row["epochs"], row["epochs_cgcnn"]) == (str(once), str(2 * once))
    assert float(beside["log_g"]["cgcnn"]) == found["log_g-cgcnn-60", "log_g"].value
    assert float(row["ratio"]) == pytest.approx(own.value / graph.value)
    assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    assert cells(project, "delaunay")[0][-3:] == ["AdamW, AdamW", f"{once}", f"{once} + {once}"]
    base, narrow = rows(project, "ablations")  # the one on 80 crystals has nothing beside it
    assert (base["model"], base["variant_of"], base["change"]) == ("delaunay", "", "")
    assert (narrow["model"], narrow["variant_of"]) == ("ablation_narrow", "delaunay")
    means = [
        float(found[name, "log_k"].of_members().mean())
        for name in ("delaunay-60", "ablation_narrow-60")
    ]
    assert float(narrow["change"]) == pytest.approx(100 * (means[1] / means[0] - 1))
    assert [row["train_crystals_per_s"] for row in (base, narrow)] == ["100.0"] * 2
    # variants are in no other comparison, but among all runs
    assert {row["model"] for row in rows(project, "models")} == {"cgcnn", "delaunay", "constant"}
    assert len(rows(project, "runs")) == 8


def test_wrong_space_groups_are_explained(make: Maker) -> None:
    """All crystals are rock salt, whatever their made-up label: of the others it is told why."""
    project = make(
        runs={"all": run("space_group", "automorphisms", "all")}, benchmark=False, like="symmetry"
    )
    tables.build(project, STUDY)
    (own,) = results.load(project, STUDY)
    found = rows(project, "wrong")
    assert len(found) == int((own.losses == 0).sum()) > 0
    order = {"225": 48, "221": 48, "62": 8, "2": 2, "139": 16}
    for row in found:
        assert row["operations"] == "48"
        assert int(row["expected"]) == order[row["space_group"]]
        few = row["space_group"] in {"225", "221"}
        assert row["reason"] == ("few training crystals" if few else "approximate symmetry")
    said = numbers(project)
    assert said["symmetry.wrong"] == str(len(found))
    assert sum(int(str(said[f"symmetry.{key}"])) for key in ("about", "few")) == len(found)


FOLDS = {"split": "bench_log_k", "fold": "all"}
DISTILLATION = {"run": f"{STUDY}/teachers", "max_atoms": 8, "batch_size": 5, "weight": 1.0}
TAUGHT = FOLDS | {"refit": True, "members": 2, "training": {"batch_size": 10}}
JOINED = {"title": "two kinds", "runs": {"teachers": 2, "pupils": 2}}


def test_official_folds(make: Maker) -> None:
    project = make(
        runs={
            "graph": run("log_k", "cgcnn", "all", **FOLDS),
            "teachers": run("log_k", "delaunay", "all", refit=True, members=3, **FOLDS),
            "pupils": run(
                "log_k", "delaunay_elastic_distilled", "all", distillation=DISTILLATION, **TAUGHT
            ),
        },
        report={"ensembles": [JOINED]},
        like="moduli",
    )
    tables.build(project, STUDY)
    found = {r.name: r for r in results.load(project, STUDY)}
    printed = {row[0]: row[1:] for row in cells(project, "benchmark")}
    assert printed["close"] == [NONE, NONE, "0.2500", "0.0000", "0.2500"]
    assert "dummy (mean)" in printed  # by its name in published.yaml
    own = {r["algorithm"]: r for r in rows(project, "benchmark")}
    graph = own["this work: CGCNN"]
    parts = files.read_json(project.split(STUDY, "bench_log_k"))["log_k"]
    assert int(graph["n_all"]) == sum(len(part["test"]) for part in parts.values())
    assert float(graph["mae_all"]) == found["graph"].value
    assert float(graph["mae_fold_0"]) == found["graph"].of_folds()[0]
    epochs = len(results.history(project, found["graph"].run)[0])
    minutes = len(found["graph"].train) * epochs / 100 / 60  # at the toy's 100 crystals a second
    assert float(graph["cpu_minutes"]) == pytest.approx(minutes)

    delaunay, distilled = (
        results.title(project, found[name]) for name in ("teachers", "pupils")
    )  # fmt: skip
    single, together = own[f"this work: {delaunay}"], own[f"this work, ensemble of 3: {delaunay}"]
    assert float(together["mae_all"]) == found["teachers"].value
    assert float(single["mae_all"]) == pytest.approx(found["teachers"].of_members().mean())
    assert float(single["mae_fold_0"]) == found["teachers"].of_members_by_fold()[0]
    assert int(single["n_train"]) == len(parts["0"]["train"]) + len(parts["0"]["val"])  # refit
    assert float(together["cpu_minutes"]) == pytest.approx(3 * float(single["cpu_minutes"]))
    one, both = own[f"this work: {distilled}"], own[f"this work, ensemble of 2: {distilled}"]
    seen = int(one["n_train"]) + 5 * math.ceil(int(one["n_train"]) / 10)
    teachers, minutes = float(together["cpu_minutes"]), seen * epochs / 6000
    assert float(one["cpu_minutes"]) == pytest.approx(teachers + minutes)
    assert float(both["cpu_minutes"]) == pytest.approx(teachers + 2 * minutes)

    joined = own["this work, ensemble of 4: two kinds"]
    members = [found[name].members[:2] for name in ("teachers", "pupils")]
    mean = sum(part.sum(axis=0) for part in members) / 4
    expected = abs(mean - found["teachers"].true).mean()
    assert float(joined["mae_all"]) == pytest.approx(expected)
    said = numbers(project)
    assert said["log_k.benchmark.theirs.title"] == "close"
    assert said["log_k.benchmark.ours.title"] in {"CGCNN", delaunay, distilled}  # one network
    assert said["log_k.benchmark.ensemble"] == f"{float(joined['mae_all']):.4f}"


def test_only_runs_on_the_same_folds_are_one_ensemble(finished: Project) -> None:
    found = {r.name: r for r in results.load(finished, STUDY)}
    bench, other = found["log_k-cgcnn-bench"], found["log_k-cgcnn-repeated-50"]
    whole = results.joined([bench, replace(bench, prediction=bench.prediction + 0.5)], [1, 1])
    assert len(whole.members) == 2
    assert whole.prediction == pytest.approx(bench.prediction + 0.25)
    with pytest.raises(CrystalmeshError, match="tested on other crystals or folds"):
        results.joined([bench, other], [1, 1])


def test_a_study_without_tables_of_its_own(make: Maker) -> None:
    project = make(runs={"gone": run("e_form", "cgcnn", "all")}, benchmark=False, like=None)
    tables.build(project, STUDY)
    said = numbers(project)
    assert (said["targets"], said["shared"]) == (["e_form"], False)
    assert not (project.results(STUDY) / "tables" / "equal.csv").exists()
    with pytest.raises(CrystalmeshError, match="no study 'tooy'"):
        tables.build(project, "tooy")


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("studies/toy/published.yaml", "study: [", "published.yaml: not valid YAML"),
        ("studies/toy/tables.py", "TABLES = 1", "no list TABLES of functions"),
        ("env/requirements.lock", None, "requirements.lock: missing"),
        ("env/torch.txt", None, "torch.txt: missing"),
    ],
)
def test_a_broken_source_is_one_line(
    make: Maker, path: str, content: str | None, message: str
) -> None:
    project = make(runs={"gone": run("e_form", "cgcnn", "all")}, benchmark=False)
    source = project.root / path
    source.unlink()
    if content is not None:
        source.write_text(content)
    with pytest.raises(CrystalmeshError, match=message) as error:
        tables.build(project, STUDY)
    assert "\n" not in str(error.value)
    assert not (project.results(STUDY) / "tables").exists()


def test_a_study_without_a_report_has_no_tables(make: Maker) -> None:
    project = make(runs={"gone": run("e_form", "cgcnn", "all")}, benchmark=False, like=None)
    study = project.params.study(STUDY).model_copy(update={"report": None})
    params = project.params.model_copy(update={"studies": {STUDY: study}})
    with pytest.raises(CrystalmeshError, match="no `report`; add one"):
        tables.build(Project(project.root, params), STUDY)


def test_p_values_are_printed_for_people() -> None:
    assert [p_value(p) for p in (0.25, 0.0013, 0.00042, 0.0)] == [
        "0.250", "0.001", "4 × 10⁻⁴", "0",
    ]  # fmt: skip


def test_groups_of_columns(tmp_path: Path) -> None:
    columns = (Column("a", left=True), Column("b", "g"), Column("c", "g"))
    table = Table("t", ("a",), columns, "A title", "A note.")
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
    assert (content["title"], content["note"]) == ("A title", "A note.")
    assert (tmp_path / "t.csv").read_text() == 'a\n1.5\n""\n'
