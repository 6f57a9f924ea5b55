"""Graphs of systems: atoms joined to their nearest neighbours, or to all within a cutoff."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from vesin import NeighborList

from crystalmesh.config.read import parse
from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import Count, Length, atoms

SHELL = 1e-4  # Angstrom: a gap in distance above this parts two shells
EQUAL = 1e-5  # Angstrom: distances are equal unless a gap above this parts them


class CgcnnSettings(BaseModel):
    """Settings of the CGCNN graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    neighbours: Count
    cutoff: Length  # Angstrom


class Cgcnn:
    """The graph of CGCNN (Xie & Grossman 2018): a fixed number of nearest neighbours an atom.

    Neighbours of one atom are ordered by shell, then by atomic number, site and cell shift: this
    decides which atoms of a shell that straddles the last place are kept. A shell ends where the
    next distance is more than `SHELL` larger, so that no shell is cut by rounding.
    An atom with fewer neighbours than places within the cutoff is filled up with itself at
    cutoff + 1 Angstrom, where all Gaussians nearly vanish. (The original code fills with the first
    atom of the cell, which makes its output depend on the order of sites.)

    Args:
        settings: `representations.graph.cgcnn` of config/.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(CgcnnSettings, settings, "representations.graph.cgcnn")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """The graph as indices and shifts.

        Returns:
            lattice [3, 3] (Angstrom, rows), numbers [n], frac [n, 3], neighbour [n, k] (site, -1
            where there is none) and shift [n, k, 3] (in cells).

        Raises:
            CrystalmeshError: an element beyond 100, or a number that int16 (of cells, int8) does
                not hold.
        """
        atoms.vectors(crystal.numbers)  # refuses elements without features
        k, n = self.settings.neighbours, len(crystal.numbers)
        # A third of the neighbours that a far cutoff gives is enough for most crystals.
        volume = abs(float(np.linalg.det(crystal.lattice)))
        cutoff = (3.5 * k * volume / n * 3 / (4 * np.pi)) ** (1 / 3)
        found = None
        if cutoff < self.settings.cutoff:
            found = _nearest(crystal, k, cutoff)
        if found is None:
            found = _nearest(crystal, k, self.settings.cutoff, all_there_are=True)
        assert found is not None
        i, j, shift = found
        rank = np.arange(len(i)) - np.searchsorted(i, np.arange(n))[i]
        kept = rank < k
        neighbour = np.full((n, k), -1, dtype=np.int16)
        shifts = np.zeros((n, k, 3), dtype=np.int8)
        neighbour[i[kept], rank[kept]] = _narrow(j[kept], "sites")
        shifts[i[kept], rank[kept]] = _narrow(shift[kept], "cells between neighbours", np.int8)
        return {
            "lattice": crystal.lattice,
            "numbers": crystal.numbers.astype(np.uint8),
            "frac": crystal.frac,
            "neighbour": neighbour,
            "shift": shifts,
        }

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join graphs.

        Returns:
            pointer [c + 1]: atoms of crystal i are rows pointer[i] to pointer[i + 1]; numbers [n]
            (atomic numbers), neighbour [n, k] (rows of the batch), distance [n, k] (Angstrom).
        """
        counts = np.array([len(item["numbers"]) for item in items])
        pointer = np.concatenate([[0], np.cumsum(counts)])
        crystal = np.repeat(np.arange(len(items)), counts)
        lattice = np.stack([item["lattice"] for item in items])[crystal]  # [n, 3, 3]
        frac = np.concatenate([item["frac"] for item in items])
        local = np.concatenate([item["neighbour"] for item in items]).astype(np.int64)
        absent = local < 0
        own = np.arange(pointer[-1])[:, None]
        neighbour = np.where(absent, own, local + pointer[crystal][:, None])
        shift = np.concatenate([item["shift"] for item in items])
        step = frac[neighbour] + shift - frac[:, None]  # [n, k, 3]
        distance = np.linalg.norm(np.matmul(step, lattice), axis=2)
        distance[absent] = self.settings.cutoff + 1.0
        return {
            "pointer": torch.from_numpy(pointer),
            "numbers": torch.from_numpy(
                np.concatenate([item["numbers"] for item in items]).astype(np.int64)
            ),
            "neighbour": torch.from_numpy(neighbour),
            "distance": torch.from_numpy(distance.astype(np.float32)),
        }


def _nearest(
    crystal: Crystal, k: int, cutoff: float, *, all_there_are: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]] | None:
    """Site, neighbour and shift of each pair in the order of `Cgcnn`: at least k of each site.

    Returns:
        None where the cutoff is too near for that and not `all_there_are` are asked for.
    """
    n = len(crystal.numbers)
    i, j, shift, distance = NeighborList(cutoff=cutoff, full_list=True).compute(
        points=crystal.frac @ crystal.lattice,
        box=crystal.lattice,
        periodic=True,
        quantities="ijSd",
    )
    # Each atom's neighbours by distance; a gap above SHELL begins a new shell.
    order = np.lexsort((distance, i))
    i, distance = i[order].astype(np.int64), distance[order]
    first = np.searchsorted(i, np.arange(n + 1))
    count = np.diff(first)
    new = np.diff(distance, prepend=-np.inf) > SHELL
    new[first[:-1][count > 0]] = True
    shell = np.cumsum(new)
    # Only shells that hold one of the first k places need to be ordered within.
    last = (
        np.minimum(first[:-1] + k, first[1:]) - 1
    )  # of each atom; before its first if it has none
    near = shell <= np.append(shell, 0)[last][i]
    if not all_there_are and (count.min() < k or distance[near].max() > cutoff - 2 * SHELL):
        return None
    i, shell, order = i[near], shell[near], order[near]
    j, shift = j[order].astype(np.int64), shift[order]
    order = np.lexsort((*shift.T[::-1], j, crystal.numbers[j], shell))
    return i[order], j[order], shift[order]


class RadiusSettings(BaseModel):
    """Settings of the radius graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cutoff: Length  # Angstrom


class Radius:
    """All pairs of atoms within a cutoff, periodic images and own ones included, without repeats.

    A system without a cell has no images. No atom has a largest number of neighbours.

    Where a message depends on the distance and on the hidden vectors of both atoms alone, as in
    SchNet, much of a crystal is the same thing again, and this graph has it once:

    - Distances that no gap above `EQUAL` parts are one, their mean.
    - Sites of one element whose neighbours are alike (as many of each kind at each distance, and
      these neighbours alike in turn) have the same hidden vectors in every layer. They are one
      node. These kinds are the coarsest equitable partition, found by colour refinement; sites that
      a symmetry of the crystal joins are always of one kind.
    - Neighbours of one kind at one distance are one edge with their number.

    A network that weighs nodes by `sites` and edges by `count` gives the same as on the full graph,
    and as much for a supercell as for a cell. A shell at the cutoff is in or out as a whole. An
    atom without neighbours has no edges.

    Args:
        settings: `representations.graph.radius` of config/.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(RadiusSettings, settings, "representations.graph.radius")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """The graph of the kinds of sites.

        Returns:
            Of the k kinds, in the order of their first sites: numbers uint8 [k] and sites int16 [k]
            (how many). Of the e edges by target, distance and source: source and target int16 [e]
            (kinds), group int32 [e] (row of distance) and count int16 [e] (neighbours of one target
            site). distance f32 [g]: Angstrom, ascending.

        Raises:
            CrystalmeshError: an element beyond 100, or a number that int16 does not hold.
        """
        atoms.vectors(crystal.numbers)  # refuses elements without features
        source, target, group, distance = pairs(crystal, self.settings.cutoff)
        kind = _kinds(crystal.numbers, source, target, group)
        sites = np.bincount(kind)
        first = np.unique(kind, return_index=True)[1]
        own = np.isin(target, first)  # one site stands for all of its kind
        k, g = len(sites), len(distance)
        rows, count = np.unique(
            (kind[target[own]] * g + group[own]) * k + kind[source[own]], return_counts=True
        )
        rows, origin = np.divmod(rows, k)
        place, row = np.divmod(rows, max(g, 1))
        # Sites of a kind have the same distances, so that none is lost.
        assert len(np.unique(row)) == g
        return {
            "numbers": crystal.numbers[first].astype(np.uint8),
            "sites": _narrow(sites, "equal sites"),
            "source": _narrow(origin, "sites"),
            "target": _narrow(place, "sites"),
            "group": row.astype(np.int32),
            "count": _narrow(count, "equal neighbours"),
            "distance": distance.astype(np.float32),
        }

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join graphs.

        Returns:
            pointer [c + 1]: nodes of crystal i are rows pointer[i] to pointer[i + 1]; numbers [n]
            (atomic numbers) and sites [n] (f32; how many a node stands for); source, target [e]
            (rows of numbers), group [e] (row of distance) and count [e] (f32) of the edges, which
            are sorted by target; distance f32 [g] (Angstrom).
        """
        pointer, edges, groups = (
            np.concatenate([[0], np.cumsum([len(item[key]) for item in items])]).astype(np.int64)
            for key in ("numbers", "source", "distance")
        )
        crystal = np.repeat(np.arange(len(items)), np.diff(edges))

        def joined(key: str) -> NDArray[Any]:
            return np.concatenate([item[key] for item in items])

        arrays = {
            "pointer": pointer,
            "numbers": joined("numbers").astype(np.int64),
            "sites": joined("sites").astype(np.float32),
            "source": joined("source") + pointer[crystal],
            "target": joined("target") + pointer[crystal],
            "group": joined("group") + groups[crystal],
            "count": joined("count").astype(np.float32),
            "distance": joined("distance"),
        }
        return {key: torch.from_numpy(array) for key, array in arrays.items()}


class Atoms:
    """Every atom of a system, and all pairs within a cutoff: what gradients can be taken of.

    Unlike `Radius` it has each atom and each image as they are, so that distances can be formed
    from positions. No atom has a largest number of neighbours. Edges hold whole cells between
    atoms; a system without a cell has no images.

    Args:
        settings: `representations.graph.atoms` of config/.
    """

    positions = True  # see `represent.Positions`

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(RadiusSettings, settings, "representations.graph.atoms")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """The graph, its edges ordered by target, source and shift.

        Returns:
            numbers uint8 [n], positions f64 [n, 3] (Angstrom), cell f64 [3, 3] (rows, Angstrom;
            [0, 3] where there is none); of the edges source and target int16 [e] (sites) and
            shift int16 [e, 3] (cells from the source to the image of it that is a neighbour).

        Raises:
            CrystalmeshError: an element beyond 100, or a number that int16 does not hold.
        """
        atoms.vectors(crystal.numbers)  # refuses elements without features
        cell = np.zeros((0, 3)) if crystal.cell is None else crystal.cell
        target, source, shift = NeighborList(cutoff=self.settings.cutoff, full_list=True).compute(
            points=crystal.positions,
            box=cell if len(cell) else np.zeros((3, 3)),
            periodic=crystal.cell is not None,
            quantities="ijS",
        )
        order = np.lexsort((*shift.T[::-1], source, target))
        return {
            "numbers": crystal.numbers.astype(np.uint8),
            "positions": np.asarray(crystal.positions, dtype=np.float64),
            "cell": np.asarray(cell, dtype=np.float64),
            "source": _narrow(source[order].astype(np.int64), "sites"),
            "target": _narrow(target[order].astype(np.int64), "sites"),
            "shift": _narrow(shift[order], "cells between neighbours"),
        }

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join graphs.

        Returns:
            What `Radius.collate` returns, each atom a node and each edge a group of its own;
            besides positions f64 [n, 3] and shift f64 [e, 3] (Angstrom): distance f32 [e] is the
            length of positions[source] + shift - positions[target].
        """
        pointer, edges = (
            np.concatenate([[0], np.cumsum([len(item[key]) for item in items])]).astype(np.int64)
            for key in ("numbers", "source")
        )
        system = np.repeat(np.arange(len(items)), np.diff(edges))
        none = np.zeros((3, 3))
        cells = np.stack([item["cell"] if len(item["cell"]) else none for item in items])

        def joined(key: str) -> NDArray[Any]:
            return np.concatenate([item[key] for item in items])

        shift = np.matmul(joined("shift")[:, None].astype(np.float64), cells[system])[:, 0]
        positions = joined("positions")
        source, target = (joined(key) + pointer[system] for key in ("source", "target"))
        distance = np.linalg.norm(positions[source] + shift - positions[target], axis=1)
        arrays = {
            "pointer": pointer,
            "numbers": joined("numbers").astype(np.int64),
            "sites": np.ones(len(positions), dtype=np.float32),
            "positions": positions,
            "source": source,
            "target": target,
            "group": np.arange(len(source)),
            "count": np.ones(len(source), dtype=np.float32),
            "shift": shift,
            "distance": distance.astype(np.float32),
        }
        return {key: torch.from_numpy(array) for key, array in arrays.items()}


def pairs(
    crystal: Crystal, cutoff: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """All pairs of atoms within the cutoff (Angstrom), with equal distances as groups.

    A system without a cell has no periodic images.

    Returns:
        source [p], target [p] (sites) and group [p] of every pair in both directions, one row a
        periodic image; distance [g] of the groups: the mean of the members, ascending, Angstrom.
    """
    # A little beyond, so that rounding does not part a shell that lies at the cutoff.
    target, source, distance = NeighborList(cutoff=cutoff + 2 * EQUAL, full_list=True).compute(
        points=crystal.positions,
        box=np.zeros((3, 3)) if crystal.cell is None else crystal.cell,
        periodic=crystal.cell is not None,
        quantities="ijd",
    )
    order = np.lexsort((source, target, distance))
    source, target, distance = source[order], target[order], distance[order]
    group = np.cumsum(np.diff(distance, prepend=distance[:1]) > EQUAL)
    if len(distance):
        mean = np.bincount(group, distance) / np.bincount(group)
        mean = mean[mean <= cutoff + EQUAL / 2]
    else:
        mean = distance
    near = group < len(mean)
    return source[near].astype(np.int64), target[near].astype(np.int64), group[near], mean


def _kinds(
    numbers: NDArray[np.integer[Any]],
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    group: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The kind of each site: see `Radius`. Kinds are numbered by their first site."""
    n = len(numbers)
    kind = _by_first([int(number) for number in numbers])
    order = np.argsort(target, kind="stable")
    source, group, target = source[order], group[order], target[order]
    first = np.searchsorted(target, np.arange(n + 1))
    while True:
        seen = group * n + kind[source]
        seen = seen[np.lexsort((seen, target))]
        finer = _by_first(
            [(int(kind[i]), seen[first[i] : first[i + 1]].tobytes()) for i in range(n)]
        )
        if finer.max() == kind.max():
            return kind
        kind = finer


def _by_first(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """Equal keys as equal numbers, from 0 in the order in which they appear."""
    found: dict[Hashable, int] = {}
    return np.array([found.setdefault(key, len(found)) for key in keys], dtype=np.int64)


def _narrow(
    values: NDArray[np.integer[Any]], what: str, kind: type[np.signedinteger[Any]] = np.int16
) -> NDArray[np.signedinteger[Any]]:
    """The numbers as small integers; raises CrystalmeshError where these do not hold them."""
    most = int(np.abs(values).max(initial=0))
    if most > np.iinfo(kind).max:
        raise CrystalmeshError(f"graph: {most} {what}: more than {np.dtype(kind)} holds")
    return values.astype(kind)


VARIANTS = {"cgcnn": Cgcnn, "radius": Radius, "atoms": Atoms}
NOT_INVARIANT = {
    # Which atoms of a shell are kept, where they are of one element but not of one kind.
    "cgcnn": ("sites", "supercell"),
    "radius": ("supercell",),  # how many sites are alike
    "atoms": ("origin", "rotation", "reflection", "translation", "supercell"),  # positions
}
