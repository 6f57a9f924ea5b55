"""The documentation: it builds without a warning, loads nothing from elsewhere, and is true."""

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

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
    labels = re.search(r"^\| `label` \| (.*) \|$", (DOCS / "new-task.md").read_text(), re.M)
    assert labels is not None
    assert re.findall(r"`(\w+)`", labels[1]) == [*mpjson.LABELS, "space_group"]


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
