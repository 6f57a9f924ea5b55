"""What all files of the package share: how they are compiled, types, tolerances, how a run may end.

Floats have 64 bits and no operation is fused or reordered, so that the bits do not depend on the
processor. What is filled and returned often is an argument of the functions: to allocate it would
cost more than the arithmetic.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

ROUNDING = 1e-6  # Angstrom: co-spherical but for rounding
NOISE = 2e-5  # Angstrom: far above rounding, far below the tolerance
FLAT = 5  # tolerances of thickness, below which a cell is flat
CLOSE = 30  # tolerances from a sphere within which an atom may turn out to be on it
PLANAR = 1e-7  # Angstrom: vertices of a cell this near to a plane lie in it, whatever the tolerance
VOLUME = 1e-9  # relative error allowed to the sum of the cell volumes
COINCIDENT = 1e-2  # Angstrom: two sites this near are one site given twice

MOST_CELLS = 500  # lattice vectors that an empty sphere may span: shifts have 12 bits
MOST_SKEW = 10_000  # lattice vectors between the cells given and reduced: shifts return as int32

DONE, FULL, SHORT, INCONSISTENT, COLLISION, THIN, SKEWED = range(7)  # how a run may end

_SOURCE = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).digest()


def compiled(function: F) -> F:
    """With a cache on disk beside the files; without checks of bounds and divisors.

    numba makes a cached function again when its own file changes, but holds in it the code of the
    functions that it calls, of other files too: so any file of the package counts here.
    """
    result: Any = njit(cache=True, error_model="numpy")(function)
    result._cache._cache_file._source_stamp = _SOURCE
    return result


def inlined(function: F) -> F:
    """As a part of the compiled functions that call it: a call for every face would cost more."""
    result: Any = njit(inline="always", error_model="numpy")(function)
    return result
