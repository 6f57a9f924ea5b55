"""Pin env/requirements.in with all it needs, or (--check) see that env/requirements.lock is that.

Only package names and public versions are written: no index, no path, no build of one machine.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FOLDER = Path(__file__).parent
# Of torch's builds some need these, others not: pip takes what the build at hand asks for.
BUILD_SPECIFIC = re.compile(r"nvidia-|cuda-|triton$")


def closure(names: list[str]) -> dict[str, str]:
    """Installed version of each named package and of everything it requires here."""
    versions: dict[str, str] = {}
    todo = [Requirement(name) for name in names]
    seen: set[str] = set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if str(wanted) in seen or BUILD_SPECIFIC.match(name):
            continue
        seen.add(str(wanted))
        package = importlib.metadata.distribution(name)
        versions[name] = Version(package.version).public
        for text in package.requires or ():
            needed = Requirement(text)
            extras = wanted.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                todo.append(needed)
    return versions


def main() -> None:
    """Write the lock; or with --check exit with a message where it differs."""
    text = (FOLDER / "requirements.in").read_text()
    versions = closure([line for line in text.splitlines() if line and not line.startswith("#")])
    pinned = "".join(f"{name}=={versions[name]}\n" for name in sorted(versions))
    lock = FOLDER / "requirements.lock"
    if "--check" not in sys.argv:
        lock.write_text(pinned)
    elif lock.read_text() != pinned:
        different = sorted(set(lock.read_text().splitlines()) ^ set(pinned.splitlines()))
        sys.exit(f"{lock}: not what is installed for requirements.in: {', '.join(different)}")


if __name__ == "__main__":
    main()
