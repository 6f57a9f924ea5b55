"""Print the files of src/ over 500 lines and the functions over 60, with their lengths.

A line `# Length: ...` at the head of a file, before its first statement, gives the reason: it is
printed with the file, to where its comment ends.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
MARK = "# Length:"
LONGEST_FILE, LONGEST_FUNCTION = 500, 60  # lines


def reason(text: str, tree: ast.Module) -> str:
    """What the head of a file says of its length; empty if nothing."""
    body = [node for node in tree.body if not _is_text(node)]
    head = text.splitlines()[: body[0].lineno - 1 if body else None]
    found: list[str] = []
    for line in head:
        if line.startswith(MARK) or (found and line.startswith("#")):
            found.append(line.removeprefix(MARK).strip("# "))
        elif found:
            break
    return " ".join(found)


def long_parts(path: Path) -> Iterator[str]:
    """A line for the file if it is long, and one for each of its long functions."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    name, why = path.relative_to(SOURCE.parent), reason(text, tree)
    said = f" ({why})" if why else ""
    lines = len(text.splitlines())
    if lines > LONGEST_FILE:
        yield f"{name}: {lines} lines{said}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"{name}:{node.lineno}: {node.name}: {lines} lines{said}"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


if __name__ == "__main__":
    for path in sorted(SOURCE.rglob("*.py")):
        for line in long_parts(path):
            print(line)
