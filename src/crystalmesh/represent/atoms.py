"""CGCNN's 92 binary atom features (Xie & Grossman 2018, PRL 120, 145301, supplementary table).

Nine properties of the element, each one-hot in a block of its own:

    block               size  value                                  bins
    group                 19  column of the periodic table           0 = f block, g = group g
    period                 7  row of the periodic table              1..7
    electronegativity     10  Pauling                                0.5 to 4.0
    covalent_radius       10  single bond, Pyykko, pm                25 to 250
    valence_electrons     12  number                                 1..12
    ionisation_energy     10  ln(first ionisation energy / eV)       1.3 to 3.3
    electron_affinity     10  eV                                     -3.0 to 3.7
    block                  4  s, p, d, f
    atomic_volume         10  ln(volume / (cm3/mol))                 1.5 to 4.3

A property without a value, or with one outside its range, leaves its block all zero. The bins are
ten of equal width and include their upper edge.

`atoms_table.json` holds the property values and the positions of the ones. It is made by
env/build_atom_table.py, which says where each value comes from; nothing but this file is read
here. `python -m crystalmesh.represent.atoms` prints how far the table is confirmed.
"""

import functools
import hashlib
import importlib.resources
import json
import math
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalmesh.errors import CrystalmeshError

SIZES = {
    "group": 19,
    "period": 7,
    "electronegativity": 10,
    "covalent_radius": 10,
    "valence_electrons": 12,
    "ionisation_energy": 10,
    "electron_affinity": 10,
    "block": 4,
    "atomic_volume": 10,
}
FEATURES: int = sum(SIZES.values())
BLOCKS: dict[str, slice] = {
    name: slice(sum(list(SIZES.values())[:i]), sum(list(SIZES.values())[: i + 1]))
    for i, name in enumerate(SIZES)
}
ELEMENTS: int = 100
RANGES = {
    "electronegativity": (0.5, 4.0),
    "covalent_radius": (25.0, 250.0),
    "ionisation_energy": (1.3, 3.3),
    "electron_affinity": (-3.0, 3.7),
    "atomic_volume": (1.5, 4.3),
}
LOGARITHMIC = {"ionisation_energy", "atomic_volume"}
# Elements 101-118, to name the one that is not covered.
# fmt: off
BEYOND = ["Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt",
          "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"]
# fmt: on


class UnknownElementError(CrystalmeshError, ValueError):
    """An atomic number the features do not cover."""


def vectors(numbers: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Features of atoms.

    Args:
        numbers: atomic numbers, integers [n].

    Returns:
        zeros and ones, float32 [n, 92], a new array.

    Raises:
        UnknownElementError: a number is outside 1..100, or the numbers are not integers.
    """
    numbers = np.asarray(numbers)
    if not np.issubdtype(numbers.dtype, np.integer):
        raise UnknownElementError(f"atomic numbers must be integers, not {numbers.dtype}")
    outside = numbers[(numbers < 1) | (numbers > ELEMENTS)]
    if outside.size:
        number = int(outside.flat[0])
        known = ELEMENTS < number <= ELEMENTS + len(BEYOND)
        name = f"element {number} ({BEYOND[number - ELEMENTS - 1]})" if known else f"{number}"
        raise UnknownElementError(
            f"atomic number {name}: CGCNN's atom features cover elements 1-100 (H to Fm); "
            "leave out the crystals that contain it"
        )
    rows: NDArray[np.float32] = _table()[numbers]
    return rows


def table() -> NDArray[np.float32]:
    """Features of all elements: float32 [101, 92], row = atomic number, row 0 all zero."""
    return _table().copy()


@functools.cache
def _table() -> NDArray[np.float32]:
    rows = np.zeros((ELEMENTS + 1, FEATURES), dtype=np.float32)
    for row in frozen()["elements"]:
        rows[row["number"], row["ones"]] = 1.0
    return rows


def frozen() -> dict[str, Any]:
    """The committed table: `elements` (properties and positions of ones), `sources`, `checks`."""
    text = importlib.resources.files(__package__).joinpath("atoms_table.json").read_text("utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def ones(properties: Mapping[str, Any]) -> list[int]:
    """Positions of the ones of an element, ascending.

    Args:
        properties: a value for each name in `BLOCKS`, in the units of the table above (before
            any logarithm), `block` as a letter; None where there is none.
    """
    places = ((name, bin_of(name, properties[name])) for name in BLOCKS)
    return [BLOCKS[name].start + place for name, place in places if place is not None]


def bin_of(name: str, value: Any) -> int | None:
    """Place of a value within its block, or None where it leaves the block all zero."""
    if value is None:
        return None
    if name == "block":
        return "spdf".index(value)
    if name not in RANGES:
        place = int(value) - (0 if name == "group" else 1)
        return place if 0 <= place < SIZES[name] else None
    low, high = RANGES[name]
    if name in LOGARITHMIC:
        value = math.log(value)
    if not low <= value <= high:
        return None
    # Nine values lie on an edge (electronegativity 1.9 of Si, electron affinity 0.35 of Ac, ...)
    # and the rounding of the edges decides their bin. These are numpy.arange's edges; they, with
    # the upper edge included, give the published bin for every element, and numpy.linspace's do
    # not (Ac). Written out in plain floats, they are the same on every machine.
    step = (low + (high - low) / SIZES[name]) - low
    edges = [low + i * step for i in range(1, SIZES[name])]  # inner edges
    return bisect_left(edges, value)


def digest(rows: NDArray[Any]) -> str:
    """SHA-256 of the features of elements 1-100 (rows [100, 92], zeros and ones), bits packed."""
    return hashlib.sha256(np.packbits(rows.astype(bool), axis=1).tobytes()).hexdigest()


def summary() -> dict[str, Any]:
    """How complete the table is, and how far it is confirmed.

    Returns:
        elements: number covered.
        complete: number with all nine blocks set.
        missing: for each block, the elements it is all zero for.
        reference: agreement with the published vectors (counted at build time), and `same_now`:
            whether the table read here still has their digest.
        second_source: for each block, the elements whose bin another library's values confirm
            (count) or contradict, or for which one source has a value in range and the other not.
        sources: library and version of each property.
    """
    content = frozen()
    names = {row["number"]: row["symbol"] for row in content["elements"]}
    rows = _table()[1:]
    missing = {
        block: [names[i + 1] for i in np.flatnonzero(~rows[:, place].any(axis=1))]
        for block, place in BLOCKS.items()
    }
    reference = content["checks"]["reference"]
    return {
        "elements": len(names),
        "complete": int((rows.sum(axis=1) == len(BLOCKS)).sum()),
        "missing": missing,
        "reference": reference | {"same_now": digest(rows) == reference["sha256"]},
        "second_source": content["checks"]["second_source"],
        "sources": content["sources"],
    }


def _report() -> str:
    found = summary()
    reference, second = found["reference"], found["second_source"]
    lines = [
        f"{found['elements']} elements, {found['complete']} with all {len(BLOCKS)} blocks set; "
        "all-zero blocks:",
        *(f"  {b}: {len(s)} ({' '.join(s)})" for b, s in found["missing"].items() if s),
        "",
        f"Published vectors ({reference['copy']}): {reference['elements_equal']} of "
        f"{found['elements']} elements equal in all blocks; digest of the table "
        f"{'equal' if reference['same_now'] else 'NOT EQUAL'}",
        *(f"  {b}: differs for {' '.join(s)}" for b, s in reference["differs"].items() if s),
        "",
        f"Second source ({second['name']}): {second['elements_confirmed']} of "
        f"{found['elements']} elements confirmed in all {len(second['blocks'])} blocks it has",
    ]
    for block, counts in second["blocks"].items():
        lines.append(f"  {block}: {counts['same']} same")
        for what in ("different", "only_here", "only_there"):
            if counts[what]:
                lines.append(f"    {what}: {' '.join(counts[what])}")
    lines += ["", *(f"{block}: {source}" for block, source in found["sources"].items())]
    return "\n".join(lines)


if __name__ == "__main__":
    print(_report())
