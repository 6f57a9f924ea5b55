"""Crystals a second of every network, in training and in prediction, beside torch-geometric's.

    python benchmarks/models.py [--crystals 256] [--seconds 10] [--tier portable native] [--add]

Needs the crystals and the official folds of mp_pbe (`crystalmesh crystals mp_pbe`, `crystalmesh
folds matbench_log_k`); features are taken from their stage where it has run and are made here
otherwise. One thread; the first training crystals of log_k, fold 0; batches of 32, collated
beforehand. `train` is forward, backward and a step of AdamW, `predict` is forward alone. Networks
that are compared take turns, a batch each; a figure is the batch's size over the median of the
times.

torch-geometric's CGCNN is built from its CGConv with the widths, neighbours, Gaussians and features
of ours. Its SchNet has the sizes of ours, and all pairs of atoms within the cutoff as edges;
`schnet` is our network on the merged graph, as it is used, and `schnet on all pairs` the same
network on the edges that torch-geometric gets. A classical model is fitted to the same few crystals
at once: more of them take it more than proportionally longer. Models that are the same network and
differ in their training only are measured once. A network has one output; one that reads Gaussian
processes has all of its run, is trained on what it is told, as in training, and asks as many
processes on as many crystals as there when it predicts; fitting them is no part of its training
here. Each tier runs in a process of its own; results go to benchmarks/models.json. With `--add`,
what this file has is kept and only networks that it lacks are measured, which must be on the same
machine.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crystalmesh import numerics

TIERS: tuple[numerics.Tier, ...] = ("portable", "native")
TIER = next((tier for tier in TIERS if f"--only={tier}" in sys.argv), None)
if TIER:
    numerics.prepare(TIER)  # before torch is imported

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from crystalmesh.config.project import Project, find  # noqa: E402
from crystalmesh.config.schema import Model, Run  # noqa: E402
from crystalmesh.data import splits  # noqa: E402
from crystalmesh.data.crystals import Crystal, Crystals  # noqa: E402
from crystalmesh.files import read_json  # noqa: E402
from crystalmesh.models import classical, network  # noqa: E402
from crystalmesh.models.layers import cut  # noqa: E402
from crystalmesh.represent import Representation, representation  # noqa: E402
from crystalmesh.represent.atoms import FEATURES, table  # noqa: E402
from crystalmesh.represent.graph import pairs  # noqa: E402
from crystalmesh.represent.store import Features  # noqa: E402

HERE = Path(__file__).parent
DATASET, TARGET, SPLIT, BATCH = "mp_pbe", "log_k", "matbench_log_k", 32
Batch = dict[str, Tensor]


class GeometricCgcnn(nn.Module):
    """CGCNN of torch-geometric's convolution; its batch normalisation is that of the sum alone."""

    vectors: Tensor
    centres: Tensor

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from torch_geometric.nn import CGConv, global_mean_pool

        super().__init__()
        atom, hidden, self.width = settings["atom"], settings["hidden"], settings["gaussian_step"]
        count = round(settings["gaussian_max"] / self.width) + 1
        self.register_buffer("vectors", torch.from_numpy(table()))
        self.register_buffer("centres", torch.linspace(0, settings["gaussian_max"], count))
        self.embedding = nn.Linear(FEATURES, atom)
        self.convolutions = nn.ModuleList(
            CGConv(atom, dim=count, batch_norm=True) for _ in range(settings["convolutions"])
        )
        self.pool = global_mean_pool
        self.pooled = nn.Linear(atom, hidden)
        self.hidden = nn.ModuleList(
            nn.Linear(hidden, hidden) for _ in range(settings["hidden_layers"] - 1)
        )
        self.out = nn.Linear(hidden, 1)

    def forward(self, batch: Batch) -> Tensor:
        atoms = self.embedding(self.vectors[batch["numbers"]])
        step = batch["edge_distance"][:, None] - self.centres
        edges = cut(torch.exp(-((step / self.width) ** 2)))
        for layer in self.convolutions:
            atoms = F.softplus(layer(atoms, batch["edge_index"], edges))
        pooled = F.softplus(self.pooled(F.softplus(self.pool(atoms, batch["crystal"]))))
        for layer in self.hidden:
            pooled = F.softplus(layer(pooled))
        out: Tensor = self.out(pooled)
        return out


class GeometricSchnet(nn.Module):
    """torch-geometric's SchNet with edges that come with the batch."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from torch_geometric.nn import SchNet

        super().__init__()
        self.edges: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self.net = SchNet(
            settings["atom"],
            settings["filters"],
            settings["interactions"],
            settings["gaussians"],
            settings["cutoff"],
            interaction_graph=lambda *_: self.edges,
            readout=settings["readout"],
        )

    def forward(self, batch: Batch) -> Tensor:
        self.edges = batch["edge_index"], batch["edge_distance"]
        out: Tensor = self.net(batch["numbers"], batch["numbers"], batch["crystal"])
        return out


def cgcnn_edges(batch: Batch) -> Batch:
    """A batch of `graph.cgcnn` as torch-geometric takes it."""
    n, k = batch["neighbour"].shape
    own = torch.arange(n).repeat_interleave(k)
    return {
        "numbers": batch["numbers"],
        "crystal": torch.repeat_interleave(batch["pointer"].diff()),
        "edge_index": torch.stack([batch["neighbour"].flatten(), own]),
        "edge_distance": batch["distance"].flatten(),
    }


def all_pairs(crystal: Crystal, cutoff: float) -> dict[str, np.ndarray]:
    """A graph in the form of `graph.radius` that has every site and every pair."""
    source, target, group, distance = pairs(crystal, cutoff)
    order = np.lexsort((source, group, target))
    return {
        "numbers": crystal.numbers.astype(np.uint8),
        "sites": np.ones(len(crystal.numbers), dtype=np.int16),
        "source": source[order].astype(np.int16),
        "target": target[order].astype(np.int16),
        "group": group[order].astype(np.int32),
        "count": np.ones(len(order), dtype=np.int16),
        "distance": distance.astype(np.float32),
    }


def schnet_edges(batch: Batch) -> Batch:
    """A batch of all pairs as torch-geometric takes it."""
    return {
        "numbers": batch["numbers"],
        "crystal": torch.repeat_interleave(batch["pointer"].diff()),
        "edge_index": torch.stack([batch["source"], batch["target"]]),
        "edge_distance": batch["distance"][batch["group"]],
    }


def trained(net: nn.Module) -> Callable[[Batch], None]:
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    told = {}
    if asked := getattr(net, "processes", None):
        told = {"said": torch.zeros(BATCH, len(asked.dual))}

    def step(batch: Batch) -> None:
        batch = batch | told
        net.train()
        optimizer.zero_grad()
        net(batch).abs().mean().backward()
        optimizer.step()

    return step


def predicted(net: nn.Module) -> Callable[[Batch], None]:
    def step(batch: Batch) -> None:
        net.eval()
        with torch.no_grad():
            net(batch)

    return step


def processes(count: int, crystals: int, descriptors: int) -> dict[str, Tensor]:
    """The arrays of processes on so many training crystals: which, is nothing to the time."""
    generator = torch.Generator().manual_seed(0)
    return {
        "weights": torch.full((count, descriptors), 0.01, dtype=torch.float64),
        "support": torch.randn(crystals, descriptors, generator=generator).half(),
        "dual": torch.ones(count, crystals, dtype=torch.float64),
        "squared": torch.ones(count, dtype=torch.float64),
    }


Contender = tuple[Callable[[Any], object], Sequence[Any]]  # what is timed, and its batches


def rates(contenders: Mapping[str, Contender], seconds: float) -> dict[str, float]:
    """Crystals a second: all take turns, batch after batch, after one each to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for step, batches in contenders.values():
        step(batches[0])
    end, number = time.perf_counter() + seconds, 0
    fewest = max(len(batches) for _, batches in contenders.values())
    while number < fewest or time.perf_counter() < end:
        for name, (step, batches) in contenders.items():
            start = time.perf_counter()
            step(batches[number % len(batches)])
            times[name].append(time.perf_counter() - start)
        number += 1
    return {name: BATCH / statistics.median(found) for name, found in times.items()}


def measure(
    nets: Mapping[str, tuple[nn.Module, Sequence[Batch]]], seconds: float
) -> dict[str, dict[str, float]]:
    """Both figures of networks that are compared."""
    train = rates({name: (trained(net), batches) for name, (net, batches) in nets.items()}, seconds)
    predict = rates(
        {name: (predicted(net), batches) for name, (net, batches) in nets.items()}, seconds
    )
    return {
        name: {"train_crystals_per_s": train[name], "predict_crystals_per_s": predict[name]}
        for name in nets
    }


def joined(maker: Representation, items: Sequence[Mapping[str, Any]]) -> list[Batch]:
    """Whole batches only."""
    starts = range(0, len(items) - BATCH + 1, BATCH)
    return [maker.collate(items[start : start + BATCH]) for start in starts]


def uses(project: Project) -> Iterator[tuple[str, Run]]:
    """The models that the reports' runs use, and one that uses each."""
    found = {
        f"{one.model} {one.representation}": one
        for study in project.params.studies.values()
        for one in (study.runs.values() if study.report else ())
        if one.dataset == DATASET and TARGET in one.targets
    }
    yield from found.items()


def run(
    project: Project, count: int, seconds: float, result: dict[str, Any], differs: str | None
) -> dict[str, Any]:
    """All figures of this process's tier; those that `result` has are kept.

    What `differs` from how those were measured lets nothing be measured beside them.
    """
    ids = read_json(project.split(DATASET, SPLIT))[TARGET]["0"]["train"][:count]
    crystals = Crystals.load(project.crystals(DATASET))
    chosen = [crystals[crystals.position(name)] for name in ids]

    def made(name: str) -> tuple[Representation, list[Mapping[str, Any]]]:
        maker = representation(name, project.params.representation(name))
        folder = project.features(DATASET, name)
        stored = Features(folder) if (folder / "index.json").exists() else {}
        items: list[Mapping[str, Any]] = [
            stored[one.id] if one.id in stored else maker.build(one) for one in chosen
        ]
        return maker, items

    def say(found: Mapping[str, Mapping[str, float]]) -> None:
        for name, row in found.items():
            words = [f"{key.partition('_')[0]} {value:.0f}/s" for key, value in row.items()]
            print(f"{TIER}: {name}: {', '.join(words)}", flush=True)

    measured: dict[str, str] = {}  # networks that only their training tells apart are measured once
    for title, one in uses(project):
        name, rep = one.model, one.representation
        model: Model = project.params.models[name]
        held, outputs = 0, 1
        if model.network.get("stacking"):  # one for each output, of the crystals it is fitted on
            parts = splits.select(project, one)
            held = len(parts.train) + (len(parts.val) if one.refit else 0)
            outputs = project.params.outputs(one)
        key = f"{model.architecture} {model.network} {rep} {held} {outputs}"
        first = measured.setdefault(key, title)
        if title in result["models"]:
            continue
        if first in result["models"]:
            result["models"][title] = result["models"][first]
            continue
        if differs:
            sys.exit(f"--add: {title} must be measured, and `{differs}` differs; leave out --add")
        maker, items = made(rep)
        if model.training is None:
            found = {title: fitted(model, maker, items, crystals, ids, seconds)}
        else:
            batches = joined(maker, items)
            net = network(model.architecture, model.network, outputs)
            if held:
                known = sum(batches[0][key].shape[1] for key in ("described", "truss"))
                net.get_submodule("processes").load_state_dict(processes(outputs, held, known))
            nets: dict[str, tuple[nn.Module, list[Batch]]] = {title: (net, batches)}
            if name == "cgcnn":
                nets["pyg"] = (
                    GeometricCgcnn(model.network),
                    [cgcnn_edges(batch) for batch in batches],
                )
            elif name == "schnet":
                everything = [all_pairs(crystal, model.network["cutoff"]) for crystal in chosen]
                full = joined(maker, everything)
                nets["schnet on all pairs"] = nets[title][0], full
                nets["pyg"] = (
                    GeometricSchnet(model.network),
                    [schnet_edges(batch) for batch in full],
                )
                result["edges_a_crystal"] = {
                    "merged": float(np.mean([len(item["source"]) for item in items])),
                    "all": float(np.mean([len(item["source"]) for item in everything])),
                    "distances": float(np.mean([len(item["distance"]) for item in items])),
                }
            found = measure(nets, seconds)
        say(found)
        if "pyg" in found:
            result["pyg"][title] = found.pop("pyg")
        result["models"] |= found
    result["atoms_a_crystal"] = float(np.mean([len(one.numbers) for one in chosen]))
    return result


def fitted(
    model: Model,
    maker: Representation,
    items: Sequence[Mapping[str, Any]],
    crystals: Crystals,
    ids: Sequence[str],
    seconds: float,
) -> dict[str, float]:
    """The figure of a baseline, whose batches are arrays."""
    values = maker.collate(items)["values"].numpy()
    label = crystals.labels["k_vrh"][[crystals.position(name) for name in ids]]
    began = time.perf_counter()
    tensors = classical.fit(model.network, values, np.log10(label), 0, None)
    fitting = len(values) / (time.perf_counter() - began)
    parts = [values[start : start + BATCH] for start in range(0, len(values), BATCH)]
    step: Contender = (lambda part: classical.apply(model.network, tensors, part), parts)
    return {
        "train_crystals_per_s": fitting,
        "predict_crystals_per_s": rates({"it": step}, seconds)["it"],
    }


def machine() -> dict[str, Any]:
    return {
        "processor": numerics.cpu().get("model") or platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--crystals", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each figure, at least")
    parser.add_argument("--tier", nargs="+", choices=TIERS, default=list(TIERS))
    parser.add_argument("--output", type=Path, default=HERE / "models.json")
    parser.add_argument("--add", action="store_true", help="keep what the output has")
    parser.add_argument("--only", choices=TIERS, help=argparse.SUPPRESS)  # the process of a tier
    parser.add_argument("--differs", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.crystals < BATCH:
        parser.error(f"--crystals: at least a batch of {BATCH}")
    if options.only:
        numerics.enforce(options.only)
        known = json.loads(options.output.read_text())
        project = find(Path.cwd())
        found = run(project, options.crystals, options.seconds, known, options.differs)
        options.output.write_text(json.dumps(found))
        return
    result: dict[str, Any] = {
        "machine": machine(),
        "crystals": options.crystals,
        "batch": BATCH,
        "threads": 1,
        "tiers": {},
    }
    differs: list[str] = []
    if options.add and options.output.exists():
        known = json.loads(options.output.read_text())
        differs = [key for key in result if key != "tiers" and known[key] != result[key]]
        result = known
    for tier in options.tier:
        part = options.output.with_suffix(f".{tier}.part")
        command = [sys.executable, __file__, f"--only={tier}", f"--output={part}"]
        command += [f"--crystals={options.crystals}", f"--seconds={options.seconds}"]
        command += [f"--differs={key}" for key in differs[:1]]
        part.write_text(json.dumps(result["tiers"].get(tier, {"models": {}, "pyg": {}})))
        if subprocess.run(command).returncode:
            part.unlink()
            sys.exit(1)
        result["tiers"][tier] = json.loads(part.read_text())
        part.unlink()
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
