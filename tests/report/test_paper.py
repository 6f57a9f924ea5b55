"""The document: equal bytes, for every kind of report, and no number of its own."""

import re
import shutil
from typing import Any

import pytest
import yaml

from crystalmesh import files
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import figures, paper, tables
from tests.report.conftest import ROOT, Maker

# All that may hold a digit in layout.typ. In main.typ, where the prose stands, nothing may.
LAYOUT = re.compile(
    r"(?<![\w.])\d+(\.\d+)?(pt|mm|cm|em|fr|%)(?!\w)"  # a length or a share
    r'|paper: "a\d"'  # the size of the paper
    r'|numbering: "1(\.1)*"'  # how headings are counted
    r"|level: \d\b"  # which headings a rule is for
)
CONTENT = re.compile(r"\[[^\[\]]*\]")  # text that is printed as it stands


def numbers_in(name: str, source: str) -> list[str]:
    """The lines of a Typst source that hold a number which it should not."""
    guilty = [match for match in CONTENT.findall(source) if re.search(r"\d", match)]
    rest = LAYOUT.sub("", source) if name == "layout.typ" else source
    return guilty + [line for line in rest.splitlines() if re.search(r"\d", line)]


@pytest.mark.parametrize("path", sorted((ROOT / "paper").glob("*.typ")), ids=lambda p: p.name)
def test_the_source_holds_no_number(path: Any) -> None:
    assert numbers_in(path.name, path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("main.typ", "CGCNN reaches an MAE of 0.056."),
        ("main.typ", "an accuracy of 86.9%"),
        ("main.typ", '#let best = "0.056"'),
        ("main.typ", "#v(2cm)"),
        ("layout.typ", "#let best = 0.056"),
        ("layout.typ", "#let best = 42"),
        ("layout.typ", "#text(size: 9pt)[an accuracy of 86.9%]"),
        ("layout.typ", '#let dataset = "mp_all_20181018"'),
    ],
)
def test_a_planted_number_is_found(name: str, planted: str) -> None:
    source = (ROOT / "paper" / name).read_text()
    assert numbers_in(name, f"{source}\n{planted}\n")


def test_layout_may_have_lengths() -> None:
    assert numbers_in("layout.typ", "#set page(margin: (x: 22mm)); #v(0.5em); luma(60%)") == []


def test_references_and_published_values_agree() -> None:
    references = yaml.safe_load((ROOT / "paper" / "refs.yml").read_text())
    published = tables.read_published(ROOT / "paper" / "published.yaml")
    cited = {published["study"]["cite"]} | {entry["cite"] for entry in published["dft"].values()}
    assert cited <= set(references)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert set(published["study"]["tasks"]) | set(published["dft"]) <= set(params["tasks"])


def test_the_published_values_are_those_of_the_study() -> None:
    study = tables.read_published(ROOT / "paper" / "published.yaml")["study"]["tasks"]
    assert {task: tuple(v.values()) for task, v in study.items()} == {
        "space_group": (50393, 86.9, 46.0),
        "e_form": (50393, 0.066, 0.054),
        "log_k": (4585, 0.072, 0.075),
        "log_g": (4459, 0.128, 0.132),
    }


def test_equal_bytes_whatever_the_cards_say(finished: Project) -> None:
    path = finished.results("toy") / "paper.pdf"
    before = path.read_bytes()
    assert before.startswith(b"%PDF")
    cards = finished.results("toy") / "cards"
    shutil.move(cards, cards.with_name("aside"))
    paper.build(finished, "toy")
    shutil.move(cards.with_name("aside"), cards)
    assert path.read_bytes() == before


def test_the_bytes_follow_the_numbers(finished: Project) -> None:
    path = finished.results("toy") / "paper.pdf"
    numbers = finished.results("toy") / "tables" / "numbers.json"
    before, content = path.read_bytes(), files.read_json(numbers)
    files.write_json(numbers, content | {"toy.accepted": "161"})
    paper.build(finished, "toy")
    assert path.read_bytes() != before
    files.write_json(numbers, content)
    paper.build(finished, "toy")
    assert path.read_bytes() == before


@pytest.mark.parametrize("model", ["cgcnn", "mesh_talk"])
def test_a_report_of_one_experiment(make: Maker, model: str) -> None:
    project = make(experiments={"a": ("log_k", model, 60)}, benchmark=False)
    tables.build(project, "toy")
    figures.build(project, "toy")
    paper.build(project, "toy")
    assert (project.results("toy") / "paper.pdf").stat().st_size > 10_000


def test_without_tables_one_line_and_no_pdf(make: Maker) -> None:
    project = make(experiments={"a": ("log_k", "cgcnn", 60)}, benchmark=False)
    with pytest.raises(CrystalmeshError, match="make tables and figures first") as error:
        paper.build(project, "toy")
    assert "\n" not in str(error.value)
    assert not (project.results("toy") / "paper.pdf").exists()


def test_a_warning_of_typst_stops_the_stage(make: Maker) -> None:
    project = make(experiments={"a": ("log_k", "cgcnn", 60)}, benchmark=False)
    source = project.root / "paper" / "main.typ"
    source.write_text('#set text(font: "No Such Font")\nText')
    with pytest.raises(CrystalmeshError, match="no such font"):
        paper.build(project, "toy")
