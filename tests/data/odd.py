"""A folder of odd and malformed crystal files, and what `crystalmesh predict` makes of each."""

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Odd(NamedTuple):
    """A file, and its outcome: how many structures are accepted, what is said of the others."""

    name: str
    content: bytes
    accepted: int
    refused: tuple[str, ...] = ()  # a part of what is said of each that is refused
    note: str = ""  # a part of the warning of those that are accepted
    network: str = ""  # a part of what is said where the networks refuse what is a crystal


def cif(
    sites: str = "Na Na 0 0 0 1\nCl Cl 0.5 0.5 0.5 1",
    cell: tuple[float, ...] = (3.5, 3.5, 3.5, 90, 90, 90),
    head: str = "",
    block: str = "crystal",
) -> str:
    """A CIF without symmetry: label, type, three coordinates, occupancy a line."""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = [f"data_{block}", head]
    lines += [f"_cell_{name} {value}" for name, value in zip(names, cell, strict=True)]
    lines += ["_symmetry_space_group_name_H-M 'P 1'", "loop_"]
    lines += [f"_atom_site_{name}" for name in ("label", "type_symbol")]
    lines += [f"_atom_site_fract_{axis}" for axis in "xyz"]
    return "\n".join([*lines, "_atom_site_occupancy", sites, ""])


def poscar(head: str = "Na Cl", body: str = "Na Cl\n1 1", scale: float = 1.0) -> str:
    """A POSCAR of two atoms."""
    cell = "3.5 0 0\n0 3.5 0\n0 0 3.5"
    return f"{head}\n{scale}\n{cell}\n{body}\nDirect\n0 0 0\n0.5 0.5 0.5\n"


def structure(**changes: object) -> dict[str, object]:
    """pymatgen's JSON of rock salt's primitive stand-in."""
    sites = [
        {"species": [{"element": one, "occu": 1}], "abc": [at] * 3}
        for one, at in (("Na", 0.0), ("Cl", 0.5))
    ]
    lattice = {"matrix": [[3.5, 0, 0], [0, 3.5, 0], [0, 0, 3.5]]}
    return {"@module": "pymatgen.core.structure", "lattice": lattice, "sites": sites} | changes


def xyz(properties: str = 'Lattice="3.5 0 0 0 3.5 0 0 0 3.5" pbc="T T T"', atoms: int = 2) -> str:
    """One frame of extended XYZ."""
    return f"{atoms}\n{properties}\nNa 0 0 0\nCl 1.75 1.75 1.75\n"


def large(count: int = 10) -> str:
    """A thousand atoms: ten rock-salt-like sites along each axis."""
    edge = np.arange(count) / count
    grid = np.stack(np.meshgrid(edge, edge, edge, indexing="ij"), axis=-1).reshape(-1, 3)
    parity = np.round(grid.sum(axis=1) * count).astype(int) % 2
    lines = [
        f"X{i} {('Na', 'Cl')[p]} {x:.8f} {y:.8f} {z:.8f} 1"
        for i, ((x, y, z), p) in enumerate(zip(grid.tolist(), parity.tolist(), strict=True))
    ]
    return cif("\n".join(lines), (28.0, 28.0, 28.0, 90, 90, 90))


def document(name: str | None, content: object) -> dict[str, object]:
    """A summary document of the Materials Project."""
    return {"material_id": name, "structure": content}


def table(rows: list[list[object]]) -> bytes:
    """matminer's dataframe JSON."""
    columns = ["mpid", "formula", "structure"]
    return json.dumps({"index": [0], "columns": columns, "data": rows}).encode()


HYDRATE = "_chemical_formula_sum 'Na1 Cl1 H4 O2'"
WATER = "Na Na 0 0 0 1\nCl Cl 0.5 0.5 0.5 1\nO O 0.5 0 0 1\nO O 0 0.5 0 1"
NEEDLE = cif("Na Na 0 0 0 1\nCl Cl 0 0 0.5 1", (2.8, 2.8, 120.0, 90, 90, 90))
DOUBLE = "Na Na 0 0 0 1\nNa Na 0 0 0.001 1\nCl Cl 0.5 0.5 0.5 1"
JSON = json.dumps(structure()).encode()
NAN = json.dumps(structure(lattice={"matrix": [[float("nan"), 0, 0], [0, 3, 0], [0, 0, 3]]}))
MOLECULE = {"@class": "Molecule", "sites": [{"name": "H", "xyz": [0, 0, 0]}]}

FILES = [
    Odd("plain.cif", cif().encode(), 1),
    Odd("crlf.cif", cif().replace("\n", "\r\n").encode(), 1),
    Odd("byte-order-mark.cif", b"\xef\xbb\xbf" + cif().encode(), 1),
    Odd("latin-1.cif", cif(head="# Universität zu Köln").encode("latin-1"), 1),
    Odd("utf-16.cif", cif().encode("utf-16"), 1),
    Odd("塩 NaCl é.cif", cif().encode(), 1),
    Odd("packed.cif.gz", gzip.compress(cif().encode(), mtime=0), 1),
    Odd("packed-cut.cif.gz", gzip.compress(cif().encode(), mtime=0)[:60], 0, ("broken gzip",)),
    Odd("empty.cif", b"", 0, ("empty",)),
    Odd("binary.cif", bytes(range(256)) * 4, 0, ("binary",)),
    Odd("prose.cif", b"Dear colleague,\nthe crystal is attached.\n", 0, ("no data block",)),
    Odd("powder-only.cif", b"data_x\n_pd_meas_2theta_range_min 5\n", 0, ("no atom sites",)),
    Odd("no-cell.cif", cif().replace("_cell_length_a 3.5\n", "").encode(), 0,
        ("no _cell_length_a",)),
    Odd("flat-cell.cif", cif(cell=(3.5, 3.5, 3.5, 30, 30, 60)).encode(), 0,
        ("zero-volume lattice",)),
    Odd("partial-occupancy.cif", cif("Fe Fe 0 0 0 0.5\nO O .5 .5 .5 1").encode(), 0,
        ("partial occupancy (site 0: Fe 0.5)",)),
    Odd("disorder.cif", cif("A Fe 0 0 0 0.5\nB Ni 0 0 0 0.5\nO O .5 .5 .5 1").encode(), 0,
        ("partial occupancy",)),
    Odd("too-full.cif", cif("A Fe 0 0 0 0.9\nB Ni 0 0 0 0.9\nO O .5 .5 .5 1").encode(), 0,
        ("Occupancy 1.8 exceeded",)),
    Odd("hydrogen-missing.cif", cif(WATER, head=HYDRATE).encode(), 0,
        ("its formula has H (Na1 Cl1 H4 O2), its sites have none",)),
    Odd("formula-differs.cif", cif(head="_chemical_formula_sum 'Na2 Cl1'").encode(), 1,
        note="its formula is Na2 Cl1, its sites give NaCl"),
    Odd("deuterium.cif", cif("Li Li 0 0 0 1\nD D .5 .5 .5 1").encode(), 1),
    Odd("charges.cif", cif("Na Na1+ 0 0 0 1\nCl Cl1- .5 .5 .5 1").encode(), 1),
    Odd("dummy.cif", cif("Na Na 0 0 0 1\nX1 X .5 .5 .5 1").encode(), 0, ("unknown species",)),
    Odd("superheavy.cif", cif("Og Og 0 0 0 1\nCl Cl .5 .5 .5 1").encode(), 1,
        network="118 (Og)"),
    Odd("atom-twice.cif", cif(DOUBLE).encode(), 0, ("atoms too close",)),
    Odd("word-for-number.cif", cif("Na Na zero 0 0 1").encode(), 0, ("'zero' is not a number",)),
    Odd("cut-in-a-loop.cif", cif().rstrip()[:-2].encode(), 0, ("a loop lacks values",)),
    Odd("two-blocks.cif", (cif(block="one") + cif(block="two")).encode(), 2),
    Odd("same-names.cif", (cif(block="x") + cif(block="x")).encode(), 2),
    Odd("one-of-two-bad.cif", (cif(block="good") + cif(DOUBLE, block="bad")).encode(), 1,
        ("atoms too close",)),
    Odd("needle.cif", NEEDLE.encode(), 1, note="a slab or a molecule in a box?"),
    Odd("thousand-atoms.cif", large().encode(), 1),
    Odd("thirds.cif", cif("Mg Mg 0.3333 0.6667 0.25 1\nMg Mg 0.6667 0.3333 0.75 1",
                          (3.2, 3.2, 5.2, 90, 90, 120)).encode(), 1),
    Odd("POSCAR", poscar().encode(), 1),
    Odd("CONTCAR-negative-scale.vasp", poscar(scale=-42.875).encode(), 1),
    Odd("POSCAR-no-symbols", poscar("NaCl", "1 1").encode(), 0, ("element symbols",)),
    Odd("POSCAR-cut", poscar()[:40].encode(), 0, ("cannot be read",)),
    Odd("crystal.xyz", xyz().encode(), 1),
    Odd("trajectory.extxyz", (xyz() * 3).encode(), 3),
    Odd("trajectory-cut.extxyz", (xyz() + xyz(atoms=3)).encode(), 1, ("cannot be read",)),
    Odd("molecule.xyz", xyz("water").encode(), 0, ("no lattice",)),
    Odd("slab.xyz", xyz('Lattice="3 0 0 0 3 0 0 0 9" pbc="T T F"').encode(), 0, ("not periodic",)),
    Odd("structure.json", JSON, 1),
    Odd("list.json", json.dumps([structure(), structure(), 7]).encode(), 2, ("neither",)),
    Odd("broken.json", JSON[:80], 0, ("broken JSON",)),
    Odd("nan.json", NAN.encode(), 0, ("non-finite lattice",)),
    Odd("molecule.json", json.dumps(MOLECULE).encode(), 0, ("neither",)),
    Odd("documents.json", json.dumps([document("mp-1", structure()), document(None, structure()),
                                      document("mp-3", None)]).encode(), 2, ("no structure",)),
    Odd("documents-cut.json.gz", gzip.compress(json.dumps(
        [document(f"mp-{i}", structure()) for i in range(3)]).encode()[:-200], mtime=0), 2,
        ("broken JSON after 2 whole entries",)),
    Odd("matminer.json", table([["mp-1", "NaCl", structure()], ["mp-2", "?", None]]), 1,
        ("no structure",)),
    Odd("matminer-no-structure.json", json.dumps({"columns": ["a"], "data": []}).encode(), 0,
        ("no column 'mpid'",)),
]  # fmt: skip


def write(folder: Path) -> None:
    """All of them, in a folder."""
    for odd in FILES:
        (folder / odd.name).write_bytes(odd.content)


def markdown() -> str:
    """The table of docs/predict.md, which a test holds to these files."""
    rows = ["| file | crystals read | skipped, or said |", "|---|---|---|"]
    for one in FILES:
        said = "; ".join([*one.refused, *filter(None, [one.network, one.note])])
        count = 0 if one.network else one.accepted
        rows.append(f"| `{one.name}` | {count} | {said} |")
    return "\n".join(rows)
