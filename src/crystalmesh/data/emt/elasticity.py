"""Elastic tensors of relaxed crystals, and their Voigt-Reuss-Hill moduli.

Averages of Hill, Proc. Phys. Soc. A 65, 349 (1952).
"""

import math

import numpy as np
from ase.units import GPa
from numpy.typing import NDArray

from crystalmesh.data.emt.potential import Pairs, emt_gradients
from crystalmesh.data.emt.relaxation import Relaxed, moved

Array = NDArray[np.float64]

_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def elastic_tensor(crystal: Relaxed, strain: float, fmax: float) -> Array | None:
    """Elastic tensor "6 6" in GPa, Voigt order xx yy zz yz xz xy, engineering shears.

    Central differences of the stress at +-`strain`, the ions relaxed at each (a shear can move
    ions which no symmetric strain moves, so all may move). None where they have no minimum to
    relax to: the crystal is unstable against displacements within its cell.
    """
    species, lattice, frac, _ = crystal
    n = len(frac)
    pairs = Pairs(species, lattice, frac, 0.3)
    deformations = np.zeros((12, 3, 3))
    for k, (a, b) in enumerate(_VOIGT):
        deformations[k, a, b] += strain / 2
        deformations[k, b, a] += strain / 2
    deformations[6:] = -deformations[:6]
    shifts = np.zeros((12, n, 3))

    stiffness_inverse = np.zeros((3 * n, 3 * n))
    if n > 1:
        probe = 1e-3  # Angstrom
        probes = probe * np.eye(3 * n).reshape(3 * n, n, 3)
        images = np.concatenate([probes, -probes])
        cells, sites = moved(lattice, frac, np.zeros((len(images), 3, 3)), images)
        forces = emt_gradients(pairs, cells, sites)[1].reshape(2, 3 * n, 3 * n)
        stiffness = (forces[1] - forces[0]) / (2 * probe)
        drift = np.tile(np.eye(3), (n, 1)) / math.sqrt(n)
        still = np.eye(3 * n) - drift @ drift.T
        # Uniform translations cost nothing; a large constant keeps them out of the way.
        values, vectors = np.linalg.eigh(
            still @ (stiffness + stiffness.T) @ still / 2 + 1e3 * drift @ drift.T
        )
        if values[0] < 1e-3:  # eV/Angstrom^2
            return None
        stiffness_inverse = (vectors / values) @ vectors.T

    for _ in range(30):
        cells, sites = moved(lattice, frac, deformations, shifts)
        _, forces, stress = emt_gradients(pairs, cells, sites)
        residual = float(np.abs(forces).max())
        # The stress is divided by the strain below, so the forces must be small against that.
        if residual < fmax * strain:
            break
        shifts = shifts + (forces.reshape(12, 3 * n) @ stiffness_inverse).reshape(12, n, 3)
        if np.abs(shifts).max() > 0.1:
            return None
    if residual > fmax:
        return None
    rows, columns = zip(*_VOIGT, strict=True)
    voigt = stress[:, rows, columns]  # "images 6"
    tensor = (voigt[:6] - voigt[6:]) / (2 * strain) / GPa
    return np.asarray((tensor + tensor.T) / 2)


def hill_moduli(tensor: Array) -> tuple[float, float] | None:
    """Voigt-Reuss-Hill bulk and shear modulus in GPa of an elastic tensor "6 6" in GPa.

    None if the tensor is not positive definite (Born's criterion): the crystal is unstable.
    """
    if np.linalg.eigvalsh(tensor)[0] < 1e-3:
        return None
    c, s = tensor, np.linalg.inv(tensor)
    k_voigt = c[:3, :3].sum() / 9
    k_reuss = 1 / s[:3, :3].sum()
    off_c = c[0, 1] + c[0, 2] + c[1, 2]
    off_s = s[0, 1] + s[0, 2] + s[1, 2]
    g_voigt = (np.trace(c[:3, :3]) - off_c + 3 * np.trace(c[3:, 3:])) / 15
    g_reuss = 15 / (4 * (np.trace(s[:3, :3]) - off_s) + 3 * np.trace(s[3:, 3:]))
    return float(k_voigt + k_reuss) / 2, float(g_voigt + g_reuss) / 2
