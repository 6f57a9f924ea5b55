"""The documentation: it builds without a warning, loads nothing from elsewhere, and is true."""

import ast
import contextlib
import csv
import fnmatch
import io
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import typer.main

from crystalmesh.cli import app
from crystalmesh.config import engines
from crystalmesh.config.project import Project, load
from crystalmesh.data.entries import chosen
from crystalmesh.data.sources import mpjson

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HEAVIEST = 150_000  # bytes of a picture
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
LOADS = {("script", "src"), ("img", "src"), ("img", "srcset"), ("iframe", "src"), ("source", "src")}
IN_STYLE = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """What a page has to jump to, points at, and loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors = {""}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.formulas = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.formulas += tag == "math"
        for name, value in attributes:
            value = value or ""
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name == "style":
                self.loaded += in_style(value)
            elif (tag, name) in LOADS or (tag, name) == ("link", "href"):
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)


def in_style(text: str) -> list[str]:
    return [one or other for one, other in IN_STYLE.findall(text)]


class Site(NamedTuple):
    folder: Path
    pages: dict[Path, Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """As `make docs` builds it."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert not re.search("warning|deprecat", ended.stdout, re.IGNORECASE), ended.stdout
    return Site(folder, {path.resolve(): Page(path) for path in folder.rglob("*.html")})


def test_every_link_and_picture_is_there(site: Site) -> None:
    broken = []
    for page in site.pages.values():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or page.path.name == "404.html":  # its links start at the server's root
                continue
            target = (page.path.parent / unquote(parts.path)).resolve()
            target = target if parts.path else page.path.resolve()
            there = target.is_file() and target.is_relative_to(site.folder.resolve())
            if there and parts.fragment and target in site.pages:
                there = unquote(parts.fragment) in site.pages[target].anchors
            if not there:
                broken.append(f"{page.path.name}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Site) -> None:
    loaded = [(page.path, url) for page in site.pages.values() for url in page.loaded]
    for style in site.folder.rglob("*.css"):
        loaded += [(style, url) for url in in_style(style.read_text(encoding="utf-8"))]
    assert loaded
    outside = [(path.name, url) for path, url in loaded if re.match(r"(?!data:)[a-z]+:|//", url)]
    assert outside == []


def test_search_works_without_a_server(site: Site) -> None:
    assert (site.folder / "search" / "search_index.js").is_file()
    start = site.pages[(site.folder / "index.html").resolve()]
    assert "assets/iframe-worker.js" in start.loaded


def test_formulas_are_mathml(site: Site) -> None:
    mesh = site.pages[(site.folder / "mesh.html").resolve()]
    assert mesh.formulas >= 10
    for page in site.pages.values():
        assert not re.search(r'class="arithmatex"|\\\(', page.path.read_text(encoding="utf-8"))


def test_pictures_are_those_of_the_code(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "docs/pictures.py", str(tmp_path)], cwd=ROOT, check=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name for path in (DOCS / "images").glob("*.svg")} == set(made)
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    for name, content in made.items():
        assert content == (DOCS / "images" / name).read_bytes(), f"{name}: python docs/pictures.py"
        assert len(content) < HEAVIEST
        assert f"images/{name}" in text


def test_examples_of_meshes_run() -> None:
    """Those of the start page and of the mesh's page, which need no data."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for page in ("index.md", "mesh.md"):
            text = (DOCS / page).read_text(encoding="utf-8")
            for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
                exec(compile(code, page, "exec"), {})
    assert said.getvalue().startswith("4 24 32 12\n[11.76")


def test_labels_are_those_that_are_read() -> None:
    text = (DOCS / "new-dataset.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \| `([\w ]+)` \|", text, re.MULTILINE)
    assert [label for label, _, _ in rows] == list(mpjson.LABELS)
    document = {key: {"vrh": 1.5} if key.endswith("_modulus") else 1.5 for key in (
        one.partition(".")[0] for _, one, _ in rows
    )}  # fmt: skip
    columns = {column: place + 2 for place, (_, _, column) in enumerate(rows)}
    for read in (
        mpjson._document("", 0, document | {"material_id": "a", "structure": None}),
        mpjson._row(
            "",
            0,
            ["a", None] + [1.5] * len(rows),
            {"mpid": 0, "structure": 1} | columns,
            "mpid",
        ),
    ):
        assert chosen(read, mpjson.LABELS, ()).labels == dict.fromkeys(mpjson.LABELS, 1.5)
    labels = re.search(r"^\| `label` \| (.*) \|$", (DOCS / "new-target.md").read_text(), re.M)
    assert labels is not None
    assert re.findall(r"`(\w+)`", labels[1]) == [*mpjson.LABELS, "space_group"]


# What the pages name -----------------------------------------------------------------------------

# The research log and the changelog also say what things were called before.
OF_TODAY = [ROOT / "README.md", *sorted(set(DOCS.glob("*.md")) - {DOCS / "research-log.md"})]
PAGES = [*OF_TODAY, DOCS / "research-log.md", ROOT / "CHANGELOG.md"]
EXAMPLES = ("alloys", "halides")  # studies that pages on extending the project make
PLACEHOLDER = re.compile(r"[<*…{]|STUDY|RUN\b|my_|STAGE")


@cache
def project() -> Project:
    return load(ROOT)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def codes(page: Path) -> Iterator[str]:
    """Every code in a line, and every line of the shell blocks without its comment."""
    text = text_of(page)
    blocks = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for language, content in blocks:
        if language == "sh":
            joined = content.replace("\\\n", " ")
            yield from (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def outputs(study: str) -> set[str]:
    """What the stages of a study's report make: files and folders below results/<study>."""
    return {name for stage in engines.report(project(), study).values() for name in stage.outputs}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    """Of results, to what is there or to what a stage makes."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        parts = urlsplit(link)
        if parts.scheme or not parts.path:
            continue
        path = (page.parent / parts.path).resolve()
        names = path.relative_to(ROOT).parts
        made = names[0] == "results" and len(names) > 2 and names[2] in outputs(names[1])
        if not path.exists() and not made:
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", OF_TODAY, ids=lambda page: page.name)
def test_every_command_is_one(page: Path) -> None:
    """crystalmesh with its commands and options, make with its targets."""
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    targets = set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    targets |= set(re.findall(r"^([\w ]+): \$\(READY", text_of(ROOT / "Makefile"), re.MULTILINE))
    targets = {name for names in targets for name in names.split()} | {".venv/ready"}
    wrong = []
    for code in codes(page):
        for said in re.findall(r"(?:^|\s|/)crystalmesh ([^|;&]+)", code):
            name, *words = said.split()
            if name.startswith("-") or PLACEHOLDER.search(name):
                continue
            if name not in commands:
                wrong.append(code)
                continue
            options = {option for one in commands[name].params for option in one.opts}
            named = {word.partition("=")[0] for word in words if re.match("--[a-z]", word)}
            wrong += [code] if named - options - {"--help"} else []
        for target in re.findall(r"^make ((?![A-Z]+=)[\w./-]+)", code):
            wrong += [code] if target not in targets else []
    assert wrong == []


@pytest.mark.parametrize("page", OF_TODAY, ids=lambda page: page.name)
def test_every_study_and_run_that_is_named_is_there(page: Path) -> None:
    wrong = []
    for code in codes(page):
        engine = re.match(
            r"(?:\S+/)?snakemake .*?(?:--cores \d+|profiles/slurm|--dry-run)\s+(\w+)$", code
        )
        studies = [engine[1]] if engine else []
        studies += re.findall(r"\b(?:studies|results)/(\w+)/", code)
        studies += re.findall(r"crystalmesh verify (\w+)", code)
        known = {*project().params.studies, *EXAMPLES, "benchmarks", "STUDY"}
        wrong += [code for study in studies if study not in known]
        if (found := re.fullmatch(r"(\w+)/([\w-]+)", code)) and found[
            1
        ] in project().params.studies:
            wrong += [code] if found[2] not in project().params.study(found[1]).runs else []
    assert wrong == []


@pytest.mark.parametrize("page", OF_TODAY, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    """Sources, settings, tests: as a path of the project or below src/crystalmesh."""
    wrong = []
    for code in codes(page):
        for name in re.findall(
            r"(?<![\w/.-])[\w.-]+(?:/[\w.-]+)+\.(?:py|yaml|csv|json|smk)\b", code
        ):
            first = name.split("/")[0]
            if first in ("results", "data", "my_crystals") or any(one in name for one in EXAMPLES):
                continue
            places = (ROOT, ROOT / "src" / "crystalmesh", ROOT / "src", ROOT / "docs")
            if not any((place / name).exists() for place in places) and "deepsets" not in name:
                wrong.append(name)
    assert wrong == []


def test_old_names_are_gone() -> None:
    """But for the changelog, the research log, and one question."""
    for page in OF_TODAY:
        text = re.sub(r"^\*\*Where is `params.yaml`.*", "", text_of(page), flags=re.MULTILINE)
        assert not re.search(
            r"params\.yaml|--task|\bexperiments?\b|\bkriged|(?<!elastic\.)\btruss\b", text
        ), page


# Numbers -----------------------------------------------------------------------------------------


def value(run: str, target: str) -> dict[str, Any]:
    """What results/ has of a run (study/name) and a target."""
    study, name = run.split("/")
    path = ROOT / "results" / study / "metrics" / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    own: dict[str, Any] = found["targets"][target]
    return own | {"n_train": found["n_train"]}


def single(run: str, target: str) -> float:
    """The error of one network: of an ensemble, the mean over its members."""
    metric = value(run, target)
    return statistics.fmean(metric.get("members") or [metric["value"]])


def together(runs: dict[str, int], target: str) -> float:
    """The error of the mean of networks of several runs: of each run the first ones."""
    total: dict[str, list[float]] = {}
    truth: dict[str, float] = {}
    for run, count in runs.items():
        path = ROOT / "results/moduli/predictions" / run / f"{target}.csv"
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                own = [float(row.get(f"member_{k}") or row["prediction"]) for k in range(count)]
                total.setdefault(row["id"], []).extend(own)
                truth[row["id"]] = float(row["target"])
    return float(np.mean([abs(np.mean(own) - truth[one]) for one, own in total.items()]))


def published(algorithm: str, target: str) -> float:
    path = ROOT / "results" / "benchmarks" / f"matbench_{target}.json"
    return float(json.loads(path.read_text(encoding="utf-8"))["algorithms"][algorithm]["mae_all"])


def moduli_of(method: str, target: str) -> float:
    """The error that a row of the tables of Matbench's moduli must have."""
    if method.endswith("published") or ", published" in method:
        names = {"coNGN": "coNGN", "ALIGNN": "alignn"}
        return published(names[method.partition(",")[0]], target)
    study = project().params.study("moduli")
    assert study.report
    if method.startswith("ensemble of five"):
        return together(dict(study.report.ensembles[0].runs), target)
    runs = {
        "CGCNN": f"{target}-cgcnn",
        "Gaussian process": f"{target}-gaussian_process",
        "all descriptors, distilled": "delaunay_described_distilled",
        "elastic features, distilled": "delaunay_elastic_distilled",
        "elastic features, GP stacking": "delaunay_stacked",
        "elastic features": "delaunay_elastic",
        "Delaunay network": "delaunay",
    }
    plain = method.removeprefix("Delaunay network, ")
    run = next(run for start, run in runs.items() if plain.startswith(start))
    if "together" in method:
        return float(value(f"moduli/{run}-matbench", target)["value"])
    return single(f"moduli/{run}-matbench", target)


@pytest.mark.parametrize(("page", "rows"), [("README.md", 8), ("docs/models.md", 13)])
def test_errors_of_the_moduli_are_those_of_the_results(page: str, rows: int) -> None:
    found = re.findall(
        r"^\| \**([^|*]+?)\** \| (0\.\d{4}) \| (0\.\d{4}) \|", text_of(ROOT / page), re.MULTILINE
    )
    assert len(found) == rows
    for method, *printed in found:
        for target, text in zip(("log_k", "log_g"), printed, strict=True):
            assert f"{moduli_of(method, target):.4f}" == text, (method, target)


def test_studies_of_the_readme_are_those_of_the_settings() -> None:
    """Their names, how many runs they have, and the CPU hours of their cards."""
    found = re.findall(
        r"^\| `(\w+)` \| .* \| (\d+) \| ([\d.]*) ?\|$", text_of(ROOT / "README.md"), re.MULTILINE
    )
    assert {name for name, _, _ in found} == set(project().params.studies)
    for name, runs, hours in found:
        assert int(runs) == len(project().params.study(name).runs), name
        cards = sorted((ROOT / "results" / name / "cards").glob("*.json"))
        seconds = sum(json.loads(card.read_text())["cpu_seconds"] for card in cards)
        assert hours == (f"{seconds / 3600:.1f}" if cards else ""), name


def test_other_numbers_of_the_readme_are_those_of_the_results() -> None:
    text = text_of(ROOT / "README.md")
    for wanted in (
        f"{value('energies/e_form-delaunay_local-all', 'e_form')['value']:.4f} eV/atom",
        f"CGCNN {value('energies/e_form-cgcnn_muon-all', 'e_form')['value']:.4f}",
        f"{value('energies/delaunay_energy-all', 'gap')['value']:.3f} eV",
        f"{value('symmetry/space_group-automorphisms-all', 'space_group')['value']:.2f} %",
        f"{value('mesh/space_group-mesh_release-canonical-1250', 'space_group')['value']:.1f} %",
        f"{value('mesh/space_group-cgcnn-1250', 'space_group')['value']:.1f} %",
    ):
        assert wanted in text, wanted


def test_networks_that_are_served_have_their_errors_on_the_page() -> None:
    rows = re.findall(
        r"^\| `([\w/-]+)` \| `(\w+)` \| `([\w.]+)` \| ([\d,]+) \| (\w+) ([\d.]+).*? on ([\d,]+)"
        r" \| ([\d.]+) % \|$",
        text_of(DOCS / "predict.md"),
        re.MULTILINE,
    )
    listed = []
    for run, target, representation, trained, metric, printed, tested, covered in rows:
        listed.append((run, target))
        found = value(run, target)
        digits = len(printed.partition(".")[2])
        assert f"{found['value']:.{digits}f}" == printed, (run, target)
        assert found["metric"] == metric
        assert f"{found['n_test']:,}" == tested
        assert f"{100 * found['coverage']:.1f}" == covered
        assert f"{found['n_train']:,}" == trained, run
        assert project().params.run(run).representation == representation
    assert sorted(listed) == sorted((run.reference, one) for run, one in project().served())


def test_coverage_of_the_intervals_is_as_said() -> None:
    report = project().params.study("paper").report
    assert report
    shares = []
    for path in sorted((ROOT / "results").glob("*/metrics/*.json")):
        reference = f"{path.parts[-3]}/{path.stem}"
        if any(fnmatch.fnmatch(reference, pattern) for pattern in report.also):
            shares += [one["coverage"] for one in json.loads(path.read_text())["targets"].values()]
    inside = sum(0.88 <= share <= 0.92 for share in shares)
    said = re.search(
        r"of the (\d+) pairs of a run and a target in the front report, (\d+)",
        text_of(DOCS / "models.md"),
    )
    assert said is not None
    assert (int(said[1]), int(said[2])) == (len(shares), inside)


# Errors ------------------------------------------------------------------------------------------

ANY = "…"


def messages() -> Iterator[str]:
    """The first column of the tables that list errors and reasons."""
    text = (DOCS / "faq.md").read_text(encoding="utf-8")
    for cell in re.findall(r"^\| (`.*?`) \| ", text, re.MULTILINE):
        if cell.startswith("`` "):
            yield cell[3:-3]
        else:
            yield from re.findall(r"`([^`]+)`", cell)


def templates() -> set[str]:
    """Every text of the source, with `…` for what is filled in."""
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.add("".join(_part(value) for value in node.values))
    found |= set(re.findall(r'"([^"]+)"', (ROOT / "Makefile").read_text(encoding="utf-8")))
    return found


def _part(value: ast.expr) -> str:
    fixed = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return str(value.value) if fixed and isinstance(value, ast.Constant) else ANY


def matches(message: str, template: str) -> bool:
    """Whether a message can come of a template that has most of its words."""
    if message == template:
        return True
    if ANY not in template or len(template.replace(ANY, "")) < 0.7 * len(message.replace(ANY, "")):
        return False
    pattern = ".*".join(map(re.escape, template.split(ANY)))
    return re.fullmatch(pattern, message) is not None


def test_every_error_of_the_page_is_one_of_the_code() -> None:
    known = templates()
    listed = list(messages())
    assert len(listed) > 60
    assert [one for one in listed if not any(matches(one, text) for text in known)] == []


def test_an_error_that_the_code_does_not_have_is_found() -> None:
    known = templates()
    wrong = "…: wrong checksum: wanted sha256 …, found …; …"
    assert not any(matches(wrong, text) for text in known)
