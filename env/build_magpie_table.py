"""Make src/crystalmesh/represent/magpie_table.csv, the frozen properties of the elements.

    pip install matminer==0.10.1
    python env/build_magpie_table.py

matminer is not among the project's requirements: it is needed here and nowhere else, best in an
environment of its own. The values are those of Magpie (Ward et al., npj Comput. Mater. 2, 16028
(2016)), in the copy that matminer (Ward et al., Comput. Mater. Sci. 152, 60 (2018)) calls
`MagpieData`; the 22 properties are those of its preset "magpie".

One row an element, 1 to 100; an empty field is a value Magpie does not have. The last row, number
0 and symbol "mean", holds the mean of each property over all elements that have it, in Magpie's
table of 112: it stands for a missing value. This is the rule of matminer (`impute_nan=True`).
"""

import importlib.metadata
from pathlib import Path

import numpy as np
from matminer.featurizers.composition import ElementProperty
from matminer.utils.data import MagpieData

ELEMENTS = 100
MATMINER = "0.10.1"
TARGET = Path(__file__).parents[1] / "src/crystalmesh/represent/magpie_table.csv"


def main() -> None:
    if importlib.metadata.version("matminer") != MATMINER:
        raise SystemExit(f"install matminer=={MATMINER}; the table was made with it")
    names: list[str] = ElementProperty.from_preset("magpie").features
    values: dict[str, dict[str, float]] = MagpieData(impute_nan=False).all_elemental_props
    means = [float(np.nanmean(list(values[name].values()))) for name in names]
    lines = [",".join(["number", "symbol", *names])]
    # matminer's properties are keyed by symbol, in the order of the atomic numbers.
    for number, symbol in enumerate(list(values[names[0]])[:ELEMENTS], start=1):
        row = [float(values[name][symbol]) for name in names]
        lines.append(",".join([str(number), symbol, *("" if v != v else repr(v) for v in row)]))
    lines.append(",".join(["0", "mean", *map(repr, means)]))
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
