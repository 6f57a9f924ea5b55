"""The scale file as a dataset: structures of the Materials Project without labels."""

import os
from pathlib import Path

import numpy as np

from crystalmesh.data.crystals import Crystal, Crystals, Labels

FILE = "scale/mp_2025_170455.npz"


def load(count: int | None = None, seed: int = 0) -> Crystals:
    """A random choice of the crystals of the scale file (all without a count), from the mirror.

    Raises:
        SystemExit: the file is not in the mirror's folder.
    """
    path = Path(os.environ.get("CRYSTALMESH_MIRROR", "../shared/data")) / FILE
    if not path.exists():
        raise SystemExit(
            f"error: {path}: missing; set CRYSTALMESH_MIRROR to the folder that has it"
        )
    with np.load(path) as archive:
        sites = archive["n_atoms"].astype(np.int64)
        rows = np.arange(len(sites))
        if count is not None:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
        kept = np.repeat(np.isin(np.arange(len(sites)), rows), sites)
        ids = [str(name) for name in archive["ids"][rows]]
        return Crystals(
            dataset="scale",
            entries=len(rows),
            ids=ids,
            formulas=["" for _ in ids],
            lattices=archive["lattice"][rows],
            pointer=np.concatenate([[0], np.cumsum(sites[rows])]),
            numbers=archive["numbers"][kept].astype(np.int64),
            coordinates=archive["frac"][kept].astype(np.float64),
            labels=Labels(len(rows), {}),
        )


def sample(crystals: Crystals, count: int, seed: int = 0) -> list[Crystal]:
    """So many crystals at random."""
    rows = np.random.default_rng(seed).permutation(len(crystals))[:count]
    return [crystals[int(row)] for row in rows]
