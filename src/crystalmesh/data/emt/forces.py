"""The embedded dataset `emt_forces`: energies and forces of rattled metal clusters and crystals.

Pieces of the face-centred cubic lattice, as clusters in empty space and as periodic cells of at
most 32 atoms, filled with Al, Cu, Ni, Ag, Pd, Pt and Au at random, some frames of each with its
atoms displaced at random. Energies and forces are those of ASE's EMT potential, as in `data.emt`.
The result is extended XYZ, so it enters the pipeline by the same door as any other file.

Only sums, products and roots lead from the random numbers to the positions, which are rounded
before anything is computed of them: the same bits everywhere. Energies and forces are rounded far
above the noise of a machine's exponential function.
"""

import hashlib
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field

from crystalmesh.data.emt.potential import BETA, EMT, METALS, Pairs, emt_gradients
from crystalmesh.workers import in_order

DECIMALS = 6  # of positions and cells (Angstrom), energies (eV) and forces (eV/Angstrom)
BOX = 60.0  # Angstrom: a cluster's images are far beyond the cutoff of 6 Angstrom
CELLS = ((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2))  # fcc cells along each axis: 4 to 32 atoms
CORNERS = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
CLUSTER, CRYSTAL = "cluster", "crystal"

Positions = Float[np.ndarray, "sites 3"]


class ForcesSettings(BaseModel):
    """What the dataset holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clusters: int = Field(default=60, ge=0)
    crystals: int = Field(default=40, ge=0)
    frames: int = Field(default=4, ge=1)
    """Of each cluster and crystal."""
    atoms: tuple[int, int] = (4, 32)
    """Least and most atoms of a cluster."""
    elements: int = Field(default=3, ge=1, le=len(METALS))
    """Most elements in one system."""
    displacement: float = Field(default=0.2, ge=0, le=0.4)
    """Largest along each axis, Angstrom."""
    strain: float = Field(default=0.04, ge=0, le=0.1)
    """Largest change of a lattice constant, as a part of it."""
    seed: int = Field(default=0, ge=0)


class Frame(NamedTuple):
    """One system: its name, its kind (`cluster` or `crystal`), the parent it is a frame of.

    species: into METALS. cell: edges in Angstrom, None for a cluster. energy in eV, forces in
    eV/Angstrom.
    """

    id: str
    tag: str
    parent: str
    species: Int[np.ndarray, " sites"]
    positions: Positions
    cell: Float[np.ndarray, "3"] | None
    energy: float
    forces: Positions


def evaluate(
    species: Int[np.ndarray, " sites"], positions: Positions, cell: Float[np.ndarray, "3"] | None
) -> tuple[float, Positions]:
    """EMT energy in eV, from ASE's zero, and forces in eV/Angstrom.

    Raises:
        ValueError: an atom has no neighbour, for which the potential is not defined.
    """
    edges = np.full(3, BOX) if cell is None else cell
    lattice, frac = np.diag(edges), positions / edges
    pairs = Pairs(species, lattice, frac, 0.0)
    energy, forces, _ = emt_gradients(pairs, lattice[None], frac[None])
    return float(energy[0]), forces[0]


def generate(
    settings: ForcesSettings, jobs: int, progress: Callable[[int, int], None] | None = None
) -> str:
    """The dataset as extended XYZ; it does not depend on `jobs`.

    Keys of a frame: id, tag (cluster or crystal), parent (all frames of a parent have its atoms),
    energy (eV), forces (eV/Angstrom). `progress` is called with (done, total).

    Raises:
        ValueError: the settings leave no system, or a cluster of fewer than two atoms.
    """
    low, high = settings.atoms
    if not 2 <= low <= high:
        raise ValueError(f"atoms: {low} to {high}: give at least 2, and the smaller number first")
    parents = [f"{CLUSTER}-{k}" for k in range(settings.clusters)]
    parents += [f"{CRYSTAL}-{k}" for k in range(settings.crystals)]
    if not parents:
        raise ValueError("neither clusters nor crystals are asked for")
    texts = []
    work = in_order(partial(family, settings=settings), parents, jobs)
    for done, frames in enumerate(work, start=1):
        texts += [written(frame) for frame in frames]
        if progress is not None:
            progress(done, len(parents))
    return "".join(texts)


def family(parent: str, settings: ForcesSettings) -> list[Frame]:
    """The frames of one parent, from random numbers of its own."""
    digest = hashlib.sha256(f"{settings.seed}:{parent}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    tag = parent.partition("-")[0]
    size = random.integers(settings.atoms[0], settings.atoms[1] + 1)
    copies = CELLS[random.integers(len(CELLS))]
    count = int(size) if tag == CLUSTER else 4 * math.prod(copies)
    chosen = random.permutation(len(METALS))[: random.integers(1, settings.elements + 1)]
    species = np.sort(chosen[random.integers(len(chosen), size=count)])
    species = species[random.permutation(count)]
    edge = math.sqrt(2.0) * BETA * float(EMT.s0[species].sum()) / count  # Angstrom
    start = random.random(3)
    frames = []
    for number in range(settings.frames):
        constant = edge * (1.0 + settings.strain * float(2.0 * random.random() - 1.0))
        sites = _ball(count, start) if tag == CLUSTER else _lattice(copies)
        moved = settings.displacement * (2.0 * random.random((count, 3)) - 1.0)
        positions = np.round(sites * constant + moved, DECIMALS) + 0.0
        cell = np.round(np.array(copies) * constant, DECIMALS) if tag == CRYSTAL else None
        energy, forces = evaluate(species, positions, cell)
        frames.append(
            Frame(f"{parent}-{number}", tag, parent, species, positions, cell, energy, forces)
        )
    return frames


def _lattice(copies: tuple[int, int, int]) -> Positions:
    """Sites of so many fcc cells along each axis, in units of the lattice constant."""
    origins = np.array(list(itertools.product(*(range(n) for n in copies))), dtype=np.float64)
    sites: Positions = (origins[:, None] + CORNERS).reshape(-1, 3)
    return sites


def _ball(count: int, centre: Float[np.ndarray, "3"]) -> Positions:
    """The fcc sites nearest to a point of the cell, in units of the lattice constant."""
    sites = _lattice((6, 6, 6)) - 3.0
    x, y, z = (sites - centre).T
    nearest = np.argsort(np.round(x * x + y * y + z * z, 9), kind="stable")[:count]
    found: Positions = sites[nearest]
    return found


def written(frame: Frame) -> str:
    """A frame as extended XYZ."""

    def number(value: float) -> str:
        return f"{round(value, DECIMALS) + 0.0:.{DECIMALS}f}"  # + 0.0: no minus zero

    head = f"id={frame.id} tag={frame.tag} parent={frame.parent} energy={number(frame.energy)}"
    if frame.cell is None:
        head += ' pbc="F F F"'
    else:
        rows = " ".join(number(value) for value in np.diag(frame.cell).ravel())
        head += f' Lattice="{rows}" pbc="T T T"'
    lines = [str(len(frame.species)), f"{head} Properties=species:S:1:pos:R:3:forces:R:3"]
    for species, position, force in zip(
        frame.species.tolist(), frame.positions.tolist(), frame.forces.tolist(), strict=True
    ):
        values = " ".join(number(value) for value in (*position, *force))
        lines.append(f"{METALS[species]} {values}")
    return "\n".join(lines) + "\n"
