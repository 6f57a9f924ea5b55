"""The pages of the result site as HTML; what they draw, web/site.js takes from data/."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from crystalmesh.report import viewer

PAGES = {
    "index": "Overview",
    "tables": "Tables",
    "parity": "Predictions",
    "curves": "Learning curves",
    "runs": "Runs",
    "viewer": "Meshes",
}
ABOUT = {
    "tables": "Every table of the study; each column sorts.",
    "parity": "Each test crystal’s prediction beside its true value, for every run and target.",
    "curves": "Validation metric and training loss by epoch, laid over each other.",
    "runs": "Each run’s card: metrics, settings, data by checksum, machine.",
    "viewer": "Crystals as the mesh network reads them, and the faces that decide.",
}
HEAD = "models"  # the table that the first page shows, else the first one


@dataclass(frozen=True)
class Pages:
    """What the pages say beside what web/site.js draws.

    Attributes:
        study, title: the study's name and title.
        dataset, source: title and source of its dataset.
        runs: how many runs it shows.
        tables: the printed tables, by name.
        groups: whether there is a table by space group.
        crystals: whether there are crystals to look at.
    """

    study: str
    title: str
    dataset: str
    source: str
    runs: int
    tables: Mapping[str, Any]
    groups: bool
    crystals: bool

    def html(self) -> dict[str, str]:
        """Each page, by name."""
        return {
            "index": self._page("index", self._index()),
            "tables": self._page("tables", self._tables()),
            "parity": self._page("parity", PARITY, "Predictions of the test crystals"),
            "curves": self._page("curves", CURVES, "Learning curves"),
            "runs": self._page("runs", RUNS, "Runs"),
            "viewer": self._page("viewer", self._viewer(), "Crystals as meshes"),
        }

    def _page(self, name: str, body: str, heading: str = "") -> str:
        here = {name: ' aria-current="page"'}
        links = "".join(
            f'<li><a href="{page}.html"{here.get(page, "")}>{title}</a></li>'
            for page, title in PAGES.items()
        )
        drawn = name not in ("index", "tables")
        scripts = (
            ["plotly.min.js", "site.js", "viewer.js", "data/summary.js"] if drawn else ["site.js"]
        )
        tags = "".join(f'<script src="{path}" defer></script>\n' for path in scripts)
        title = self.title if name == "index" else f"{PAGES[name]} – {self.title}"
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n"
            '<link rel="icon" href="data:,">\n<link rel="stylesheet" href="site.css">\n'
            f'{tags}</head>\n<body data-page="{name}">\n'
            '<a class="skip" href="#content">Skip to the content</a>\n'
            '<header><div><a class="name" href="index.html">crystalmesh</a>'
            f'<nav aria-label="pages"><ul>{links}</ul></nav></div></header>\n<main id="content">\n'
            + (f"<h1>{escape(heading)}</h1>\n" if heading else "")
            + (NOSCRIPT if drawn else "")
            + f"{body}</main>\n<footer><div>{self._footer()}</div></footer>\n</body>\n</html>\n"
        )

    def _footer(self) -> str:
        return (
            f"Made by <code>crystalmesh site {self.study}</code> from the files in "
            f'<code>results/{self.study}</code>: <a href="../paper.pdf">paper</a>, '
            '<a href="../metrics.json">metrics</a>, <a href="../ledger.json">ledger of checksums'
            f"</a>. Data: {escape(self.source)}."
        )

    def _index(self) -> str:
        cards = "".join(
            f'<li><a href="{page}.html">{PAGES[page]}</a><p>{escape(text)}</p></li>'
            for page, text in ABOUT.items()
        )
        cards += (
            '<li><a href="../paper.pdf">Paper</a><p>The report as a document (PDF).</p></li>'
            '<li><a href="../ledger.json">Ledger</a><p>The checksum of every output, and the'
            " numerics it was made with.</p></li>"
        )
        head = HEAD if HEAD in self.tables else next(iter(self.tables), None)
        shown = (
            f"<h2>{escape(heading(self.tables, head))}</h2>\n"
            f"<p>{escape(self.tables[head].get('note', ''))}</p>\n{table(self.tables[head])}"
            if head
            else ""
        )
        return (
            f"<h1>{escape(self.title)}</h1>\n"
            f"<p>{self.runs} runs on {escape(self.dataset)}: what each predicted, what it learned "
            "from, and how to make it again, bit for bit."
            f'</p>\n<ul class="pages">{cards}</ul>\n{shown}'
        )

    def _tables(self) -> str:
        links = "".join(
            f'<li><a href="#{name}">{escape(heading(self.tables, name))}</a></li>'
            for name in self.tables
        )
        parts = [
            f'<section id="{name}"><h2>{escape(heading(self.tables, name))}</h2>\n'
            f'<p class="note">{escape(one.get("note", ""))} <a href="../tables/{name}.csv">Full '
            f"precision (CSV)</a></p>\n{table(one)}</section>\n"
            for name, one in self.tables.items()
        ]
        if self.groups:
            parts.append(
                '<section id="space_groups"><h2>The metric by space group</h2><p>On each '
                'run’s <a href="runs.html">page</a>, and of all of them in '
                '<a href="../tables/space_groups.csv">space_groups.csv</a>.</p></section>\n'
            )
        return (
            "<h1>Tables</h1>\n<p>Press a column’s heading to sort by it.</p>\n"
            f'<ol class="contents">{links}</ol>\n' + "".join(parts)
        )

    def _viewer(self) -> str:
        if not self.crystals:
            return (
                "<p>The study names no crystals for this page (<code>report.site</code> in "
                f"<code>studies/{self.study}/study.yaml</code>).</p>\n"
            )
        return (
            '<div class="controls"><label><span>crystal</span>'
            f'<select id="crystal"></select></label></div>\n{viewer.panel()}'
        )


NOSCRIPT = (
    "<noscript><p>This page draws its data with JavaScript, from the files beside it; nothing is "
    "loaded from elsewhere.</p></noscript>\n"
)
PARITY = (
    '<div class="controls"><label><span>target</span><select id="target"></select></label>'
    '<label><span>run</span><select id="run"></select></label></div>\n'
    '<h2 id="heading" aria-live="polite"></h2>\n'
    '<div class="two"><div><div id="chart" class="square" role="img" aria-label="predictions and '
    'true values; the table below has the largest errors"></div>'
    '<p id="note" class="note"></p></div>\n'
    '<div><div id="facts"></div></div></div>\n<div id="classes"></div>\n'
    '<h2>Crystals</h2>\n<div class="controls"><label><span>formula or id</span>'
    '<input type="search" id="find" placeholder="a formula or an id" autocomplete="off"></label>'
    '<span id="found" class="note" aria-live="polite"></span></div>\n<div id="crystals"></div>\n'
)
CURVES = (
    '<div class="controls"><label><span>target</span><select id="target"></select></label>'
    '<label><span>shown</span><select id="what"><option value="val">validation metric</option>'
    '<option value="loss">training loss</option></select></label>'
    '<label class="tick"><input type="checkbox" id="log"> logarithmic</label></div>\n'
    '<div class="two list">'
    '<fieldset id="choose" class="choose" aria-label="runs"></fieldset>'
    '<div><div id="chart" class="chart" role="img" aria-label="metric by epoch"></div>'
    '<p class="note">Strong line: the mean of a run’s networks (folds and ensemble '
    "members); faint: each of them. Models that are fitted in one step have no curve.</p>"
    "</div></div>\n"
)
RUNS = (
    '<div class="controls"><label><span>search in names, models, targets, splits, machines</span>'
    '<input type="search" id="find" autocomplete="off"></label>'
    '<span id="count" class="note" aria-live="polite"></span></div>\n'
    '<div class="two list"><nav id="choose" class="choose" aria-label="runs"></nav>'
    '<div id="card"></div></div>\n'
)


def heading(tables: Mapping[str, Any], name: str) -> str:
    """A table's title; its name in words where it has none."""
    return tables[name].get("title") or name.replace("_", " ").capitalize()


def table(content: Mapping[str, Any]) -> str:
    """A printed table as HTML; cells that repeat the one above are there for sorting, unseen."""
    columns = content["columns"]
    rows = ["<tr>"]
    if content["groups"]:
        for group in content["groups"]:
            kind = ' class="group"' if group["title"] else ""
            rows.append(
                f'<td{kind} colspan="{group["end"] - group["start"]}">{escape(group["title"])}</td>'
            )
        rows.append("</tr>\n<tr>")
    for column in columns:
        kind = ' class="left"' if column["left"] else ""
        rows.append(f'<th scope="col"{kind}>{escape(column["title"]) or "what"}</th>')
    rows.append("</tr>")
    body, above = [], ""
    for cells in content["rows"]:
        first, *others = cells
        again = bool(above) and first == ""
        above = above if again else first
        classes = ["left"] * columns[0]["left"] + ["again"] * again
        line = [f'<td class="{" ".join(classes)}">{escape(above)}</td>']
        for column, cell in zip(columns[1:], others, strict=True):
            kind = ' class="left"' if column["left"] else ""
            line.append(f"<td{kind}>{escape(cell)}</td>")
        body.append(f"<tr>{''.join(line)}</tr>\n")
    return (
        '<div class="scroll" tabindex="0"><table class="sortable">\n<thead>'
        f"{''.join(rows)}</thead>\n<tbody>\n{''.join(body)}</tbody>\n</table></div>\n"
    )
