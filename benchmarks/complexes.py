"""Is every complex complete, and the same for every description of its crystal?

    python benchmarks/complexes.py [--sample 2000] [--tolerances 600] [--jobs 2]

Three examinations, on the crystals of mp_pbe (data/crystals/mp_pbe; make it with `crystalmesh`) and
of the scale file in the mirror; results are printed and go to benchmarks/complexes.json.

1. All crystals: crashes, incomplete complexes, tolerances that had to be smaller, largest cells.
2. A random sample of each: volumes, Euler's formula, two cells a face, empty spheres, all computed
   anew from the arrays; the same complex after rotation or reflection, shift of the origin,
   permutation of the sites and unimodular change of the cell at once; twice as many of everything
   in a doubled cell; as many an atom in spglib's primitive as in its conventional cell.
3. How the tolerance was chosen: for several, the share of crystals with a consistent complex at
   once, with the complex of the symmetrised crystal, and with another complex after every atom has
   moved by 1e-4 Angstrom.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from crystalmesh import numerics

numerics.prepare("native")  # before torch is loaded, as the tests do it

import numpy as np  # noqa: E402
import spglib  # noqa: E402

from crystalmesh.data.crystals import Crystal, Crystals  # noqa: E402
from crystalmesh.represent.delaunay import TOLERANCE, Complex, tessellate  # noqa: E402
from crystalmesh.workers import in_order  # noqa: E402
from scale import load, sample  # noqa: E402

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from tests.represent.delaunay.test_tessellate import check, named, unimodular  # noqa: E402

TOLERANCES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def counts(found: Complex) -> np.ndarray:
    return np.array([found.n_vertices, found.n_edges, found.n_faces, found.n_cells])


def survey(crystals: list[Crystal]) -> dict[str, Any]:
    """Examination 1 of some crystals."""
    tolerances: Counter[float] = Counter()
    largest: Counter[int] = Counter()
    total = np.zeros(4, dtype=int)
    failures = []
    for one in crystals:
        try:
            found = tessellate(one.lattice, one.frac)
        except Exception as error:  # whatever it is, it is what is looked for
            failures.append(f"{one.id}: {type(error).__name__}: {error}")
            continue
        tolerances[found.tolerance] += 1
        largest[int(np.diff(found.cell_pointer).max())] += 1
        total += counts(found)
    return {
        "failures": failures, "tolerances": tolerances, "largest": largest, "total": total.tolist(),
    }  # fmt: skip


def faces(found: Complex) -> set[Any]:
    return named(found.face_pointer, found.face_sites, found.face_shift)


def invariant(one: Crystal) -> list[str]:
    """Examination 2 of one crystal: what does not hold."""
    rng = np.random.default_rng(len(one.id) + len(one.frac))
    wrong = []
    found = tessellate(one.lattice, one.frac)
    try:
        check(found)
    except AssertionError:
        wrong.append("complete")
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    change, order = unimodular(rng), rng.permutation(len(one.frac))
    back = np.round(np.linalg.inv(change)).astype(int)
    moved = (one.frac + rng.random(3)) @ back
    other = tessellate(change @ one.lattice @ turn, moved[order])
    rank = np.argsort(order)
    expected = named(found.face_pointer, rank[found.face_sites], found.face_shift @ back)
    if faces(other) != expected:
        wrong.append("description")
    double = np.ones(3, dtype=int)
    double[rng.integers(3)] = 2
    cells = np.stack(np.meshgrid(*map(np.arange, double), indexing="ij"), -1).reshape(-1, 3)
    large = ((one.frac[:, None] + cells) / double).reshape(-1, 3)
    if (counts(tessellate(one.lattice * double[:, None], large)) != 2 * counts(found)).any():
        wrong.append("supercell")
    cell: Any = (one.lattice, one.frac, one.numbers)
    standard: list[Any] = [
        spglib.standardize_cell(cell, to_primitive=flag, symprec=0.01) for flag in (True, False)
    ]
    primitive, conventional = standard
    if primitive is not None and conventional is not None:
        small, large_cell = (counts(tessellate(c[0], c[1])) for c in (primitive, conventional))
        if (large_cell * small[0] != small * large_cell[0]).any():
            wrong.append("primitive")
    return wrong


def tolerances_of(one: Crystal) -> list[list[bool]] | None:
    """Examination 3 of one crystal: a row a tolerance."""
    rng = np.random.default_rng(len(one.id) + len(one.frac))
    cell: Any = (one.lattice, one.frac, one.numbers)
    refined: Any = spglib.refine_cell(cell, symprec=0.01)
    if refined is None:
        return None
    step = rng.normal(size=one.frac.shape)
    step *= 1e-4 / np.linalg.norm(step, axis=1, keepdims=True)
    moved = one.frac + step @ np.linalg.inv(one.lattice)
    rows = []
    for tolerance in TOLERANCES:
        found = tessellate(one.lattice, one.frac, tolerance)
        ideal = counts(tessellate(refined[0], refined[1], tolerance))
        rows.append(
            [
                found.tolerance == tolerance,
                bool((ideal * found.n_vertices == counts(found) * ideal[0]).all()),
                faces(tessellate(one.lattice, moved, tolerance)) != faces(found),
            ]
        )
    return rows


def noise(one: Crystal) -> float | None:
    """Largest distance in Angstrom between a site's image under a symmetry operation and a site."""
    cell: Any = (one.lattice, one.frac, one.numbers)
    data = spglib.get_symmetry_dataset(cell, symprec=0.01)
    if data is None or len(data.rotations) < 2:
        return None
    worst = 0.0
    for rotation, translation in zip(data.rotations, data.translations, strict=True):
        gap = (one.frac @ rotation.T + translation)[:, None] - one.frac
        gap -= np.round(gap)
        worst = max(worst, float(np.linalg.norm(gap @ one.lattice, axis=2).min(axis=1).max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=2000)
    parser.add_argument("--tolerances", type=int, default=600, help="crystals of examination 3")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    result: dict[str, Any] = {"tolerance": TOLERANCE}
    sets = {"mp_pbe": Crystals.load(HERE.parent / "data" / "crystals" / "mp_pbe"), "scale": load()}
    for name, crystals in sets.items():
        start = time.perf_counter()
        blocks = [
            [crystals[i] for i in range(a, min(a + 500, len(crystals)))]
            for a in range(0, len(crystals), 500)
        ]
        parts = list(in_order(survey, blocks, options.jobs))
        tolerances: Counter[float] = sum((p["tolerances"] for p in parts), Counter())
        largest: Counter[int] = sum((p["largest"] for p in parts), Counter())
        atoms, *others = np.sum([p["total"] for p in parts], axis=0).tolist()
        result[name] = {
            "crystals": len(crystals),
            "seconds": time.perf_counter() - start,
            "failures": [line for p in parts for line in p["failures"]],
            "tolerances": {f"{t:g}": n for t, n in sorted(tolerances.items())},
            "corners_of_largest_cell": {str(k): n for k, n in sorted(largest.items())},
            "an_atom": dict(
                zip(("edges", "faces", "cells"), (n / atoms for n in others), strict=True)
            ),
        }
        wrong = list(in_order(invariant, sample(crystals, options.sample), options.jobs))
        result[name]["sample"] = {
            "crystals": len(wrong), "wrong": Counter(word for words in wrong for word in words),
        }  # fmt: skip
        print(name, json.dumps(result[name], indent=1), flush=True)
    chosen = sample(sets["mp_pbe"], options.tolerances)
    rows = [row for row in in_order(tolerances_of, chosen, options.jobs) if row is not None]
    shares = np.mean(rows, axis=0)
    result["tolerances"] = {
        f"{tolerance:g}": dict(zip(("at_once", "as_symmetrised", "moved"), row, strict=True))
        for tolerance, row in zip(TOLERANCES, shares.tolist(), strict=True)
    }
    sizes = [size for size in in_order(noise, chosen, options.jobs) if size is not None]
    result["noise_percentiles"] = {
        str(p): float(np.percentile(sizes, p)) for p in (50, 75, 90, 95, 99, 100)
    }
    print(json.dumps({k: result[k] for k in ("tolerances", "noise_percentiles")}, indent=1))
    (HERE / "complexes.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
