"""Relaxation of a decorated prototype within its space group."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystalmesh.data.emt.potential import BETA, EMT, METALS, Pairs, emt_gradients
from crystalmesh.data.emt.prototypes import Template, template

Array = NDArray[np.float64]


class Relaxed(NamedTuple):
    """A relaxed primitive cell: lattice "3 3" (Angstrom), frac "sites 3", species into METALS.

    energy: eV a cell.
    """

    species: NDArray[np.intp]
    lattice: Array
    frac: Array
    energy: float


def moved(lattice: Array, frac: Array, strains: Array, shifts: Array) -> tuple[Array, Array]:
    """Images of a crystal after strains "images 3 3" and then displacements "images sites 3"."""
    strained = lattice @ (np.eye(3) + strains)
    return strained, frac + shifts @ np.linalg.inv(strained)


class _Freedoms(NamedTuple):
    """What a space group leaves free: a step is one of the strains "q 3 3" and shifts "q sites 3".

    Steps are in Angstrom.
    """

    strains: Array
    shifts: Array

    def gradients(
        self, pairs: Pairs, lattice: Array, frac: Array, steps: Array
    ) -> tuple[Array, Array]:
        """Energies "images" and their slopes "images freedoms" after steps "images freedoms"."""
        cells, sites = moved(
            lattice, frac, np.einsum("bq,qcd->bcd", steps, self.strains),
            np.einsum("bq,qnc->bnc", steps, self.shifts),
        )  # fmt: skip
        energy, forces, stress = emt_gradients(pairs, cells, sites)
        volume = np.abs(np.linalg.det(cells))
        slopes = np.einsum("b,bcd,qcd->bq", volume, stress, self.strains)
        return energy, slopes - np.einsum("bnc,qnc->bq", forces, self.shifts)


def _at_best_volume(shape: Template, species: NDArray[np.intp]) -> tuple[Array, float]:
    """The lattice "3 3" (Angstrom) of least energy, among some volumes around an expected one.

    That is the volume of atoms of the fcc elements' sizes, Angstrom^3, and returned as well.
    """
    expected = float(((math.sqrt(2) * BETA * EMT.s0[species]) ** 3 / 4).sum())
    start = shape.lattice * (expected / abs(np.linalg.det(shape.lattice))) ** (1 / 3)
    scales = np.linspace(0.92, 1.2, 15)
    energies = emt_gradients(
        Pairs(species, start * scales[0], shape.frac, 0.0),
        start * scales[:, None, None],
        np.broadcast_to(shape.frac, (len(scales), *shape.frac.shape)),
    )[0]
    return start * scales[np.argmin(energies)], expected


def relax(name: str, metals: tuple[str, ...], fmax: float) -> Relaxed | None:
    """Relaxes cell and ions of prototype `name`, slots A, B, C filled by `metals`, to a minimum.

    Newton steps in the few degrees of freedom the space group leaves, so the symmetry stays. A
    strain counts as a length through the cube root of the volume, and its stress as a force in
    eV/Angstrom: all are below `fmax` at the end. None if the search fails or the crystal
    collapses or flies apart.
    """
    shape = template(name)
    species = np.array([METALS.index(metals["ABC".index(slot)]) for slot in shape.slots])
    frac = shape.frac
    lattice, expected = _at_best_volume(shape, species)
    length = expected ** (1 / 3)
    strains = np.concatenate([shape.strains / length, np.zeros((len(shape.shifts), 3, 3))])
    shifts = np.concatenate([np.zeros((len(shape.strains), *frac.shape)), shape.shifts])
    free = _Freedoms(strains, shifts)
    freedoms = len(strains)
    probe = 1e-4  # Angstrom
    probes = np.concatenate([np.zeros((1, freedoms)), probe * np.eye(freedoms)])
    probes = np.concatenate([probes, -probes[1:]])
    polished = False
    for _ in range(80):
        pairs = Pairs(species, lattice, frac, 0.6)
        if pairs.shortest < 1.5:
            return None
        energy, slopes = free.gradients(pairs, lattice, frac, probes)
        hessian = (slopes[1 : freedoms + 1] - slopes[freedoms + 1 :]) / (2 * probe)
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        slope = float(np.abs(slopes[0]).max())
        if slope < fmax and polished:
            if values[0] <= 0:
                return None  # stopped on a saddle
            break
        # One step more than asked for: it takes the error below what rounding keeps.
        polished = slope < fmax
        step = -vectors @ ((vectors.T @ slopes[0]) / np.maximum(np.abs(values), 0.05))
        step *= min(1.0, 0.15 / float(np.abs(step).max() + 1e-300))
        if slope > 1e-3:
            factors = np.array([1.0, 0.5, 0.2, 0.05])
            trial = free.gradients(pairs, lattice, frac, factors[:, None] * step)[0]
            best = int(np.argmin(trial))
            if trial[best] >= energy[0]:
                return None
            step = factors[best] * step
        cells, sites = moved(
            lattice, frac, np.einsum("q,qcd->cd", step, strains)[None],
            np.einsum("q,qnc->nc", step, shifts)[None],
        )  # fmt: skip
        lattice, frac = cells[0], sites[0]
    else:
        return None
    if not 0.6 < abs(float(np.linalg.det(lattice))) / expected < 2.0:
        return None
    return Relaxed(species, lattice, frac, float(energy[0]))
