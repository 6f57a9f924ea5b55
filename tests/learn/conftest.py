"""Projects whose features are made, for all tests of learning."""

import json
from typing import Any

import numpy as np
import pytest

from crystalmesh import config
from crystalmesh.config import Project
from crystalmesh.data import splits, validation
from crystalmesh.data.crystals import Crystals
from crystalmesh.represent import store
from tests.models.test_complex import PROCESS


@pytest.fixture
def ready(project: Project) -> Project:
    for key in project.params.features:
        store.build(project, key, 1)
    return project


@pytest.fixture
def averaged(ready: Project, tree: dict[str, Any]) -> Project:
    """One network for two tasks on the complex, the running mean of whose weights is kept."""
    tree["representations"]["complex"] = {"orbits": {"symprec": 0.01, "tolerance": 0.001}}
    block = tree["features"]["tiny-graph_cgcnn"] | {"representation": "complex.orbits"}
    tree["features"]["tiny-complex_orbits"] = block
    training = tree["models"]["cgcnn"]["training"] | {"ema": 0.9, "loss": "l1"}
    tree["models"]["complex"] = {
        "title": "complex",
        "architecture": "complex",
        "network": {"width": 8, "layers": 2},
        "training": training,
    }
    experiments = tree["experiments"]["demo"]
    one = experiments["log_k-cgcnn"] | {"representation": "complex.orbits", "model": "complex"}
    experiments["log_k-complex"] = one | {"beside": ["e_form"]}
    experiments["space_group-complex"] = one | {"task": "space_group", "beside": ["e_form"]}
    (ready.root / "params.yaml").write_text(json.dumps(tree))
    project = config.load(ready.root)
    store.build(project, "tiny-complex_orbits", 1)
    return project


@pytest.fixture
def kriged(averaged: Project, tree: dict[str, Any]) -> Project:
    """The same network, but it reads a Gaussian process."""
    complexes, features = tree["representations"]["complex"], tree["features"]
    complexes["described"] = complexes["orbits"]
    block = features["tiny-complex_orbits"] | {"representation": "complex.described"}
    features["tiny-complex_described"] = block
    tree["models"]["complex"]["network"] |= {"truss": True, "process": PROCESS}
    tree["models"]["complex"]["checkpoint"] = "float16"
    own = tree["experiments"]["demo"]
    del own["space_group-complex"]
    own["log_k-complex"] |= {"representation": "complex.described"}
    (averaged.root / "params.yaml").write_text(json.dumps(tree))
    project = config.load(averaged.root)
    store.build(project, "tiny-complex_described", 1)
    return project


def some_without(project: Project, tree: dict[str, Any], *features: str) -> Project:
    """The project of `tree`, where nine crystals have no bulk modulus: it is out of range."""
    moduli = Crystals.load(project.crystals("tiny")).labels["k_vrh"]
    tree["tasks"]["log_k"]["range"] = [0.001, float(np.quantile(moduli, 0.7))]
    (project.root / "params.yaml").write_text(json.dumps(tree))
    project = config.load(project.root)
    validation.build(project, "tiny", 1)
    splits.build(project, "tiny-60-20-20")
    for name in features:
        store.build(project, f"tiny-complex_{name}", 1)
    return project
