"""ASE's EMT potential on a batch of images of one crystal at once.

ASE's own calculator needs milliseconds a call; `emt_gradients` is the same potential, with ASE's
parameters. The tests hold it to ASE's numbers.

Source: K. W. Jacobsen, P. Stoltze, J. K. Norskov, Surf. Sci. 366, 394 (1996), as coded in
`ase.calculators.emt`.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from ase.calculators import emt as ase_emt
from ase.units import Bohr
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Pauling electronegativity rises along the tuple: the order in which a formula names elements.
METALS = ("Al", "Cu", "Ni", "Ag", "Pd", "Pt", "Au")

BETA = ase_emt.beta

# Cutoffs as in ase.calculators.emt.EMT with asap_cutoff=False: set by the largest element of the
# table, whatever the crystal holds.
_R1NN = BETA * max(par[1] for par in ase_emt.parameters.values()) * Bohr
CUTOFF_MIDPOINT = _R1NN * 0.5 * (math.sqrt(3.0) + 2.0)  # Angstrom
CUTOFF = CUTOFF_MIDPOINT + 0.5  # Angstrom
CUTOFF_SLOPE = math.log(1e4 - 1.0) / (2.0 * _R1NN - CUTOFF_MIDPOINT)  # 1/Angstrom


class _Parameters(NamedTuple):
    """EMT parameters of every metal of METALS, in eV and Angstrom, each of shape "metals"."""

    e0: Array
    s0: Array
    v0: Array
    eta2: Array
    kappa: Array
    lambda_: Array
    n0: Array
    gamma1: Array
    gamma2: Array


def _parameters() -> _Parameters:
    table = np.array([ase_emt.parameters[metal] for metal in METALS]).T
    e0, s0, v0, eta2, kappa, lambda_, n0 = table
    s0, eta2, kappa, lambda_, n0 = (
        s0 * Bohr,
        eta2 / Bohr,
        kappa / Bohr,
        lambda_ / Bohr,
        n0 / Bohr**3,
    )
    shells = BETA * s0[:, None] * np.sqrt([1.0, 2.0, 3.0])  # first three of fcc: "metals 3"
    weight = np.array([12.0, 6.0, 24.0]) / (
        12.0 * (1.0 + np.exp(CUTOFF_SLOPE * (shells - CUTOFF_MIDPOINT)))
    )
    beyond = shells - BETA * s0[:, None]
    gamma1 = (weight * np.exp(-eta2[:, None] * beyond)).sum(axis=1)
    gamma2 = (weight * np.exp(-kappa[:, None] / BETA * beyond)).sum(axis=1)
    return _Parameters(e0, s0, v0, eta2, kappa, lambda_, n0, gamma1, gamma2)


EMT = _parameters()


class Pairs:
    """Directed neighbour pairs i -> j of one crystal, good for every image near it.

    i, j: "pairs", sorted by i; offset: "pairs 3" lattice vectors to add to j; reverse: the place
    of j -> i. Site species index METALS.

    Raises ValueError if a site has no neighbour: the potential is then undefined.
    """

    def __init__(self, species: NDArray[np.intp], lattice: Array, frac: Array, skin: float):
        reach = CUTOFF + skin
        heights = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
        spread = np.ptp(frac, axis=0)
        bounds = np.floor(reach / heights + spread).astype(int)
        offsets = np.array(list(itertools.product(*(range(-b, b + 1) for b in bounds))), float)
        delta = frac[None, :] - frac[:, None]  # "i j 3"
        vectors = (delta[:, :, None] + offsets) @ lattice  # "i j offsets 3"
        squared = np.einsum("ijoc,ijoc->ijo", vectors, vectors)
        self.i, self.j, shift = np.nonzero((squared < reach**2) & (squared > 1e-12))
        self.offset = offsets[shift]
        self.starts = np.searchsorted(self.i, np.arange(len(frac)))
        if len(np.unique(self.i)) < len(frac):
            raise ValueError(f"a site has no neighbour within {reach:.2f} Angstrom")
        # `product` counts offsets up, so the opposite of offset k is k from the end.
        n, m = len(frac), len(offsets)
        code = (self.i * n + self.j) * m + shift
        self.reverse = np.searchsorted(code, (self.j * n + self.i) * m + (m - 1 - shift))
        self.shortest = math.sqrt(float(squared[self.i, self.j, shift].min()))

        self.species = species
        si, sj = species[self.i], species[self.j]
        chi = EMT.n0[sj] / EMT.n0[si]
        self.eta2, self.kappa = EMT.eta2[sj], EMT.kappa[sj] / BETA
        self.density = chi * np.exp(EMT.eta2[sj] * BETA * EMT.s0[sj])
        self.pair_energy = (
            -0.5 * EMT.v0[si] / EMT.gamma2[si] * chi * np.exp(EMT.kappa[sj] * EMT.s0[sj])
        )


def emt_gradients(pairs: Pairs, lattice: Array, frac: Array) -> tuple[Array, Array, Array]:
    """Energies "images" in eV, forces "images sites 3" in eV/Angstrom, stress "images 3 3".

    lattice: "images 3 3" in Angstrom, frac: "images sites 3". Stress is dE/dstrain / volume in
    eV/Angstrom^3, positive under tension, as in ASE. The zero of energy is ASE's: the elements'
    E0, close to their fcc crystals.
    """
    delta = frac[:, pairs.j] + pairs.offset - frac[:, pairs.i]
    d = delta @ lattice  # "images pairs 3"
    r = np.sqrt(np.einsum("bpc,bpc->bp", d, d))
    w = (r < CUTOFF) / (1.0 + np.exp(CUTOFF_SLOPE * (r - CUTOFF_MIDPOINT)))
    dlogw = CUTOFF_SLOPE * (w - 1.0)

    density = pairs.density * np.exp(-pairs.eta2 * r) * w
    pair = pairs.pair_energy * np.exp(-pairs.kappa * r) * w
    sigma1 = np.add.reduceat(density, pairs.starts, axis=1)  # "images sites"

    eta2, kappa, lambda_ = (p[pairs.species] for p in (EMT.eta2, EMT.kappa, EMT.lambda_))
    e0, v0, gamma1 = (p[pairs.species] for p in (EMT.e0, EMT.v0, EMT.gamma1))
    ds = -np.log(sigma1 / (12.0 * gamma1)) / (BETA * eta2)
    cohesion = e0 * np.exp(-lambda_ * ds)
    correction = 6.0 * v0 * np.exp(-kappa * ds)
    site = (1.0 + lambda_ * ds) * cohesion + correction - e0
    energy = site.sum(axis=1) + pair.sum(axis=1)

    dsite = (lambda_**2 * ds * cohesion + kappa * correction) / (BETA * eta2 * sigma1)
    slope = dsite[:, pairs.i] * density * (dlogw - pairs.eta2) + pair * (dlogw - pairs.kappa)
    pull = ((slope + slope[:, pairs.reverse]) / r)[:, :, None] * d
    forces = np.add.reduceat(pull, pairs.starts, axis=1)
    volume = np.abs(np.linalg.det(lattice))
    stress = 0.5 * (d.transpose(0, 2, 1) @ pull) / volume[:, None, None]
    return energy, forces, (stress + stress.transpose(0, 2, 1)) / 2
