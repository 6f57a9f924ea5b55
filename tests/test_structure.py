"""The house: one direction of imports, and no name of a study, target or model outside its room."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from crystalmesh.config.project import find

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "crystalmesh"
# Each room may import the rooms before it, and its own files.
FLOORS = ("config", "data", "represent", "models", "learn", "inference", "report")
EVERYWHERE = {"errors", "files", "integrity", "numerics", "workers", "provenance.software"}
BESIDE = {"provenance": {"config"}}  # beside the line: stages call it
TO_MEND = {"provenance/ledger.py", "provenance/verify.py"}  # moved here; they import the report yet
# Names that are words of the field too, which the source may say of something else: every crystal
# has a space group, whether it is predicted or not.
WORDS = {
    "gap", "n", "space_group", "mesh", "demo", "paper", "energies", "symmetry", "transfer",
    "predictors", "energy", "forces",
}  # fmt: skip
ROOMS = {
    "models": "models",
    "targets": "data",
    "studies": "",
}  # labels are named where they are read


def sources() -> Iterator[tuple[str, Path, ast.Module]]:
    """Each file with its room (of one that stands alone, its own name)."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield parts[0], path, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules of the package that are imported, without its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = (SOURCE.parent / node.module.replace(".", "/")).is_dir()
            names = [f"{node.module}.{one.name}" if whole else node.module for one in node.names]
        else:
            continue
        for name in names:
            if name.startswith("crystalmesh."):
                yield name.removeprefix("crystalmesh.")


def outside_functions(tree: ast.Module) -> ast.Module:
    """A module without the bodies of its functions and what only type checkers read."""
    kept = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return ast.Module(kept, [])


def test_imports_go_one_way() -> None:
    wrong = []
    for room, path, tree in sources():
        if room in FLOORS:
            allowed = set(FLOORS[: FLOORS.index(room) + 1])
        elif room in BESIDE:
            allowed, tree = BESIDE[room] | {room}, outside_functions(tree)
        elif room in EVERYWHERE:
            allowed = set()
        else:  # the command line, and the package itself
            continue
        for name in imported(tree):
            known = name in EVERYWHERE or any(name.startswith(f"{one}.") for one in EVERYWHERE)
            if name.partition(".")[0] not in allowed and not known and name != "__version__":
                wrong.append(f"{path.relative_to(SOURCE)}: {name}")
    wrong = [one for one in wrong if one.partition(":")[0] not in TO_MEND]
    assert not wrong, "\n".join(wrong)


def test_rooms_are_those_that_are_known() -> None:
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert rooms == {*FLOORS, *BESIDE}


@pytest.mark.parametrize("kind", ["models", "targets", "studies"])
def test_no_name_stands_outside_its_room(kind: str) -> None:
    """A docstring may give an example."""
    params = find(ROOT).params
    names = set(getattr(params, kind)) - WORDS
    if kind == "models":  # an architecture is named as its module
        names -= {path.stem for path in (SOURCE / "models").glob("*.py")}
        names -= {path.stem for path in (SOURCE / "represent").glob("*.py")}
    wrong = []
    for room, path, tree in sources():
        if room == ROOMS[kind]:
            continue
        spoken = _docstrings(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            if id(node) not in spoken and names & set(re.split(r"[\s,;:/]+", node.value)):
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno}: {node.value!r:.60}")
    assert not wrong, "\n".join(wrong)


def _docstrings(tree: ast.AST) -> set[int]:
    """Strings that are docstrings, of attributes too, or descriptions of settings."""
    found = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("description", "help"):
            found |= {id(one) for one in ast.walk(node.value)}
    return found
