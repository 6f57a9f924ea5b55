"""Networks are found by the names of their files."""

import pytest

from crystalmesh.errors import CrystalmeshError
from crystalmesh.models import network


def test_an_unknown_architecture_names_the_nearest_file() -> None:
    with pytest.raises(CrystalmeshError, match=r"no file models/cgcn\.py; did you mean 'cgcnn'\?"):
        network("cgcn", {}, 1)
    with pytest.raises(CrystalmeshError, match=r"known: .*pointnet"):
        network("x", {}, 1)
