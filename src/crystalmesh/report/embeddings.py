"""embeddings.json: what networks make of crystals, drawn flat, and how much structure is left.

The vector that a network forms of a crystal right before its last layers holds all that it has seen
of it. Each chosen run's vectors of its test crystals are projected by PCA and by t-SNE (van der
Maaten & Hinton, J. Mach. Learn. Res. 9, 2579, 2008), and asked in all their dimensions what they
tell: the crystal system and the property of a crystal are guessed from its nearest neighbours.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from crystalmesh import files, numerics
from crystalmesh.config.project import Project
from crystalmesh.config.read import lookup
from crystalmesh.config.schema import Run
from crystalmesh.data.crystals import CRYSTAL_SYSTEMS, Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.learn.batches import place, samples
from crystalmesh.learn.predict import Checkpoint, forward, inputs

CRYSTALS = 800  # test crystals that are drawn, the first ones: more hide each other
NEIGHBOURS = 5
PERPLEXITY = 30.0
DIGITS = 4  # of the coordinates that are kept


def build(project: Project, study: str) -> None:
    """Write results/<study>/embeddings.json for the runs that `embeddings` of the report names.

    Raises:
        CrystalmeshError: the study does not show a run, or it has no network; its checkpoint is
            missing or damaged.
    """
    one = project.params.study(study)
    numerics.enforce(one.numerics)
    shown = {run.name: run for run in project.params.shown(study)}
    names = one.report.embeddings if one.report else ()
    where = f"run (studies/{study}/study.yaml: report.embeddings)"
    content = {name: describe(project, lookup(shown, name, where)) for name in names}
    files.write_json(project.results(study) / "embeddings.json", content)


def describe(project: Project, run: Run) -> dict[str, Any]:
    """The embedding of a run's test crystals, of its first network where it has several."""
    if project.params.models[run.model].training is None:
        raise CrystalmeshError(f"embeddings: {run.reference} has no network")
    fold, sample = next(samples(project, run))
    net = Checkpoint.load(project, run).network(project, place(run, fold, 0))
    part = sample.test[run.target].first(CRYSTALS)
    vectors = standardised(forward(net, inputs(sample, part), vectors=True).double().numpy())
    crystals = Crystals.load(project.crystals(run.dataset))
    rows = [crystals.position(i) for i in part.ids]
    group = np.nan_to_num(crystals.labels["space_group"][rows]).astype(np.int64)
    system = np.searchsorted(list(CRYSTAL_SYSTEMS.values()), group)
    flat, share = pca(vectors)
    near = neighbours(vectors, min(NEIGHBOURS, len(vectors) - 1))
    return {
        "ids": part.ids,
        "system": system.tolist(),
        "target": part.targets.tolist(),
        "pca": np.round(flat, DIGITS).tolist(),
        "pca_share": round(share, DIGITS),
        "tsne": np.round(tsne(vectors, flat), DIGITS).tolist(),
        "system_accuracy": 100.0 * float((vote(system[near]) == system).mean()),
        "system_most_frequent": 100.0 * float(np.bincount(system).max() / len(system)),
        "target_r2": _r2(part.targets, part.targets[near].mean(axis=1)),
    }


def standardised(vectors: Float[NDArray[np.float64], "c d"]) -> Float[NDArray[np.float64], "c d"]:
    """Each column to mean 0 and deviation 1; those that do not vary are left out."""
    deviation = vectors.std(axis=0)
    kept = deviation > 1e-9
    result: NDArray[np.float64] = (vectors - vectors.mean(axis=0))[:, kept] / deviation[kept]
    return result if result.shape[1] else np.zeros((len(vectors), 2))


def pca(
    vectors: Float[NDArray[np.float64], "c d"],
) -> tuple[Float[NDArray[np.float64], "c 2"], float]:
    """The two directions of most variance, and their share of it; a fixed choice of signs."""
    _, scale, directions = np.linalg.svd(vectors, full_matrices=False)
    flat = np.zeros((len(vectors), 2))
    for axis, direction in enumerate(directions[:2]):
        sign = np.sign(direction[np.abs(direction).argmax()])
        flat[:, axis] = vectors @ (sign * direction)
    total = float((scale**2).sum())
    return flat, float((scale[:2] ** 2).sum()) / total if total else 0.0


def tsne(
    vectors: Float[NDArray[np.float64], "c d"], start: Float[NDArray[np.float64], "c 2"]
) -> Float[NDArray[np.float64], "c 2"]:
    """t-SNE from a PCA's coordinates: no random start."""
    initial = (start / max(float(start[:, 0].std()), 1e-12) * 1e-4).astype(np.float32)
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init=initial, random_state=0, n_jobs=1, max_iter=500)
    flat: NDArray[np.float64] = model.fit_transform(vectors).astype(np.float64)
    return flat


def neighbours(vectors: Float[NDArray[np.float64], "c d"], k: int) -> Int[NDArray[np.int64], "c k"]:
    """The k nearest other rows of each row, nearest first."""
    square = (vectors**2).sum(axis=1)
    distance = square[:, None] + square - 2 * (vectors @ vectors.T)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :k]


def vote(classes: Int[NDArray[np.int64], "c k"]) -> Int[NDArray[np.int64], " c"]:
    """The most frequent class of each row, the smallest of equals."""
    return np.array([np.bincount(row).argmax() for row in classes])


def _r2(target: NDArray[np.float64], guess: NDArray[np.float64]) -> float:
    residual, total = ((target - guess) ** 2).sum(), ((target - target.mean()) ** 2).sum()
    return float(1 - residual / total) if total else 0.0
