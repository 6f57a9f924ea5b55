"""Reading predictions as arrays, intervals, constant guesses and space-group counts."""

from pathlib import Path

import numpy as np
import pytest

from crystalmesh.config import Project
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import results
from crystalmesh.report.results import Result
from tests.report.conftest import Maker


@pytest.fixture(scope="module")
def found(finished: Project) -> list[Result]:
    return results.load(finished, "toy")


@pytest.fixture(scope="module")
def crystals(finished: Project) -> Crystals:
    return Crystals.load(finished.crystals("toy"))


def named(found: list[Result], name: str) -> Result:
    return next(r for r in found if r.name == name)


def test_load_orders_by_task_model_and_size(found: list[Result]) -> None:
    assert [r.name for r in found] == [
        "log_k-cgcnn-all", "log_k-cgcnn-bench", "log_k-cgcnn-repeated-50",
        "log_k-cgcnn-transfer-50", "log_k-cgcnn-60", "log_k-forest-60", "log_k-mesh_release-60",
        "log_k-mesh_release-canonical-60",
        "space_group-cgcnn-80", "space_group-mesh_release-80",
    ]  # fmt: skip


def test_value_is_the_mean_of_the_losses(found: list[Result]) -> None:
    regression, classes = named(found, "log_k-cgcnn-all"), named(found, "space_group-cgcnn-80")
    assert regression.value == np.abs(regression.prediction - regression.target).mean()
    assert classes.value == 100 * (classes.prediction == classes.target).mean()
    assert set(classes.losses) <= {0.0, 100.0}


def test_missing_predictions_name_the_stage(finished: Project, tmp_path: Path) -> None:
    elsewhere = Project(tmp_path, finished.params, finished.tree)
    with pytest.raises(CrystalmeshError, match="missing; run the stage"):
        results.load(elsewhere, "toy")


@pytest.mark.parametrize("text", ["id,formula\nx-9,NaCl\n", "id,target,prediction\nx-9,1.0,\n"])
def test_damaged_predictions_are_one_line(make: Maker, text: str) -> None:
    project = make(experiments={"a": ("e_form", "cgcnn", "all")}, benchmark=False)
    project.predictions("toy", "a").write_text(text)
    with pytest.raises(CrystalmeshError, match=r"a\.csv: damaged"):
        results.load(project, "toy")


def test_interval_is_fixed_and_about_two_standard_errors() -> None:
    losses = np.random.default_rng(3).normal(1, 0.5, 400)
    low, high = results.interval(losses)
    assert (low, high) == results.interval(losses)
    assert low < losses.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)


@pytest.mark.parametrize("n", [1, 3, 1000])
def test_interval_of_any_number_of_crystals(n: int) -> None:
    assert results.interval(np.ones(n)) == (1.0, 1.0)


def test_the_block_of_resamples_does_not_change_the_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = np.random.default_rng(4).random(50)
    expected = results.interval(losses)
    for block in (1, 777, 10**7):  # less than one resample, some, all at once
        monkeypatch.setattr(results, "BLOCK", block)
        assert results.interval(losses) == expected


def test_largest_and_its_equal(found: list[Result]) -> None:
    mesh = results.largest(found, "log_k", results.PUBLISHED)
    assert mesh is named(found, "log_k-mesh_release-60")
    assert results.largest(found, "log_k", results.GRAPH) is named(found, "log_k-cgcnn-all")
    assert results.largest(found, "e_form", results.PUBLISHED) is None
    assert results.equal(found, mesh, results.GRAPH) is named(found, "log_k-cgcnn-60")
    canonical = named(found, "log_k-mesh_release-canonical-60")
    assert results.equal(found, mesh, results.CANONICAL) is canonical
    assert results.equal([mesh], mesh, results.GRAPH) is None
    # another network that reads the graph, and comes first, is not meant
    graph = named(found, "log_k-cgcnn-60")
    other = Result(**vars(graph) | {"name": "other", "architecture": "deepsets"})
    assert results.equal([other, *found], mesh, results.GRAPH) is graph
    assert results.largest([other, graph], "log_k", results.GRAPH) is graph
    # of two that are, the one that was trained by the same optimizer
    model = graph.experiment.model_copy(update={"model": "cgcnn_muon"})
    by_muon = Result(**vars(graph) | {"name": "twin", "experiment": model, "optimizer": "muon"})
    ours = Result(**vars(mesh) | {"optimizer": "muon"})
    assert results.equal([*found, by_muon], ours, results.GRAPH) is by_muon
    assert results.equal([*found, by_muon], mesh, results.GRAPH) is graph


def test_a_method_is_a_model_on_a_representation(finished: Project, found: list[Result]) -> None:
    published, canonical = (
        named(found, f"log_k-mesh_release{kind}-60") for kind in ("", "-canonical")
    )
    assert published.method != canonical.method
    assert results.title(finished, canonical) == results.title(finished, published) + ", canonical"


def test_paired_matches_by_crystal(found: list[Result]) -> None:
    mesh, cgcnn = (named(found, f"log_k-{m}-60") for m in ("mesh_release", "cgcnn"))
    order = np.argsort(cgcnn.test)
    turned = Result(
        **vars(cgcnn)
        | {
            "test": [cgcnn.test[i] for i in order[1:]],
            "target": cgcnn.target[order[1:]],
            "prediction": cgcnn.prediction[order[1:]],
        }
    )
    difference = results.paired(mesh, turned)
    lacking = cgcnn.test[order[0]]
    kept = np.array([i != lacking for i in mesh.test])
    np.testing.assert_array_equal(difference, (mesh.losses - cgcnn.losses)[kept])


def test_targets_are_transformed(finished: Project, crystals: Crystals) -> None:
    values = results.targets(finished.params.tasks["log_k"], crystals)
    assert len(values) == len(crystals) - 5
    assert values["x-9"] == np.log10(crystals.labels["k_vrh"][9])


def test_constant_guess(found: list[Result], crystals: Crystals) -> None:
    regression, classes = named(found, "log_k-cgcnn-all"), named(found, "space_group-cgcnn-80")
    values = results.targets(regression.task, crystals)
    median = np.median([values[i] for i in regression.train])
    assert results.constant(regression, values) == np.abs(regression.target - median).mean()
    groups = results.targets(classes.task, crystals)
    assert results.constant(classes, groups) == 100 * (classes.target == 225).mean()


def test_frequency_counts_the_training_crystals(found: list[Result], crystals: Crystals) -> None:
    result = named(found, "log_k-cgcnn-all")
    groups = dict(zip(crystals.ids, crystals.labels["space_group"], strict=True))
    table = results.frequency(result, crystals)
    for i, (group, seen) in zip(result.test, table.tolist(), strict=True):
        assert group == groups[i]
        assert seen == sum(groups[j] == group for j in result.train)


def test_benchmarks_are_those_of_the_dataset(finished: Project) -> None:
    assert results.benchmarks(finished, "toy") == ["bench_log_k"]
