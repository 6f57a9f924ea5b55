"""What is done beside the plugins when the site is built; mkdocs.yml names it for both.

Formulas become MathML, which every browser draws itself, so that no script has to be loaded for it.
Docstrings here give shapes beside names, and several names in one entry; mkdocstrings is told that
all of it is the entry's name.
"""

import html
import re
from typing import Any

import griffe
from latex2mathml.converter import convert

# As pymdownx.arithmatex leaves them: \(...\) in a line, \[...\] for themselves.
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# "    edge_sites [e, 2], edge_shift [e, 3]: an edge joins ..." or "    group, name: the ..."
ENTRY = re.compile(
    r"^( +)(\w+(?: \[[^\]]*\]|, \w)[^:\n]*(?:\n +[^:\n]*)?):(?=\s)",
    re.MULTILINE,
)
NO_BREAK = "\N{NO-BREAK SPACE}"


def on_page_content(text: str, **_: Any) -> str:
    """Replace the formulas of a page."""
    return FORMULA.sub(_mathml, text)


def _mathml(found: re.Match[str]) -> str:
    tag, bracket, formula = found.groups()
    display = "inline" if bracket == "(" else "block"
    return f'<{tag} class="formula">{convert(html.unescape(formula), display=display)}</{tag}>'


class Shapes(griffe.Extension):
    """Joins the words of an entry's name, which griffe would take for a name and its type."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ENTRY.sub(_joined, obj.docstring.value)


def _joined(found: re.Match[str]) -> str:
    # the brackets are an empty type: without one, griffe gives the entry the type before it
    return f"{found[1]}{NO_BREAK.join(found[2].split())} ():"
