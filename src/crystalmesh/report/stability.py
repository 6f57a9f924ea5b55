"""How often a mesh changes when the crystal is described anew, or its atoms move a little."""

from functools import cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from crystalmesh.config.project import Project
from crystalmesh.data import registry
from crystalmesh.data.crystals import Crystal, Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import write_json
from crystalmesh.represent import Representation, representation
from crystalmesh.workers import in_order

SEED = 0
MOVED = 0.1  # Angstrom: perimeters of the triangles that differ by more are not the same triangles


_crystals = cache(Crystals.load)  # read once a process


def build(project: Project, study: str, jobs: int) -> None:
    """Write results/<study>/stability.json: the share of crystals whose mesh changes.

    Every k-th crystal of the study's dataset is described anew (rotated, shifted, its sites
    permuted) and its atoms are moved, each by the same distance in a random direction. A mesh has
    changed if its triangles are more or fewer, or if their sorted perimeters differ by more than
    `MOVED` anywhere. That is a lower bound: a square cut along its other diagonal keeps them all.
    The result does not depend on `jobs`, the number of processes.

    Raises:
        CrystalmeshError: study.yaml has no `stability`, or no crystal has all meshes.
    """
    report = project.params.study(study).report
    if report is None or report.stability is None:
        raise CrystalmeshError(f"studies/{study}/study.yaml: report.stability: missing; add it")
    wanted = report.stability
    folder = project.crystals(project.params.study(study).dataset)
    total = len(_crystals(folder))
    rows = np.unique(np.linspace(0, total - 1, min(wanted.systems, total)).astype(int)).tolist()
    kinds = {name: project.params.representation(name) for name in wanted.representations}
    work = partial(_examine, kinds, folder, wanted.displacements)
    with registry.progress() as bar:
        examined = bar.track(in_order(work, rows, jobs), len(rows), description="stability")
        found = [row for row in examined if row is not None]
    if not found:
        raise CrystalmeshError(f"stability of {study}: no crystal has all meshes")
    shares = np.mean(found, axis=0)  # [kinds, 1 + displacements]
    write_json(
        project.results(study) / "stability.json",
        {
            "crystals": len(found),
            "displacements": list(wanted.displacements),
            "described anew": dict(zip(kinds, shares[:, 0].tolist(), strict=True)),
            "displaced": dict(zip(kinds, shares[:, 1:].tolist(), strict=True)),
        },
    )


def _examine(
    kinds: dict[str, dict[str, float]], folder: Path, displacements: tuple[float, ...], row: int
) -> list[list[float]] | None:
    """For each kind of mesh, 1 where it changes; None where the crystal has no such mesh."""
    crystal = _crystals(folder)[row]
    rng = np.random.default_rng([SEED, row])
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(len(crystal.numbers))
    variants = [
        Crystal(
            crystal.id,
            crystal.formula,
            crystal.lattice @ (turn * np.sign(np.linalg.det(turn))),
            crystal.numbers[order],
            (crystal.frac + rng.random(3))[order],
        )
    ]
    for size in displacements:
        step = rng.normal(size=crystal.frac.shape)
        step *= size / np.linalg.norm(step, axis=1, keepdims=True)
        moved = crystal.frac + step @ np.linalg.inv(crystal.lattice)
        variants.append(
            Crystal(crystal.id, crystal.formula, crystal.lattice, crystal.numbers, moved)
        )
    changed = []
    for name, settings in kinds.items():
        maker = representation(name, settings)
        try:
            before = _perimeters(maker, crystal)
        except CrystalmeshError:
            return None
        changed.append([float(_differ(before, maker, variant)) for variant in variants])
    return changed


def _differ(before: Float[NDArray[np.float64], " t"], maker: Representation, one: Crystal) -> bool:
    try:
        after = _perimeters(maker, one)
    except CrystalmeshError:
        return True
    return len(before) != len(after) or bool(np.abs(before - after).max() > MOVED)


def _perimeters(maker: Representation, crystal: Crystal) -> Float[NDArray[np.float64], " t"]:
    """Of all triangles, sorted, Angstrom."""
    mesh = maker.build(crystal)
    place = (mesh["frac"][mesh["vertex_site"]] + mesh["vertex_shift"]) @ mesh["lattice"]
    corners = place[mesh["faces"]]
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    return np.sort(sides.sum(axis=1))
