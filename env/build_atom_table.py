"""Make src/crystalmesh/represent/atoms_table.json, the frozen atom features.

    pip download --no-deps mendeleev==0.20.1
    python env/build_atom_table.py --volumes mendeleev-0.20.1-py3-none-any.whl \\
        --reference atom_init.json

`--reference` is the published table, data/sample-regression/atom_init.json of
github.com/txie-93/cgcnn, or a copy of it; it is only compared with, never copied from. Where the
publication leaves a choice open (which volume, La or Lu under Y, a value on an edge or outside
its range), the comparison decided it: the agreement confirms values and rules, it does not prove
each rule on its own.

Which source, and why:

- period, electronegativity, covalent radius, ionisation energy, electron affinity, electron
  configuration: the installed mendeleev (the publication's values come from an early mendeleev).
- group: pymatgen, 0 in the f block. block: the subshell that the Madelung rule fills last. The
  publication has La and Ac in the f block and Lu under Y; mendeleev today has La, Ac in the d and
  Lu in the f block, and pymatgen calls He a p element.
- valence electrons: in the s and p blocks, those of the highest occupied shell n; in the d block
  those of ns and (n-1)d; in the f block 2 (the two s electrons). Pd, [Kr] 4d10, has no 5s
  electron, hence n = 4 and 4s2 3d10 = 12: odd, but it is the rule and the published value.
- atomic volume: mendeleev 0.20.1, the last release to store it (that of the condensed element).
  Later ones compute weight / density, which for gases is that of the gas at room temperature (H:
  12293 instead of 14.1 cm3/mol), far outside the range. pymatgen's molar volume has H in another
  bin and a value for Pu, which the published vectors lack.
"""

import argparse
import functools
import hashlib
import importlib.metadata
import json
import sqlite3
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from mendeleev.mendeleev import get_all_elements
from numpy.typing import NDArray
from pymatgen.core.periodic_table import Element

from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import write_bytes
from crystalmesh.represent.atoms import BLOCKS, ELEMENTS, FEATURES, bin_of, digest, ones

VOLUMES_SHA256 = "e9f66458d8c5996ea8a7290994f6bf6871a9fe1d14dae4c7f8bddbbc41571fa7"
TARGET = Path(__file__).parents[1] / "src/crystalmesh/represent/atoms_table.json"


@functools.cache
def _elements() -> list[Any]:
    """mendeleev's elements 1-100; reading them takes seconds each time."""
    found: list[Any] = get_all_elements()[:ELEMENTS]
    return found


def madelung_block(number: int) -> str:
    """Letter of the subshell that the last of `number` electrons enters by the Madelung rule."""
    shells = sorted((n + l, n, l) for n in range(1, 9) for l in range(min(n, 4)))  # noqa: E741
    for _, _, l in shells:  # noqa: E741
        number -= 4 * l + 2
        if number <= 0:
            return "spdf"[l]
    raise AssertionError("more electrons than shells")


def valence(configuration: dict[tuple[int, str], int], block: str) -> int:
    """Number of valence electrons, as described above; configuration: (n, letter) -> electrons."""
    n = max(n for n, _ in configuration)
    if block == "f":
        return 2
    if block == "d":
        return configuration[n, "s"] + configuration[n - 1, "d"]
    return sum(count for (shell, _), count in configuration.items() if shell == n)


def stored_volumes(wheel: Path) -> dict[int, float | None]:
    """Atomic volumes in cm3/mol from the database in mendeleev's wheel."""
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != VOLUMES_SHA256:
        raise CrystalmeshError(f"{wheel}: not the wheel of mendeleev 0.20.1 (sha256 differs)")
    connection = sqlite3.connect(":memory:")
    connection.deserialize(zipfile.ZipFile(wheel).read("mendeleev/elements.db"))
    return dict(connection.execute("SELECT atomic_number, atomic_volume FROM elements"))


def from_mendeleev(volumes: dict[int, float | None]) -> list[dict[str, Any]]:
    """Properties of elements 1-100, as frozen."""
    rows = []
    for element in _elements():
        number = int(element.atomic_number)
        block = madelung_block(number)
        radius = element.covalent_radius_pyykko
        rows.append(
            {
                "number": number,
                "symbol": element.symbol,
                "group": 0 if block == "f" else int(Element.from_Z(number).group),
                "period": element.period,
                "electronegativity": element.en_pauling,
                "covalent_radius": None if radius is None else round(radius, 6),
                "valence_electrons": valence(element.ec.conf, block),
                "ionisation_energy": element.ionenergies[1],
                "electron_affinity": element.electron_affinity,
                "block": block,
                "atomic_volume": volumes[number],
            }
        )
    return rows


def from_second_source(number: int) -> dict[str, Any]:
    """The same properties from pymatgen (group: mendeleev, since ours is pymatgen's).

    It has no Pyykko radius.
    """
    element = Element.from_Z(number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns where it has no electronegativity
        electronegativity = None if np.isnan(element.X) else float(element.X)
    configuration = {(n, letter): count for n, letter, count in element.full_electronic_structure}
    volume = element.data.get("Molar volume")
    group = _elements()[number - 1].group_id
    return {
        "group": 0 if group is None else group,
        "period": element.row,
        "electronegativity": electronegativity,
        "valence_electrons": valence(configuration, element.block),
        "ionisation_energy": element.ionization_energy,
        "electron_affinity": element.electron_affinity,
        "block": element.block,
        "atomic_volume": None if volume is None else float(volume),
    }


def compare_second_source(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """For each block: how many elements fall in the same bin, and which do not."""
    others = [from_second_source(row["number"]) for row in rows]
    blocks: dict[str, Any] = {}
    for block in others[0]:
        found: dict[str, Any] = {"same": 0, "different": [], "only_here": [], "only_there": []}
        for row, other in zip(rows, others, strict=True):
            here, there = bin_of(block, row[block]), bin_of(block, other[block])
            if here == there:
                found["same"] += 1
            elif here is None:
                found["only_there"].append(row["symbol"])
            elif there is None:
                found["only_here"].append(row["symbol"])
            else:
                found["different"].append(row["symbol"])
        blocks[block] = found
    confirmed = sum(
        all(bin_of(block, row[block]) == bin_of(block, other[block]) for block in other)
        for row, other in zip(rows, others, strict=True)
    )
    version = importlib.metadata.version("pymatgen-core")
    return {"name": f"pymatgen-core {version}", "elements_confirmed": confirmed, "blocks": blocks}


def compare_reference(rows: list[dict[str, Any]], path: Path) -> dict[str, Any]:
    """Agreement with the published vectors, whose keys are atomic numbers or symbols."""
    published: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))
    theirs: NDArray[np.bool_] = np.array(
        [published.get(str(row["number"])) or published[row["symbol"]] for row in rows], dtype=bool
    )
    ours = np.zeros((ELEMENTS, FEATURES), dtype=bool)
    for i, row in enumerate(rows):
        ours[i, row["ones"]] = True
    differs = {
        block: [rows[i]["symbol"] for i in np.flatnonzero((ours != theirs)[:, place].any(axis=1))]
        for block, place in BLOCKS.items()
    }
    return {
        "copy": "cgcnn92.json of CompRhys/aviary, a copy of txie-93/cgcnn's atom_init.json",
        "elements_equal": int((ours == theirs).all(axis=1).sum()),
        "differs": differs,
        "sha256": digest(theirs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the frozen atom features.")
    parser.add_argument("--volumes", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    arguments = parser.parse_args()

    rows = from_mendeleev(stored_volumes(arguments.volumes))
    for row in rows:
        row["ones"] = ones(row)
    mendeleev = f"mendeleev {importlib.metadata.version('mendeleev')}"
    pymatgen = f"pymatgen-core {importlib.metadata.version('pymatgen-core')}"
    sources = dict.fromkeys(BLOCKS, mendeleev) | {
        "group": f"{pymatgen}; 0 in the f block",
        "block": "Madelung rule",
        "valence_electrons": f"{mendeleev}, from the electron configuration",
        "atomic_volume": "mendeleev 0.20.1",
    }
    checks = {
        "reference": compare_reference(rows, arguments.reference),
        "second_source": compare_second_source(rows),
    }
    # One element a line: a changed value shows as one changed line.
    elements = ",\n".join(json.dumps(row) for row in rows)
    text = (
        f'{{"sources": {json.dumps(sources, indent=1)},\n"checks": {json.dumps(checks, indent=1)},'
        f'\n"elements": [\n{elements}\n]}}\n'
    )
    write_bytes(TARGET, text.encode())


if __name__ == "__main__":
    main()
