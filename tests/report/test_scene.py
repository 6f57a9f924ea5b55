"""The drawing of a mesh: of any cell, and with edges that end at atoms."""

import matplotlib
import numpy as np

from crystalmesh.report.figures import scene
from crystalmesh.report.figures.style import STYLE
from crystalmesh.represent.mesh import tessellate_supercell
from tests.report.conftest import NACL


def test_draw_mesh_of_a_skew_cell() -> None:
    lattice = np.array([[3.0, 0, 0], [-1.5, 2.6, 0], [0.2, 0.1, 4.0]])
    numbers = np.array([22, 8])
    frac = np.array([[0, 0, 0], [1 / 3, 2 / 3, 0.4]])
    arrays = tessellate_supercell(lattice, frac, numbers, 5, 0.05)
    with matplotlib.rc_context(STYLE):
        figure = scene.draw_mesh({"a mesh": arrays})
        figure.draw_without_rendering()
    assert len(figure.axes) == 3


def test_cell_edges_do_not_run_through_atoms() -> None:
    arrays = tessellate_supercell(NACL.lattice, NACL.frac, NACL.numbers, 5, 0.05)
    figure = scene.draw_mesh({"a mesh": arrays})
    lines = [c for c in figure.axes[0].collections if hasattr(c, "get_segments")]
    assert 0 < sum(len(c.get_segments()) for c in lines) < 12 * 40


def test_a_mesh_is_called_by_variant_and_module() -> None:
    assert scene.mesh_title("mesh.published") == "published mesh"
