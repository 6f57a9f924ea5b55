"""Tables as CSV and JSON, and the numbers of the prose."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import scipy.stats
import yaml

from crystalmesh import config, files
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import published, results, tables
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
    by_task = {row["task"]: row for row in rows(finished, "labels") if row["split"] == "60/20/20"}
    own = by_task["log_k"]
    assert (own["labelled"], own["rejected"], own["missing"]) == ("155", "1", "4")
    assert (own["train"], own["val"], own["test"]) == ("93", "31", "31")
    assert set(by_task) == {"e_form", "log_k", "log_g", "space_group"}  # not those without labels


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
    assert [row[0] == "" for row in printed] == [False, *[True] * 7, False, True]


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
    assert [row[0] for row in printed] == ["CGCNN (this work)", "close", "dummy (mean)"]
    assert printed[1][1:] == [tables.NONE, tables.NONE, "0.2500", "0.0000", "0.2500"]
    own = [r for r in rows(finished, "matbench") if r["algorithm"].startswith("this work")]
    assert len(own) == 1
    parts = files.read_json(finished.split("toy", "bench_log_k"))["log_k"]
    assert int(own[0]["n_all"]) == sum(len(part["test"]) for part in parts.values())
    metrics = results.load(finished, "toy")
    bench = next(r for r in metrics if r.name == "log_k-cgcnn-bench")
    assert float(own[0]["mae_all"]) == bench.value
    assert float(own[0]["mae_fold_0"]) == bench.of_folds()[0]
    epochs = len(results.history(finished, "toy", bench.name)[0])
    minutes = len(bench.train) * epochs / 100 / 60  # at the toy's 100 crystals a second
    assert float(own[0]["cpu_minutes"]) == pytest.approx(minutes)
    numbers = files.read_json(finished.results("toy") / "tables" / "numbers.json")
    assert numbers["log_k.matbench.ours"] == printed[0][3] == f"{bench.value:.4f}"
    assert numbers["log_k.matbench.ours.title"] == "CGCNN"
    assert numbers["log_k.matbench.theirs"] == "0.2500"
    assert numbers["log_k.matbench.theirs.title"] == "close"


def test_models_has_every_model_of_the_shared_crystals(finished: Project) -> None:
    found = {(r["model"], r["representation"]): r for r in rows(finished, "models")}
    assert set(found) == {
        ("cgcnn", "graph.cgcnn"), ("forest", "descriptors.structure"),
        ("mesh_release", "mesh.published"), ("mesh_release", "mesh.canonical"), ("constant", ""),
    }  # fmt: skip
    forest = found["forest", "descriptors.structure"]
    assert forest["seeds"] == "3"
    assert float(forest["std"]) > 0
    members = [
        sum(abs(float(r[f"member_{k}"]) - float(r["target"])) for r in predicted) / len(predicted)
        for predicted in [files.read_csv(finished.predictions("toy", "log_k-forest-60"))]
        for k in range(3)
    ]
    assert float(forest["mean"]) == pytest.approx(sum(members) / 3)
    assert found["cgcnn", "graph.cgcnn"]["std"] == ""
    printed = {row[0]: row[1] for row in cells(finished, "models")}
    assert "±" in printed["random forest, composition and structure"]
    assert "±" not in printed["CGCNN"]


def test_uncertainty_counts_what_the_intervals_hold(finished: Project) -> None:
    for row in rows(finished, "uncertainty"):
        predicted = files.read_csv(finished.predictions("toy", row["experiment"]))
        if "set" in predicted[0]:
            held = [r["target"] in r["set"].split() for r in predicted]
        else:
            held = [float(r["lower"]) <= float(r["target"]) <= float(r["upper"]) for r in predicted]
        assert float(row["coverage"]) == pytest.approx(sum(held) / len(held))
        assert float(row["low"]) <= float(row["coverage"]) <= float(row["high"])


def test_transfer_is_tested_repeat_by_repeat(finished: Project) -> None:
    (row,) = rows(finished, "transfer")
    assert (row["pretrained"], row["size"], row["repeats"]) == ("log_k-cgcnn-all", "50", "3")
    found = {r.name: r for r in results.load(finished, "toy")}
    ours, plain = found["log_k-cgcnn-transfer-50"], found["log_k-cgcnn-repeated-50"]
    expected = scipy.stats.ttest_rel(ours.of_folds(), plain.of_folds())
    assert float(row["p"]) == pytest.approx(expected.pvalue)
    assert float(row["p_corrected"]) > float(row["p"])
    assert float(row["difference"]) == pytest.approx(
        float(row["transfer"]) - float(row["plain"]), abs=1e-12
    )


def test_equal_results_leave_nothing_to_test(finished: Project) -> None:
    plain = next(r for r in results.load(finished, "toy") if r.name == "log_k-cgcnn-repeated-50")
    assert results.paired_test(plain, plain) == results.PairedTest(3, 0.0, 1.0, 1.0)


def test_repeated_has_every_method_with_its_spread(finished: Project) -> None:
    table = {(row["model"], row["pretrained"]): row for row in rows(finished, "repeated")}
    assert set(table) == {("cgcnn", ""), ("cgcnn", "log_k-cgcnn-all")}
    found = {r.name: r for r in results.load(finished, "toy")}
    ours, row = found["log_k-cgcnn-transfer-50"].of_folds(), table["cgcnn", "log_k-cgcnn-all"]
    assert float(row["mean"]) == pytest.approx(ours.mean())
    assert float(row["std"]) == pytest.approx(ours.std(ddof=1))
    assert [line[0] for line in cells(finished, "repeated")] == ["CGCNN", "TL-CGCNN"]


def test_p_values_are_printed_for_people() -> None:
    assert [tables._p(p) for p in (0.25, 0.0013, 0.00042, 0.0)] == [
        "0.250", "0.001", "4 × 10⁻⁴", "0",
    ]  # fmt: skip


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


ONE = {"representation": "complex.orbits"}
ON_COMPLEX = ONE | {"members": 3}
READ = {"representation": "automorphisms.complex"}


def test_the_complex_beside_cgcnn_and_its_ablations(make: Maker) -> None:
    project = make(
        experiments={
            "log_k-cgcnn-60": ("log_k", "cgcnn", 60),
            "log_k-complex-60": ("log_k", "complex", 60, ONE),
            "log_k-complex_narrow-60": ("log_k", "complex_narrow", 60, ON_COMPLEX),
            "log_k-complex_cells-80": ("log_k", "complex_cells", 80, ON_COMPLEX),
            "log_k-complex-transfer-60": (
                "log_k", "complex", 60,
                ONE | {"pretrained": {"group": "toy", "name": "log_k-complex-60"}},
            ),
        },
        benchmark=False,
    )  # fmt: skip
    tables.build(project, "toy")
    metrics = {r.name: r for r in results.load(project, "toy")}
    own, graph = metrics["log_k-complex-60"], metrics["log_k-cgcnn-60"]
    row, again = rows(project, "complex")
    once = len(results.history(project, "toy", own.name)[0])
    assert [r["epochs"] for r in (row, again)] == [str(once), str(2 * once)]
    assert row["epochs_cgcnn"] == str(once)
    printed = cells(project, "complex")
    assert printed[1][1] == f"{printed[0][1]}, warm restart"
    assert printed[1][-2:] == [f"{once} + {once}", str(once)]
    assert [row["optimizer"], row["optimizer_cgcnn"]] == [own.optimizer, graph.optimizer]
    assert printed[0][-3] == "AdamW, AdamW"
    assert float(row["ratio"]) == pytest.approx(own.value / graph.value)
    assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    base, narrow = rows(project, "ablations")  # the one on 80 crystals has nothing beside it
    assert (base["model"], base["variant_of"], base["change"]) == ("complex", "", "")
    assert (narrow["model"], narrow["variant_of"]) == ("complex_narrow", "complex")
    means = [
        float(metrics[f"log_k-{m}-60"].of_members().mean()) for m in ("complex", "complex_narrow")
    ]
    assert float(narrow["change"]) == pytest.approx(100 * (means[1] / means[0] - 1))
    assert [row["train_crystals_per_s"] for row in (base, narrow)] == ["100.0"] * 2
    # variants are in no other comparison, but among all experiments
    assert {row["model"] for row in rows(project, "models")} == {"cgcnn", "complex", "constant"}
    assert len(rows(project, "experiments")) == 5


def test_the_complex_is_beside_the_longest_training_of_cgcnn(make: Maker) -> None:
    source = {"pretrained": {"group": "toy", "name": "log_k-cgcnn-60"}}
    project = make(
        experiments={
            "log_k-cgcnn-60": ("log_k", "cgcnn", 60),
            "log_k-cgcnn-transfer-60": ("log_k", "cgcnn", 60, source),
            "log_g-cgcnn-60": ("log_g", "cgcnn", 60),
            # from another task: not the same training gone on
            "log_g-cgcnn-transfer-60": ("log_g", "cgcnn", 60, source),
            "log_k-complex-60": ("log_k", "complex", 60, ONE),
            "log_g-complex-60": ("log_g", "complex", 60, ONE),
        },
        benchmark=False,
    )  # fmt: skip
    tables.build(project, "toy")
    metrics = {r.name: r for r in results.load(project, "toy")}
    once = len(results.history(project, "toy", "log_k-cgcnn-60")[0])
    found = {row["task"]: row for row in rows(project, "complex")}
    assert float(found["log_k"]["cgcnn"]) == metrics["log_k-cgcnn-transfer-60"].value
    assert found["log_k"]["epochs_cgcnn"] == str(2 * once)
    assert float(found["log_g"]["cgcnn"]) == metrics["log_g-cgcnn-60"].value
    main = {row["task"]: row for row in rows(project, "main")}
    assert float(main["log_k"]["cgcnn"]) == metrics["log_k-cgcnn-transfer-60"].value
    assert float(main["log_g"]["cgcnn"]) == metrics["log_g-cgcnn-60"].value


def test_a_network_read_at_another_output_costs_what_it_cost_once(make: Maker) -> None:
    source = {"group": "toy", "name": "log_k-complex-60"}
    read = ONE | {"beside": ["log_k"], "pretrained": source, "as_is": True}
    project = make(
        experiments={
            "log_k-complex-60": ("log_k", "complex", 60, ONE | {"beside": ["log_g"]}),
            "log_g-complex-60": ("log_g", "complex", 60, read),
        },
        benchmark=False,
    )
    speeds = results.Speeds.load(project, "toy")
    names = ("log_k-complex-60", "log_g-complex-60")
    first, again = (speeds.hours(project, "toy", name) for name in names)
    assert first == again > 0
    first_epochs, again_epochs = (results.trainings(project, "toy", name) for name in names)
    assert first_epochs == again_epochs


def test_wrong_space_groups_are_explained(make: Maker) -> None:
    """All crystals are rock salt, whatever their made-up label: of the others it is told why."""
    project = make(
        experiments={
            "space_group-automorphisms-all": ("space_group", "automorphisms", "all", READ)
        },
        benchmark=False,
    )
    tables.build(project, "toy")
    (own,) = results.load(project, "toy")
    found = rows(project, "symmetry")
    assert len(found) == int((own.losses == 0).sum()) > 0
    order = {"225": 48, "221": 48, "62": 8, "2": 2, "139": 16}
    for row in found:
        assert row["operations"] == "48"
        assert int(row["expected"]) == order[row["space_group"]]
        few = row["space_group"] in {"225", "221"}
        assert row["reason"] == ("few training crystals" if few else "symmetric only about")
    numbers = files.read_json(project.results("toy") / "tables" / "numbers.json")
    assert numbers["symmetry.wrong"] == str(len(found))
    assert int(numbers["symmetry.about"]) + int(numbers["symmetry.few"]) == len(found)


def test_an_ensemble_over_folds_has_a_line_for_one_network_and_one_for_all(make: Maker) -> None:
    project = make(
        experiments={
            "log_k-complex-bench": (
                "log_k", "complex", "all",
                ON_COMPLEX | {"split": "bench_log_k", "fold": "all", "refit": True},
            ),
            "log_k-complex_taught-bench": (
                "log_k", "complex_taught", "all",
                ONE | {
                    "split": "bench_log_k", "fold": "all", "refit": True,
                    "pretrained": {"group": "toy", "name": "log_k-complex-bench"},
                    "taught": {"atoms": 8, "batch_size": 5, "weight": 1.0},
                    "training": {"batch_size": 10}, "members": 2,
                },
            ),
        },
    )  # fmt: skip
    published.evaluate(project, "toy", "bench_log_k")
    tables.build(project, "toy")
    own = results.load(project, "toy")[0]
    single, together, taught, both = (
        row for row in rows(project, "matbench") if row["algorithm"].startswith("this work")
    )
    assert together["algorithm"].startswith("this work, ensemble of 3")
    assert float(together["mae_all"]) == own.value
    assert float(single["mae_all"]) == pytest.approx(float(own.of_members().mean()))
    assert float(single["mae_fold_0"]) == own.of_members_by_fold()[0] != own.of_folds()[0]
    parts = files.read_json(project.split("toy", "bench_log_k"))["log_k"]["0"]
    assert int(single["n_train"]) == len(parts["train"]) + len(parts["val"])
    shown = files.read_json(project.results("toy") / "tables" / "uncertainty.json")["rows"]
    assert shown[0][2] == single["n_train"]
    epochs = len(results.history(project, "toy", own.name)[0])
    assert float(single["cpu_minutes"]) == pytest.approx(int(single["n_train"]) * epochs / 6000)
    assert float(together["cpu_minutes"]) == pytest.approx(3 * float(single["cpu_minutes"]))
    learned = int(taught["n_train"]) + 5 * math.ceil(int(taught["n_train"]) / 10)
    teachers, minutes = float(together["cpu_minutes"]), learned * epochs / 6000
    assert float(taught["cpu_minutes"]) == pytest.approx(teachers + minutes)
    # two that are taught by the same networks pay for these once
    assert float(both["cpu_minutes"]) == pytest.approx(teachers + 2 * minutes)

    params = yaml.safe_load((project.root / "params.yaml").read_text())
    names = {"log_k-complex-bench": 2, "log_k-complex_taught-bench": 2}
    block = {"title": "two kinds", "experiments": {"log_k": names}}
    params["reports"]["toy"]["together"] = [block]
    (project.root / "params.yaml").write_text(json.dumps(params))
    project = config.load(project.root)
    tables.build(project, "toy")
    (row,) = (r for r in rows(project, "matbench") if r["algorithm"].endswith(": two kinds"))
    assert row["algorithm"] == "this work, ensemble of 4: two kinds"
    predicted = [files.read_csv(project.predictions("toy", name)) for name in names]
    errors = []
    for pair in zip(*predicted, strict=True):
        said = [float(one[f"member_{k}"]) for one in pair for k in range(2)]
        errors.append(abs(sum(said) / 4 - float(pair[0]["target"])))
    assert float(row["mae_all"]) == pytest.approx(sum(errors) / len(errors))
    first = [e for e, one in zip(errors, predicted[0], strict=True) if one["fold"] == "0"]
    assert float(row["mae_fold_0"]) == pytest.approx(sum(first) / len(first))
    shown = [line for line in cells(project, "matbench") if line[0].startswith("two kinds")]
    assert [line[3] for line in shown] == [f"{float(row['mae_all']):.4f}"]
    numbers = files.read_json(project.results("toy") / "tables" / "numbers.json")
    assert "two kinds" not in numbers["log_k.matbench.ours.title"]  # which is a single network's


def test_only_experiments_on_the_same_folds_are_one_ensemble(finished: Project) -> None:
    found = {r.name: r for r in results.load(finished, "toy")}
    bench, other = found["log_k-cgcnn-bench"], found["log_k-cgcnn-repeated-50"]
    whole = results.joined([bench, replace(bench, prediction=bench.prediction + 0.5)], [1, 1])
    assert len(whole.members) == 2
    assert whole.prediction == pytest.approx(bench.prediction + 0.25)
    with pytest.raises(CrystalmeshError, match="tested on other crystals or folds"):
        results.joined([bench, other], [1, 1])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"log_k-cgcnn-bnch": 1}, "no experiment .*'log_k-cgcnn-bnch'"),
        ({"log_k-cgcnn-all": 1}, "log_k-cgcnn-all is not of this task over all"),
        ({"log_k-cgcnn-bench": 9, "log_k-cgcnn-all": 1}, "bench: 9 networks, and the experiment"),
    ],
)
def test_unknown_members_of_an_ensemble_are_refused(
    make: Maker, names: dict[str, int], message: str
) -> None:
    project = make()
    params = yaml.safe_load((project.root / "params.yaml").read_text())
    block = {"title": "two", "experiments": {"log_k": {"log_k-cgcnn-bench": 1} | names}}
    params["reports"]["toy"]["together"] = [block]
    (project.root / "params.yaml").write_text(json.dumps(params))
    with pytest.raises(CrystalmeshError, match=message):
        config.load(project.root)


def test_ensembles_that_the_table_cannot_show_are_refused(make: Maker) -> None:
    project = make()
    params = yaml.safe_load((project.root / "params.yaml").read_text())
    own = {"log_k-cgcnn-bench": 1, "log_k-cgcnn-all": 1}
    params["models"]["cgcnn"]["variant_of"] = "schnet"
    for experiments, message in (
        ({"log_k": own}, "the model of log_k-cgcnn-bench is a variant"),
        ({"log_k": own, "log_g": own | {"log_g-cgcnn-all": 1}}, "not as many networks for each"),
    ):
        params["reports"]["toy"]["together"] = [{"title": "two", "experiments": experiments}]
        (project.root / "params.yaml").write_text(json.dumps(params))
        with pytest.raises(CrystalmeshError, match=message):
            config.load(project.root)


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
        ("env/torch.txt", None, "torch.txt: missing"),
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
