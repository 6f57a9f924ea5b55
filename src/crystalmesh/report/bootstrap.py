"""Bootstrap intervals of a mean over test crystals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

LEVEL = 95  # per cent of the intervals
RESAMPLES = 2000
SEED = 0
BLOCK = 200_000  # numbers of resamples in memory at once


def interval(
    losses: Float[NDArray[np.float64], " n"], crystals: Sequence[str] | None = None
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over test crystals, from a fixed seed.

    It tells how much the mean would move with another draw of test crystals. It says nothing of
    another draw of training crystals or of another seed of the network. With `crystals`, that of
    each loss, crystals are drawn with all their losses: those of one crystal are alike.
    """
    generator = np.random.default_rng(SEED)
    counts: NDArray[Any] | None = None
    if crystals is not None:
        _, groups = np.unique(np.array(crystals), return_inverse=True)
        losses = np.bincount(groups, weights=losses).astype(np.float64)
        counts = np.bincount(groups)
    n = len(losses)
    rows = max(1, BLOCK // n)  # resamples drawn at once
    means: list[float] = []
    while len(means) < RESAMPLES:
        drawn = generator.integers(0, n, (min(rows, RESAMPLES - len(means)), n))
        if counts is None:
            means += losses[drawn].mean(axis=1).tolist()
        else:
            means += (losses[drawn].sum(axis=1) / counts[drawn].sum(axis=1)).tolist()
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
