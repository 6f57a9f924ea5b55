"""Embeddings of crystals: projections with a known answer, and what neighbours tell."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from crystalmesh.data.crystals import CRYSTAL_SYSTEMS
from crystalmesh.report import embeddings


def clouds(count: int = 30, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points far from each other, and which each point belongs to."""
    random = np.random.default_rng(0)
    kind = np.repeat(np.arange(3), count)
    return random.normal(size=(3 * count, width)) + 12 * np.eye(width)[kind], kind


def test_pca_is_that_of_scikit_learn_but_for_signs() -> None:
    vectors = embeddings.standardised(clouds()[0])
    flat, share = embeddings.pca(vectors)
    known = PCA(2).fit(vectors)
    assert np.abs(flat) == pytest.approx(np.abs(known.transform(vectors)), abs=1e-9)
    assert share == pytest.approx(known.explained_variance_ratio_.sum())
    mirrored, _ = embeddings.pca(vectors * -1)
    assert np.abs(mirrored) == pytest.approx(np.abs(flat))


def test_tsne_keeps_clouds_apart_and_is_the_same_again() -> None:
    vectors, kind = clouds()
    flat = embeddings.tsne(vectors, embeddings.pca(vectors)[0])
    assert (embeddings.tsne(vectors, embeddings.pca(vectors)[0]) == flat).all()
    near = embeddings.neighbours(flat, 5)
    assert (embeddings.vote(kind[near]) == kind).mean() > 0.95


def test_neighbours_vote_as_in_scikit_learn() -> None:
    random = np.random.default_rng(1)
    vectors, kind = random.normal(size=(60, 4)), random.integers(0, 3, 60)
    near = embeddings.neighbours(vectors, 5)
    assert (near != np.arange(60)[:, None]).all()
    for row in range(60):
        others = np.delete(np.arange(60), row)
        known = KNeighborsClassifier(5).fit(vectors[others], kind[others])
        assert (
            known.predict(vectors[row : row + 1])[0]
            == embeddings.vote(kind[near[row : row + 1]])[0]
        )


def test_a_column_that_does_not_vary_tells_nothing() -> None:
    vectors = clouds()[0]
    vectors[:, 3] = 7.0
    assert embeddings.standardised(vectors).shape == (90, 11)
    assert embeddings.standardised(np.ones((5, 3))).shape == (5, 2)


def test_crystal_systems_end_where_they_should() -> None:
    ends = np.array([1, 2, 3, 15, 16, 74, 75, 142, 143, 167, 168, 194, 195, 230])
    found = np.searchsorted(list(CRYSTAL_SYSTEMS.values()), ends)
    assert found.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
