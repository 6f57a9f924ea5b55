"""Reading predictions as arrays, intervals, constant guesses and space-group counts."""

from pathlib import Path

import numpy as np
import pytest

from crystalmesh.config.project import Project
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import bootstrap, results
from crystalmesh.report.results import Result
from crystalmesh.report.tables import beside
from tests.report.conftest import STUDY, Maker, run


@pytest.fixture(scope="module")
def found(finished: Project) -> list[Result]:
    return results.load(finished, STUDY)


@pytest.fixture(scope="module")
def crystals(finished: Project) -> Crystals:
    return Crystals.load(finished.crystals(STUDY))


def named(found: list[Result], name: str) -> Result:
    return next(r for r in found if r.name == name)


def test_load_orders_by_target_model_and_size(found: list[Result]) -> None:
    assert [r.name for r in found] == [
        "log_k-cgcnn-all", "log_k-cgcnn-bench", "log_k-cgcnn-pretrained-50",
        "log_k-cgcnn-repeated-50", "log_k-cgcnn-60", "log_k-mesh_release-60",
        "log_k-mesh_release-canonical-60", "log_k-random_forest-60",
        "space_group-cgcnn-80", "space_group-mesh_release-80",
    ]  # fmt: skip


def test_value_is_the_mean_of_the_losses(found: list[Result]) -> None:
    regression, classes = named(found, "log_k-cgcnn-all"), named(found, "space_group-cgcnn-80")
    assert regression.value == np.abs(regression.prediction - regression.true).mean()
    assert classes.value == 100 * (classes.prediction == classes.true).mean()
    assert set(classes.losses) <= {0.0, 100.0}


def test_missing_predictions_name_the_stage(finished: Project, tmp_path: Path) -> None:
    elsewhere = Project(tmp_path, finished.params)
    with pytest.raises(CrystalmeshError, match="missing; run the stage"):
        results.load(elsewhere, STUDY)


@pytest.mark.parametrize("text", ["id,formula\nx-9,NaCl\n", "id,target,prediction\nx-9,1.0,\n"])
def test_damaged_predictions_are_one_line(make: Maker, text: str) -> None:
    project = make(runs={"a": run("e_form", "cgcnn", "all")}, benchmark=False)
    project.predictions(project.params.run(f"{STUDY}/a"), "e_form").write_text(text)
    with pytest.raises(CrystalmeshError, match=r"e_form\.csv: damaged"):
        results.load(project, STUDY)


def test_interval_is_fixed_and_about_two_standard_errors() -> None:
    losses = np.random.default_rng(3).normal(1, 0.5, 400)
    low, high = bootstrap.interval(losses)
    assert (low, high) == bootstrap.interval(losses)
    assert low < losses.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)


@pytest.mark.parametrize("n", [1, 3, 1000])
def test_interval_of_any_number_of_crystals(n: int) -> None:
    assert bootstrap.interval(np.ones(n)) == (1.0, 1.0)


def test_the_block_of_resamples_does_not_change_the_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = np.random.default_rng(4).random(50)
    expected = bootstrap.interval(losses)
    for block in (1, 777, 10**7):  # less than one resample, some, all at once
        monkeypatch.setattr(bootstrap, "BLOCK", block)
        assert bootstrap.interval(losses) == expected


def test_the_partner_of_a_result(found: list[Result]) -> None:
    mesh, graph = (named(found, f"log_k-{m}-60") for m in ("mesh_release", "cgcnn"))

    def cgcnn(result: Result) -> bool:
        return result.architecture == "cgcnn"

    assert beside.partner(found, mesh, cgcnn) is graph
    assert beside.partner([mesh], mesh, cgcnn) is None
    # another network on the same crystals, which comes first, is not meant
    other = Result(**vars(graph) | {"architecture": "deepsets"})
    assert beside.partner([other, *found], mesh, cgcnn) is graph
    # of two that are, the one that was trained by the same optimizer
    model = graph.run.model_copy(update={"model": "cgcnn_muon"})
    by_muon = Result(**vars(graph) | {"run": model, "optimizer": "muon"})
    ours = Result(**vars(mesh) | {"optimizer": "muon"})
    assert beside.partner([*found, by_muon], ours, cgcnn) is by_muon
    assert beside.partner([*found, by_muon], mesh, cgcnn) is graph


def test_a_verdict_needs_an_interval_without_zero(found: list[Result]) -> None:
    mesh, graph = (named(found, f"log_k-{m}-60") for m in ("mesh_release", "cgcnn"))
    assert beside.Pair(mesh, graph).verdict == "other"  # the made-up mesh is three times worse
    assert beside.Pair(graph, mesh).verdict == "one"
    assert beside.Pair(graph, graph).verdict == "open"
    classes = [named(found, f"space_group-{m}-80") for m in ("cgcnn", "mesh_release")]
    pair = beside.Pair(*classes)
    assert pair.ratio == pytest.approx((100 - classes[0].value) / (100 - classes[1].value))
    assert pair.verdict in {"one", "open"}  # a higher accuracy is better


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
            "true": cgcnn.true[order[1:]],
            "prediction": cgcnn.prediction[order[1:]],
        }
    )
    difference = results.paired(mesh, turned)
    lacking = cgcnn.test[order[0]]
    kept = np.array([i != lacking for i in mesh.test])
    np.testing.assert_array_equal(difference, (mesh.losses - cgcnn.losses)[kept])


def test_targets_are_transformed(finished: Project, crystals: Crystals) -> None:
    values = results.targets(finished.params.targets["log_k"], crystals)
    assert len(values) == len(crystals) - 5
    assert values["x-9"] == np.log10(crystals.labels["k_vrh"][9])


def test_constant_guess(found: list[Result], crystals: Crystals) -> None:
    regression, classes = named(found, "log_k-cgcnn-all"), named(found, "space_group-cgcnn-80")
    values = results.targets(regression.quantity, crystals)
    median = np.median([values[i] for i in regression.train])
    assert results.constant(regression, crystals) == np.abs(regression.true - median).mean()
    assert results.constant(classes, crystals) == 100 * (classes.true == 225).mean()


def test_frequency_counts_the_training_crystals(found: list[Result], crystals: Crystals) -> None:
    result = named(found, "log_k-cgcnn-all")
    groups = dict(zip(crystals.ids, crystals.labels["space_group"], strict=True))
    table = results.frequency(result, crystals)
    for i, (group, seen) in zip(result.test, table.tolist(), strict=True):
        assert group == groups[i]
        assert seen == sum(groups[j] == group for j in result.train)


def test_benchmarks_are_those_that_runs_are_on(finished: Project) -> None:
    assert finished.params.benchmarks_of(STUDY) == ["bench_log_k"]


def test_crystals_of_a_second_target_are_its_own(make: Maker) -> None:
    project = make(runs={"both": run("e_form,log_k", "cgcnn", 60)}, benchmark=False, like=None)
    energy, modulus = results.load(project, STUDY)
    assert results.sizes(project, energy) == (36, 12)
    assert results.sizes(project, modulus) == (len(modulus.train), 12)
    assert results.title(project, energy) == "CGCNN"


def test_the_interval_of_a_wide_target_draws_whole_crystals() -> None:
    """Numbers of one crystal that are all alike tell no more than one number would."""
    losses = np.random.default_rng(0).random(50)
    low, high = bootstrap.interval(losses)
    crystals = [f"mp-{i:02}" for i in range(50)]
    assert bootstrap.interval(losses, crystals) == pytest.approx((low, high), rel=1e-12)
    nine = np.repeat(losses, 9), [one for one in crystals for _ in range(9)]
    assert bootstrap.interval(*nine) == pytest.approx((low, high), rel=1e-12)
    narrower = bootstrap.interval(nine[0])
    assert narrower[1] - narrower[0] < 0.5 * (high - low)
