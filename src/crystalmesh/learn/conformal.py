"""Intervals and sets that hold the truth as often as they say: split conformal prediction.

Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World" (2005); Lei et al., J. Am. Stat.
Assoc. 113, 1094 (2018). Crystals that no weight was fitted to are predicted, each prediction gets a
score of how wrong it is, and a new crystal's interval reaches to where 90 % of these scores lie. If
calibration and test crystals are exchangeable, it holds the truth with at least that probability,
whatever the network is.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

LEVEL = 0.9  # of the intervals and sets that predictions carry


@dataclass(frozen=True)
class Calibration:
    """Scores of the calibration crystals.

    Attributes:
        scores: f64 [n], ascending.
        floor: what is added to an ensemble's spread before a residual is divided by it.
    """

    scores: Float[NDArray[np.float64], " n"]
    floor: float = 0.0

    @classmethod
    def of_values(
        cls,
        target: Float[NDArray[np.float64], " n"],
        prediction: Float[NDArray[np.float64], " n"],
        spread: Float[NDArray[np.float64], " n"] | None,
    ) -> "Calibration":
        """For numbers: |residual|, or |residual| / (spread + floor) with an ensemble's spread.

        The floor is the mean |residual|: it keeps a crystal on which the members happen to agree
        from getting an interval of no width (Papadopoulos et al., J. Artif. Intell. Res. 40, 815,
        2011).
        """
        residual = np.abs(target - prediction)
        if spread is None or not len(residual):
            return cls(np.sort(residual))
        floor = float(residual.mean())
        return cls(np.sort(residual / (spread + floor)), floor)

    @classmethod
    def of_classes(
        cls, target: Int[NDArray[np.int64], " n"], probability: Float[NDArray[np.float64], "n k"]
    ) -> "Calibration":
        """For classes (from 0): one minus the probability of the true one."""
        return cls(np.sort(1 - probability[np.arange(len(target)), target]))

    def scale(
        self, spread: Float[NDArray[np.float64], " m"] | None, count: int
    ) -> Float[NDArray[np.float64], " m"]:
        """What turns a score into the target's unit, for each of `count` crystals."""
        return np.ones(count) if spread is None else spread + self.floor

    def quantile(self, level: float) -> float:
        """The score below which a new one lies with probability `level` or more.

        Infinite where there are too few calibration crystals to tell.
        """
        place = math.ceil((len(self.scores) + 1) * level)
        return float(self.scores[place - 1]) if place <= len(self.scores) else math.inf

    def p_value(self, scores: Float[NDArray[np.float64], " m"]) -> Float[NDArray[np.float64], " m"]:
        """Share of the calibration scores (and of its own) that are as large.

        The interval of any level L holds the truth where the p-value is above 1 - L, so the
        p-values of the test crystals are their whole calibration curve.
        """
        below = np.searchsorted(self.scores, scores, side="left")
        return (len(self.scores) - below + 1) / (len(self.scores) + 1)


def sets(
    probability: Float[NDArray[np.float64], "m k"], calibration: Calibration, level: float = LEVEL
) -> list[NDArray[np.int64]]:
    """The classes (from 0) that each crystal's set holds; the likeliest one is always in it."""
    inside = 1 - probability <= calibration.quantile(level)
    inside[np.arange(len(probability)), probability.argmax(axis=1)] = True
    return [np.flatnonzero(row) for row in inside]
