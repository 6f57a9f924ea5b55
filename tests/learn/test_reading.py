"""A model with a representation that lacks what it reads: one line, not a traceback."""

from collections.abc import Callable

import pytest

from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from tests.conftest import Tree
from tests.learn.conftest import fit


@pytest.mark.parametrize(
    ("model", "array", "own"),
    [("cgcnn", "neighbour", "graph.cgcnn"), ("forest", "values", "descriptors.composition")],
)
def test_what_a_representation_has_not_is_said(
    tree: Tree, renew: Callable[[Tree], Project], model: str, array: str, own: str
) -> None:
    tree["representations"]["descriptors"] = {"composition": {}}
    tree["models"]["forest"] = {
        "title": "forest",
        "architecture": "classical",
        "representation": "descriptors.composition",
        "network": {"estimator": "random_forest", "trees": 4, "max_features": 0.5, "min_leaf": 1},
    }
    tree["studies"]["demo"]["runs"]["log_k-odd"] = {
        "target": "log_k", "model": model, "split": "60-20-20", "representation": "mesh.canonical",
    }  # fmt: skip
    project = renew(tree)
    said = (
        f"demo/log_k-odd: {model} reads '{array}', which mesh.canonical has not; give it the"
        f" representation {own}"
    )
    with pytest.raises(CrystalmeshError, match=said):
        fit(project, "log_k-odd")
