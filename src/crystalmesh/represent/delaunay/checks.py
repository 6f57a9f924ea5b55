"""What every complex that is returned has passed: volumes, Euler, faces between two cells."""

from crystalmesh.represent.delaunay.common import VOLUME, Floats, Ints, compiled


@compiled
def is_ball(volume: float, corners: int, faces: int, sides: int) -> bool:
    """Whether a cell has a volume and, by Euler, is a topological ball.

    Args:
        volume: Angstrom^3.
        corners, faces: how many the cell has.
        sides: how many its faces have in all, each edge twice.
    """
    return volume > 0 and 2 * (corners + faces - 2) == sides


@compiled
def is_sound(volumes: Floats, volume: float, euler: int, face_cells: Ints, beyond: Ints) -> bool:
    """Whether the cells fill the lattice's cell, each face parting two of them.

    Args:
        volumes [c], volume: of the cells and of the lattice's cell, Angstrom^3.
        euler: vertices - edges + faces - cells.
        face_cells [f, 2]: the cells that met each face as one of theirs.
        beyond [f, 2]: the cell that each of them found on the other side.
    """
    total = 0.0
    for i in range(len(volumes)):
        total += volumes[i]
    sound = abs(total - volume) <= VOLUME * volume and euler == 0
    for i in range(len(face_cells)):
        sound &= face_cells[i, 0] == beyond[i, 1] and face_cells[i, 1] == beyond[i, 0]
    return sound
