"""Vertices as integers, and stores of sorted lists of them: facets, faces, edges, cells.

A vertex is one integer: 28 bits of site, then three times 12 bits of shift + 2048. So vertices sort
by site and shift, and a lattice translation is one addition. Sites are those inside the reduced
cell.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystalmesh.represent.delaunay.common import Floats, Ints, compiled, inlined

HALF = 2048
HOME = (HALF << 24) + (HALF << 12) + HALF  # shift zero
SHIFTS = (1 << 36) - 1


@compiled
def shift_of(vertex: int, k: int) -> int:
    """Component k of a vertex's shift."""
    return ((vertex >> (24 - 12 * k)) & 4095) - HALF


class Sites(NamedTuple):
    """Sites in the reduced cell."""

    home: NDArray[np.float64]  # [n, 3] positions inside the cell, Angstrom
    wrap: NDArray[np.int64]  # [n, 3] whole cells from there to the site as given
    basis: NDArray[np.float64]  # [3, 3] reduced lattice vectors, Angstrom
    change: NDArray[np.int64]  # [3, 3] basis = change @ lattice


@compiled
def place_vertex(vertex: int, sites: Sites, out: Floats) -> None:
    """Position of a vertex in Angstrom."""
    site = vertex >> 36
    for k in range(3):
        out[k] = sites.home[site, k]
        for j in range(3):
            out[k] += shift_of(vertex, j) * sites.basis[j, k]


@compiled
def sort_vertices(vertices: Ints, m: int) -> int:
    """Sort vertices and move them so that the first has shift zero; returns by how much."""
    for i in range(1, m):
        vertex, j = vertices[i], i
        while j > 0 and vertices[j - 1] > vertex:
            vertices[j] = vertices[j - 1]
            j -= 1
        vertices[j] = vertex
    translation = (vertices[0] & SHIFTS) - HOME
    for i in range(m):
        vertices[i] -= translation
    return translation


@compiled
def has(vertices: Ints, start: int, stop: int, vertex: int) -> bool:
    """Whether a vertex is one of vertices[start:stop]."""
    for i in range(start, stop):
        if vertices[i] == vertex:
            return True
    return False


class Store(NamedTuple):
    """Sorted lists of vertices, each once: list i is items[pointer[i] : pointer[i + 1]]."""

    pointer: NDArray[np.int64]
    items: NDArray[np.int64]
    used: NDArray[np.int64]  # [1] how many lists there are
    table: NDArray[np.int64]  # by hash: number of a list, or -1


@compiled
def empty_store(lists: int, entries: int) -> Store:
    """An empty store for so many lists with so many vertices in all."""
    size = 16
    while size < 2 * lists:
        size *= 2
    pointer, items = np.zeros(lists + 1, np.int64), np.empty(entries, np.int64)
    return Store(pointer, items, np.zeros(1, np.int64), np.full(size, -1, np.int64))


@compiled
def intern(vertices: Ints, m: int, store: Store) -> int:
    """The number of this sorted list in the store, where it is put if it is new; -1: no room."""
    code = np.uint64(14695981039346656037)
    for i in range(m):
        code = (code ^ np.uint64(vertices[i])) * np.uint64(1099511628211)
        code ^= code >> np.uint64(29)
    mask = np.uint64(len(store.table) - 1)
    slot = code & mask
    while store.table[slot] >= 0:
        index = store.table[slot]
        start = store.pointer[index]
        if store.pointer[index + 1] - start == m:
            same = True
            for i in range(m):
                same &= store.items[start + i] == vertices[i]
            if same:
                return index
        slot = (slot + np.uint64(1)) & mask
    index = store.used[0]
    start = store.pointer[index]
    if index + 1 >= len(store.pointer) or start + m > len(store.items):
        return -1
    for i in range(m):
        store.items[start + i] = vertices[i]
    store.pointer[index + 1] = start + m
    store.table[slot] = index
    store.used[0] += 1
    return index


@compiled
def incidence_of(cells: Store, n: int) -> tuple[Ints, Ints]:
    """Where each site is a corner: pointer [n + 1], cell and place in the store of each."""
    count = cells.used[0]
    entries = cells.pointer[count]
    pointer = np.zeros(n + 1, np.int64)
    for e in range(entries):
        pointer[(cells.items[e] >> 36) + 1] += 1
    for i in range(n):
        pointer[i + 1] += pointer[i]
    fill, places = pointer.copy(), np.empty((entries, 2), np.int64)
    for c in range(count):
        for e in range(cells.pointer[c], cells.pointer[c + 1]):
            site = cells.items[e] >> 36
            places[fill[site], 0], places[fill[site], 1] = c, e
            fill[site] += 1
    return pointer, places


@inlined
def corners_of(cells: Store, cell: int, sites: Sites, known: Ints, points: Floats) -> int:
    """Fill in the corners of a cell and their positions, Angstrom; returns their number."""
    start, items = cells.pointer[cell], cells.items
    m = cells.pointer[cell + 1] - start
    for i in range(m):
        known[i] = items[start + i]
        place_vertex(known[i], sites, points[i])
    return m
