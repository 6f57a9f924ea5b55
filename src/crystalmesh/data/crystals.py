"""Raw entries -> validated crystals: what is accepted, in which order, and why the rest is not."""

import itertools
import math
import re
import reprlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import spglib
from ase.data import atomic_numbers
from ase.geometry.minkowski_reduction import minkowski_reduce
from jaxtyping import Float, Int

from crystalmesh.config import Params, Project, lookup
from crystalmesh.data import mpjson, registry
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import (
    read_json,
    read_tensors,
    sha256,
    write_csv,
    write_json,
    write_tensors,
    writing_folder,
)
from crystalmesh.workers import in_order

LABELS = (*mpjson.LABELS, "space_group")
TENSORS, INDEX, REJECTED = "crystals.safetensors", "index.json", "rejected.csv"

# "Fe", "Fe2+", "O-", "Fe0+": a charge belongs to the species and not to the element.
SPECIES = re.compile(r"([A-Z][a-z]?)(?:\d*\.?\d*[+-])?")
ELEMENTS = {symbol: number for symbol, number in atomic_numbers.items() if number > 0}
ELEMENTS |= {"D": 1, "T": 1}
NON_FINITE = ("NaN", "Infinity", "-Infinity")
FULL = 1e-6  # an occupancy this near to one is one
FLAT = 1e-12  # volume over a*b*c below which the lattice vectors are dependent but for rounding
BATCH = 64  # entries handed to a process at once
MOST_SITES = 10_000  # of a crystal; the largest of the Materials Project have some hundreds
PAIRS = 1 << 20  # pairs of sites measured at once

# spglib 2.8 warns on every call unless it may raise.
spglib.error.OLD_ERROR_HANDLING = False


@dataclass(frozen=True)
class Crystal:
    """An accepted crystal.

    Attributes:
        id: Materials Project id.
        formula: reduced formula.
        lattice: rows a, b, c in Angstrom.
        numbers: atomic number of each site.
        frac: fractional coordinates of each site, as the raw file gives them.
    """

    id: str
    formula: str
    lattice: Float[np.ndarray, "3 3"]
    numbers: Int[np.ndarray, " sites"]
    frac: Float[np.ndarray, "sites 3"]


@dataclass(frozen=True)
class Crystals:
    """The accepted crystals of a dataset, sorted by id; `crystals[i]` is a Crystal.

    Attributes:
        dataset: its name in params.yaml.
        entries: how many entries the raw file has.
        ids, formulas: one a crystal.
        lattices: Angstrom.
        pointer: sites of crystal i are pointer[i] to pointer[i + 1].
        numbers, frac: of all sites, one crystal after the other.
        labels: e_form [eV/atom], gap [eV], mu_b [Bohr magneton/cell], k_vrh, g_vrh [GPa], n
            (refractive index) and space_group; NaN where a crystal has none or a task rejects it.
    """

    dataset: str
    entries: int
    ids: list[str]
    formulas: list[str]
    lattices: Float[np.ndarray, "crystals 3 3"]
    pointer: Int[np.ndarray, " crystals+1"]
    numbers: Int[np.ndarray, " sites"]
    frac: Float[np.ndarray, "sites 3"]
    labels: dict[str, Float[np.ndarray, " crystals"]]

    @classmethod
    def load(cls, folder: Path) -> "Crystals":
        """Read what `build` wrote; raises CrystalmeshError when it is missing or damaged."""
        index, tensors = read_json(folder / INDEX), read_tensors(folder / TENSORS)
        try:
            if sha256(folder / TENSORS) != index["checksum"]:
                raise CrystalmeshError(
                    f"{folder}: {INDEX} and {TENSORS} disagree; delete it, run again"
                )
            crystals = cls(
                dataset=index["dataset"],
                entries=index["entries"],
                ids=index["ids"],
                formulas=index["formulas"],
                lattices=tensors["lattice"],
                pointer=tensors["pointer"],
                numbers=tensors["numbers"].astype(np.int64),
                frac=tensors["frac"],
                labels={
                    name: tensors.get(f"label.{name}", np.full(len(index["ids"]), np.nan))
                    for name in LABELS
                },
            )
        except (KeyError, TypeError) as error:
            raise CrystalmeshError(f"{folder}: damaged ({error}); delete it, run again") from error
        if not len(crystals.ids) == len(crystals.lattices) == len(crystals.pointer) - 1:
            raise CrystalmeshError(f"{folder}: damaged; delete it, run again")
        return crystals

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> Crystal:
        sites = slice(self.pointer[i], self.pointer[i + 1])
        return Crystal(
            self.ids[i], self.formulas[i], self.lattices[i], self.numbers[sites], self.frac[sites]
        )

    def __iter__(self) -> Iterator[Crystal]:
        return (self[i] for i in range(len(self)))

    def position(self, name: str) -> int:
        """The place of the crystal with this id; raises CrystalmeshError when there is none."""
        if name not in self._positions:
            raise CrystalmeshError(f"dataset {self.dataset}: no crystal '{name}'")
        return self._positions[name]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.ids)}


@dataclass(frozen=True)
class Rejection:
    """One line of rejected.csv; `scope` is "crystal", or a task that must do without its label."""

    position: int
    id: str
    scope: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Scope:
    """What a task demands of a label, inclusive; `positive` where a logarithm is taken of it."""

    name: str
    label: str
    low: float
    high: float
    positive: bool


@dataclass(frozen=True)
class Rules:
    """What validation goes by: see `validation` and `tasks` in params.yaml."""

    min_distance: float
    symprec: float
    scopes: tuple[Scope, ...]

    @classmethod
    def of(cls, params: Params) -> "Rules":
        scopes = [
            Scope(name, task.label, *task.range, positive=task.transform == "log10")
            for name, task in sorted(params.tasks.items())
        ]
        # A label that no task uses must still be a finite number.
        used = {scope.label for scope in scopes}
        scopes += [
            Scope(label, label, -math.inf, math.inf, False) for label in LABELS if label not in used
        ]
        return cls(params.validation.min_distance, params.validation.symprec, tuple(scopes))


@dataclass(frozen=True)
class Checked:
    """An entry after validation; `crystal` (its formula still empty) is None when rejected."""

    position: int
    crystal: Crystal | None
    labels: dict[str, float]
    rejections: tuple[Rejection, ...]


def build(project: Project, dataset: str, jobs: int) -> None:
    """Validate a raw dataset into data/crystals/<dataset>/.

    Writes crystals.safetensors, index.json and rejected.csv, and a summary to stderr. The result
    does not depend on `jobs`, the number of processes.

    Raises:
        CrystalmeshError: the raw file is missing, changed or broken, or holds no valid crystal.
    """
    lookup(project.params.datasets, dataset, "dataset")
    path = registry.open_raw(project, dataset)
    with registry.progress() as bar:
        task = bar.add_task(f"crystals {dataset}", total=path.stat().st_size)
        entries = mpjson.read(path, lambda size: bar.advance(task, size))
        checked = list(_unique(_check_all(entries, Rules.of(project.params), jobs)))
    crystals = assemble(dataset, checked)
    rejections = [rejection for entry in checked for rejection in entry.rejections]
    said = _summary(crystals, rejections)
    if not len(crystals):
        raise CrystalmeshError(f"{path}: no valid crystal among {said}; nothing is written")
    with writing_folder(project.crystals(dataset)) as folder:
        save(crystals, folder)
        write_csv(
            folder / REJECTED,
            ["position", "id", "scope", "reason", "detail"],
            [(r.position, r.id, r.scope, r.reason, r.detail) for r in rejections],
        )
    print(f"crystals {dataset}: {said}", file=sys.stderr)


def save(crystals: Crystals, folder: Path) -> None:
    """Write crystals.safetensors and index.json into an existing folder."""
    tensors: dict[str, np.ndarray] = {
        "lattice": crystals.lattices,
        "pointer": crystals.pointer,
        "numbers": crystals.numbers.astype(np.uint8),
        "frac": crystals.frac,
    }
    tensors |= {  # a label that no crystal has takes no place
        f"label.{name}": values
        for name, values in crystals.labels.items()
        if np.isfinite(values).any()
    }
    write_tensors(folder / TENSORS, tensors)
    index = {
        "dataset": crystals.dataset,
        "entries": crystals.entries,
        "ids": crystals.ids,
        "formulas": crystals.formulas,
        "checksum": sha256(folder / TENSORS),
    }
    write_json(folder / INDEX, index)


def assemble(dataset: str, checked: list[Checked]) -> Crystals:
    """The accepted ones among the checked entries as one store, sorted by id (mp-2 < mp-10)."""
    pairs = [(entry.crystal, entry.labels) for entry in checked if entry.crystal is not None]
    pairs.sort(key=lambda pair: natural(pair[0].id))
    sites = [len(crystal.numbers) for crystal, _ in pairs]
    return Crystals(
        dataset=dataset,
        entries=len(checked),
        ids=[crystal.id for crystal, _ in pairs],
        formulas=[reduced_formula(crystal.numbers) for crystal, _ in pairs],
        lattices=np.array([crystal.lattice for crystal, _ in pairs]).reshape(-1, 3, 3),
        pointer=np.concatenate([[0], np.cumsum(sites, dtype=np.int64)]).astype(np.int64),
        numbers=np.concatenate([np.empty(0, np.int64), *(c.numbers for c, _ in pairs)]),
        frac=np.concatenate([np.empty((0, 3)), *(c.frac for c, _ in pairs)]),
        labels={
            name: np.array([labels.get(name, math.nan) for _, labels in pairs], dtype=np.float64)
            for name in LABELS
        },
    )


def natural(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sort key that compares the numbers in a name as numbers, and is a total order."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(p), "") if i % 2 else (-1, p) for i, p in enumerate(parts)), name


def reduced_formula(numbers: Int[np.ndarray, " sites"]) -> str:
    """Formula with the smallest whole numbers, elements by electronegativity: "Li3Fe2(PO4)3"."""
    found, counts = np.unique(numbers, return_counts=True)
    return _formula(tuple(found.tolist()), tuple(counts.tolist()))


@cache
def _formula(numbers: tuple[int, ...], counts: tuple[int, ...]) -> str:
    # Imported late: the worker processes do without it.
    from pymatgen.core.composition import Composition
    from pymatgen.core.periodic_table import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the noble gases have no electronegativity
        amounts = {
            Element.from_Z(number): count for number, count in zip(numbers, counts, strict=True)
        }
        return str(Composition(amounts).reduced_formula)


class _Reject(Exception):  # noqa: N818 (an entry rejected is no error)
    """Reason and detail of a rejection."""


def check(entry: mpjson.Entry, rules: Rules) -> Checked:
    """Validate one entry, all but the uniqueness of its id."""
    crystal = accept(entry, rules)
    if isinstance(crystal, Rejection):
        return Checked(entry.position, None, {}, (crystal,))
    values = dict(entry.labels)
    number = space_group(crystal, rules.symprec)
    if number is not None:
        values["space_group"] = number
    labels: dict[str, float] = {}
    rejections = []
    for scope in rules.scopes:
        try:
            if scope.label in values:
                labels[scope.label] = _label(values[scope.label], scope)
            elif scope.label == "space_group":
                raise _Reject("no space group", f"spglib finds none at symprec {rules.symprec}")
        except _Reject as fault:
            rejections.append(Rejection(entry.position, entry.id, scope.name, *fault.args))
    # Where several tasks share a label, it must suit each of them.
    refused = {s.label for s in rules.scopes if s.name in {r.scope for r in rejections}}
    labels = {label: value for label, value in labels.items() if label not in refused}
    return Checked(entry.position, crystal, labels, tuple(rejections))


def accept(entry: mpjson.Entry, rules: Rules) -> Crystal | Rejection:
    """The crystal of an entry (its formula still empty), or why there is none."""
    try:
        return _crystal(entry, rules)
    except _Reject as fault:
        return Rejection(entry.position, entry.id, "crystal", *fault.args)


def _crystal(entry: mpjson.Entry, rules: Rules) -> Crystal:
    if not entry.id:
        raise _Reject("no id", "")
    if entry.fault:
        raise _Reject("no structure", entry.fault)
    if not entry.species:
        raise _Reject("no atoms", "")
    if len(entry.species) > MOST_SITES:
        raise _Reject("too many sites", str(len(entry.species)))
    numbers = np.array([_number(i, site) for i, site in enumerate(entry.species)], dtype=np.int64)
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(entry.lattice, axis=1)
        volume, box = abs(float(np.linalg.det(entry.lattice))), float(np.prod(lengths))
    if not (np.isfinite(entry.lattice).all() and math.isfinite(volume) and math.isfinite(box)):
        raise _Reject("non-finite lattice", str(entry.lattice.tolist()))
    if volume <= FLAT * box:
        raise _Reject("zero-volume lattice", str(entry.lattice.tolist()))
    if not np.isfinite(entry.frac).all():
        site = int(np.flatnonzero(~np.isfinite(entry.frac).all(axis=1))[0])
        raise _Reject("non-finite coordinates", f"site {site}")
    close = nearest(entry.lattice, entry.frac, rules.min_distance)
    if close is not None:
        i, j, distance = close
        raise _Reject("atoms too close", f"sites {i} and {j}: {distance:.4f} Angstrom")
    return Crystal(entry.id, "", entry.lattice, numbers, entry.frac)


def _number(i: int, site: mpjson.Species) -> int:
    """Atomic number of a site that one element fills."""
    for name, _ in site:
        match = SPECIES.fullmatch(name)
        if match is None or match[1] not in ELEMENTS:
            raise _Reject("unknown species", f"site {i}: {name[:40]}")
    if len(site) != 1 or not abs(site[0][1] - 1.0) <= FULL:
        found = ", ".join(f"{name} {occupancy}" for name, occupancy in site) or "empty"
        raise _Reject("partial occupancy", f"site {i}: {found}")
    match = SPECIES.fullmatch(site[0][0])
    assert match is not None
    return ELEMENTS[match[1]]


def _label(value: Any, scope: Scope) -> float:
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in NON_FINITE):
        raise _Reject("not a number", reprlib.repr(value))
    number = float(value)
    if not math.isfinite(number):
        raise _Reject("not finite", str(value))
    if not scope.low <= number <= scope.high or (scope.positive and number <= 0):
        raise _Reject("out of range", f"{number} outside {scope.low} to {scope.high}")
    return number


def nearest(
    lattice: Float[np.ndarray, "3 3"], frac: Float[np.ndarray, "sites 3"], within: float
) -> tuple[int, int, float] | None:
    """The closest two sites nearer than `within` Angstrom, periodic images and own ones included.

    Exact for any cell, however skewed. The lattice must have a volume.

    Returns:
        Both sites and their distance in Angstrom, or None when all are `within` or more apart.
    """
    volume = abs(float(np.linalg.det(lattice)))
    # No lattice of this volume has a shortest vector longer than the face-centred cubic one.
    shortest = (math.sqrt(2.0) * volume) ** (1 / 3)
    if shortest < within:
        return 0, 0, shortest
    heights = _heights(lattice)
    if heights.min() < within:
        # Thin cells need many images: the reduced cell has no height far below its shortest edge.
        lattice, change = minkowski_reduce(lattice)  # type: ignore[no-untyped-call]
        frac = frac @ np.linalg.inv(change)
        heights = _heights(lattice)
        shortest = float(np.linalg.norm(lattice, axis=1).min())
        if shortest < within:
            return 0, 0, shortest
    # A difference of at most half a cell, and `within` spans so many cells beside it.
    reach = np.floor(within / heights + 0.5).astype(int).tolist()
    shifts = list(itertools.product(*(range(-r, r + 1) for r in reach)))
    found = (within, 0, 0)
    rows = 1 + PAIRS // len(frac)
    for start in range(0, len(frac), rows):
        gaps = frac[start : start + rows, None] - frac[None, :]  # [rows, sites, 3]
        gaps -= np.round(gaps)
        for shift in shifts:
            distances = np.linalg.norm((gaps + shift).reshape(-1, 3) @ lattice, axis=1)
            if not any(shift):
                distances[start :: len(frac) + 1] = np.inf  # a site from itself
            best = int(distances.argmin())
            i, j = sorted((start + best // len(frac), best % len(frac)))
            found = min(found, (float(distances[best]), i, j))
    return (found[1], found[2], found[0]) if found[0] < within else None


def _heights(lattice: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Distances between the opposite faces of the cell."""
    sides = np.cross(np.roll(lattice, -1, axis=0), np.roll(lattice, -2, axis=0))
    heights: Float[np.ndarray, "3"] = abs(np.linalg.det(lattice)) / np.linalg.norm(sides, axis=1)
    return heights


def space_group(crystal: Crystal, symprec: float) -> int | None:
    """Number of the space group (1 to 230) by spglib; None where it finds none."""
    try:
        found = spglib.get_symmetry_dataset(
            (crystal.lattice, crystal.frac, crystal.numbers),  # type: ignore[arg-type]
            symprec=symprec,
        )
    except spglib.SpglibError:
        return None
    return None if found is None else int(found.number)


def _check_batch(entries: list[mpjson.Entry], rules: Rules) -> list[Checked]:
    return [check(entry, rules) for entry in entries]


def _check_all(entries: Iterable[mpjson.Entry], rules: Rules, jobs: int) -> Iterator[Checked]:
    """Check entries in `jobs` processes; the results come in the order of the entries."""
    stream = iter(entries)
    work = partial(_check_batch, rules=rules)
    batches = iter(lambda: list(itertools.islice(stream, BATCH)), [])
    for checked in in_order(work, batches, jobs):
        yield from checked


def _unique(checked: Iterable[Checked]) -> Iterator[Checked]:
    """Reject an accepted entry whose id an earlier accepted one has."""
    seen: dict[str, int] = {}
    for entry in checked:
        crystal = entry.crystal
        if crystal is not None and crystal.id in seen:
            detail = f"first at position {seen[crystal.id]}"
            rejection = Rejection(entry.position, crystal.id, "crystal", "duplicate id", detail)
            yield Checked(entry.position, None, {}, (rejection,))
            continue
        if crystal is not None:
            seen[crystal.id] = entry.position
        yield entry


def _summary(crystals: Crystals, rejections: list[Rejection]) -> str:
    counts = Counter((r.scope, r.reason) for r in rejections)
    said = ", ".join(f"{scope}: {reason} {n}" for (scope, reason), n in sorted(counts.items()))
    return f"{crystals.entries} entries, {len(crystals)} accepted; rejected: {said or 'none'}"
