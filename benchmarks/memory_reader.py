"""Peak memory and time of reading a raw file of the size of mp_all_20181018.

    python benchmarks/memory_reader.py [--entries 83989] [--jobs 2] [--folder /tmp]

Writes a synthetic file of that shape (83,989 entries, over a gigabyte unpacked) into a temporary
folder, and prints what a fresh process takes to stream it, and what the whole stage `crystals`
takes: reading, validation, space groups, writing. The design allows 2 GiB.
"""

import argparse
import gzip
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ENTRIES = 83_989
COLUMNS = [
    "mpid", "formula", "e_form", "gap pbe", "mu_b", "bulk modulus", "shear modulus", "structure",
]  # fmt: skip
SYMBOLS = ["O", "Li", "Fe", "P", "Si", "Mg", "Na", "S", "Cu", "Al", "F", "Mn", "Ti", "Ca"]
GIB = 1 << 30


def row(i: int, rng: np.random.Generator) -> list[Any]:
    """One entry: 1 to 200 atoms (median 21, mean 31) on a distorted grid, so that it is valid."""
    count = int(np.clip(np.exp(rng.normal(3.05, 0.9)), 1, 200))
    side = int(np.ceil(count ** (1 / 3)))
    lattice = np.eye(3) * 2.6 * side + rng.uniform(-0.3, 0.3, (3, 3))
    grid = np.stack(np.unravel_index(np.arange(count), (side, side, side)), axis=1)
    frac = (grid + rng.uniform(-0.15, 0.15, (count, 3))) / side
    symbols = rng.choice(SYMBOLS, size=count).tolist()
    # Sites of that age carry the forces and coordination numbers that make the file so long.
    sites = [
        {
            "species": [{"element": symbol, "occu": 1.0}],
            "abc": place.tolist(),
            "xyz": (place @ lattice).tolist(),
            "label": symbol,
            "properties": {"coordination_no": 6, "forces": force.tolist(), "magmom": force[0]},
            "selective_dynamics": [True, True, True],
        }
        for symbol, place, force in zip(symbols, frac, rng.normal(0, 0.01, (count, 3)), strict=True)
    ]
    structure = {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "lattice": {"matrix": lattice.tolist(), "volume": float(np.linalg.det(lattice))},
        "sites": sites,
    }
    modulus = float(rng.uniform(5, 300)) if i % 12 == 0 else float("nan")
    return [f"mp-{i}", "?", float(rng.normal(-1, 1)), 0.0, 0.0, modulus, modulus / 2, structure]


def chunks(entries: int) -> Iterator[str]:
    """The text of the file, as matminer's writer gives it: NaN for a missing number."""
    rng = np.random.default_rng(0)
    index, columns = json.dumps(list(range(entries))), json.dumps(COLUMNS)
    yield f'{{"index": {index}, "columns": {columns}, "data": ['
    for i in range(entries):
        yield (", " if i else "") + json.dumps(row(i, rng))
    yield "]}"


def write_project(root: Path, entries: int) -> int:
    """A project with the file in its mirror; returns the bytes unpacked."""
    path = root / "raw.json.gz"
    total = 0
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for chunk in chunks(entries):
            text = chunk.encode()
            total += len(text)
            stream.write(text)
    with path.open("rb") as raw:
        checksum = hashlib.file_digest(raw, "sha256").hexdigest()
    from crystalmesh.config import plan, project

    ours = project.settings(Path(__file__).parents[1])
    tree: dict[str, Any] = {"splits": {}, "representations": {}, "features": {}}
    tree |= {key: ours[key] for key in ("validation", "targets")}
    tree["datasets"] = {
        "big": {"title": "big", "source": "made up", "file": str(path), "sha256": checksum}
    }
    (root / "config" / "models").mkdir(parents=True)
    (root / "config" / "all.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    plan.write(root)
    return total


def measure(what: str, root: Path, jobs: int) -> None:
    """Do one thing in this process and print what it took, as JSON."""
    from crystalmesh.config.project import load
    from crystalmesh.data import registry, validation
    from crystalmesh.data.crystals import Crystals
    from crystalmesh.data.sources import mpjson

    project = load(root)
    registry.fetch(project, "big", jobs)
    start = time.perf_counter()
    if what == "read":
        sites = sum(len(entry.species) for entry in mpjson.read(project.raw("big")))
    else:
        validation.build(project, "big", jobs)
        sites = len(Crystals.load(project.crystals("big")).numbers)
    seconds = time.perf_counter() - start
    peaks = [
        resource.getrusage(who).ru_maxrss * 1024  # Linux counts in KiB
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(json.dumps({"sites": sites, "seconds": seconds, "self": peaks[0], "worker": peaks[1]}))


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of reading a raw file.")
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="for the temporary files")
    parser.add_argument("--measure", nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, root = arguments.measure
        measure(what, Path(root), arguments.jobs)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        start = time.perf_counter()
        size = write_project(Path(root), arguments.entries)
        seconds = time.perf_counter() - start
        packed = (Path(root) / "raw.json.gz").stat().st_size
        print(
            f"{arguments.entries} entries, {size / GIB:.2f} GiB unpacked, "
            f"{packed / GIB:.2f} GiB packed, written in {seconds:.0f} s"
        )
        for what in ("read", "crystals"):
            command = [
                sys.executable,
                __file__,
                "--jobs",
                str(arguments.jobs),
                "--measure",
                what,
                root,
            ]
            found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            print(
                f"{what}: {found['sites']} sites in {found['seconds']:.0f} s, peak "
                f"{found['self'] / GIB:.2f} GiB, largest worker {found['worker'] / GIB:.2f} GiB"
            )


if __name__ == "__main__":
    main()
