"""The embedded EMT dataset: the potential against ASE's, the elasticity against energies."""

# mypy: disable-error-code="no-untyped-call"

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.calculators import emt as ase_emt
from ase.optimize import BFGS
from ase.units import GPa
from pydantic import ValidationError
from pymatgen.core.structure import Structure

from crystalmesh.data.emt import EmtSettings, generate
from crystalmesh.data.emt.elasticity import elastic_tensor, hill_moduli
from crystalmesh.data.emt.generation import Candidate, candidates, label, reference_energies
from crystalmesh.data.emt.potential import METALS, Array, Pairs, emt_gradients
from crystalmesh.data.emt.prototypes import PROTOTYPES, template
from crystalmesh.data.emt.relaxation import Relaxed, relax

SMALL = EmtSettings(elements=("Cu", "Au"), prototypes=("A1", "A2", "A3", "B1", "Bk", "B4", "L12"))


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return generate(SMALL, jobs=1)


def relaxed(prototype: str, *metals: str) -> Relaxed:
    crystal = relax(prototype, metals, 1e-6)
    assert crystal is not None
    return crystal


def tensor_of(crystal: Relaxed) -> Array:
    tensor = elastic_tensor(crystal, 0.001, 1e-6)
    assert tensor is not None
    return tensor


def as_atoms(crystal: Relaxed) -> Atoms:
    """The crystal with ASE's own calculator, the reference of every test here."""
    return Atoms(
        [METALS[k] for k in crystal.species],
        cell=crystal.lattice,
        scaled_positions=crystal.frac,
        pbc=True,
        calculator=ase_emt.EMT(),
    )


def as_crystal(atoms: Atoms) -> Relaxed:
    species = np.array([METALS.index(symbol) for symbol in atoms.symbols])
    return Relaxed(species, atoms.cell.array, atoms.get_scaled_positions(), 0.0)


@pytest.mark.parametrize("seed", range(12))
def test_potential_is_ases(seed: int) -> None:
    """Random triclinic cells of one to six sites, as a batch of two images."""
    rng = np.random.default_rng(seed)
    n = 1 + seed % 6
    lattice = np.eye(3) * rng.uniform(2.6, 5.0) * n ** (1 / 3) + rng.normal(0, 0.4, (3, 3))
    frac = rng.uniform(-1, 2, (n, 3))
    species = rng.integers(0, len(METALS), n)
    images = lattice @ (np.eye(3) + np.array([np.zeros((3, 3)), rng.normal(0, 0.01, (3, 3))]))
    sites = np.stack([frac, frac + rng.normal(0, 0.005, frac.shape)])
    pairs = Pairs(species, lattice, frac, skin=0.6)
    energy, forces, stress = emt_gradients(pairs, images, sites)
    for k in range(2):
        atoms = as_atoms(Relaxed(species, images[k], sites[k], 0.0))
        scale = max(1.0, float(np.abs(forces[k]).max()))
        assert energy[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert np.abs(forces[k] - atoms.get_forces()).max() < 1e-9 * scale
        assert np.abs(stress[k] - atoms.get_stress(voigt=False)).max() < 1e-9 * scale


def test_a_site_without_neighbours_is_an_error() -> None:
    with pytest.raises(ValueError, match="no neighbour"):
        Pairs(np.array([1]), 20 * np.eye(3), np.zeros((1, 3)), 0.0)


@pytest.mark.parametrize("metal", METALS)
def test_fcc_elements_follow_ases_equation_of_state(metal: str) -> None:
    crystal = relaxed("A1", metal)
    constant = (4 * float(np.linalg.det(crystal.lattice))) ** (1 / 3)
    lengths = constant * np.linspace(0.996, 1.004, 9)
    energies = []
    for length in lengths:
        atoms = bulk(metal, "fcc", a=float(length))
        atoms.calc = ase_emt.EMT()
        energies.append(atoms.get_potential_energy())
    fit = np.polynomial.Polynomial.fit(lengths**3 / 4, energies, 4)
    volumes = fit.deriv().roots()
    volume = float(volumes[np.argmin(np.abs(volumes - constant**3 / 4))].real)
    assert constant == pytest.approx((4 * volume) ** (1 / 3), rel=1e-3)
    moduli = hill_moduli(tensor_of(crystal))
    assert moduli is not None
    assert moduli[0] == pytest.approx(volume * fit.deriv(2)(volume) / GPa, rel=0.02)


@pytest.mark.parametrize(
    ("prototype", "metals"),
    [
        ("L12", ("Cu", "Au")),  # cubic
        ("A3", ("Ni",)),  # hexagonal, ions move under shear only
        ("L10", ("Cu", "Au")),  # tetragonal
        ("D1a", ("Pd", "Ag")),  # tetragonal of low symmetry, internal freedoms
        ("C49", ("Pt", "Au")),  # orthorhombic, internal freedoms
    ],
)
def test_elastic_tensor_is_the_curvature_of_the_energy(
    prototype: str, metals: tuple[str, ...]
) -> None:
    """Energies by ASE, ions relaxed by ASE, along single strains and mixtures of them."""
    crystal = relaxed(prototype, *metals)
    tensor = tensor_of(crystal)
    atoms = as_atoms(crystal)
    energy, volume = atoms.get_potential_energy(), atoms.get_volume()
    assert energy == pytest.approx(crystal.energy, abs=1e-9)
    assert np.abs(atoms.get_forces()).max() < 1e-6
    assert np.abs(atoms.get_stress()).max() < 1e-7
    size = 0.0015
    for voigt in [*np.eye(6), *np.random.default_rng(0).normal(0, 0.5, (2, 6))]:
        x, y, z, yz, xz, xy = voigt
        strain = np.array([[x, xy / 2, xz / 2], [xy / 2, y, yz / 2], [xz / 2, yz / 2, z]])
        rise = 0.0
        for sign in (1, -1):
            image = as_atoms(crystal)
            cell = crystal.lattice @ (np.eye(3) + sign * size * strain)
            image.set_cell(cell, scale_atoms=True)
            if len(image) > 1:
                BFGS(image, logfile=None).run(fmax=1e-4, steps=100)
            rise += image.get_potential_energy() - energy
        curvature = rise / (volume * size**2) / GPa
        assert curvature == pytest.approx(voigt @ tensor @ voigt, rel=0.02)


def test_cubic_tensor_has_cubic_form() -> None:
    tensor = tensor_of(relaxed("L12", "Ni", "Al"))
    c11, c12, c44 = tensor[0, 0], tensor[0, 1], tensor[3, 3]
    form = np.diag([c11 - c12] * 3 + [c44] * 3)
    form[:3, :3] += c12
    assert tensor == pytest.approx(form, abs=1e-6)
    moduli = hill_moduli(tensor)
    assert moduli is not None
    assert moduli[0] == pytest.approx((c11 + 2 * c12) / 3)


def test_isotropic_tensor_gives_its_own_moduli() -> None:
    tensor = np.diag([80.0] * 3 + [40.0] * 3)
    tensor[:3, :3] += 100.0 - 80.0 / 3
    assert hill_moduli(tensor) == pytest.approx((100.0, 40.0))
    assert hill_moduli(np.diag([1.0, 1, 1, 1, 1, -1])) is None


def test_ions_without_a_minimum_leave_no_tensor() -> None:
    """AlB2-type copper rumples: its ions sit on a saddle, as ASE's energy confirms."""
    crystal = relaxed("C32", "Cu", "Au")
    assert elastic_tensor(crystal, 0.001, 1e-6) is None
    atoms = as_atoms(crystal)
    atoms.positions[1:] += [[0, 0, 0.05], [0, 0, -0.05]]
    assert atoms.get_potential_energy() < crystal.energy


@pytest.mark.parametrize(("prototype", "metals"), [("D1a", ("Pd", "Ag")), ("D019", ("Ni", "Al"))])
def test_another_cell_and_frame_give_the_same_crystal(
    prototype: str, metals: tuple[str, ...]
) -> None:
    crystal = relaxed(prototype, *metals)
    atoms = make_supercell(as_atoms(crystal), [[1, 1, 0], [-1, 1, 0], [0, 0, 1]])
    atoms.rotate(37, (1, 2, 3), rotate_cell=True)
    atoms.translate((0.3, 0.2, 0.1))
    atoms = atoms[np.random.default_rng(0).permutation(len(atoms))]
    other = as_crystal(atoms)
    energy, _, _ = emt_gradients(
        Pairs(other.species, other.lattice, other.frac, 0.0),
        other.lattice[None],
        other.frac[None],
    )
    assert energy[0] / 2 == pytest.approx(crystal.energy, abs=1e-9)
    moduli = hill_moduli(tensor_of(crystal))
    assert moduli is not None
    assert hill_moduli(tensor_of(other)) == pytest.approx(moduli, rel=0.01)


def test_templates_have_the_space_groups_of_the_table() -> None:
    for name, prototype in PROTOTYPES.items():
        shape = template(name)
        numbers = ["ABC".index(slot) for slot in shape.slots]
        cell = (shape.lattice.tolist(), shape.frac.tolist(), numbers)
        found = spglib.get_symmetry_dataset(cell, symprec=1e-5)
        assert found is not None
        assert found.number == prototype.space_group, name
        assert np.linalg.det(shape.lattice) > 0
        primitive = spglib.find_primitive(cell, symprec=1e-5)
        assert primitive is not None
        assert len(primitive[2]) == len(numbers) <= 16, name


def test_the_full_set_is_large_and_varied() -> None:
    chosen = candidates(EmtSettings())
    families = {
        (
            PROTOTYPES[candidate.prototype].space_group,
            candidate.prototype,
            tuple(sorted(Counter(template(candidate.prototype).slots).values())),
        )
        for candidate in chosen
    }
    assert len({candidate.id for candidate in chosen}) == len(chosen) >= 1500
    assert len(families) >= 80
    assert Counter(len(candidate.metals) for candidate in chosen)[1] >= 100
    assert Candidate("L12", ("Cu", "Au")).id == "emt-L12-Cu3Au"
    assert Candidate("L12", ("Cu", "Au")) in chosen


def test_fewer_per_prototype_is_a_subset_in_the_same_order() -> None:
    chosen = candidates(EmtSettings())
    fewer = candidates(EmtSettings(max_per_prototype=5))
    assert [candidate for candidate in chosen if candidate in set(fewer)] == fewer
    assert max(Counter(candidate.prototype for candidate in fewer).values()) == 5


def test_relaxation_keeps_the_symmetry() -> None:
    for prototype, metals in [("C23", ("Ag", "Pt")), ("D1a", ("Ni", "Au")), ("B20", ("Al", "Pd"))]:
        result = label((Candidate(prototype, metals), EmtSettings()))
        assert result is not None
        assert result.space_group == PROTOTYPES[prototype].space_group


def test_rows_have_matminers_shape(small: dict[str, Any]) -> None:
    columns = "mpid, formula, e_form, gap pbe, mu_b, bulk modulus, shear modulus, structure"
    assert small["columns"] == columns.split(", ")
    assert small["index"] == list(range(len(small["data"])))
    for _, formula, e_form, gap, mu_b, bulk_modulus, shear_modulus, plain in small["data"]:
        structure = Structure.from_dict(plain)
        assert structure.composition.reduced_formula == formula
        assert isinstance(e_form, float)
        assert gap is None
        assert mu_b is None
        assert (bulk_modulus is None) == (shear_modulus is None)
        theirs = structure.as_dict()
        assert set(theirs) == set(plain)
        assert set(theirs["lattice"]) == set(plain["lattice"])
        assert theirs["sites"][0].keys() == plain["sites"][0].keys()
        for key, value in theirs["lattice"].items():
            assert np.asarray(plain["lattice"][key]) == pytest.approx(np.asarray(value), abs=1e-5)
        for ours, site in zip(plain["sites"], structure, strict=True):
            assert ours["xyz"] == pytest.approx(site.coords, abs=1e-5)
            assert ours["label"] == site.label
            assert all(0 <= coordinate < 1 for coordinate in ours["abc"])


def test_labels_of_known_crystals(small: dict[str, Any]) -> None:
    rows = {row[0]: row for row in small["data"]}
    # EMT puts fcc gold below hcp, and hcp copper below fcc: each is the zero of its element.
    assert rows["emt-A1-Au"][2] == 0
    assert rows["emt-A3-Cu"][2] == 0
    assert all(row[2] >= 0 for row in rows.values() if row[1] in ("Cu", "Au"))
    assert rows["emt-L12-Cu3Au"][2] < 0  # it orders
    assert rows["emt-A1-Cu"][5] == pytest.approx(134.5, rel=0.01)
    # The rock salt and bcc metals are unstable: an energy but no moduli.
    assert rows["emt-B1-CuAu"][5] is None
    assert rows["emt-A2-Au"][6] is None
    # Flattened B4 is Bk, and one crystal stays.
    assert "emt-Bk-CuAu" in rows
    assert "emt-B4-CuAu" not in rows


def test_no_energy_of_an_element_is_below_its_reference() -> None:
    references = reference_energies(METALS, 1e-6)
    elemental = [name for name in PROTOTYPES if set(template(name).slots) == {"A"}]
    for name in elemental:
        for metal in ("Al", "Ni", "Au"):
            crystal = relaxed(name, metal)
            energy = crystal.energy / len(crystal.frac)
            assert energy >= references[METALS.index(metal)] - 1e-9


def test_processes_change_no_bit_and_progress_is_told(small: dict[str, Any]) -> None:
    calls: list[tuple[int, int]] = []
    again = generate(SMALL, jobs=2, progress=lambda *call: calls.append(call))
    assert json.dumps(again) == json.dumps(small)
    total = len(candidates(SMALL))
    assert calls == [(k + 1, total) for k in range(total)]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="elements"):
        EmtSettings(elements=("Cu", "Fe"))
    with pytest.raises(ValidationError, match="unknown prototypes"):
        EmtSettings(prototypes=("L99",))
    with pytest.raises(ValidationError):
        EmtSettings.model_validate({"cutoff": 1})
    with pytest.raises(ValueError, match="jobs"):
        generate(SMALL, jobs=0)
    with pytest.raises(ValueError, match="no prototype"):
        generate(EmtSettings(elements=("Cu",), prototypes=("L12",)), jobs=1)
