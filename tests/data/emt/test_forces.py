"""The embedded set with forces: ASE's numbers, their sign, what the text holds."""

# mypy: disable-error-code="no-untyped-call"

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from pydantic import ValidationError

from crystalmesh.config.project import Project
from crystalmesh.data import registry, validation
from crystalmesh.data.crystals import Crystals
from crystalmesh.data.emt import forces as emt_forces
from crystalmesh.data.emt.forces import ForcesSettings, Frame, evaluate, family
from crystalmesh.data.emt.potential import METALS
from crystalmesh.data.sources import extxyz
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import sha256

SMALL = ForcesSettings(clusters=6, crystals=6, frames=2)
PARENTS = [f"{tag}-{k}" for tag in ("cluster", "crystal") for k in range(6)]


def as_atoms(frame: Frame) -> Atoms:
    return Atoms(
        [METALS[k] for k in frame.species],
        positions=frame.positions,
        cell=frame.cell,
        pbc=frame.cell is not None,
        calculator=EMT(),
    )


@pytest.mark.parametrize("parent", PARENTS)
def test_energies_and_forces_are_ases(parent: str) -> None:
    for frame in family(parent, SMALL):
        atoms = as_atoms(frame)
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-9)
        np.testing.assert_allclose(frame.forces.sum(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("parent", ["cluster-1", "crystal-2"])
def test_a_force_is_minus_the_slope_of_the_energy(parent: str) -> None:
    frame, step = family(parent, SMALL)[0], 1e-5
    for atom, axis in ((0, 0), (1, 2)):
        energies = []
        for sign in (1, -1):
            moved = frame.positions.copy()
            moved[atom, axis] += sign * step
            energies.append(evaluate(frame.species, moved, frame.cell)[0])
        slope = (energies[0] - energies[1]) / (2 * step)
        assert frame.forces[atom, axis] == pytest.approx(-slope, abs=1e-5)
        assert abs(slope) > 1e-2


def test_the_text_holds_the_frames_to_their_rounding(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_text(emt_forces.generate(SMALL, 1))
    entries = list(extxyz.read(path))
    frames = [frame for parent in PARENTS for frame in family(parent, SMALL)]
    assert [entry.id for entry in entries] == [frame.id for frame in frames]
    for entry, frame in zip(entries, frames, strict=True):
        assert (entry.labels["tag"], entry.labels["parent"]) == (frame.tag, frame.parent)
        assert entry.labels["energy"] == pytest.approx(frame.energy, abs=6e-7)
        np.testing.assert_allclose(entry.atoms["forces"], frame.forces, atol=6e-7)
        assert (entry.lattice is None) == (frame.tag == "cluster")
        if entry.lattice is None:
            np.testing.assert_array_equal(entry.coordinates, frame.positions)
        else:
            assert frame.cell is not None
            np.testing.assert_array_equal(entry.lattice, np.diag(frame.cell))


def test_the_same_on_any_number_of_processes_and_other_with_another_seed() -> None:
    seen: list[tuple[int, int]] = []
    text = emt_forces.generate(SMALL, 1, lambda *now: seen.append(now))
    assert seen == [(k, 12) for k in range(1, 13)]
    assert emt_forces.generate(SMALL, 2) == text
    assert emt_forces.generate(SMALL.model_copy(update={"seed": 1}), 1) != text


def test_frozen_bits(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_text(emt_forces.generate(ForcesSettings(), 1))
    assert sha256(path) == "62ddb8f15f9a8b7aaf68ec30086789d186d909ea9118ed68c421fe433f6e967d"
    entries = list(extxyz.read(path))
    assert Counter(entry.labels["tag"] for entry in entries) == {"cluster": 240, "crystal": 160}
    sizes = [len(entry.species) for entry in entries]
    assert (min(sizes), max(sizes)) == (4, 32)
    assert {name for e in entries for ((name, _),) in e.species} == set(METALS)


def test_it_enters_the_pipeline(declare: Callable[..., Project]) -> None:
    block: dict[str, Any] = {
        "title": "rattled metals", "source": "ASE", "kind": "emt_forces", "format": "extxyz",
        "labels": {"energy": "energy", "forces": "forces"}, "columns": ["tag", "parent"],
        "generator": SMALL.model_dump(mode="json"),
    }  # fmt: skip
    project = declare(b"", datasets={"rattled": block})
    registry.fetch(project, "rattled", 1)
    validation.build(project, "rattled", 1)
    found = Crystals.load(project.crystals("rattled"))
    assert (len(found), found.entries) == (24, 24)
    assert found.periodic.sum() == 12
    assert found.known("forces").all()
    first = found[found.position("cluster-0-0")]
    frame = family("cluster-0", SMALL)[0]
    assert first.cell is None
    np.testing.assert_array_equal(first.positions, frame.positions)
    np.testing.assert_allclose(
        found.atom_labels["forces"][: len(frame.forces)], frame.forces, atol=6e-7
    )
    assert first.columns == {"tag": "cluster", "parent": "cluster-0"}
    raw = project.raw("rattled").read_bytes()
    assert gzip.decompress(raw).decode() == emt_forces.generate(SMALL, 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"clusters": 0, "crystals": 0}, "neither clusters nor crystals"),
        ({"atoms": [5, 4]}, "the smaller number first"),
        ({"frames": 0}, "frames: "),
    ],
)
def test_settings_that_make_nothing_are_named(
    declare: Callable[..., Project], wrong: dict[str, Any], said: str
) -> None:
    block = {"title": "x", "source": "x", "kind": "emt_forces", "generator": wrong}
    with pytest.raises(CrystalmeshError, match=rf"datasets\.rattled\.generator: .*{said}"):
        registry.fetch(declare(b"", datasets={"rattled": block}), "rattled", 1)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError):
        ForcesSettings.model_validate({"colour": 1})
