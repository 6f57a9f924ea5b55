"""The dataset: its settings, which crystals are tried, and the rows that are written."""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import spglib
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from crystalmesh.data.emt.elasticity import elastic_tensor, hill_moduli
from crystalmesh.data.emt.potential import METALS
from crystalmesh.data.emt.prototypes import PROTOTYPES, template
from crystalmesh.data.emt.relaxation import Relaxed, relax
from crystalmesh.workers import in_order

Array = NDArray[np.float64]

COLUMNS = [
    "mpid", "formula", "e_form", "gap pbe", "mu_b", "bulk modulus", "shear modulus", "structure",
]  # fmt: skip


class EmtSettings(BaseModel):
    """What the embedded dataset holds and how it is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    elements: tuple[str, ...] = METALS
    prototypes: tuple[str, ...] | Literal["all"] = "all"
    max_per_prototype: int = Field(default=42, ge=1)
    """Crystals tried of each prototype (a fixed pseudo-random choice): 42 keeps all binaries."""
    strain: float = Field(default=0.001, gt=0, le=0.01)
    """Finite strain of the elastic tensor. Small, as EMT's cutoff is only 0.04 Angstrom wide."""
    fmax: float = Field(default=1e-6, ge=1e-8, le=1e-2)
    """Largest force left, eV/Angstrom."""
    decimals: int = Field(default=6, ge=4, le=7)
    """Of lattice vectors (Angstrom), fractional coordinates and e_form (eV/atom)."""

    @field_validator("elements")
    @classmethod
    def _known_elements(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - set(METALS))
        if unknown or not value or len(set(value)) != len(value):
            raise ValueError(f"elements must be distinct, from {METALS}; got {value}")
        return value

    @field_validator("prototypes")
    @classmethod
    def _known_prototypes(
        cls, value: tuple[str, ...] | Literal["all"]
    ) -> tuple[str, ...] | Literal["all"]:
        if value != "all" and (not value or set(value) - set(PROTOTYPES)):
            unknown = sorted(set(value) - set(PROTOTYPES))
            raise ValueError(f"unknown prototypes {unknown}; known: {', '.join(PROTOTYPES)}")
        return value


class Candidate(NamedTuple):
    """A prototype and the metals on its slots A, B, C."""

    prototype: str
    metals: tuple[str, ...]

    @property
    def id(self) -> str:
        """Stable name, metals in the order of the slots: `emt-L12-Cu3Au`.

        It tells where the crystal started; its relaxed space group may be a supergroup.
        """
        slots = template(self.prototype).slots
        counts = [slots.count("ABC"[k]) for k in range(len(self.metals))]
        return f"emt-{self.prototype}-{_formula(self.metals, counts)}"


def _formula(metals: tuple[str, ...], counts: list[int]) -> str:
    unit = math.gcd(*counts)
    return "".join(
        metal + (str(count // unit) if count > unit else "")
        for metal, count in zip(metals, counts, strict=True)
    )


def candidates(settings: EmtSettings) -> list[Candidate]:
    """The decorated prototypes the settings ask for, in the order of the table."""
    elements = [metal for metal in METALS if metal in settings.elements]
    found: list[Candidate] = []
    for name, prototype in PROTOTYPES.items():
        if settings.prototypes != "all" and name not in settings.prototypes:
            continue
        slots = sorted(set(template(name).slots))
        exchangeable = [slots.index(slot) for slot in prototype.swap]
        decorated = []
        for metals in itertools.permutations(elements, len(slots)):
            order = [elements.index(metals[k]) for k in exchangeable]
            if order == sorted(order):
                decorated.append(Candidate(name, metals))
        # A hash is a choice that neither the table nor a version's random numbers change.
        ranked = sorted(decorated, key=lambda c: hashlib.sha256(c.id.encode()).digest())
        kept = set(ranked[: settings.max_per_prototype])
        found += [candidate for candidate in decorated if candidate in kept]
    return found


class Labelled(NamedTuple):
    """A relaxed crystal, its moduli K and G in GPa (None if unstable), its space group's number."""

    crystal: Relaxed
    moduli: tuple[float, float] | None
    space_group: int

    @property
    def composition(self) -> tuple[int, ...]:
        """Numbers of atoms of each of METALS in the reduced formula."""
        counts = np.bincount(self.crystal.species, minlength=len(METALS))
        return tuple(int(count) for count in counts // np.gcd.reduce(counts))

    @property
    def energy(self) -> float:
        """eV/atom, from ASE's zero."""
        return self.crystal.energy / len(self.crystal.frac)

    @property
    def volume(self) -> float:
        """Angstrom^3/atom."""
        return abs(float(np.linalg.det(self.crystal.lattice))) / len(self.crystal.frac)


def label(task: tuple[Candidate, EmtSettings]) -> Labelled | None:
    """Relaxes one candidate and computes its moduli; None if it does not relax."""
    candidate, settings = task
    crystal = relax(candidate.prototype, candidate.metals, settings.fmax)
    if crystal is None:
        return None
    cell = (crystal.lattice.tolist(), crystal.frac.tolist(), crystal.species.tolist())
    symmetry = spglib.get_symmetry_dataset(cell, symprec=0.01)
    assert symmetry is not None  # the installed spglib raises instead
    tensor = elastic_tensor(crystal, settings.strain, settings.fmax)
    moduli = None if tensor is None else hill_moduli(tensor)
    return Labelled(crystal, moduli, int(symmetry.number))


def reference_energies(elements: tuple[str, ...], fmax: float) -> Array:
    """Energy in eV/atom of the lower of fcc and hcp, for each of METALS; nan for the others.

    EMT puts hcp some meV below fcc for five of the seven metals, and nothing below both.
    """
    energies = np.full(len(METALS), np.nan)
    for metal in elements:
        phases = [relax(name, (metal,), fmax) for name in ("A1", "A3")]
        energies[METALS.index(metal)] = min(
            phase.energy / len(phase.frac) for phase in phases if phase is not None
        )
    return energies


def _structure(crystal: Relaxed, decimals: int) -> dict[str, Any]:
    """The crystal as `pymatgen.core.Structure.as_dict` writes it, without importing pymatgen."""

    def rounded(values: Array) -> Any:
        return (np.round(values, decimals) + 0.0).tolist()  # + 0.0: no minus zero

    matrix = np.round(crystal.lattice, decimals) + 0.0
    frac = np.round(np.mod(np.round(crystal.frac, decimals), 1.0), decimals) + 0.0
    lengths = np.linalg.norm(matrix, axis=1)
    cosines = np.array([matrix[k - 2] @ matrix[k - 1] for k in range(3)]) / np.array(
        [lengths[k - 2] * lengths[k - 1] for k in range(3)]
    )
    sites = [
        {
            "species": [{"element": METALS[species], "occu": 1}],
            "abc": abc.tolist(),
            # All the digits of the product: with fewer, noise would break ties.
            "xyz": (np.round(abc @ matrix, 2 * decimals) + 0.0).tolist(),
            "label": METALS[species],
            "properties": {},
        }
        for species, abc in zip(crystal.species, frac, strict=True)
    ]
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "charge": 0,
        "lattice": {
            "matrix": matrix.tolist(),
            "pbc": [True, True, True],
            **dict(zip("abc", rounded(lengths), strict=True)),
            **dict(
                zip(
                    ("alpha", "beta", "gamma"), rounded(np.degrees(np.arccos(cosines))), strict=True
                )
            ),
            "volume": rounded(np.abs(np.linalg.det(matrix))),
        },
        "properties": {},
        "sites": sites,
    }


def generate(
    settings: EmtSettings, jobs: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """The dataset as raw MP JSON in the shape of matminer's dataframes: columns, index, data.

    e_form is in eV/atom against the lower of the relaxed fcc and hcp elements; the moduli are in
    GPa, null where the crystal is mechanically unstable; gap and mu_b are null. Candidates that
    do not relax are left out, and so are those that relax into an earlier one: same formula and
    space group, energies within 1e-4 eV/atom, volumes within 0.1 %. Entries, and their bits, do
    not depend on `jobs`, the number of processes. `progress` is called with (done, total).

    The processes are spawned: a script that calls this needs `if __name__ == "__main__"`.

    Raises ValueError if jobs < 1 or the settings leave no candidate.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    wanted = candidates(settings)
    if not wanted:
        raise ValueError(f"no prototype can be decorated with {settings.elements} alone")
    references = reference_energies(settings.elements, settings.fmax)

    kept: dict[tuple[tuple[int, ...], int], list[Labelled]] = {}
    data: list[list[Any]] = []

    def collect(results: Iterable[Labelled | None]) -> None:
        for done, (candidate, result) in enumerate(zip(wanted, results, strict=True), start=1):
            if progress is not None:
                progress(done, len(wanted))
            if result is None:
                continue
            alike = kept.setdefault((result.composition, result.space_group), [])
            if any(
                abs(result.energy - other.energy) < 1e-4
                and abs(result.volume / other.volume - 1) < 1e-3
                for other in alike
            ):
                continue
            alike.append(result)
            present = [k for k, count in enumerate(result.composition) if count]
            counts = [result.composition[k] for k in present]
            pure = sum(
                float(references[k]) * count for k, count in zip(present, counts, strict=True)
            ) / sum(counts)
            moduli = result.moduli or (None, None)
            data.append(
                [
                    candidate.id,
                    _formula(tuple(METALS[k] for k in present), counts),
                    round(result.energy - pure, settings.decimals) + 0.0,
                    None,
                    None,
                    *(None if value is None else round(value, 4) for value in moduli),
                    _structure(result.crystal, settings.decimals),
                ]
            )

    collect(in_order(label, [(candidate, settings) for candidate in wanted], jobs))
    return {"columns": list(COLUMNS), "index": list(range(len(data))), "data": data}
