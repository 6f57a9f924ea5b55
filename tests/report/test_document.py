"""The documents: equal bytes, for every kind of study, and no number of their own."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from crystalmesh import files
from crystalmesh.config import read
from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import document, tables
from tests.report.conftest import ROOT, STUDY, Maker, draw, run

# All that may hold a digit in layout.typ. In the others, where the text stands, nothing may.
LAYOUT = re.compile(
    r"(?<![\w.])\d+(\.\d+)?(pt|mm|cm|em|fr|%)(?!\w)"  # a length or a share
    r'|paper: "a\d"'  # the size of the paper
    r'|numbering: "1(\.1)*"'  # how headings are counted
    r"|level: \d\b"  # which headings a rule is for
)
CONTENT = re.compile(r"\[[^\[\]]*\]")  # text that is printed as it stands
SOURCES = sorted([*(ROOT / "paper").glob("*.typ"), *(ROOT / "studies").glob("*/chapter.typ")])
STUDIES = sorted(path.parent for path in (ROOT / "studies").glob("*/study.yaml"))


def numbers_in(name: str, source: str) -> list[str]:
    """The lines of a Typst source that hold a number which it should not."""
    guilty = [match for match in CONTENT.findall(source) if re.search(r"\d", match)]
    rest = LAYOUT.sub("", source) if name == "layout.typ" else source
    return guilty + [line for line in rest.splitlines() if re.search(r"\d", line)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_source_holds_no_number(path: Path) -> None:
    assert numbers_in(path.name, path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("methods.typ", "CGCNN reaches an MAE of 0.056."),
        ("main.typ", '#let best = "0.056"'),
        ("main.typ", "#v(2cm)"),
        ("layout.typ", "#let best = 42"),
        ("layout.typ", "#text(size: 9pt)[an accuracy of 86.9%]"),
        ("layout.typ", '#let dataset = "mp_all_20181018"'),
    ],
)
def test_a_planted_number_is_found(name: str, planted: str) -> None:
    source = (ROOT / "paper" / name).read_text()
    assert numbers_in(name, f"{source}\n{planted}\n")


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_a_study_with_a_report_has_a_chapter_that_says_its_limits(study: Path) -> None:
    settings = read.yaml(study / "study.yaml", study.name)
    if settings.get("report") is None:
        pytest.skip("no report")
    text = (study / "chapter.typ").read_text()
    headings = ("= What was asked", "= Methods", "= Results", "= What these numbers do not say")
    if settings["runs"]:
        assert [line for line in text.splitlines() if line in headings] == list(headings)


def test_published_values_name_what_is_there() -> None:
    references = yaml.safe_load((ROOT / "paper" / "refs.yml").read_text())
    targets = yaml.safe_load((ROOT / "config" / "targets.yaml").read_text())["targets"]
    published = yaml.safe_load((ROOT / "studies" / "mesh" / "published.yaml").read_text())
    cited = {published["study"]["cite"]} | {entry["cite"] for entry in published["dft"].values()}
    assert cited <= set(references)
    study = published["study"]["targets"]
    assert set(study) | set(published["dft"]) <= set(targets)
    assert {target: tuple(v.values()) for target, v in study.items()} == {
        "space_group": (50393, 86.9, 46.0),
        "e_form": (50393, 0.066, 0.054),
        "log_k": (4585, 0.072, 0.075),
        "log_g": (4459, 0.128, 0.132),
    }


def test_equal_bytes_whatever_the_cards_say(finished: Project) -> None:
    path = finished.results(STUDY) / "paper.pdf"
    before = path.read_bytes()
    assert before.startswith(b"%PDF")
    cards = finished.results(STUDY) / "cards"
    shutil.move(cards, cards.with_name("aside"))
    document.build(finished, STUDY)
    shutil.move(cards.with_name("aside"), cards)
    assert path.read_bytes() == before


def test_the_bytes_follow_the_numbers_and_the_chapter(finished: Project) -> None:
    path = finished.results(STUDY) / "paper.pdf"
    numbers = finished.results(STUDY) / "tables" / "numbers.json"
    chapter = document.chapter(finished, STUDY)
    before, content, text = path.read_bytes(), files.read_json(numbers), chapter.read_text()
    files.write_json(numbers, content | {f"{STUDY}.accepted": "161"})
    assert document.typeset(finished, STUDY) != before
    files.write_json(numbers, content)
    chapter.write_text(text + "\nOne more sentence.\n")
    assert document.typeset(finished, STUDY) != before
    chapter.write_text(text)
    assert document.typeset(finished, STUDY) == before


@pytest.mark.parametrize(
    ("like", "block"),
    [
        (None, run("log_k", "cgcnn", 60)),
        ("mesh", run("log_k", "mesh_talk", 60)),
        ("moduli", run("log_k", "delaunay", 60)),
        ("symmetry", run("space_group", "automorphisms", 60)),
        ("energies", run("e_form", "delaunay_local", 60)),
        ("transfer", run("log_k", "cgcnn", 60)),
        ("demo", run("log_k", "pointnet", 60)),
        ("paper", run("log_k", "cgcnn", 60)),
    ],
)
def test_a_report_of_one_run(make: Maker, like: str | None, block: dict[str, object]) -> None:
    project = make(runs={"a": block}, benchmark=False, like=like)
    tables.build(project, STUDY)
    draw(project)
    document.build(project, STUDY)
    assert (project.results(STUDY) / "paper.pdf").stat().st_size > 10_000


def test_without_tables_one_line_and_no_pdf(make: Maker) -> None:
    project = make(runs={"a": run("log_k", "cgcnn", 60)}, benchmark=False)
    with pytest.raises(CrystalmeshError, match="make tables and figures first") as error:
        document.build(project, STUDY)
    assert "\n" not in str(error.value)
    assert not (project.results(STUDY) / "paper.pdf").exists()


def test_a_warning_of_typst_stops_the_stage(make: Maker) -> None:
    project = make(runs={"a": run("log_k", "cgcnn", 60)}, benchmark=False)
    source = project.root / "paper" / "main.typ"
    source.write_text('#set text(font: "No Such Font")\nText')
    with pytest.raises(CrystalmeshError, match="no such font"):
        document.build(project, STUDY)
