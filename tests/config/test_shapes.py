"""Settings of any shape: whatever a file holds, one line says where it is wrong and what to do."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from crystalmesh.cli import main
from crystalmesh.config import plan, read, schema, study
from crystalmesh.config.project import load
from crystalmesh.errors import CrystalmeshError
from tests.conftest import Tree, write_project

ROOT = Path(__file__).parents[2]
RULES = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
X, Z, M = "studies/x/study.yaml", "config/z.yaml", "config/models/z.yaml"
HEAD = "title: t\ndataset: tiny\nruns:\n"
RUN = "target: log_k, model: cgcnn, split: 60-20-20"
MODEL = "title: z\nrepresentation: graph.cgcnn\nnetwork: {}\n"
TARGET = "targets:\n  g: {title: g, label: g, unit: GPa, range: [0, 1]}\n"
Write = Callable[[str, str], str]


@pytest.fixture
def refused(tmp_path: Path, tree: Tree) -> Write:
    """What `plan` says of the project with one file more; it writes nothing."""
    write_project(tmp_path, tree)

    def write(place: str, text: str) -> str:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1" if "\xff" in text else "utf-8"))
        before = {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()}
        with pytest.raises(CrystalmeshError) as caught:
            plan.write(tmp_path)
        assert before == {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()}
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return write


BLOCK, LIST = "not a block of settings; write `key: value` in it", "not a list; write `[...]`"
SHAPES = [
    (X, "- a\n", f"{X}: {BLOCK}"),
    (X, "5\n", f"{X}: {BLOCK}"),
    (X, "", f"{X}: title: missing; add it"),
    (X, "title: \xff\n", f"{X}: not valid YAML"),
    (X, "a: 2020-13-45\n", f"{X}: not valid YAML"),
    (X, "title: t\ndataset: tiny\nruns: 5\n", f"{X}: runs: {LIST}"),
    (X, "title: t\ndataset: tiny\nruns: {a: 1}\n", f"{X}: runs: {LIST}"),
    (X, HEAD + "- 5\n", f"{X}: runs.0: {BLOCK}"),
    (X, HEAD + "- {runs: 5}\n", f"{X}: runs.0.runs: {LIST}"),
    (X, HEAD + f"- {{{RUN}, training: 5}}\n", f"{X}: runs.0.training: {BLOCK}"),
    (X, HEAD + f"- {{{RUN}, training: {{lr: 1}}, runs: [{{training: 5}}]}}\n",
     f"{X}: runs.0.runs.0.training: {BLOCK}"),
    (X, HEAD + f"- {{{RUN}, training: 5, runs: [{{training: {{lr: 1}}}}]}}\n",
     f"{X}: runs.0.training: {BLOCK}"),
    (X, f"title: t\ndataset: tiny\nruns: &a\n- {{{RUN}, runs: *a}}\n",
     f"{X}: a block holds itself, or too many others; write it without YAML anchors"),
    (X, HEAD + "- {targets: 5, model: cgcnn, split: s}\n", f"{X}: runs.0.targets: {LIST}"),
    (X, HEAD + f'- {{{RUN}, name: "{{target.a}}"}}\n', "runs.0.name: '{target.a}' cannot be"),
    (X, HEAD + "- {target: log_k, model: cgcnn}\n", f"{X}: runs.0: split: missing; add it"),
    (X, HEAD + "- {target: log_k, split: 60-20-20}\n", f"{X}: runs.0: model: missing; add it"),
    (X, HEAD + f"- {{{RUN}, size: -5}}\n",
     f"{X}: runs.0: size: Input should be greater than 0 or 'all'"),
    (X, HEAD + f"- {{{RUN}, name: \xe4}}\n", f"{X}: runs.0: name: '\xe4' is not of the allowed "
     "characters; use A to Z, a to z, 0 to 9, '_' and '-'"),
    (X, HEAD + f"- {{{RUN}, name: a.b}}\n", "runs.0: name: 'a.b' is not of the allowed characters"),
    (X, HEAD + f"- {{{RUN}, start: a}}\n", "runs.0: start: 'a' is not of the allowed characters; "
     "use study/run"),
    (X, HEAD + f"- {{{RUN}, training: {{lr: .inf}}}}\n",
     f"{X}: runs.0.training.lr: inf is not a finite number; give one"),
    (X, HEAD + f"- {{{RUN}, training: {{lr: inf}}}}\n",  # text, until it is read as a number
     f"{X}: log_k-cgcnn.training: lr: Input should be a valid number"),
    (X, HEAD + f"- {{{RUN}, name: A}}\n- {{{RUN}, name: a}}\n",
     f"{X}: runs.1: run 'a' differs from 'A' in case only; give one a `name`"),
    (X, HEAD + f"- {{{RUN}, name: report}}\n",
     f"{X}: runs.0.name: 'report' is kept for reports; choose another"),
    (X, HEAD + f"- {{{RUN}, start: mesh/a}}\n", f"{X}: log_k-cgcnn.start: no study 'mesh'; known:"),
    (X, HEAD + f"- {{{RUN}, distillation: {{run: mesh/a, max_atoms: 1, batch_size: 1, weight: 1}}}}"
     "\n", f"{X}: log_k-cgcnn.distillation.run: no study 'mesh'; known:"),
    (X, HEAD + f"- {{{RUN}}}\nserves: [mesh/a]\n", f"{X}: serves: no study 'mesh'; known: demo, x"),
    (X, HEAD + "report: {site: {systems: [], networks: [mesh/a, mesh/a]}}\n",
     f"{X}: report.site.networks: no study 'mesh'"),
    (X, HEAD + f"- {{{RUN}, representation: graph.cgcn}}\n",
     f"{X}: log_k-cgcnn.representation: no variant 'cgcn'; did you mean 'cgcnn'?"),
    (X, HEAD + f"- {{{RUN.replace('cgcnn', 'cgcn')}}}\n",
     f"{X}: runs.0.model: no model 'cgcn'; did you mean 'cgcnn'?"),
    (Z, "- a\n", f"{Z}: {BLOCK}"),
    (Z, "5\n", f"{Z}: {BLOCK}"),
    (Z, "targets:\n", f"{Z}: targets: {BLOCK}"),
    (Z, "targets: [a]\n", f"{Z}: targets: {BLOCK}"),
    (Z, "targets: {5: {}}\n", f"{Z}: targets: the key 5 is no text; put it in quotes"),
    (Z, "targetz: {}\n", f"{Z}: targetz: unknown setting; did you mean 'targets'?"),
    (Z, "models: {}\n", f"{Z}: models: stands in config/models; move it there"),
    (Z, "features: {other: 5}\n", f"{Z}: features.other: {BLOCK}"),
    (Z, "features: {other: {all: 5}}\n", f"{Z}: features.other.all: {LIST}"),
    (Z, "features: {other: {graph.cgcn: {}}}\n", f"{Z}: features.other.graph.cgcn: no variant"),
    (Z, TARGET.replace("[0, 1]", "[.nan, 10]"),
     f"{Z}: targets.g.range.0: nan is not a finite number; give one"),
    (Z, TARGET.replace("1]", "inf]"),
     f"{Z}: targets.g.range.1: inf is not a finite number; give one"),
    (Z, TARGET.replace("unit: GPa, ", ""), f"{Z}: targets.g.unit: missing; add it"),
    (Z, TARGET.replace("GPa", "2020-01-01"),
     f"{Z}: targets.g.unit: neither text nor a number; put it in quotes"),
    (M, "", f"{M}: title: missing; add it"),
    (M, "- a\n", f"{M}: {BLOCK}"),
    (M, "5\n", f"{M}: {BLOCK}"),
    (M, MODEL + "variants: [a]\n", f"{M}: variants: {BLOCK}"),
    (M, MODEL + "variants:\n", f"{M}: variants: {BLOCK}"),
    (M, MODEL + "variants: {zz: }\n", f"{M}: variants.zz: {BLOCK}"),
    (M, MODEL + "variants: {zz: {titel: z}}\n", f"{M}: variants.zz.titel: unknown setting; did"),
    (M, MODEL + "variants: {cgcnn: {title: z}}\n", f"{M}: variants.cgcnn: a model of config/models/"
     "cgcnn.yaml has that name; choose another"),
    (M, MODEL + "variants: {z: {title: z}}\n", f"{M}: variants.z: a model of {M} has that name"),
    (M, MODEL.replace("cgcnn", "cgcn"), f"{M}: representation: no variant 'cgcn'; did you mean"),
    (M, MODEL.replace("graph", "grap"), f"{M}: representation: no representation 'grap'; did you"),
    (M, MODEL.replace("{}", "{a: {b: [.inf]}}"), f"{M}: network.a.b.0: inf is not a finite number"),
    ("studies/train/study.yaml", HEAD, "studies/train: the workflow has a rule or folder of that "
     "name; choose another"),
    ("studies/Data/study.yaml", HEAD, "studies/Data: the workflow has a rule or folder of that"),
    ("studies/Demo/study.yaml", HEAD,
     "studies/demo: differs from studies/Demo in case only; choose another name"),
    ("studies/a.b/study.yaml", HEAD, "studies/a.b: 'a.b' is not of the allowed characters; use A"),
    ("studies/x/chapter.typ", "", "studies/x: no study.yaml; write one, or remove the folder"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "text", "message"), SHAPES)
def test_a_file_of_any_shape_is_told_in_one_line(
    refused: Write, place: str, text: str, message: str
) -> None:
    assert message in refused(place, text)


def test_a_variant_may_not_have_the_name_of_another(refused: Write, tmp_path: Path) -> None:
    variants = "variants: {both: {title: b}}\n"
    (tmp_path / "config/models/y.yaml").write_text(MODEL + variants)
    assert refused(M, MODEL + variants) == (
        f"{M}: variants.both: a model of config/models/y.yaml has that name; choose another"
    )


def test_the_command_says_it_in_one_line(
    refused: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = refused(X, "- a\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["crystalmesh", "plan"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == f"error: {message}\n"


def test_reserved_names_are_those_of_the_workflow() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in RULES)
    rules = set(re.findall(r"^(?:rule|checkpoint) (\w+):", text, re.MULTILINE))
    folders = set(re.findall(r'"(\w+)/', text)) | set(re.findall(r'"results/(\w+)/', text))
    assert {*rules, *folders, plan.NONE.partition("/")[0]} == plan.RESERVED


def test_names_that_runs_may_not_have_are_the_other_keys_of_a_study(
    tmp_path: Path, tree: Tree
) -> None:
    runs = write_project(tmp_path, tree).params.study("demo").runs
    keys = {key.partition(".")[2] for key, _ in plan.digests(tmp_path) if key.startswith("demo.")}
    assert keys - set(runs) == set(study.RESERVED)


def test_what_a_removed_study_leaves_is_no_mistake(tmp_path: Path, tree: Tree) -> None:
    write_project(tmp_path, tree)
    (tmp_path / "studies/.cache").mkdir()
    (tmp_path / "studies/__pycache__").mkdir()
    (tmp_path / "studies/gone/__pycache__").mkdir(parents=True)
    assert plan.write(tmp_path) == []
    (tmp_path / "studies/empty").mkdir()
    with pytest.raises(CrystalmeshError, match=r"studies/empty: no study\.yaml; write one"):
        plan.write(tmp_path)


def test_a_study_that_another_needs_is_missed_by_name(tmp_path: Path, tree: Tree) -> None:
    runs = tree["studies"]["demo"]["runs"]
    after = runs["log_k-cgcnn"] | {"start": "demo/log_k-cgcnn"}
    tree["studies"]["later"] = tree["studies"]["demo"] | {"runs": {"after": after}}
    write_project(tmp_path, tree)
    shutil.rmtree(tmp_path / "studies/demo")
    for read_again in (load, plan.write):
        with pytest.raises(CrystalmeshError) as caught:
            read_again(tmp_path)
        assert str(caught.value) == (
            "studies/later/study.yaml: after.start: no study 'demo'; known: later"
        )


@pytest.mark.parametrize("content", [b"[]", b"5", b"\xff\xfe", b'{"checksum": "3f', b"[" * 100_000])
def test_a_plan_edited_by_hand_is_made_again(tmp_path: Path, tree: Tree, content: bytes) -> None:
    write_project(tmp_path, tree)
    path = tmp_path / "studies/demo/plan.json"
    good = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(CrystalmeshError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith("studies/demo/plan.json: not ")
    assert str(caught.value).endswith("; run `crystalmesh plan`")
    assert "\n" not in str(caught.value)
    assert plan.write(tmp_path) == ["studies/demo/plan.json"]
    assert path.read_bytes() == good


def test_every_pattern_of_the_schema_has_words() -> None:
    types = (schema.Name, schema.Key, schema.Reference, schema.Sha256)
    patterns = {
        part.pattern for one in types for field in get_args(one)[1:] for part in field.metadata
    }
    assert patterns == read.ALLOWED.keys()
    assert schema.KEY in patterns
