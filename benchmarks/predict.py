"""`crystalmesh predict` on a thousand files: how many a second, and are the values the pipeline's?

Needs data/crystals and data/splits of mp_pbe. Writes the crystals as CIF files and as one MP JSON
file, predicts both by the command line, and holds each value to results/predictors/predictions:

    python benchmarks/predict.py [COUNT]
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element, Structure

from crystalmesh.config.project import Project, find
from crystalmesh.data.crystals import Crystal, Crystals
from crystalmesh.files import read_csv, write_json
from crystalmesh.inference.predictor import best, targets
from crystalmesh.provenance.software import code

DATASET, TARGET = "mp_pbe", "e_form"  # whose test crystals are taken: the largest such part
SEED = 0


def pipeline(project: Project, target: str) -> dict[str, dict[str, str]]:
    """The pipeline's row of each test crystal of the target's best network, as published."""
    rows = read_csv(project.predictions(best(project, target), target))
    return {row["id"]: row for row in rows}


def warned(rows: list[dict[str, str]], published: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Error and coverage of the intervals, of predictions with a warning and of those without."""
    found = {}
    for name, chosen in (("warned", True), ("not_warned", False)):
        pairs = [
            (row, float(published[row["id"]]["target"]))
            for row in rows
            if row["id"] in published and bool(row["warning"]) == chosen
        ]
        if pairs:
            errors = [abs(float(row["value"]) - target) for row, target in pairs]
            inside = [float(row["lower"]) <= t <= float(row["upper"]) for row, t in pairs]
            found[name] = {
                "crystals": len(pairs),
                "mae": round(float(np.mean(errors)), 4),
                "inside_interval": round(float(np.mean(inside)), 3),
            }
    return found


def write(crystals: list[Crystal], folder: Path) -> None:
    """A CIF file a crystal in cif/, as pymatgen writes it, and all of them in crystals.json."""
    (folder / "cif").mkdir()
    documents = []
    for one in crystals:
        species = [Element.from_Z(number) for number in one.numbers.tolist()]
        structure = Structure(one.lattice, species, one.frac)
        structure.to(filename=str(folder / "cif" / f"{one.id}.cif"))
        sites = [
            {"species": [{"element": s.symbol, "occu": 1}], "abc": place}
            for s, place in zip(species, one.frac.tolist(), strict=True)
        ]
        content = {"lattice": {"matrix": one.lattice.tolist()}, "sites": sites}
        documents.append({"material_id": one.id, "structure": content})
    (folder / "crystals.json").write_text(json.dumps(documents), encoding="utf-8")


def predicted(source: Path, out: Path, wanted: list[str]) -> tuple[dict[str, Any], list[Any]]:
    """Run the command; exit code, seconds, and the rows of its table."""
    command = [sys.executable, "-m", "crystalmesh.cli", "predict", str(source), "--out", str(out)]
    began = time.monotonic()
    ended = subprocess.run(
        [*command, *(part for target in wanted for part in ("--target", target))],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    print(ended.stderr.strip(), file=sys.stderr)
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    return {"exit_code": ended.returncode, "seconds": round(seconds, 1)}, rows


def main() -> None:
    """Print and write benchmarks/predict.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("count", nargs="?", type=int, default=1000, help="crystals")
    count = parser.parse_args().count
    project = find()
    crystals = Crystals.load(project.crystals(DATASET))
    published = {target: pipeline(project, target) for target in targets(project)}
    ids = sorted(published[TARGET])
    chosen = np.random.default_rng(SEED).choice(len(ids), size=count, replace=False)
    some = [crystals[crystals.position(ids[i])] for i in np.sort(chosen)]
    found: dict[str, Any] = {"crystals": count, "code": code()["commit"]}
    found["atoms"] = int(sum(len(one.numbers) for one in some))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(some, folder)
        for source in ("cif", "crystals.json"):
            for wanted in (["log_k"], targets(project)):
                key = f"{source}, {'all targets' if len(wanted) > 1 else wanted[0]}"
                entry, rows = predicted(folder / source, folder / "out.csv", wanted)
                entry["rows"] = len(rows)
                entry["crystals_per_s"] = round(count / entry["seconds"], 1)
                for target in wanted:
                    pairs = [
                        (row["value"], published[target][row["id"]]["prediction"])
                        for row in rows
                        if row["target"] == target and row["id"] in published[target]
                    ]
                    gaps = [abs(float(a) - float(b)) for a, b in pairs]
                    entry[target] = {
                        "compared": len(pairs),
                        "equal": sum(float(a) == float(b) for a, b in pairs),
                        "largest_difference": max(gaps, default=0.0),
                    }
                    if target != "space_group":
                        of_target = [row for row in rows if row["target"] == target]
                        entry[target] |= warned(of_target, published[target])
                found[key] = entry
    write_json(Path("benchmarks/predict.json"), found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
