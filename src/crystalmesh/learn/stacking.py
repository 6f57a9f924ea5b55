"""Stacking on Gaussian processes that are fitted on a network's own training crystals.

A network reads what a process says of a crystal and corrects it. Of a training crystal it reads the
leave-one-out mean, what the process says from all others: the process has seen the label, and the
network would learn to repeat it (stacking: Wolpert, Neural Networks 5, 241, 1992).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crystalmesh.config.read import parse
from crystalmesh.learn.batches import Sample
from crystalmesh.models import gaussian_process


def stacked(sample: Sample, settings: Mapping[str, Any]) -> tuple[Sample, dict[str, NDArray[Any]]]:
    """Fit a process for each label of the training crystals, on those that have it.

    Args:
        sample: its features must be of `complex.described`.
        settings: `stacking` of the network.

    Returns:
        The sample with said [1, labels] beside the features of its crystals, in deviations of the
        labels from their mean; and the arrays of `gaussian_process.Processes`.

    Raises:
        CrystalmeshError: a setting is missing, unknown or out of range.
    """
    config = parse(gaussian_process.Settings, settings, "network.stacking")
    train, labels = sample.train.ids, sample.train.labels
    support = _read(sample, train).astype(np.float16)
    inputs = support.astype(np.float64)
    said, each = np.zeros_like(labels), []
    for k, column in enumerate(labels.T):
        has = np.isfinite(column)
        if not has.any():  # as the trainer takes it: nothing is learned of this label
            none = {"weights": np.zeros(support.shape[1]), "dual": np.zeros(len(column))}
            each.append(none | {"squared": np.float64(0.0)})
            continue
        scaled = (column[has] - column[has].mean()) / (column[has].std() or 1.0)
        fitted, said[has, k] = gaussian_process.fit_and_leave_out(
            inputs[has], scaled, config, seed=0
        )
        said[~has, k] = gaussian_process.apply(fitted, inputs[~has])
        dual = np.zeros(len(column))
        dual[has] = fitted["dual"]
        each.append({"weights": fitted["weights"], "dual": dual, "squared": fitted["squared"][0]})
    arrays = {key: np.stack([one[key] for one in each]) for key in each[0]} | {"support": support}
    processes = gaussian_process.Processes()
    processes.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    others = [sample.val, *sample.test.values(), *sample.calibration.values()]
    others += [sample.pool] if sample.pool else []
    known = set(train)
    rest = [i for i in dict.fromkeys(i for part in others for i in part.ids) if i not in known]
    told = dict(zip(train, np.round(said, gaussian_process.DIGITS), strict=True))
    told |= zip(rest, processes(torch.from_numpy(_read(sample, rest))).numpy(), strict=True)
    features = {
        i: {**sample.features[i], "said": row[None].astype(np.float32)} for i, row in told.items()
    }
    return replace(sample, features=features), {
        f"processes.{key}": array for key, array in arrays.items()
    }


def _read(sample: Sample, ids: Sequence[str]) -> NDArray[np.float64]:
    """The descriptors and the truss of crystals: [c, d]."""
    items = [sample.features[i] for i in ids]
    rows = [np.concatenate([one["described"], one["truss"]], axis=1) for one in items]
    return np.concatenate(rows).astype(np.float64)
