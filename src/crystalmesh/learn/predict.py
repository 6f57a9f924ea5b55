"""From a checkpoint to one row a test crystal."""

import json

import torch
from torch import Tensor

from crystalmesh import numerics
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_note, read_tensors, write_csv
from crystalmesh.learn.batches import Batches, Part, Sample
from crystalmesh.learn.train import EVALUATION_BATCH
from crystalmesh.models import network


def predict(project: Project, group: str, name: str) -> None:
    """The stage `predict`: the experiment's test crystals through its checkpoint.

    Writes a CSV with id, formula, target, prediction (regression: after the task's transform;
    classes: from 1) and, for classes, the probability of the predicted one.

    Raises:
        CrystalmeshError: the checkpoint is missing, damaged or of another network.
    """
    experiment = project.params.experiment(group, name)
    task = project.params.tasks[experiment.task]
    numerics.enforce(project.params.numerics(group))
    path = project.checkpoint(group, name)
    sample = Sample.load(project, experiment)
    note = json.loads(read_note(path))
    for key, value in project.params.settings(experiment).items():
        if note.get(key) != value:
            raise CrystalmeshError(
                f"{path}: trained with another `{key}` than params.yaml has now; train again"
            )
    net = network(note["model"]["architecture"], note["model"]["network"], task.outputs)
    try:
        # half precision becomes single again
        net.load_state_dict({k: torch.from_numpy(v) for k, v in read_tensors(path).items()})
    except RuntimeError as error:
        raise CrystalmeshError(f"{path}: not of this network; delete it and train again") from error
    outputs = forward(net, sample, sample.test)
    part = sample.test
    if task.kind == "classification":
        probability, index = torch.softmax(outputs.double(), dim=1).max(dim=1)
        columns = ["id", "formula", "target", "prediction", "probability"]
        targets = [int(t) + 1 for t in part.targets]
        rows = zip(
            part.ids,
            part.formulas,
            targets,
            (index + 1).tolist(),
            probability.tolist(),
            strict=True,
        )
        write_csv(project.predictions(group, name), columns, rows)
        return
    values = outputs.squeeze(1).double() * note["std"] + note["mean"]
    write_csv(
        project.predictions(group, name),
        ["id", "formula", "target", "prediction"],
        zip(part.ids, part.formulas, part.targets.tolist(), values.tolist(), strict=True),
    )


def forward(net: torch.nn.Module, sample: Sample, part: Part) -> Tensor:
    """Outputs [c, out] of a network for a part, in its order."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(device).eval()
    outputs = []
    with torch.inference_mode():
        for inputs, _ in Batches(sample, part, EVALUATION_BATCH):
            outputs.append(net({key: value.to(device) for key, value in inputs.items()}).cpu())
    return torch.cat(outputs)
