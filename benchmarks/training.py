"""Training throughput against the plain form of each network, and as a share of the hardware's.

    python benchmarks/training.py [--tier native] [--dataset mp_pbe] [--threads 1] [--seconds 20]

Needs the dataset's features (`crystalmesh represent mp_pbe-graph_cgcnn`, ...-mesh_published).
Each line: crystals a second through forward, backward and optimiser, ours and plain, on the same
batches and threads; `products` is what the matrix products alone of the plain form would allow,
measured on this machine by running just them. The plain forms follow the released codes: CGCNN's
concatenation of (v_i, v_j, e_ij) for each edge, the mesh network's 1x1 convolutions over
[crystal, channel, face]. Each crystal is brought to FACES faces (by repeating or leaving out), so
that the plain form need not pad and both work on the same rows.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from crystalmesh import numerics

TIER: numerics.Tier = "native" if "native" in sys.argv else "portable"
numerics.prepare(TIER)  # before torch is imported

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from crystalmesh.config.project import Project, find  # noqa: E402
from crystalmesh.config.schema import Run  # noqa: E402

FACES = 735  # about the mean of the published meshes of the moduli


class PlainConvolution(nn.Module):
    """CGCNN's convolution as released."""

    def __init__(self, atom: int, gaussians: int) -> None:
        super().__init__()
        self.full = nn.Linear(2 * atom + gaussians, 2 * atom)
        self.norm1, self.norm2 = nn.BatchNorm1d(2 * atom), nn.BatchNorm1d(atom)

    def forward(self, atoms: Tensor, edges: Tensor, neighbour: Tensor) -> Tensor:
        n, k = neighbour.shape
        own = atoms.unsqueeze(1).expand(n, k, -1)
        z = self.full(torch.cat([own, atoms[neighbour], edges], dim=2))
        z = self.norm1(z.view(n * k, -1)).view(n, k, -1)
        gate, core = z.chunk(2, dim=2)
        return F.softplus(atoms + self.norm2((gate.sigmoid() * F.softplus(core)).sum(dim=1)))


class PlainCgcnn(nn.Module):
    """CGCNN as released: 92-d atom vectors and 41 Gaussians come with each batch."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        atom, hidden = settings["atom"], settings["hidden"]
        self.embedding = nn.Linear(92, atom)
        self.convolutions = nn.ModuleList(
            PlainConvolution(atom, 41) for _ in range(settings["convolutions"])
        )
        self.pooled, self.out = nn.Linear(atom, hidden), nn.Linear(hidden, 1)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        atoms = self.embedding(batch["vectors"])
        for layer in self.convolutions:
            atoms = layer(atoms, batch["gaussians"], batch["neighbour"])
        parts = atoms.split(batch["pointer"].diff().tolist())
        pooled = torch.stack([part.mean(dim=0) for part in parts])
        out: Tensor = self.out(F.softplus(self.pooled(F.softplus(pooled))))
        return out


def convolutions(*widths: int, last: bool = True) -> nn.Sequential:
    """1x1 convolutions with batch normalisation and ReLU (the last one without where asked)."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*layers[: None if last else -1])


class PlainMesh(nn.Module):
    """The mesh network as released: [crystal, channel, face] and 1x1 convolutions."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.geometry_name = settings["geometry"]
        self.centre, self.geometry = convolutions(3, 16, 32), convolutions(3, 16, 32)
        self.pair, self.fuse = convolutions(6, 32, 32), convolutions(32, 64, 64)
        self.atoms = convolutions(92, *settings["atoms"])
        self.shared = convolutions(
            128 + settings["atoms"][-1], *settings["shared"], last=settings["last_activation"]
        )
        layers: list[nn.Module] = []
        head = [settings["shared"][-1], *settings["head"]]
        for a, b in pairwise(head):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(0.2)]
        self.head = nn.Sequential(*layers, nn.Linear(head[-1], 1))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        corner = batch["corner_planes"]  # [c, 9, f]
        turned = [corner[:, :6], corner[:, 3:], torch.cat([corner[:, 6:], corner[:, :3]], dim=1)]
        fused = self.fuse(sum(self.pair(pair) for pair in turned) / 3)
        rows = [
            self.centre(batch["centre_planes"]),
            self.geometry(batch[f"{self.geometry_name}_planes"]),
            fused,
            self.atoms(batch["vectors_planes"]),
        ]
        pooled = self.shared(torch.cat(rows, dim=1)).amax(dim=2)
        out: Tensor = self.head(pooled)
        return out


def products(shapes: list[tuple[int, int, int]]) -> float:
    """Seconds for the matrix products alone of a step: forward, and both gradients, of each layer.

    A shape is (rows, inputs, outputs).
    """
    total = 0.0
    for rows, inputs, outputs in shapes:
        x, w, g = (
            torch.randn(rows, inputs),
            torch.randn(inputs, outputs),
            torch.randn(rows, outputs),
        )
        for run in range(2):
            start = time.perf_counter()
            x @ w, g @ w.t(), x.t() @ g
            if run:
                total += time.perf_counter() - start
    return total


def rate(net: nn.Module, batches: list[dict[str, Tensor]], crystals: int, seconds: float) -> float:
    """Crystals a second, the median over rounds through the batches, after one to warm up."""
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        for batch in batches:
            optimizer.zero_grad()
            net(batch).abs().mean().backward()
            optimizer.step()
        times.append(time.perf_counter() - start)
    rounds = sorted(times[1:])
    return crystals / rounds[len(rounds) // 2]


def load(
    project: Project, dataset: str, representation: str, size: int, count: int
) -> Iterator[Any]:
    """`count` batches of `size` crystals of the log_k training part."""
    from crystalmesh.learn.batches import Batches, Sample

    run = Run(
        study="benchmark",
        name="it",
        dataset=dataset,
        targets=("log_k",),
        split="60-20-20",
        size=1000,
        representation=representation,
        model="cgcnn",
    )
    sample = Sample.load(project, run)
    for number, batch in enumerate(Batches(sample, sample.train, size, shuffle=(0, 0))):
        if number < count:
            yield batch[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=("native", "portable"), default="portable")
    parser.add_argument("--dataset", default="mp_pbe")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    numerics.enforce(TIER)
    torch.set_num_threads(arguments.threads)
    project = find(Path.cwd())
    from crystalmesh.models import network
    from crystalmesh.models.layers import cut
    from crystalmesh.represent.atoms import table

    vectors = torch.from_numpy(table())
    print(f"tier {TIER}, threads {arguments.threads}, dataset {arguments.dataset}")
    print("model         rows/crystal  ours/s  plain/s  ratio  products/s  ours/products")

    def line(model: str, rows: float, ours: float, plain: float, bound: float) -> None:
        print(
            f"{model:12s} {rows:13.0f} {ours:7.1f} {plain:8.1f} {ours / plain:6.2f}"
            f" {bound:11.1f} {100 * ours / bound:13.0f} %"
        )

    settings = project.params.models["cgcnn"].network
    batches = list(load(project, arguments.dataset, "graph.cgcnn", 64, 8))
    centres, width = torch.linspace(0, 8, 41), settings["gaussian_step"]
    for batch in batches:
        batch["vectors"] = vectors[batch["numbers"]]
        batch["gaussians"] = cut(
            torch.exp(-(((batch["distance"][..., None] - centres) / width) ** 2))
        )
    crystals = sum(len(b["pointer"]) - 1 for b in batches)
    edges = sum(b["neighbour"].numel() for b in batches)
    atom, layers = settings["atom"], settings["convolutions"]
    bound = crystals / sum(
        layers * products([(b["neighbour"].numel(), 2 * atom + 41, 2 * atom)]) for b in batches
    )
    ours = rate(network("cgcnn", settings, 1), batches, crystals, arguments.seconds)
    plain = rate(PlainCgcnn(settings), batches, crystals, arguments.seconds)
    line("cgcnn", edges / crystals, ours, plain, bound)

    for model in ("mesh_release", "mesh_talk"):
        settings = project.params.models[model].network
        batches = list(load(project, arguments.dataset, "mesh.published", 32, 2))
        for batch in batches:
            starts, counts = batch["pointer"][:-1], batch["pointer"].diff()
            chosen = (starts[:, None] + torch.arange(FACES) % counts[:, None]).flatten()
            batch |= {k: v[chosen] for k, v in batch.items() if k != "pointer"}
            batch["pointer"] = torch.arange(len(starts) + 1) * FACES
            rows = {k: batch[k] for k in ("centre", "normal", "edges", "corner")}
            rows["vectors"] = vectors[batch["numbers"]].mean(dim=1)
            for key, value in rows.items():
                parts = value.view(len(starts), FACES, -1).transpose(1, 2)
                batch[f"{key}_planes"] = parts.contiguous()
        crystals = sum(len(b["pointer"]) - 1 for b in batches)
        faces = sum(len(b["centre"]) for b in batches)
        widths = [128 + settings["atoms"][-1], *settings["shared"]]
        shapes = [(3, 16), (16, 32)] * 2 + [(6, 32), (32, 32)] * 3 + [(32, 64), (64, 64)]
        shapes += list(pairwise([92, *settings["atoms"]]))
        shapes += list(pairwise(widths))
        bound = crystals / products([(faces, a, b) for a, b in shapes])
        ours = rate(network("mesh", settings, 1), batches, crystals, arguments.seconds)
        plain = rate(PlainMesh(settings), batches, crystals, arguments.seconds)
        line(model, faces / crystals, ours, plain, bound)


if __name__ == "__main__":
    main()
