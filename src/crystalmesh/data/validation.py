"""Raw entries -> validated systems: what is accepted, in which order, and why the rest is not."""

import itertools
import math
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import spglib
from ase.data import atomic_numbers
from jaxtyping import Float

from crystalmesh.config.project import Params, Project
from crystalmesh.config.read import lookup
from crystalmesh.config.schema import Dataset
from crystalmesh.data import registry, sources
from crystalmesh.data.closest import nearest, nearest_free
from crystalmesh.data.crystals import (
    Crystal,
    Crystals,
    Labels,
    formula_of,
    natural,
    reduced_formula,
    save,
)
from crystalmesh.data.entries import Entry, Species, chosen
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import write_csv, writing_folder
from crystalmesh.workers import in_order

REJECTED = "rejected.csv"
SPACE_GROUP = "space_group"  # the one label that no file has: it is found from the structure
Value = float | Float[np.ndarray, "..."]

# "Fe", "Fe2+", "O-", "Fe0+": a charge belongs to the species and not to the element.
SPECIES = re.compile(r"([A-Z][a-z]?)(?:\d*\.?\d*[+-])?")
ELEMENTS = {symbol: number for symbol, number in atomic_numbers.items() if number > 0}
ELEMENTS |= {"D": 1, "T": 1}
NON_FINITE = ("NaN", "Infinity", "-Infinity")
FULL = 1e-6  # an occupancy this near to one is one
FLAT = 1e-12  # volume over a*b*c below which the lattice vectors are dependent but for rounding
BATCH = 64  # entries handed to a process at once
MOST_SITES = 10_000  # of a crystal; the largest of the Materials Project have some hundreds


@dataclass(frozen=True)
class Rejection:
    """One line of rejected.csv; `scope` is "crystal", or a target that does without its label."""

    position: int
    id: str
    scope: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Scope:
    """What a target demands of a label, inclusive; `positive` where a logarithm is taken of it.

    `size` is how many numbers a system or a site has of it, and `level` which of them has it; None:
    as many as there are, and of either.
    """

    name: str
    label: str
    low: float
    high: float
    positive: bool
    size: int | None = 1
    level: Literal["atom", "system"] | None = None


@dataclass(frozen=True)
class Rules:
    """What validation goes by: see `validation` and `targets` in config/.

    `only` is what columns must say, as a dataset has it.
    """

    min_distance: float
    symprec: float
    scopes: tuple[Scope, ...]
    only: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, params: Params, dataset: str | None = None, labels: Iterable[str] = ()) -> "Rules":
        """The rules for a dataset with these labels; without, those for structures alone."""
        targets = params.targets_of(dataset) if dataset else {}
        scopes = [
            Scope(
                name,
                one.label,
                *one.range,
                one.transform == "log10",
                one.size or 1,
                one.level or "system",
            )
            for name, one in sorted(targets.items())
        ]
        # A label that no target uses must still be finite numbers.
        used = {scope.label for scope in scopes}
        scopes += [
            Scope(label, label, -math.inf, math.inf, False, None)
            for label in (*labels, SPACE_GROUP)
            if label not in used
        ]
        checks, only = params.validation, params.datasets[dataset].only if dataset else {}
        return cls(checks.min_distance, checks.symprec, tuple(scopes), only)


@dataclass(frozen=True)
class Checked:
    """An entry after validation; `crystal` is None when rejected.

    Its formula is empty yet, but of a record without atoms. `labels` are of the system, `atoms` of
    each of its sites.
    """

    position: int
    crystal: Crystal | None
    labels: dict[str, Value]
    rejections: tuple[Rejection, ...]
    atoms: Mapping[str, Value] = field(default_factory=dict)


def build(project: Project, dataset: str, jobs: int) -> None:
    """Validate a raw dataset into data/crystals/<dataset>/.

    Writes crystals.safetensors, index.json and rejected.csv, and a summary to stderr. The result
    does not depend on `jobs`, the number of processes.

    Raises:
        CrystalmeshError: the raw file is missing, changed or broken, or holds no valid system; or
            a label is declared twice.
    """
    declared = lookup(project.params.datasets, dataset, "dataset")
    labels = labels_of(declared)
    joined = _joined(project, declared)
    names = (*labels, *(label for columns in declared.join.values() for label in columns))
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise CrystalmeshError(f"dataset {dataset}: label '{twice}' is declared twice")
    path = registry.open_raw(project, dataset)
    with registry.progress() as bar:
        task = bar.add_task(f"crystals {dataset}", total=path.stat().st_size)
        raw = sources.read(
            declared.format, path, lambda size: bar.advance(task, size), declared.reader
        )
        columns = (*declared.columns, *declared.only)
        entries = (_with(chosen(entry, labels, columns), joined) for entry in raw)
        rules = Rules.of(project.params, dataset, names)
        checked = list(_alike(_unique(_check_all(entries, rules, jobs))))
    crystals = assemble(dataset, checked, declared.columns)
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


def labels_of(declared: Dataset) -> dict[str, tuple[str, ...]]:
    """The labels of a dataset's file, and the names each may have there."""
    if declared.labels is None:
        return dict(sources.source(declared.format).LABELS)
    return {label: (name,) for label, name in declared.labels.items()}


def _joined(project: Project, declared: Dataset) -> dict[str, dict[str, Any]]:
    """Further labels of a dataset by id, from the tables that its block names under `join`."""
    found: dict[str, dict[str, Any]] = {}
    for table, columns in declared.join.items():
        other = lookup(project.params.datasets, table, "dataset (join)")
        path = registry.open_raw(project, table)
        keys = {label: (name,) for label, name in columns.items()}
        seen: set[str] = set()
        for entry in sources.read(other.format, path, settings=other.reader):
            if entry.id in seen:
                raise CrystalmeshError(f"{path}: '{entry.id}' stands there twice; keep one row")
            seen.add(entry.id)
            found.setdefault(entry.id, {}).update(chosen(entry, keys, ()).labels)
    return found


def _with(entry: Entry, joined: Mapping[str, Mapping[str, Any]]) -> Entry:
    """The entry with the further labels of its id."""
    more = joined.get(entry.id)
    return replace(entry, labels=entry.labels | dict(more)) if more else entry


def assemble(dataset: str, checked: list[Checked], columns: Sequence[str] = ()) -> Crystals:
    """The accepted ones among the checked entries as one store, sorted by id (mp-2 < mp-10)."""
    kept = [(entry.crystal, entry) for entry in checked if entry.crystal is not None]
    kept.sort(key=lambda pair: natural(pair[0].id))
    found = [crystal for crystal, _ in kept]
    sites = [len(crystal.numbers) for crystal in found]
    none = np.full((3, 3), np.nan)
    return Crystals(
        dataset=dataset,
        entries=len(checked),
        ids=[crystal.id for crystal in found],
        formulas=[c.formula if not len(c.numbers) else reduced_formula(c.numbers) for c in found],
        lattices=np.array([none if c.cell is None else c.cell for c in found]).reshape(-1, 3, 3),
        pointer=np.concatenate([[0], np.cumsum(sites, dtype=np.int64)]).astype(np.int64),
        numbers=np.concatenate([np.empty(0, np.int64), *(c.numbers for c in found)]),
        coordinates=np.concatenate([np.empty((0, 3)), *(c.coordinates for c in found)]),
        labels=Labels(len(found), _stacked([entry.labels for _, entry in kept])),
        atom_labels=_stacked([entry.atoms for _, entry in kept], sites),
        columns={name: [crystal.columns.get(name, "") for crystal in found] for name in columns},
    )


def _stacked(
    rows: Sequence[Mapping[str, Value]], sites: Sequence[int] | None = None
) -> dict[str, Float[np.ndarray, "rows ..."]]:
    """Each label as one array, NaN where it is missing; with `sites`, so many rows a system."""
    arrays: dict[str, Float[np.ndarray, "rows ..."]] = {}
    for name in sorted({name for row in rows for name in row}):
        first = next(np.asarray(row[name]) for row in rows if name in row)
        if sites is None:
            missing = np.full(first.shape, math.nan)
            arrays[name] = np.array([row.get(name, missing) for row in rows], dtype=np.float64)
        else:
            arrays[name] = np.concatenate(
                [
                    row.get(name, np.full((count, *first.shape[1:]), math.nan))
                    for row, count in zip(rows, sites, strict=True)
                ]
            ).astype(np.float64)
    return arrays


class _Reject(Exception):  # noqa: N818 (an entry rejected is no error)
    """Reason and detail of a rejection."""


def check(entry: Entry, rules: Rules) -> Checked:
    """Validate one entry, all but the uniqueness of its id."""
    crystal = accept(entry, rules)
    if isinstance(crystal, Rejection):
        return Checked(entry.position, None, {}, (crystal,))
    values = dict(entry.labels)
    number = None if crystal.cell is None else space_group(crystal, rules.symprec)
    if number is not None:
        values[SPACE_GROUP] = number
    labels: dict[str, Value] = {}
    atoms: dict[str, Value] = {}
    rejections = []
    for scope in rules.scopes:
        try:
            if scope.label in entry.atoms and scope.level != "system":
                atoms[scope.label] = _atoms(entry.atoms[scope.label], scope, len(crystal.numbers))
            elif scope.label in values and scope.level != "atom":
                labels[scope.label] = _label(values[scope.label], scope)
            elif scope.label in (*values, *entry.atoms):
                raise _Reject("wrong shape", f"not of the {scope.level}, as the target's `level`")
            elif scope.label == SPACE_GROUP and crystal.cell is not None:
                raise _Reject("no space group", f"spglib finds none at symprec {rules.symprec}")
        except _Reject as fault:
            rejections.append(Rejection(entry.position, entry.id, scope.name, *fault.args))
    # Where several targets share a label, it must suit each of them.
    refused = {s.label for s in rules.scopes if s.name in {r.scope for r in rejections}}
    labels = {label: value for label, value in labels.items() if label not in refused}
    atoms = {label: value for label, value in atoms.items() if label not in refused}
    return Checked(entry.position, crystal, labels, tuple(rejections), atoms)


def accept(entry: Entry, rules: Rules) -> Crystal | Rejection:
    """The system of an entry (its formula still empty), or why there is none."""
    try:
        if not entry.id:
            raise _Reject("no id", "")
        for name, wanted in rules.only.items():
            if entry.columns[name] != wanted:
                raise _Reject("left out", f"{name} is '{entry.columns[name]}'")
        return _bare(entry) if entry.bare else _crystal(entry, rules)
    except _Reject as fault:
        return Rejection(entry.position, entry.id, "crystal", *fault.args)


def _bare(entry: Entry) -> Crystal:
    """The record of an entry without atoms."""
    try:
        formula = formula_of(entry.formula) if entry.formula else ""
    except ValueError as error:
        raise _Reject("no formula", " ".join(str(error).split())) from error
    return Crystal(entry.id, formula, None, np.empty(0, np.int64), np.empty((0, 3)), entry.columns)


def _crystal(entry: Entry, rules: Rules) -> Crystal:
    if entry.fault:
        raise _Reject("no structure", entry.fault)
    if not entry.species:
        raise _Reject("no atoms", "")
    if len(entry.species) > MOST_SITES:
        raise _Reject("too many sites", str(len(entry.species)))
    numbers = np.array([_number(i, site) for i, site in enumerate(entry.species)], dtype=np.int64)
    if entry.lattice is not None:
        _check_lattice(entry.lattice)
    if not np.isfinite(entry.coordinates).all():
        site = int(np.flatnonzero(~np.isfinite(entry.coordinates).all(axis=1))[0])
        raise _Reject("non-finite coordinates", f"site {site}")
    with np.errstate(over="ignore"):
        far = not np.isfinite(np.ptp(entry.coordinates, axis=0)).all()
    if far:
        raise _Reject("non-finite coordinates", "sites too far apart to be measured")
    close = (
        nearest_free(entry.coordinates, rules.min_distance)
        if entry.lattice is None
        else nearest(entry.lattice, entry.coordinates, rules.min_distance)
    )
    if close is not None:
        i, j, distance = close
        raise _Reject("atoms too close", f"sites {i} and {j}: {distance:.4f} Angstrom")
    return Crystal(entry.id, "", entry.lattice, numbers, entry.coordinates, entry.columns)


def _check_lattice(lattice: Float[np.ndarray, "3 3"]) -> None:
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(lattice, axis=1)
        volume, box = abs(float(np.linalg.det(lattice))), float(np.prod(lengths))
    if not (np.isfinite(lattice).all() and math.isfinite(volume) and math.isfinite(box)):
        raise _Reject("non-finite lattice", str(lattice.tolist()))
    if volume <= FLAT * box:
        raise _Reject("zero-volume lattice", str(lattice.tolist()))


def _number(i: int, site: Species) -> int:
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


def _label(value: Any, scope: Scope) -> Value:
    """The label of a system: a number, or several as an array."""
    several = scope.size not in (None, 1)
    if isinstance(value, np.ndarray) and scope.size == 1:
        raise _Reject("wrong shape", f"{value.size} numbers and not 1")
    if isinstance(value, np.ndarray) or (isinstance(value, list) and several):
        return _array(value, scope, (scope.size,))
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in NON_FINITE):
        raise _Reject("not a number", reprlib.repr(value))
    if several:
        raise _Reject("wrong shape", f"1 number and not {scope.size}")
    number = float(value)
    if not math.isfinite(number):
        raise _Reject("not finite", str(value))
    if not scope.low <= number <= scope.high or (scope.positive and number <= 0):
        raise _Reject("out of range", f"{number} outside {scope.low} to {scope.high}")
    return number


def _atoms(value: Any, scope: Scope, sites: int) -> Value:
    """The label of each site: [sites], or [sites, k] for several numbers."""
    found = np.asarray(value)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    one = scope.size == 1 or (scope.size is None and found.ndim == 1)
    return _array(found, scope, (sites,) if one else (sites, scope.size))


def _array(value: Any, scope: Scope, shape: tuple[int | None, ...]) -> Value:
    """An array of numbers of this shape, None for any length."""
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _Reject("not a number", reprlib.repr(value)) from error
    if found.ndim != len(shape) or any(
        length is not None and length != has for length, has in zip(shape, found.shape, strict=True)
    ):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise _Reject("wrong shape", f"{list(found.shape)} and not [{wanted}]")
    if not np.isfinite(found).all():
        raise _Reject("not finite", f"{int((~np.isfinite(found)).sum())} of {found.size} numbers")
    bad = (found < scope.low) | (found > scope.high) | (scope.positive & (found <= 0))
    if bad.any():
        raise _Reject("out of range", f"{float(found[bad][0])} outside {scope.low} to {scope.high}")
    return found


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


def _alike(checked: Iterable[Checked]) -> Iterator[Checked]:
    """Reject labels that have not as many numbers as those of the first system that has them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in checked:
        shown = {name: np.shape(value) for name, value in entry.labels.items()}
        shown |= {name: np.shape(value)[1:] for name, value in entry.atoms.items()}
        wrong = {n: s for n, s in shown.items() if shapes.setdefault(n, s) != s}
        if wrong:
            more = [
                Rejection(
                    entry.position,
                    entry.crystal.id if entry.crystal else "",
                    name,
                    "wrong shape",
                    f"{list(shape)}, and the first has {list(shapes[name])}",
                )
                for name, shape in sorted(wrong.items())
            ]
            yield replace(
                entry,
                labels={n: v for n, v in entry.labels.items() if n not in wrong},
                atoms={n: v for n, v in entry.atoms.items() if n not in wrong},
                rejections=(*entry.rejections, *more),
            )
        else:
            yield entry


def _check_batch(entries: list[Entry], rules: Rules) -> list[Checked]:
    return [check(entry, rules) for entry in entries]


def _check_all(entries: Iterable[Entry], rules: Rules, jobs: int) -> Iterator[Checked]:
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
