"""What a batch says, as some numbers that do not depend on how its rows are numbered and ordered.

The layout of batches is found out from examples. Arrays that are as long as each other for every
system have the same rows. An integer that grows when another system stands in front is the number
of a row, of which that system has as many.

Then messages go along these numbers, through functions that are drawn once, and are summed over
the rows. Batches of one signature agree in their rows and in which of them belong together.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalmesh.data.crystals import Crystal
from crystalmesh.represent import Representation

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]
Kind = tuple[int, ...]  # of rows: how many of them each example has
WIDTH = 16  # numbers of each row while messages go
ROUNDS = 3  # in which they go
VALUES = 256  # integers that number no rows are below it
WEIGHT = 0.1  # of the messages to a row, of which there may be a hundred


@dataclass(frozen=True)
class Layout:
    """What the arrays of a representation's batches hold, pointers apart.

    Attributes:
        rows: of each array, what its rows are.
        refers: of each array of integers, the rows that each of its columns numbers; None where
            they are values.
        along: of an array with a column for each of several neighbours, the floats that go with
            them.
        scale: of each array of floats, mean and standard deviation of each column.
    """

    rows: Mapping[str, Kind]
    refers: Mapping[str, tuple[Kind | None, ...]]
    along: Mapping[str, str]
    scale: Mapping[str, tuple[Floats, Floats]]


def arrays(maker: Representation, systems: Sequence[Crystal]) -> Arrays:
    """The batch of these systems, without its pointers."""
    batch = maker.collate([maker.build(one) for one in systems])
    return {key: value.numpy() for key, value in batch.items() if not key.endswith("pointer")}


def layout(maker: Representation, examples: Sequence[Crystal]) -> Layout:
    """The layout, from some systems of different sizes.

    Raises:
        AssertionError: a system in front changes more of a batch than the numbers of its rows.
    """
    alone = [arrays(maker, [one]) for one in examples]
    rows = {key: tuple(len(one[key]) for one in alone) for key in alone[0]}
    kinds = set(rows.values())
    steps: dict[str, list[Any]] = {key: [] for key in rows}
    for pair, own in zip(pairwise(examples), alone[1:], strict=True):
        joined = arrays(maker, pair)
        for key, value in own.items():
            tail = joined[key][len(joined[key]) - len(value) :]
            if value.dtype.kind == "f":
                np.testing.assert_array_equal(tail, value, err_msg=key)
                continue
            step = (tail - value).reshape(len(value), math.prod(value.shape[1:]))
            assert (step == step[:1]).all(), f"{key}: numbers of rows grow by different steps"
            steps[key].append(step[0].tolist() if len(step) else None)
    refers: dict[str, tuple[Kind | None, ...]] = {}
    for key, found in steps.items():
        if alone[0][key].dtype.kind == "f":
            continue
        width = max((len(one) for one in found if one is not None), default=0)
        refers[key] = tuple(
            _referred([one and one[c] for one in found], kinds, key) for c in range(width)
        )
    scale = {}
    for key in rows:
        if key not in refers:
            values = np.concatenate([one[key] for one in alone])
            values = values.reshape(len(values), math.prod(values.shape[1:])).astype(np.float64)
            if not len(values):
                values = np.zeros((1, values.shape[1]))
            mean, deviation = values.mean(axis=0), values.std(axis=0)
            varies = deviation > 1e-6 * np.maximum(1.0, np.abs(mean))
            scale[key] = (mean, np.where(varies, deviation, 1.0))
    along = {}
    for key, columns in refers.items():
        if len(columns) > 1 and None not in columns and len(set(columns)) == 1:
            for other in rows:
                if other not in refers and all(a[other].shape == a[key].shape for a in alone):
                    along[key] = other
    return Layout(rows, refers, along, scale)


def _referred(steps: Sequence[int | None], kinds: set[Kind], key: str) -> Kind | None:
    """The rows of which each system in front has as many as the numbers of a column grow by."""
    if not any(steps):
        return None
    fits = [
        kind
        for kind in sorted(kinds)
        if all(step is None or step == count for step, count in zip(steps, kind[:-1], strict=True))
    ]
    assert fits, f"{key}: numbers grow by {steps}, and there are not as many rows of any kind"
    return fits[0]


def signature(batch: Arrays, known: Layout) -> Floats:
    """How many rows of each kind there are, and sums over them of what they hear in some rounds."""
    own = {kind: _own(batch, known, kind) for kind in sorted(set(known.rows.values()))}
    heard = dict(own)
    for turn in range(ROUNDS):
        news = {kind: h.copy() for kind, h in own.items()}
        for key, columns in known.refers.items():
            kind = known.rows[key]
            values = _along(batch, known, key)
            for c, other in enumerate(columns):
                if other is None:
                    continue
                ends = batch[key] if batch[key].ndim == 1 else batch[key][:, c]
                name = f"{key} {other} {turn}"
                along = values[:, c : c + 1] @ _drawn(f"{name} along", 1)
                there = np.sin(heard[other][ends] @ _drawn(name, WIDTH) + along)
                back = np.sin(heard[kind] @ _drawn(f"{name} back", WIDTH) + along)
                news[kind] += WEIGHT * there
                np.add.at(news[other], ends, WEIGHT * back)
        heard = {kind: np.sin(h) for kind, h in news.items()}
    return np.concatenate([np.append(h.sum(axis=0), len(h)) for h in heard.values()])


def _own(batch: Arrays, known: Layout, kind: Kind) -> Floats:
    """What rows hold besides numbers of rows and what goes with these: [rows, WIDTH]."""
    keys = [key for key, rows in known.rows.items() if rows == kind]
    total = np.zeros((len(batch[keys[0]]), WIDTH))
    for key in keys:
        value = batch[key].reshape(len(total), math.prod(batch[key].shape[1:]))
        if value.dtype.kind == "f" and key not in known.along.values():
            total += _standard(value, known, key) @ _drawn(key, value.shape[1])
        elif value.dtype.kind != "f" and not any(known.refers[key]):
            for c in range(value.shape[1]):
                total += _drawn(f"{key} {c}", VALUES)[value[:, c]]
    return np.sin(total)


def _standard(values: NDArray[Any], known: Layout, key: str) -> Floats:
    mean, deviation = known.scale[key]
    standard: Floats = (values - mean) / deviation
    return standard


def _along(batch: Arrays, known: Layout, key: str) -> Floats:
    """The floats that go with numbers of rows, or zeros: [rows, columns]."""
    if key in known.along:
        return _standard(batch[known.along[key]], known, known.along[key])
    return np.zeros((len(batch[key]), len(known.refers[key])))


@cache
def _drawn(name: str, rows: int) -> Floats:
    """Weights that are the same whenever this name is asked for: [rows, WIDTH]."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.normal(scale=1 / rows**0.5 if rows < VALUES else 1.0, size=(rows, WIDTH))
