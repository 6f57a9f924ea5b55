"""What the stages wrote, so that no stage reads anything else.

Every file that a stage writes goes into a journal with its SHA-256, and what a stage reads must be
one of the contents that were once written to that place: here, or by whoever committed the
report's ledger. So a flipped bit, a cut file or a digit changed by hand stops the stage that would
have built on it, and the ledger records no such file. Which of several honest contents is up to
date is not decided here: that is the workflow engine's.
"""

import json
import os
from functools import lru_cache
from pathlib import Path

from crystalmesh.errors import CrystalmeshError

_root: Path | None = None  # the project that is watched


def watch(root: Path) -> None:
    """Keep the journal of this project from now on (each command does so)."""
    global _root
    _root = root.resolve()


def watched() -> bool:
    """Whether a journal is kept: not in worker processes, which read what their parent has read."""
    return _root is not None


def journal(root: Path, place: str) -> Path:
    """The journal of one file: a line a content that was written there, oldest first."""
    return root / ".crystalmesh" / "journal" / place


def wrote(path: Path, digest: str) -> None:
    """Note that `path` is about to hold a content with this SHA-256 (64 hexadecimal digits).

    Before the file is put in its place: whoever is killed in between leaves one entry too many
    and no file without one.
    """
    place = _place(path)
    if place is None or _root is None or digest in _noted(_root, place):
        return
    entry = journal(_root, place)
    entry.parent.mkdir(parents=True, exist_ok=True)
    with entry.open("a", encoding="ascii") as stream:
        stream.write(f"{digest}\n")
        stream.flush()
        os.fsync(stream.fileno())


def check(path: Path, digest: str) -> None:
    """Raise CrystalmeshError unless the content of `path`, with this SHA-256, is a known one.

    A file that nothing is known of is accepted: somebody brought it.
    """
    place = _place(path)
    if place is None or _root is None:
        return
    known = _noted(_root, place) | _published(_root, place)
    if known and digest not in known:
        raise CrystalmeshError(
            f"{path}: changed since it was written (sha256 {digest[:12]}... is none of the"
            f" {len(known)} known); restore it, or delete it and run its stage again"
        )


def _place(path: Path) -> str | None:
    """The path in the project; None for what is not an output (scratch, unfinished, elsewhere)."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (a link in data/ is not followed)
    if _root is None or not absolute.is_relative_to(_root):
        return None
    place = absolute.relative_to(_root)
    if place.parts[0] not in ("data", "results") or any(p.startswith(".") for p in place.parts):
        return None
    return place.as_posix()


def _noted(root: Path, place: str) -> set[str]:
    try:
        return set(journal(root, place).read_text(encoding="ascii").split())
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _published(root: Path, place: str) -> set[str]:
    """The checksum that the ledger of its study gives a file."""
    parts = place.split("/", 2)
    if parts[0] != "results" or len(parts) < 3:
        return set()
    ledger = root / "results" / parts[1] / "ledger.json"
    try:
        outputs = _outputs(ledger, ledger.stat().st_mtime_ns)
    except (OSError, ValueError):
        return set()
    return {outputs[parts[2]]} if parts[2] in outputs else set()


@lru_cache(maxsize=4)
def _outputs(ledger: Path, _: int) -> dict[str, str]:
    """Files by the ledger; of checkpoints not the digest of their content, but the file's."""
    content = json.loads(ledger.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        return {}
    outputs = {k: v for k, v in content.get("outputs", {}).items() if "checkpoints/" not in k}
    return {k: v for k, v in (outputs | content.get("files", {})).items() if isinstance(v, str)}
