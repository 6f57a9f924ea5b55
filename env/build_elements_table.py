"""Make src/crystalmesh/represent/elements_table.csv, what is known of elements as solids and atoms.

    python env/build_elements_table.py

The values are those of pymatgen's `Element` (Ong et al., Comput. Mater. Sci. 68, 314 (2013)):
elastic moduli, sound, expansion, conduction, hardness, boiling point and density of the elemental
solid; ionisation energies, electron affinity and the highest energy of the occupied s, p, d and f
orbitals (LDA, of NIST) of the atom. All are measured or of free atoms; none is a label of the
Materials Project.

One row an element, 1 to 100. What spans decades is taken by its logarithm. A column has the mean 0
and the standard deviation 1 over the elements that have the property, is cut at 3 deviations and
rounded to 4 decimals; an empty field is a value that pymatgen does not have. Stored as the network
reads them, so that no library's logarithm can change a bit.
"""

import importlib.metadata
import math
import warnings
from pathlib import Path

import numpy as np
from pymatgen.core import Element

from crystalmesh.represent.descriptors import ELEMENTAL

ELEMENTS = 100
PYMATGEN = "2026.10.24"
TARGET = Path(__file__).parents[1] / "src/crystalmesh/represent/elements_table.csv"
LOGARITHMIC, LINEAR = ELEMENTAL[:11], ELEMENTAL[11:13]


def logarithm(value: float) -> float:
    return math.log(value) if value > 0 else math.nan


def number(element: Element, name: str) -> float:
    """The number of a property, before its unit; NaN for what is no number."""
    try:
        return float(str(element.data.get(name)).split()[0])
    except ValueError:
        return math.nan


def properties(element: Element) -> dict[str, float]:
    found = {name: logarithm(number(element, name)) for name in LOGARITHMIC}
    found |= {name: number(element, name) for name in LINEAR}
    energies = [e for e in element.data.get("Ionization energies") or [] if e is not None]
    for n in range(3):
        known = n < len(energies)
        found[f"Ionisation energy {n + 1}"] = logarithm(energies[n]) if known else math.nan
    affinity = element.data.get("Electron affinity")
    found["Electron affinity"] = math.nan if affinity is None else float(affinity)
    orbitals = element.data.get("Atomic orbitals") or {}
    for kind in "spdf":
        of_kind = [float(e) for name, e in orbitals.items() if name[1] == kind]
        found[f"Highest {kind} orbital"] = logarithm(-max(of_kind)) if of_kind else math.nan
    return found


def main() -> None:
    if importlib.metadata.version("pymatgen") != PYMATGEN:
        raise SystemExit(f"install pymatgen=={PYMATGEN}; the table was made with it")
    warnings.simplefilter("ignore")  # of values that pymatgen does not have
    elements = [Element.from_Z(z) for z in range(1, ELEMENTS + 1)]
    rows = [properties(element) for element in elements]
    assert tuple(rows[0]) == ELEMENTAL
    values = np.array([list(row.values()) for row in rows])
    values = (values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0)
    lines = [",".join(["number", "symbol", *rows[0]])]
    for z, (element, row) in enumerate(zip(elements, np.clip(values, -3, 3), strict=True), start=1):
        cells = ["" if math.isnan(v) else f"{v:.4f}" for v in row.tolist()]
        lines.append(",".join([str(z), element.symbol, *cells]))
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
