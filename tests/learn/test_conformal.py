"""Conformal prediction: quantiles as defined, coverage as promised."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalmesh.learn.conformal import LEVEL, Calibration, sets


def test_the_quantile_is_the_definition() -> None:
    known = Calibration(np.arange(1.0, 10.0))  # 1 ... 9
    assert known.quantile(0.9) == 9.0  # ceil(10 * 0.9) = 9th smallest
    assert known.quantile(0.5) == 5.0
    assert known.quantile(0.91) == math.inf  # nine crystals cannot tell
    assert Calibration(np.empty(0)).quantile(0.5) == math.inf
    assert known.p_value(np.array([0.0, 5.0, 9.5])).tolist() == [1.0, 0.6, 0.1]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([0.1, 0.5, 0.8, 0.9, 0.97]))
@settings(max_examples=60, deadline=None)
def test_an_interval_holds_the_truth_where_the_p_value_says_so(
    seed: int, n: int, level: float
) -> None:
    rng = np.random.default_rng(seed)
    target, prediction, spread = rng.normal(size=n), rng.normal(size=n), rng.random(n)
    for known_spread, new_spread in ((None, None), (spread, rng.random(40))):
        known = Calibration.of_values(target, prediction, known_spread)
        scores = np.abs(rng.normal(size=40)) / known.scale(new_spread, 40)
        inside = scores <= known.quantile(level)
        p_value = known.p_value(scores)
        # the smallest p-value that is inside is above 1 - level, but for rounding of the grid
        assert (inside == (p_value > 1 - level + 1e-12)).all()


@pytest.mark.parametrize("ensemble", [False, True])
def test_coverage_of_exchangeable_crystals(ensemble: bool) -> None:
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(200):
        noise = rng.gamma(2.0, size=400)  # some crystals are harder than others
        target = rng.normal(size=400) * noise
        spread = noise * rng.uniform(0.5, 1.5, size=400) if ensemble else None
        half = slice(0, 200), slice(200, 400)
        known = Calibration.of_values(
            target[half[0]], np.zeros(200), None if spread is None else spread[half[0]]
        )
        scale = known.scale(None if spread is None else spread[half[1]], 200)
        covered.append((np.abs(target[half[1]]) <= known.quantile(LEVEL) * scale).mean())
    # at least the level, and with 200 calibration crystals at most 1/201 more
    assert 0.895 < np.mean(covered) < 0.91


def test_the_width_follows_the_spread() -> None:
    known = Calibration.of_values(np.ones(50), np.zeros(50), np.ones(50))
    assert known.floor == 1.0
    assert known.scale(np.array([0.0, 3.0]), 2).tolist() == [1.0, 4.0]
    assert known.quantile(0.5) == 0.5


def test_sets_of_classes() -> None:
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(4), size=3000)
    target = np.array([rng.choice(4, p=row) for row in probability])
    known = Calibration.of_classes(target[:1500], probability[:1500])
    found = sets(probability[1500:], known)
    held = np.mean([t in row for t, row in zip(target[1500:], found, strict=True)])
    assert 0.88 < held < 0.93
    # where nothing is known, every class; never none
    assert [len(row) for row in sets(probability[:2], Calibration(np.empty(0)))] == [4, 4]
    tight = Calibration(np.zeros(100))
    assert [len(row) for row in sets(probability[:5], tight)] == [1] * 5
