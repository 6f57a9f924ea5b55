"""What a result was made with: the code that ran, and the packages it ran on."""

import functools
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import crystalmesh
from crystalmesh.errors import CrystalmeshError

SOURCE = Path(crystalmesh.__file__).parent
LOCK = Path("env") / "requirements.lock"
TORCH = Path("env") / "torch.txt"  # torch's version: its builds have many checksums
UNLOCKED = "CRYSTALMESH_UNLOCKED"  # set to run with other packages than the lock's


@functools.cache
def code() -> dict[str, Any]:
    """The version, the checksum of the package's source, and the commit where Git knows it."""
    return {
        "version": crystalmesh.__version__,
        "source": source_checksum(SOURCE),
        "commit": _commit(SOURCE),
    }


def ignored(path: Path) -> bool:
    """Whether Git is told to leave this file out: of it only the ledger's checksum is published."""
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    try:
        return (
            subprocess.run(
                ["git", "check-ignore", "--quiet", str(path.absolute())],
                cwd=there,
                check=False,
                capture_output=True,
            ).returncode
            == 0
        )
    except OSError:
        return False


def source_checksum(folder: Path) -> str:
    """SHA-256 over the names and contents of the package's files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        if path.is_file() and path.suffix in (".py", ".json", ".csv"):
            name = path.relative_to(folder).as_posix().encode()
            content = path.read_bytes()
            digest.update(b"%d %s %d " % (len(name), name, len(content)) + content)
    return digest.hexdigest()


def _commit(folder: Path) -> str | None:
    """The commit of the source, with "+" where the source differs from it; None outside Git."""
    try:
        head, changed = (
            subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (
                ("rev-parse", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no", "."),
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def locked(root: Path) -> dict[str, str]:
    """The version of each package that env/requirements.lock and env/torch.txt pin."""
    versions: dict[str, str] = {}
    for path in (LOCK, TORCH):
        try:
            text = (root / path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise CrystalmeshError(f"{path}: missing; restore it from the repository") from error
        versions |= re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", text, flags=re.MULTILINE)
    return versions


def installed() -> dict[str, str]:
    """Name -> version of what is installed, by the names of its folders.

    These are given by the specification of installed projects; to read the metadata of some 240
    packages would take every stage half a second.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        for one in sorted(Path(folder or ".").glob("*.dist-info")):
            name, _, version = one.stem.partition("-")
            found.setdefault(_normal(name), version)
    return found


def _normal(name: str) -> str:
    """A package's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def unlocked(root: Path) -> list[str]:
    """What differs between the locked packages and what is installed, one item a package.

    A build tag (torch's `+cpu`) is no difference. Empty where the project has no lock.
    """
    if not (root / LOCK).exists():
        return []
    different, known = [], installed()
    for name, wanted in locked(root).items():
        found = known.get(_normal(name), "none").partition("+")[0]
        if found != wanted:
            different.append(f"{name} {found} instead of {wanted}")
    return different


def check_lock(root: Path) -> None:
    """Raise CrystalmeshError when a run would use other packages than the lock pins."""
    if different := unlocked(root):
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise CrystalmeshError(
            f"{LOCK}: not what is installed: {', '.join(different[:3])}{more}; run"
            f" `make .venv/ready`, or set {UNLOCKED}=1 to run all the same (results may differ)"
        )
