"""Time and memory of meshes and graphs, in one run and on the same crystals.

    python benchmarks/representations.py [--crystals 120] [--scale 1000 10000 100000]

Needs the scale file in the mirror. One process and one thread measure, one crystal after the other,
the published mesh (our code of it, and the original steps in pymatgen), the canonical complex
(`tessellate`), Qhull on the points that a complex needs (all atoms nearer to the cell's atoms than
the widest empty sphere), our graph, and the graph by pymatgen's neighbours as the released CGCNN
takes them. Then the stage `represent` runs with two processes on growing parts of the file, and the
memory of all its processes is watched. Results go to benchmarks/representations.json, from which
the report draws them.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from scipy.spatial import Delaunay
from vesin import NeighborList

from crystalmesh import numerics
from crystalmesh.config import plan, project
from crystalmesh.data import crystals as stored
from crystalmesh.data.crystals import Crystal, Crystals
from crystalmesh.represent import representation
from crystalmesh.represent.delaunay import tessellate
from scale import load, sample

HERE = Path(__file__).parent
ATOMS = (1, 2, 4, 8, 16, 32, 64, 128, 200)
EACH = 8  # crystals of each of these sizes
MESH, GRAPH = (
    {"symprec": 0.01, "supercell": 5, "tolerance": 0.05},
    {"neighbours": 12, "cutoff": 8.0},
)


def original_mesh(crystal: Crystal) -> None:
    """The published mesh in the original's steps."""
    structure = Structure(Lattice(crystal.lattice), crystal.numbers.tolist(), crystal.frac)
    refined = SpacegroupAnalyzer(structure, symprec=0.01).get_refined_structure()
    points = (refined * (5, 5, 5)).cart_coords
    cell = refined.lattice
    frac = cell.get_fractional_coords(points)
    slack = 0.05 / np.array(cell.abc)
    inside = np.all((frac >= 2 - slack) & (frac <= 3 + slack), axis=1)
    simplices = Delaunay(points).simplices
    kept = np.sort(simplices[inside[simplices].any(axis=1)], axis=1)
    np.unique(kept[:, [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]].reshape(-1, 3), axis=0)


def pymatgen_graph(crystal: Crystal) -> None:
    """Neighbours as the released CGCNN takes them."""
    structure = Structure(Lattice(crystal.lattice), crystal.numbers.tolist(), crystal.frac)
    for found in structure.get_all_neighbors(8.0):
        sorted(found, key=lambda neighbour: neighbour.nn_distance)[:12]


def needed_points(crystal: Crystal) -> np.ndarray:
    """All atoms nearer to one of the cell than the widest empty sphere is wide: Qhull's input."""
    found = tessellate(crystal.lattice, crystal.frac)
    place = crystal.frac @ crystal.lattice
    _, j, shift = NeighborList(cutoff=2 * found.cell_radii.max() + 1e-6, full_list=True).compute(
        points=place, box=crystal.lattice, periodic=True, quantities="ijS"
    )
    rows = np.column_stack([j.astype(np.int64), shift])
    home = np.column_stack([np.arange(len(place)), np.zeros((len(place), 3), dtype=np.int64)])
    rows = np.unique(np.concatenate([rows, home]), axis=0)
    points: np.ndarray = place[rows[:, 0]] + rows[:, 1:] @ crystal.lattice
    return points


def clock(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def times(chosen: list[Crystal]) -> dict[str, float]:
    """Mean seconds a crystal."""
    mesh, graph = representation("mesh.published", MESH), representation("graph.cgcnn", GRAPH)
    canonical = representation("mesh.canonical", {"symprec": 0.01, "tolerance": 0.001})
    total = dict.fromkeys(
        ("published", "original", "complex", "canonical", "qhull", "graph", "pymatgen"), 0.0
    )
    points = 0
    for one in chosen:
        cloud = needed_points(one)
        points += len(cloud)
        total["published"] += clock(mesh.build, one)
        total["original"] += clock(original_mesh, one)
        total["complex"] += clock(tessellate, one.lattice, one.frac)
        total["canonical"] += clock(canonical.build, one)
        total["qhull"] += clock(Delaunay, cloud)
        total["graph"] += clock(graph.build, one)
        total["pymatgen"] += clock(pymatgen_graph, one)
    seconds = {name: value / len(chosen) for name, value in total.items()}
    atoms = float(np.mean([len(one.numbers) for one in chosen]))
    return seconds | {"atoms": atoms, "points": points / len(chosen), "crystals": len(chosen)}


def stage(crystals: Crystals, name: str) -> dict[str, float]:
    """Wall time, peak memory and size on disk of the stage `represent` with two processes."""
    folder = Path(tempfile.mkdtemp(prefix="crystalmesh-"))
    try:
        tree = project.settings(HERE.parent)
        module, _, variant = name.partition(".")
        tree = {key: tree[key] for key in ("validation", "targets", "representations")} | {
            "datasets": {"scale": {"title": "scale", "source": "Materials Project 2025.02"}},
            "splits": {},
            "features": {"scale": {name: {}}},
            "representations": {module: {variant: tree["representations"][module][variant]}},
        }
        (folder / "config" / "models").mkdir(parents=True)
        (folder / "config" / "all.yaml").write_text(json.dumps(tree))
        plan.write(folder)
        (folder / "data" / "crystals" / "scale").mkdir(parents=True)
        stored.save(crystals, folder / "data" / "crystals" / "scale")
        start = time.perf_counter()
        command = [sys.executable, "-m", "crystalmesh.cli", "represent", "scale", name]
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | {"CRYSTALMESH_JOBS": "2"}, stderr=subprocess.PIPE
        )
        peak = [0]
        watcher = threading.Thread(target=watch, args=(psutil.Process(process.pid), peak))
        watcher.start()
        _, said = process.communicate()
        seconds = time.perf_counter() - start
        watcher.join()
        if process.returncode:
            raise SystemExit(said.decode())
        made = folder / "data" / "features" / "scale" / name
        rejected = len(json.loads((made / "index.json").read_text())["rejected"])
        size = sum(path.stat().st_size for path in made.iterdir())
        return {
            "crystals": len(crystals),
            "seconds": seconds,
            "peak_bytes": peak[0],
            "disk_bytes": size,
            "rejected": rejected,
        }
    finally:
        shutil.rmtree(folder)


def watch(process: psutil.Process, peak: list[int]) -> None:
    """The largest sum of the memory that a process and its children hold (shared pages twice)."""
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        held = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                held += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak[0] = max(peak[0], held)
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--crystals", type=int, default=120, help="in the common comparison")
    parser.add_argument("--scale", type=int, nargs="*", default=[1000, 10_000, 100_000, 170_455])
    options = parser.parse_args()
    crystals = load()
    tessellate(np.eye(3), np.zeros((1, 3)))  # compiled before the clock starts
    result: dict[str, Any] = {"machine": machine()}
    result["same_crystals"] = times(sample(crystals, options.crystals))
    show(result["same_crystals"])
    sites = np.diff(crystals.pointer)
    rng = np.random.default_rng(0)
    result["by_atoms"] = []
    for atoms in ATOMS:
        rows = np.flatnonzero(abs(sites - atoms) <= atoms // 20)
        chosen = [crystals[int(row)] for row in rng.permutation(rows)[:EACH]]
        result["by_atoms"].append(times(chosen))
        show(result["by_atoms"][-1])
    result["by_crystals"] = {}
    for name in ("mesh.canonical", "graph.cgcnn"):
        result["by_crystals"][name] = []
        for count in options.scale:
            result["by_crystals"][name].append(stage(load(count), name))
            print(name, result["by_crystals"][name][-1], flush=True)
    (HERE / "representations.json").write_text(json.dumps(result, indent=1) + "\n")


def machine() -> dict[str, Any]:
    return {
        "processor": numerics.cpu().get("model") or platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def show(row: dict[str, float]) -> None:
    words = [f"{row['atoms']:6.1f} atoms, {row['points']:6.0f} points:"]
    words += [
        f"{name} {1e3 * row[name]:.2f} ms"
        for name in ("published", "original", "complex", "canonical", "qhull", "graph", "pymatgen")
    ]
    words.append(
        f"| published/complex {row['published'] / row['complex']:.0f}, original/complex"
        f" {row['original'] / row['complex']:.0f}, complex/qhull"
        f" {row['complex'] / row['qhull']:.2f},"
        f" pymatgen/graph {row['pymatgen'] / row['graph']:.0f}"
    )
    print(*words, flush=True)


if __name__ == "__main__":
    main()
