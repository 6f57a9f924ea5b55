"""Anybody's crystal files -> crystals: one bad file is told, and never stops the others."""

import glob
import gzip
import io
import json
import re
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crystalmesh.data.crystals import Crystal, natural, reduced_formula
from crystalmesh.data.entries import GZIP_MAGIC, Entry
from crystalmesh.data.sources import mpjson
from crystalmesh.data.validation import Rejection, Rules, accept
from crystalmesh.errors import CrystalmeshError

STDIN = "-"
LONGEST = 64 << 20  # bytes of a file that is read at once; MP JSON is streamed whatever its size
SUFFIXES = {
    ".cif": "cif", ".mcif": "cif", ".vasp": "poscar", ".poscar": "poscar",
    ".json": "json", ".xyz": "xyz", ".extxyz": "xyz",
}  # fmt: skip
POSCAR = re.compile(r"(POSCAR|CONTCAR)([._-].*)?", re.IGNORECASE)
BLOCK = re.compile(r"data_(\S*)", re.IGNORECASE)
CELL = (
    "_cell_length_a", "_cell_length_b", "_cell_length_c",
    "_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma",
)  # fmt: skip
ROUNDED = 5  # digits: CIF coordinates with more are taken as they stand
THIRD = 1e-4  # of a cell: those with fewer are moved to the thirds and sixths that they round
CLOSE = 1e-4  # of a cell: images of one CIF site that lie nearer to each other are one
STOICHIOMETRY = 0.02  # by which a CIF's formula and its sites may differ, of an element's share
EMPTY = 60.0  # Angstrom^3 an atom: above it most of the cell is empty


@dataclass(frozen=True)
class Item:
    """One structure of a file, or why there is none.

    Attributes:
        file: as the user named it, or as it was found in a folder.
        id: of the structure: the file's name without its suffix; where the file has several, their
            own names, or a number after "#".
        crystal: None where it is refused.
        problem: the reason then, else empty.
        notes: what the user should know of an accepted one.
    """

    file: str
    id: str
    crystal: Crystal | None
    problem: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What one process reads: a file as a whole, or one entry of a stream of them."""

    file: str
    path: Path | None = None  # none: standard input
    entry: Entry | None = None
    problem: str = ""


def read(paths: Sequence[str], rules: Rules) -> Iterator[Item]:
    """The structures of files, folders, glob patterns and standard input ("-"), in that order.

    Args:
        paths: CIF, POSCAR, extended XYZ, pymatgen JSON or MP JSON, each plain or packed by gzip. Of
            a folder all files with a known suffix are read, sorted by name, folders in it included.
        rules: what makes a crystal acceptable.
    """
    for source in sources(paths):
        yield from parse(source, rules)


def sources(paths: Sequence[str]) -> Iterator[Source]:
    """What `read` reads, part by part, for several processes; see `parse`."""
    for name in paths:
        if name == STDIN:
            yield Source(STDIN)
            continue
        found = [Path(name)]
        if not found[0].exists() and glob.has_magic(name):
            found = [Path(one) for one in glob.glob(name, recursive=True)]  # noqa: PTH207 (any root)
            if not found:
                yield Source(name, problem="no file matches this pattern")
        for path in sorted(found, key=lambda p: natural(p.as_posix())):
            try:
                yield from _of_path(path)
            except OSError as error:
                yield Source(str(path), problem=error.strerror or str(error))


def _of_path(path: Path) -> Iterator[Source]:
    if path.is_dir():
        inside = [p for p in path.rglob("*") if _kind(p.name) and p.is_file()]
        if not inside:
            known = ", ".join(["POSCAR", "CONTCAR", *SUFFIXES])
            yield Source(str(path), problem=f"no file of a known kind in this folder ({known})")
        for one in sorted(inside, key=lambda p: natural(p.as_posix())):
            yield from _of_path(one)
    elif _kind(path.name) == "json" and (streamed := _is_stream(path)):
        yield from _stream(path, streamed)
    else:
        yield Source(str(path), path)


def _kind(name: str) -> str:
    """The format that a file's name tells; empty where it tells none."""
    name = name.removesuffix(".gz")
    suffix = SUFFIXES.get(Path(name).suffix.lower(), "")
    return suffix or ("poscar" if POSCAR.fullmatch(name) else "")


def _is_stream(path: Path) -> str:
    """How the MP JSON begins whose entries are read one by one; empty for a single structure."""
    with path.open("rb") as stream:
        packed = stream.read(2) == GZIP_MAGIC
        stream.seek(0)
        try:
            start = (gzip.GzipFile(fileobj=stream) if packed else stream).read(4096)
        except (OSError, EOFError, zlib.error):
            return ""
    text = start.decode("utf-8", errors="replace").lstrip("\ufeff \r\n\t")
    if re.match(r'\{\s*"(index|columns)"', text):
        return "table"
    return "documents" if text.startswith("[") and '"material_id"' in text else ""


def _stream(path: Path, kind: str) -> Iterator[Source]:
    """The entries of MP JSON; where the file breaks, what is before it still counts."""
    assert kind
    try:
        for entry in mpjson.read(path):
            yield Source(str(path), path, entry)
    except CrystalmeshError as error:
        yield Source(str(path), problem=str(error).removeprefix(f"{path}: "))


def parse(source: Source, rules: Rules) -> list[Item]:
    """The structures of a source. Nothing that is in a file makes this raise."""
    if source.problem:
        return [Item(source.file, _stem(source.file), None, source.problem)]
    if source.entry is not None:
        name = source.entry.id or f"{_stem(source.file)}#{source.entry.position + 1}"
        return [_judged(source.file, replace(source.entry, id=name), rules)]
    try:
        text = _text(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of them is told by `notes`
            found = list(_entries(source, text))
    except _Unreadable as error:
        return [Item(source.file, _stem(source.file), None, str(error))]
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        return [Item(source.file, _stem(source.file), None, reason)]
    except Exception as error:  # parsers raise whatever the text leads them into
        return [Item(source.file, _stem(source.file), None, f"cannot be read: {_said(error)}")]
    names = [name for name, _, _ in found]
    items = []
    for number, (name, entry, notes) in enumerate(found, start=1):
        if len(found) == 1:
            name = entry.id or _stem(source.file)
        elif not name or names.count(name) > 1:
            name = f"{_stem(source.file)}#{number}"
        items.append(_judged(source.file, replace(entry, id=name), rules, notes))
    return items


def of_object(structure: Any, name: str, rules: Rules) -> Item:
    """A pymatgen Structure or an ASE Atoms, judged as a file would be."""
    if hasattr(structure, "get_scaled_positions"):
        entry, notes = _of_atoms(structure)
    elif hasattr(structure, "lattice") and hasattr(structure, "frac_coords"):
        entry, notes = _of_structure(structure), ()
    else:
        kind = type(structure).__name__
        raise CrystalmeshError(
            f"{name}: a {kind} is no crystal; give a pymatgen Structure or ASE Atoms"
        )
    return _judged(name, replace(entry, id=name), rules, notes)


def _said(error: Exception) -> str:
    """What a parser says, in one line, and in the words of this package where it has some."""
    said = " ".join(str(error).split())
    if "Singular matrix" in said:  # of numpy, which some parsers pass on as an error of their own
        return "zero-volume lattice"
    said = re.sub("could not convert string to float: ('.*?')", r"\1 is not a number", said)
    return said[:200] or type(error).__name__


class _Unreadable(Exception):  # noqa: N818 (a file refused is no error)
    """Why a file gives no structure."""


Found = tuple[str, Entry, tuple[str, ...]]  # name within the file, entry, notes


def _judged(file: str, entry: Entry, rules: Rules, notes: tuple[str, ...] = ()) -> Item:
    if entry.fault:
        return Item(file, entry.id, None, entry.fault if entry.fault != "null" else "no structure")
    crystal = accept(entry, rules)
    if isinstance(crystal, Rejection):
        detail = f" ({crystal.detail})" if crystal.detail else ""
        return Item(file, entry.id, None, f"{crystal.reason}{detail}")
    crystal = replace(crystal, formula=reduced_formula(crystal.numbers))
    volume = abs(float(np.linalg.det(crystal.lattice))) / len(crystal.numbers)
    if volume > EMPTY:
        notes += (f"{volume:.0f} Angstrom^3 an atom: a slab or a molecule in a box?",)
    return Item(file, entry.id, crystal, notes=notes)


def _stem(file: str) -> str:
    if file == STDIN:
        return "stdin"
    name = Path(file).name.removesuffix(".gz")
    return Path(name).stem if Path(name).suffix.lower() in SUFFIXES else name


def _text(source: Source) -> str:
    """The whole text, unpacked; line ends become plain ones."""
    if source.path is None:
        content = sys.stdin.buffer.read(LONGEST + 1)
    elif source.path.exists():
        with source.path.open("rb") as stream:
            content = stream.read(LONGEST + 1)
    else:
        raise _Unreadable("no such file")
    if content[:2] == GZIP_MAGIC:
        try:
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(LONGEST + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise _Unreadable(f"broken gzip: {error}") from error
    if len(content) > LONGEST:
        raise _Unreadable(f"longer than {LONGEST >> 20} MiB: give MP JSON, which is streamed")
    if not content.strip():
        raise _Unreadable("empty")
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    if b"\0" in content and not wide:
        raise _Unreadable("binary: not a text file of a known kind")
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "latin-1"):
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise _Unreadable("not a text in UTF-8 or UTF-16")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _entries(source: Source, text: str) -> Iterator[Found]:
    """The structures of a text, by its name's suffix, else by how it looks."""
    kind = _kind(source.path.name) if source.path else ""
    lines = text.lstrip().split("\n", 2)
    if not kind:
        if lines[0][:1] in "{[":
            kind = "json"
        elif re.search(r"^data_", text, re.MULTILINE | re.IGNORECASE):
            kind = "cif"
        elif lines[0].strip().isdecimal():
            kind = "xyz"
        elif len(lines) > 2 and re.fullmatch(r"\s*[-+.0-9eE]+\s*", lines[1]):
            kind = "poscar"
        else:
            raise _Unreadable("of no known kind: give CIF, POSCAR, extended XYZ or JSON")
    yield from {"cif": _cif, "poscar": _poscar, "xyz": _xyz, "json": _json}[kind](text)


def _blocks(text: str) -> list[tuple[str, str]]:
    """The data blocks of a CIF by name, in order; names may repeat."""
    blocks: list[tuple[str, list[str]]] = []
    inside = False  # a text field, between lines that begin with a semicolon
    for line in text.split("\n"):
        inside ^= line.startswith(";")
        match = None if inside else BLOCK.match(line)
        if match:
            blocks.append((match[1], []))
        if blocks:
            blocks[-1][1].append(line)
    return [(name, "\n".join(lines)) for name, lines in blocks]


def _cif(text: str) -> Iterator[Found]:
    from pymatgen.io.cif import CifParser

    blocks = _blocks(text)
    if not blocks:
        raise _Unreadable("no data block: not a CIF")
    with_atoms = [b for b in blocks if "_atom_site_" in b[1].lower()]
    if not with_atoms:
        raise _Unreadable("no atom sites in this CIF")
    for name, block in with_atoms:
        lacking = [key for key in CELL if key not in block.lower()]
        if lacking:
            yield name, _faulty(f"no {lacking[0]}: a crystal needs a cell"), ()
            continue
        try:
            parser = CifParser(
                io.StringIO(block),
                site_tolerance=CLOSE,
                frac_tolerance=0 if _precise(block) else THIRD,
                occupancy_tolerance=1.0 + 1e-6,
            )
            structures = parser.parse_structures(primitive=False, on_error="raise")
            notes = _stoichiometry(parser, structures[0])
            yield name, _of_structure(structures[0]), notes
        except Exception as error:  # one block must not hide the others
            said = _said(error).removeprefix("No structure parsed for section 1 in CIF. ")
            if re.match(r"zip\(\) argument|.* is not a multiple of n=", said):  # of pymatgen's code
                said = "a loop lacks values; is the file cut off?"
            yield name, _faulty(said), ()


def _precise(block: str) -> bool:
    """Whether coordinates have so many digits that a third is told from 0.3333."""
    digits = re.findall(r"(?<![\w.])-?[01]?\.(\d+)(?:\(\d+\))?(?=\s|$)", block)
    return bool(digits) and max(map(len, digits)) > ROUNDED


def _stoichiometry(parser: Any, structure: Any) -> tuple[str, ...]:
    """Hold the sites of a CIF to the formula that it states.

    Raises:
        _Unreadable: an element of the formula has no site, as hydrogen often.
    """
    from pymatgen.core import Composition

    block = next(iter(parser.as_dict().values()))
    stated = block.get("_chemical_formula_sum")
    if not isinstance(stated, str):
        return ()
    try:
        formula = Composition(stated).remove_charges().get_el_amt_dict()
    except Exception:  # the formula is for people, and some write it in their own way
        return ()
    sites = structure.composition.remove_charges().get_el_amt_dict()
    lacking = [symbol for symbol in formula if symbol not in sites and symbol not in ("D", "T")]
    if lacking:
        raise _Unreadable(
            f"its formula has {', '.join(lacking)} ({' '.join(stated.split())}), its sites have"
            " none: add these atoms"
        )
    total, all_sites = sum(formula.values()), sum(sites.values())
    if any(
        abs(sites.get(s, 0) / all_sites - formula.get(s, 0) / total) > STOICHIOMETRY
        for s in {*formula, *sites}
    ):
        return (
            f"its formula is {' '.join(stated.split())}, its sites give"
            f" {structure.composition.reduced_formula}",
        )
    return ()


def _poscar(text: str) -> Iterator[Found]:
    from pymatgen.io.vasp import Poscar
    from pymatgen.io.vasp.inputs import BadPoscarWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", BadPoscarWarning)
        try:
            poscar = Poscar.from_str(text, read_velocities=False)
        except BadPoscarWarning as error:
            raise _Unreadable(
                "a POSCAR without the line of element symbols: write them above the counts"
            ) from error
    yield "", _of_structure(poscar.structure), ()


def _xyz(text: str) -> Iterator[Found]:
    import ase.io

    frames = ase.io.iread(io.StringIO(text), index=":", format="extxyz")
    count = 0
    while True:
        try:
            atoms = next(frames)
        except StopIteration:
            break
        except Exception as error:
            yield "", _faulty(f"frame {count + 1} cannot be read: {_said(error)}"), ()
            return
        count += 1
        yield "", *_of_atoms(atoms)
    if not count:
        raise _Unreadable("no frame in this XYZ file")


def _json(text: str) -> Iterator[Found]:
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _Unreadable(f"broken JSON: {error}") from error
    if isinstance(content, dict) and {"columns", "data"} <= set(content):
        raise _Unreadable("matminer's JSON on standard input: give it as a file, which is streamed")
    for document in content if isinstance(content, list) else [content]:
        if isinstance(document, dict) and "structure" in document:
            name = document.get("material_id")
            yield str(name or ""), mpjson.entry(0, name, document["structure"], {}), ()
        elif isinstance(document, dict) and {"lattice", "sites"} <= set(document):
            yield "", mpjson.entry(0, None, document, {}), ()
        else:
            yield "", _faulty("neither a pymatgen Structure nor a Materials Project document"), ()


def _of_structure(structure: Any) -> Entry:
    """A pymatgen Structure as a raw entry."""
    species = tuple(
        tuple((str(getattr(one, "symbol", one)), float(share)) for one, share in site.items())
        for site in (site.species for site in structure)
    )
    lattice = np.array(structure.lattice.matrix, dtype=np.float64)
    frac = np.array(structure.frac_coords, dtype=np.float64).reshape(-1, 3)
    return Entry(0, "", lattice, species, frac, {})


def _of_atoms(atoms: Any) -> tuple[Entry, tuple[str, ...]]:
    """ASE Atoms as a raw entry."""
    cell = np.array(atoms.cell[:], dtype=np.float64)
    if not cell.any():
        return _faulty("no lattice: a molecule is no crystal"), ()
    if not atoms.pbc.all():
        return _faulty('not periodic in all three directions: set pbc="T T T" if it is'), ()
    occupancy = atoms.info.get("occupancy")
    if occupancy and any(len(one) > 1 or sum(one.values()) < 1 for one in occupancy.values()):
        return _faulty("partial occupancy"), ()
    species = tuple(((symbol, 1.0),) for symbol in atoms.get_chemical_symbols())
    frac = (
        np.linalg.solve(cell.T, atoms.positions.T).T
        if abs(np.linalg.det(cell)) > 0
        else (np.zeros((len(atoms), 3)))
    )  # a flat cell is refused by its volume
    return Entry(0, "", cell, species, frac, {}), ()


def _faulty(problem: str) -> Entry:
    """An entry that is refused for a reason of its file."""
    return Entry(0, "", np.full((3, 3), np.nan), (), np.empty((0, 3)), {}, problem)
