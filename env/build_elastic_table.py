"""Make src/crystalmesh/represent/elastic_table.csv, what networks read of descriptors.

    python env/build_elastic_table.py

Mean and standard deviation of each of `OTHERS` and `NAMES` of crystalmesh.represent.elastic over
the crystals of mp_pbe with at most 12 atoms, whether they have labels or not; none is read. In four
digits, and stored, so that no other choice of crystals and no other machine can change a bit of the
features.
Needs `crystalmesh crystals mp_pbe`.
"""

from pathlib import Path

import numpy as np

from crystalmesh.config.project import find
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent.elastic import NAMES, OTHERS, Descriptors

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "src/crystalmesh/represent/elastic_table.csv"
ATOMS = 12


def main() -> None:
    project = find(ROOT)
    crystals = Crystals.load(project.crystals("mp_pbe"))
    maker = Descriptors(project.params.representation("elastic.descriptors"))
    rows = []
    for position in np.flatnonzero(np.diff(crystals.pointer) <= ATOMS).tolist():
        try:
            rows.append(maker.build(crystals[position])["values"][0])
        except CrystalmeshError:  # it has no complex
            continue
    values = np.array(rows)
    moments = values.mean(axis=0), values.std(axis=0)
    lines = ["name,mean,deviation"]
    for name, mean, deviation in zip((*OTHERS, *NAMES), *moments, strict=True):
        lines.append(f'"{name}",{mean:.4g},{deviation:.4g}')
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
