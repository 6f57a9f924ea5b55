"""What the settings may say, and how a mistake in them is told: one line, with the nearest name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crystalmesh.config import plan
from crystalmesh.config.project import find, load, settings
from crystalmesh.config.read import yaml
from crystalmesh.errors import CrystalmeshError
from tests.conftest import Tree, run_of, write_project, write_settings

ROOT = Path(__file__).parents[2]
FILES = [*(ROOT / "config").rglob("*.yaml"), *(ROOT / "studies").glob("*/study.yaml")]
LONGEST, ALL = 6_000, 42_000  # bytes: a person reads a file at a glance, and all in an hour


def put(*keys: str) -> Callable[[Tree, Any], None]:
    """What puts a value at this place of a tree."""

    def change(tree: Tree, value: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return change


TRAINING = ("models", "cgcnn", "training")
RUN = ("studies", "demo", "runs", "log_k-cgcnn")
WHERE = "studies/demo/study.yaml: "


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((*TRAINING, "milestonez"), [1], "config/models/cgcnn.yaml: training.milestonez: unknown"
         " setting; did you mean 'milestones'?"),
        ((*TRAINING, "lr"), 0, "config/models/cgcnn.yaml: training.lr: Input should be greater"),
        (("models", "cgcnn", "variant_of"), "cgnn", "no model (models.cgcnn.variant_of) 'cgnn';"),
        (("validation", "min_distance"), -1, "config/all.yaml: validation.min_distance: Input"),
        (("splits", "tiny", "60-20-20", "ratio"), [3, 1], "splits.tiny.60-20-20.ratio"),
        (("splits", "tyny"), {}, "no dataset (splits) 'tyny'; did you mean 'tiny'?"),
        (("features", "tiny", "mesh.publish"), {}, "no variant 'publish'; did you mean 'published"),
        (("datasets", "tiny", "sha"), "abc", "config/all.yaml: datasets.tiny.sha: unknown setting; "
         "did you mean 'sha256'?"),
        ((*RUN, "training"), {"ls": 0.02}, WHERE + "log_k-cgcnn.training: ls: unknown setting;"),
        ((*RUN, "training"), {"lr": "fast"}, "log_k-cgcnn.training: lr: Input should be a valid n"),
        ((*RUN, "target"), "log_q", f"no target ({WHERE}log_k-cgcnn) 'log_q'; did you mean 'log"),
        ((*RUN, "split"), "50-50", "log_k-cgcnn.split: tiny has no split '50-50'"),
        ((*RUN, "model"), "cgnn", WHERE + "runs.0.model: no model 'cgnn'; did you mean 'cgcnn'?"),
        ((*RUN, "representation"), "graph.radius", "no variant 'radius'"),
        ((*RUN, "sede"), 3, WHERE + "runs.0: sede: unknown setting; did you mean 'seed'?"),
        ((*RUN, "start"), "demo/none", "no run of study demo 'none'"),
        ((*RUN, "start"), "other/none", "no study 'other'"),
        (("studies", "demo", "numerics"), "fast", WHERE + "numerics: Input should be"),
        (("studies", "demo", "report", "mesh_pict"), "mp-1", "did you mean 'mesh_picture'?"),
        (("studies", "demo", "report", "also"), ["mash/*"], "report.also: no run is 'mash/*'"),
        (("studies", "demo", "report", "embeddings"), ["x"], "report.embeddings) 'x'; known:"),
        (("studies", "demo", "serves"), ["demo/x"], "no run of study demo 'x'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_where(
    tmp_path: Path, tree: Tree, place: tuple[str, ...], value: Any, message: str
) -> None:
    put(*place)(tree, value)
    with pytest.raises(CrystalmeshError) as caught:
        write_project(tmp_path, tree)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)
    assert not list(tmp_path.rglob("plan.json"))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["log_k", "log_k"], "targets: one of them stands there twice"),
        (["log_k", "space_group"], "targets: classes stand alone; give them a run"),
        ([], "targets"),
    ],
)
def test_targets_that_cannot_be_together(
    tmp_path: Path, tree: Tree, targets: list[str], message: str
) -> None:
    run = tree["studies"]["demo"]["runs"]["log_k-cgcnn"]
    del run["target"]
    run["targets"] = targets
    with pytest.raises(CrystalmeshError, match=message):
        write_project(tmp_path, tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [\n", "config/all.yaml: not valid YAML"),
        ("datasets:\n  a: 1\ndatasets:\n  b: 2\n", 'config/all.yaml: line 3: duplicate key "d'),
        ("validation:\n  symprec: 1\n  symprec: 2\n", "config/all.yaml: line 3: duplicate key"),
    ],
)  # fmt: skip
def test_broken_yaml_and_keys_that_stand_twice(tmp_path: Path, text: str, message: str) -> None:
    """As where a block of the documentation is pasted at the end of a file."""
    (tmp_path / "config").mkdir()
    path = tmp_path / "config" / "all.yaml"
    path.write_text(text)
    with pytest.raises(CrystalmeshError) as caught:
        yaml(path, "config/all.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_block_may_stand_in_two_files_and_its_names_in_one(tmp_path: Path, tree: Tree) -> None:
    write_settings(tmp_path, tree)
    more = tmp_path / "config" / "more.yaml"
    more.write_text("targets:\n  g: {title: g, label: g_vrh, unit: GPa, range: [0, 1]}\n")
    assert set(settings(tmp_path)["targets"]) == {*tree["targets"], "g"}
    more.write_text("targets:\n  log_k: {}\n")
    with pytest.raises(CrystalmeshError, match=r"targets\.log_k stands in another file too"):
        settings(tmp_path)


def test_variants_have_what_they_change_and_the_rest_of_their_model(
    tmp_path: Path, tree: Tree
) -> None:
    tree["models"]["cgcnn"]["variants"] = {
        "wide": {"title": "wide", "network": {"atom": 16}, "training": {"patience": None}}
    }
    models = write_project(tmp_path, tree).params.models
    assert set(models) == {"cgcnn", "wide", "mesh_release"}
    base, wide = models["cgcnn"], models["wide"]
    assert (wide.architecture, wide.title) == ("cgcnn", "wide")
    assert wide.network == base.network | {"atom": 16}
    assert base.training is not None
    assert wide.training == base.training.model_copy(update={"patience": None})


def test_names_that_nothing_has(project: Any) -> None:
    with pytest.raises(CrystalmeshError, match=r"no study 'demmo'; did you mean 'demo'\?"):
        project.params.run("demmo/log_k-cgcnn")
    with pytest.raises(CrystalmeshError, match=r"no run of study demo 'x'; known: log_k-cgcnn, lo"):
        project.params.run("demo/x")


def test_overrides_of_a_run(tmp_path: Path, tree: Tree) -> None:
    put(*RUN, "training")(tree, {"epochs": 7})
    found = write_project(tmp_path, tree)
    training = found.params.training(run_of(found, "log_k-cgcnn"))
    base = found.params.models["cgcnn"].training
    assert base is not None
    assert training == base.model_copy(update={"epochs": 7})


def test_the_project_is_found_from_within(tmp_path: Path, tree: Tree) -> None:
    write_project(tmp_path, tree)
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    assert find(inside).root == tmp_path
    with pytest.raises(CrystalmeshError, match=r"no config/ here or above; run inside"):
        find(Path("/"))


def test_paths_lie_in_the_project_and_are_all_others(tmp_path: Path, tree: Tree) -> None:
    here = write_project(tmp_path, tree)
    run = run_of(here, "log_k-cgcnn")
    paths = [
        here.raw("tiny"), here.crystals("tiny"), here.split("tiny", "s"),
        here.features("tiny", "mesh.published"), here.checkpoint(run), here.history(run),
        here.card(run), here.predictions(run, "log_k"), here.predictions(run, "log_g"),
        here.metrics(run), here.calibration(run, "log_k"), here.benchmark("bench"),
    ]  # fmt: skip
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert here.relative(here.predictions(run, "log_k")) == (
        "results/demo/predictions/log_k-cgcnn/log_k.csv"
    )


def test_our_settings_are_valid_and_their_plans_up_to_date() -> None:
    params = load(ROOT).params
    assert {"demo", "mesh"} <= set(params.studies)
    assert [name for name in plan.write(ROOT, check=True) if name.endswith("plan.json")] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_settings_are_short_and_have_no_anchors(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= LONGEST
    unquoted = [line.partition("#")[0] for line in text.splitlines()]
    assert not [line for line in unquoted if ": &" in line or ": *" in line or "<<:" in line]


def test_all_settings_together_are_short() -> None:
    assert sum(path.stat().st_size for path in FILES) <= ALL
