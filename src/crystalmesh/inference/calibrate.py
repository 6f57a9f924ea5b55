"""The stage `calibrate`: what predictions for crystals without labels need."""

import json

import numpy as np
from ase.data import chemical_symbols

from crystalmesh import files, numerics
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.data.crystals import Crystals
from crystalmesh.inference.predictor import Predictor, Space
from crystalmesh.learn.batches import samples
from crystalmesh.learn.conformal import Calibration
from crystalmesh.learn.predict import calibrated, inputs

REFERENCE = 2000  # training crystals that stand for all, the first of them: their order is drawn


def calibrate(project: Project, run: Run, target: str) -> None:
    """Write what predictions of a run's networks for other crystals need.

    The file holds:

    - scores f64 [n]: of the split conformal prediction (`learn.conformal`), on validation crystals;
    - elements i64 [119]: training crystals that have the element of this atomic number;
    - centre, scale f64 [d], directions f64 [d, k], reference f32 [r, k]: vectors of training
      crystals before the network's last layer (its first one's, where there are several),
      standardised, in their k directions of most variance;
    - distances f32 [n]: of validation crystals to their nearest references, ascending.

    Raises:
        CrystalmeshError: its checkpoint is missing or damaged.
    """
    numerics.enforce(project.params.numerics(run))
    fold, sample = next(samples(project, run))
    predictor = Predictor(project, run, target, known=None)
    part = sample.calibration[target]
    members = predictor.members(inputs(sample, part), part.sizes)
    if predictor.quantity.kind == "classification":
        known = Calibration.of_classes(part.targets.astype(np.int64), members.mean(axis=0))
    else:
        known = calibrated(members, part.targets)
    train = sample.train
    space = Space.of(predictor.vectors(inputs(sample, train.first(REFERENCE))))
    distances = space.distance(predictor.vectors(inputs(sample, part)))
    crystals = Crystals.load(project.crystals(run.dataset))
    seen = np.zeros(len(chemical_symbols), dtype=np.int64)
    for one in train.ids:
        seen[np.unique(crystals[crystals.position(one)].numbers)] += 1
    files.write_tensors(
        project.calibration(run, target),
        {
            "scores": known.scores,
            "elements": seen,
            "centre": space.centre,
            "scale": space.scale,
            "directions": space.directions,
            "reference": space.reference,
            "distances": np.sort(distances).astype(np.float32),
        },
        json.dumps({"floor": known.floor, "n_train": len(train.ids), "fold": fold}),
    )
