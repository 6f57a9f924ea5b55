"""crystalmesh.config: what params.yaml may say, and how a mistake in it is told."""

import time
from pathlib import Path

import pytest
import yaml

from crystalmesh import config
from crystalmesh.errors import CrystalmeshError

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "tests" / "workflow" / "params.yaml").read_text()


def project(folder: Path, text: str = TEXT) -> config.Project:
    (folder / "params.yaml").write_text(text)
    return config.load(folder)


def test_our_params_are_valid_and_full() -> None:
    params = config.load(ROOT).params
    assert set(params.reports) == {"demo", "paper"}
    said = {"canonical", "primitive", "copies", "composition"}  # what is not a model's usual input
    for group in params.experiments:
        for name, experiment in params.group(group).items():
            assert params.experiment(group, name) == experiment
            # the name says what it is: task, model, what is unusual about it, size
            parts = [experiment.task, experiment.model]
            variant = experiment.representation.partition(".")[2]
            parts += [variant] if variant in said else []
            if experiment.transferred and experiment.pretrained:
                parts.append("transfer")
                if experiment.pretrained.name.endswith("-10000"):
                    parts.append("10k")
            elif experiment.split == "repeated":
                parts.append("repeated")
            official = experiment.split in params.benchmarks and experiment.fold == "all"
            parts.append("matbench" if official else str(experiment.size))
            assert name == "-".join(parts)
            assert (experiment.dataset, experiment.representation) in {
                (f.dataset, f.representation) for f in params.features.values()
            }


def test_overrides_of_an_experiment(tmp_path: Path) -> None:
    params = project(tmp_path, TEXT.replace("{lr: 0.02}", "{epochs: 7}")).params
    training = params.training(params.experiment("demo", "log_k-cgcnn-15"))
    base = params.models["cgcnn"].training
    assert base is not None
    assert training.epochs == 7 != base.epochs
    assert training.momentum == base.momentum


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("milestones: [1]", "milestonez: [1]", "models.cgcnn.training.milestonez: unknown setting; "
         "did you mean 'milestones'?"),
        ("{lr: 0.02}", "{ls: 0.02}", "demo.log_k-cgcnn-15.training.ls: unknown setting; did you"),
        ("{lr: 0.02}", "{lr: 0}", "training.lr: Input should be greater than 0"),
        ("{lr: 0.02}", "{lr: fast}", "training.lr: Input should be a valid number"),
        ("min_distance: 0.5", "min_distance: -1", "validation.min_distance: Input should be"),
        ("ratio: [3, 1, 1]", "ratio: [3, 1]", "splits.emt-60-20-20.ratio"),
        ("task: log_k,", "task: log_q,", "no task (experiments.demo.log_k-cgcnn-15) 'log_q'; did"),
        ("split: 60-20-20, size: 15", "split: 50-50, size: 15", "emt has no split '50-50'"),
        ("model: cgcnn,", "model: cgnn,", "did you mean 'cgcnn'?"),
        ("mesh.published, split", "mesh.publish, split", "'publish'; did you mean 'published'?"),
        ("numerics: native", "numerics: fast", "reports.demo.numerics: Input should be"),
        ("reports:\n", "reports: [\n", "not valid YAML"),
        ("kind: emt", "kind: emt\n    sha256: zz", "datasets.emt.sha256: String should match"),
        ("kind: emt", "kind: emt\n    sha: abc", "did you mean 'sha256'?"),
        ("{lr: 0.02}", "{lr: 0.02}, beside: [log_q]", "(experiments.demo.log_k-cgcnn-15.beside)"),
        ("{lr: 0.02}", "{lr: 0.02}, beside: [log_k]", "beside: 'log_k' must be another task"),
        ("{lr: 0.02}", "{lr: 0.02}, refit: true", "log_k-cgcnn-15.refit: needs a network"),
        ("{lr: 0.02}", "{lr: 0.02}, as_is: true", "log_k-cgcnn-15.as_is: needs `pretrained`"),
        ("title: CGCNN", "title: CGCNN\n    variant_of: cgnn", "(models.cgcnn.variant_of) 'cgnn'"),
        ("mesh_picture: emt", "mesh_pict: emt", "did you mean 'mesh_picture'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_where(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    with pytest.raises(CrystalmeshError) as caught:
        project(tmp_path, TEXT.replace(old, new, 1))
    line = str(caught.value)
    assert line.startswith("params.yaml: ")
    assert "\n" not in line
    assert message in line


def test_names_that_nothing_has(tmp_path: Path) -> None:
    params = project(tmp_path).params
    with pytest.raises(CrystalmeshError, match=r"no report 'demmo'; did you mean 'demo'\?"):
        params.experiment("demmo", "log_k-cgcnn-15")
    with pytest.raises(CrystalmeshError, match=r"no experiment 'x'; known: log_k-cgcnn-15, log_k"):
        params.experiment("demo", "x")


def test_the_project_is_found_from_within(tmp_path: Path) -> None:
    project(tmp_path)
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    assert config.find(inside).root == tmp_path
    (tmp_path / "params.yaml").unlink()
    with pytest.raises(CrystalmeshError, match=r"no params.yaml here or above"):
        config.find(inside)
    with pytest.raises(CrystalmeshError, match=r"params.yaml: missing"):
        config.load(tmp_path)


def test_a_settings_file_is_rewritten_only_when_its_value_changes(tmp_path: Path) -> None:
    key = "experiments.demo.log_k-cgcnn-15"
    path = project(tmp_path).stamp(key)
    before = path.stat().st_mtime_ns
    time.sleep(0.01)
    # order and comments are not the value
    tree = yaml.safe_load(TEXT)
    reordered = yaml.safe_dump(tree, sort_keys=True) + "# a comment\n"
    assert project(tmp_path, reordered).stamp(key).stat().st_mtime_ns == before
    changed = project(tmp_path, TEXT.replace("{lr: 0.02}", "{lr: 0.03}"))
    assert changed.stamp(key).stat().st_mtime_ns > before
    with pytest.raises(CrystalmeshError, match=r"no setting 'experiments.demo.none'"):
        changed.stamp("experiments.demo.none")


def test_restamp_covers_every_key_and_forgets_old_ones(tmp_path: Path) -> None:
    here = project(tmp_path)
    here.restamp()
    for key in ("tasks", "models.cgcnn", "reports.demo.numerics", "representations.mesh.published"):
        assert here.setting(key).exists(), key
    times = {path: path.stat().st_mtime_ns for path in here.scratch.rglob("*.json")}
    here.setting("tasks").rename(here.setting("gone"))
    here.restamp()
    assert not here.setting("gone").exists()
    assert here.setting("tasks").exists()
    assert {p for p, t in times.items() if p.stat().st_mtime_ns != t} == {here.setting("tasks")}


def test_paths_lie_in_the_project(tmp_path: Path) -> None:
    here = project(tmp_path)
    paths = [
        here.raw("emt"), here.crystals("emt"), here.split("emt", "s"),
        here.features("emt", "mesh.published"), here.checkpoint("demo", "x"),
        here.history("demo", "x"), here.card("demo", "x"), here.predictions("demo", "x"),
        here.metrics("demo", "x"),
    ]  # fmt: skip
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert here.raw("emt").name == "emt.json.gz"
    assert config.load(ROOT).raw("matbench_log_k").name == "matbench_log_k.csv.gz"


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """As where a block of the documentation is pasted at the end of the file."""
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text + "\ntasks:\n  mine: {}\n")
    lines = [
        n for n, line in enumerate((text + "\ntasks:").splitlines(), 1) if line[:6] == "tasks:"
    ]
    with pytest.raises(
        CrystalmeshError, match=f"'tasks' stands twice.* {lines[0]} and {lines[1]};"
    ):
        config.load(tmp_path)
