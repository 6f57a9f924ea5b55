"""The result site: every table and run is there, numbers agree, bytes do not change."""

import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalmesh import files
from crystalmesh.config import plan
from crystalmesh.config.project import Project, load
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import pages, results, site
from tests.report.conftest import STUDY, finished_site

VOID = {"meta", "link", "input", "br", "img"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with its site."""
    return finished_site(tmp_path_factory.mktemp("site") / "project")


@pytest.fixture
def copy(project: Project, tmp_path: Path) -> Project:
    """Another copy, to spoil."""
    shutil.copytree(project.root, tmp_path / "copy")
    return load(tmp_path / "copy")


def folder(project: Project) -> Path:
    found: Path = project.results(STUDY) / "site"
    return found


def data(project: Project, name: str) -> Any:
    """What a script of data/ hands over."""
    text = (folder(project) / "data" / f"{name}.js").read_text()
    match = re.fullmatch(r'crystalmesh\.data\("([^"]+)",(.*)\);\n', text, flags=re.DOTALL)
    assert match is not None
    assert match[1] == name
    return json.loads(match[2])


def unpack(text: str) -> list[int]:
    numbers, value, shift = [], 0, 0
    for character in text:
        digit = site.BASE64.index(character)
        value |= (digit & 31) << shift
        shift += 5
        if digit < 32:
            numbers.append(-(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    return numbers


class Page(html.parser.HTMLParser):
    """Checks that elements are closed in order, and gathers links, ids and texts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.cells: list[str] = []
        self.feed(path.read_text())
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs)
        self.links += [value for key in ("href", "src") if (value := given.get(key))]
        self.ids += [value] if (value := given.get("id")) else []
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


@pytest.mark.parametrize(
    "numbers", [[], [0], [-1, 1, 15, 16, -16, 31, 32, 12345, -(10**9), 10**12]]
)
def test_packed_numbers_come_back(numbers: list[int]) -> None:
    assert unpack(site.pack(numbers)) == numbers


def test_pages_are_whole_and_their_links_lead_somewhere(project: Project) -> None:
    found = {path.stem: Page(path) for path in folder(project).glob("*.html")}
    assert sorted(found) == sorted(pages.PAGES)
    ids = {name: page.ids for name, page in found.items()}
    for name, page in found.items():
        assert {f"{other}.html" for other in pages.PAGES} <= set(page.links)
        assert {"../paper.pdf", "../ledger.json"} <= set(page.links)
        for link in page.links:
            if link == "data:,":
                continue
            assert not re.match(r"[a-z]+:|//", link), "nothing comes from elsewhere"
            path, _, anchor = link.partition("#")
            assert (folder(project) / path).exists(), link
            if anchor:
                assert anchor in ids[Path(path).stem or name]


def test_every_table_is_there_cell_by_cell(project: Project) -> None:
    tables = Page(folder(project) / "tables.html")
    names = [p.stem for p in (project.results(STUDY) / "tables").glob("*.csv")]
    texts = set(tables.cells)
    for name in names:
        assert f"../tables/{name}.csv" in tables.links or not table(project, name)
        for row in table(project, name):
            assert set(row) <= texts | {""}


def table(project: Project, name: str) -> list[list[str]]:
    path = project.results(STUDY) / "tables" / f"{name}.json"
    rows: list[list[str]] = files.read_json(path)["rows"] if path.exists() else []
    return rows


def test_a_cell_that_repeats_the_one_above_is_there_for_sorting() -> None:
    made = pages.table(
        {
            "columns": [{"title": "target", "left": True}, {"title": "n", "left": False}],
            "groups": [],
            "rows": [["a & b", "1"], ["", "2"], ["c", "3"]],
        }
    )
    assert made.count("a &amp; b") == 2
    assert '<td class="left again">a &amp; b</td>' in made


def test_predictions_are_those_of_the_report(project: Project) -> None:
    summary = data(project, "summary")
    found = results.load(project, STUDY)
    assert [e["key"] for e in summary["entries"]] == [site.key(r) for r in found]
    for entry, result in zip(summary["entries"], found, strict=True):
        own = data(project, f"runs/{entry['key']}")
        metrics = files.read_json(project.metrics(result.run))["targets"][result.target]
        tested = data(project, f"sets/{entry['set']}")
        names = data(project, f"crystals-{entry['dataset']}")
        step = summary["targets"][entry["target"]]["step"]
        ids = [names["prefix"] + str(n) for n in np.cumsum(unpack(names["numbers"]))]
        assert [ids[i] for i in np.cumsum(unpack(tested["crystals"]))] == list(result.test)
        assert [f for f, n in tested["folds"] for _ in range(n)] == list(result.fold)
        true, errors = np.array(unpack(tested["true"])), np.array(unpack(own["errors"]))
        np.testing.assert_allclose(true * step, result.true, atol=step / 2)
        np.testing.assert_allclose((true + errors) * step, result.prediction, atol=step / 2)
        wrong = np.abs(errors) * step
        value = 100 * (errors == 0).mean() if step == 1 else wrong.mean()
        assert value == pytest.approx(metrics["value"], abs=step)
        assert own["metrics"].items() >= metrics.items()
        assert float(entry["shown"]) == pytest.approx(metrics["value"], abs=0.05 * step**0.25)
        card = files.read_json(project.card(result.run))
        assert summary["numerics"][own["numerics"]] == card["numerics"]
        assert own["card"]["rest"]["train_seconds"] == card["train_seconds"]


def test_runs_share_their_test_crystals(project: Project) -> None:
    names = [e["set"] for e in data(project, "summary")["entries"]]
    assert len(set(names)) < len(names)
    assert {p.stem for p in (folder(project) / "data" / "sets").iterdir()} == set(names)


def test_groups_are_those_of_the_table(project: Project) -> None:
    rows = files.read_csv(project.results(STUDY) / "tables" / "space_groups.csv")
    for run, target in {(row["run"], row["target"]) for row in rows}:
        numbers = unpack(data(project, f"runs/{run}.{target}")["groups"])
        own = [row for row in rows if (row["run"], row["target"]) == (run, target)]
        assert numbers[::4] == [int(row["space_group"]) for row in own]
        assert numbers[2::4] == [int(row["n_test"]) for row in own]
        values = np.array(numbers[3::4]) * site.STEP
        np.testing.assert_allclose(values, [float(row["value"]) for row in own], atol=site.STEP)


def test_histories_are_those_of_the_report(project: Project) -> None:
    for run in project.params.study(STUDY).runs.values():
        rows = files.read_csv(project.history(run))
        (network,) = data(project, f"runs/{run.name}.{run.target}")["history"]
        values = [float(row["val_metric"]) for row in rows]
        np.testing.assert_allclose(network["val"], values, rtol=1e-3)


def test_crystals_of_the_viewer(project: Project) -> None:
    listed = data(project, "summary")["crystals"]
    assert [one["id"] for one in listed] == ["x-7", "x-3"]
    for one in listed:
        content = data(project, f"viewer/{one['id']}")
        assert [m["title"] for m in content["meshes"]] == ["published mesh", "canonical mesh"]
        assert all(sum(m["share"]) == pytest.approx(100, abs=0.5) for m in content["meshes"])
        assert [row["predicts"] for row in content["predictions"]] == ["bulk modulus"] * 2


def test_bytes_do_not_change(project: Project) -> None:
    def content() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in folder(project).rglob("*") if p.is_file()}

    before = content()
    site.build(project, STUDY)
    assert content() == before


def test_it_is_small(project: Project) -> None:
    sizes = {p.name: p.stat().st_size for p in folder(project).rglob("*") if p.is_file()}
    assert sum(sizes.values()) - sizes["plotly.min.js"] < 400_000


def test_ids_that_are_no_numbers_stand_as_they_are() -> None:
    assert site._ids(["mp-2", "mp-10"]) == {"prefix": "mp-", "numbers": site.pack([2, 8])}
    assert site._ids(["mp-2", "mvc-10"]) == {"ids": "mp-2 mvc-10"}
    assert site._ids(["mp-02"]) == {"ids": "mp-02"}
    assert site._ids(["emt-B1-CuNi"]) == {"ids": "emt-B1-CuNi"}


def changed(project: Project, old: str, new: str) -> Project:
    """The project with other words in its study.yaml."""
    path = project.root / "studies" / STUDY / "study.yaml"
    path.write_text(re.sub(old, new, path.read_text(), flags=re.DOTALL))
    plan.write(project.root)
    return load(project.root)


def test_without_crystals_there_is_no_viewer(copy: Project) -> None:
    bare = changed(copy, r"  site:.*", "")
    assert bare.params.study(STUDY).report is not None
    site.build(bare, STUDY)
    assert not (folder(copy) / "data" / "viewer").exists()
    assert "names no crystals" in (folder(copy) / "viewer.html").read_text()


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("tables/models.json", None, "models.json: missing"),
        ("tables/numbers.json", None, "numbers.json: missing"),
        ("tables/space_groups.csv", "run\na\n", "space_groups.csv: damaged"),
        ("history/log_k-cgcnn-all.csv", "epoch\n1\n", "log_k-cgcnn-all.csv: damaged"),
        ("history/log_k-cgcnn-all.csv", None, "log_k-cgcnn-all.csv: missing"),
        ("cards/log_k-cgcnn-all.json", None, "log_k-cgcnn-all.json: missing"),
        ("metrics/log_k-cgcnn-all.json", "{}", "log_k-cgcnn-all.json: has no"),
        ("checkpoints/log_k-mesh_release-60.safetensors", None, "release-60"),
    ],
)
def test_what_is_missing_or_damaged_is_said(
    copy: Project, path: str, content: str | None, said: str
) -> None:
    before = (folder(copy) / "index.html").read_bytes()
    file = copy.results(STUDY) / path
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(CrystalmeshError, match=re.escape(said)):
        site.build(copy, STUDY)
    assert (folder(copy) / "index.html").read_bytes() == before


def test_an_unknown_study_and_an_unknown_crystal(copy: Project) -> None:
    with pytest.raises(CrystalmeshError, match="no study 'toi'; did you mean 'toy'"):
        site.build(copy, "toi")
    with pytest.raises(CrystalmeshError, match="no crystal 'x-999'"):
        site.build(changed(copy, "- x-3", "- x-999"), STUDY)
