"""Message passing on the periodic Delaunay complex: atoms, edges, faces and cells (ours).

Every part of the complex has a vector. In each layer faces gather their sides and cells, cells
their walls; an edge hears its two ends, the edges that it meets at corners of faces (through the
angle between them) and the cells that have it as a hinge (through the dihedral angle), and with
`contrast` how far traits of its ends are apart, |W (x_i - x_j)|, the same from either end; an atom
hears its neighbours along its edges, gated as in CGCNN. All that enters is invariant under
rotation, reflection, translation and the choice of cell, and no neighbour is left out by a cutoff.

The output is of one layer on the means over atoms and over edges or, with `local`, of the means of
one layer on each of them.

The edges as springs make an elastic network besides (`represent.elastic`): how it gives way under
strain is no sum over neighbours, and can be added to what the last layer sees (but not with
`local`); so can descriptors of composition and structure, and what a Gaussian process on all of
these says.

With one part for each symmetry orbit (`complex.orbits`) the same numbers come out as with all parts
(`complex.whole`): a message that comes from m parts of an orbit counts m times.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from crystalmesh.config.read import parse
from crystalmesh.models import gaussian_process
from crystalmesh.models.layers import cut
from crystalmesh.represent.atoms import table
from crystalmesh.represent.descriptors import elemental, magpie
from crystalmesh.represent.elastic import NAMES, OTHERS

# Typical numbers, so that sums start out of the order of one: of an atom's edges, of an edge's
# corners and hinges, of a face's sides, of a cell's walls.
EDGES, CORNERS, HINGES, SIDES, WALLS = 14.0, 10.0, 5.0, 3.0, 4.0
ANGLES = 12  # Gaussians


class Settings(BaseModel):
    """Sizes of the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(gt=1)  # of the vector of an atom, edge, face or cell
    layers: int = Field(gt=0)
    parts: Literal["edges", "faces", "cells"] = "cells"  # up to which dimension parts have vectors
    properties: bool = True  # Magpie's 22 of the element, beside CGCNN's 92 binary features
    elemental: bool = False  # and 21 of its solid and its free atom: moduli, hardness, ...
    contrast: bool = False  # an edge hears how much its two ends differ, too
    # Whether what a part hears goes through a layer normalisation, which hides how much it was.
    norm: bool = True
    local: bool = False  # the output is a mean over what each atom and each edge adds to it
    elastic: bool = False  # reads what the complex is as an elastic network, too
    described: int = Field(default=0, ge=0)  # width with which it reads this and descriptors
    # Reads what Gaussian processes on descriptors and the truss say, one an output, fitted on the
    # same training crystals; in training, of each of these, what they say from all others.
    stacking: gaussian_process.Settings | None = None
    gaussians: int = Field(default=32, gt=1)  # of an edge's length
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _nothing_of_the_whole(self) -> Self:
        if self.local and (self.elastic or self.described or self.stacking):
            raise ValueError(
                "local: not together with elastic, described or stacking, which tell of the whole"
            )
        return self


class Gaussians(nn.Module):
    """exp(-(x - c)^2 / 2 s^2) at n centres c from `low` to `high`, s their spacing."""

    centres: Tensor

    def __init__(self, low: float, high: float, n: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(low, high, n), persistent=False)
        self.factor = -0.5 * ((n - 1) / (high - low)) ** 2

    def forward(self, x: Float[Tensor, " r"]) -> Float[Tensor, "r n"]:
        return cut(torch.exp(self.factor * (x[:, None] - self.centres.to(x.dtype)) ** 2))


class Messages(torch.autograd.Function):
    """y_t = sum over borders (s -> t) of x_s * w_st, element by element.

    Written out because the plain form keeps two arrays of borders x width floats for the backward
    pass, this one none but w. Where a graph of the gradient is wanted, the backward pass overwrites
    nothing: it can be differentiated as often as one likes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "s d"],
        w: Float[Tensor, "b d"],
        source: Int[Tensor, " b"],
        target: Int[Tensor, " b"],
        count: int,
    ) -> Float[Tensor, "t d"]:
        ctx.save_for_backward(x, w, source, target)
        message = x.index_select(0, source).mul_(w)
        return x.new_zeros(count, x.shape[1]).index_add_(0, target, message)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w, source, target = ctx.saved_tensors
        each = grad.index_select(0, target)
        dw = each * x.index_select(0, source)
        each = each * w if torch.is_grad_enabled() else each.mul_(w)
        dx = torch.zeros_like(x).index_add_(0, source, each)
        return dx, dw, None, None, None


def gathered(
    x: Float[Tensor, "s d"],
    weight: Float[Tensor, " b"],
    source: Int[Tensor, " b"],
    target: Int[Tensor, " b"],
    count: int,
) -> Float[Tensor, "t d"]:
    """y_t = sum over borders (s -> t) of weight * x_s."""
    return summed(x.index_select(0, source), weight, target, count)


def summed(
    rows: Float[Tensor, "r d"],
    weight: Float[Tensor, " r"],
    target: Int[Tensor, " r"],
    count: int,
) -> Float[Tensor, "t d"]:
    """y_t = sum of weight * row over the rows that belong to t."""
    return rows.new_zeros(count, rows.shape[1]).index_add_(0, target, rows * weight[:, None])


class Update(nn.Module):
    """x + dropout(L silu(norm(heard))), or without norm: what a part makes of what it heard."""

    def __init__(self, config: Settings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width) if config.norm else nn.Identity()
        self.linear = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "r d"], heard: Float[Tensor, "r d"]) -> Float[Tensor, "r d"]:
        out: Tensor = x + self.dropout(self.linear(F.silu(self.norm(heard))))
        return out


class Layer(nn.Module):
    """One round of messages: see the head of this file."""

    def __init__(self, config: Settings) -> None:
        super().__init__()
        width = config.width
        self.faces, self.cells = config.parts != "edges", config.parts == "cells"
        self.edge_own, self.edge_ends = nn.Linear(width, width), _plain(width, width)
        self.traits = _plain(width, width) if config.contrast else None
        self.contrast = _plain(width, width) if config.contrast else None
        self.edge = Update(config)
        if self.faces:
            self.face_sides, self.face = nn.Linear(width, width), Update(config)
            self.corner_edge, self.corner_gate = _plain(width, width), _plain(width, width)
            self.corner_angle = nn.Linear(ANGLES, width)
        if self.cells:
            self.cell_walls, self.cell = nn.Linear(width, width), Update(config)
            self.hinge_cell, self.hinge_angle = _plain(width, width), nn.Linear(ANGLES, width)
        self.own = nn.Linear(width, 2 * width)
        self.neighbour, self.along = _plain(width, 2 * width), _plain(width, 2 * width)
        self.atom = Update(config)

    def forward(self, x: dict[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Args: vectors of the parts by name; the batch with the weights of `weighted`."""
        atoms, edges = x["atoms"], x["edges"]  # [n, d], [e, d]
        first, second = b["edges_ends"].t()
        ends = self.edge_ends(atoms)
        heard = self.edge_own(edges) + ends.index_select(0, first) + ends.index_select(0, second)
        if self.traits is not None and self.contrast is not None:
            # The sum over both ends is also that of two ends which are their mean: ionic or not.
            traits = self.traits(atoms)
            apart = traits.index_select(0, first) - traits.index_select(0, second)
            heard = heard + self.contrast(apart.abs())
        if self.faces:
            heard = heard + self._of_faces(x, b)
        edges = self.edge(edges, heard)

        # Each edge is heard from both of its ends.
        here, there = torch.cat([first, second]), torch.cat([second, first])  # [2e]
        message = self.own(atoms).index_select(0, here)
        message = message + self.neighbour(atoms).index_select(0, there)
        message = message + self.along(edges).repeat(2, 1)  # [2e, 2d]
        gate, value = message.chunk(2, dim=1)
        message = torch.sigmoid(gate) * F.silu(value) * b["w_ends"][:, None]
        heard = torch.zeros_like(atoms).index_add_(0, here, message)
        return x | {"edges": edges, "atoms": self.atom(atoms, heard)}

    def _of_faces(self, x: dict[str, Tensor], b: Mapping[str, Tensor]) -> Float[Tensor, "e d"]:
        """What edges hear of the faces and cells around them; these are updated in x."""
        edges, faces = x["edges"], x["faces"]
        face, edge = b["sides"].t()
        heard = gathered(edges, b["w_sides"], edge, face, len(faces))
        if self.cells:
            cell, wall = b["walls"].t()
            heard = heard + gathered(x["cells"], b["w_walls_of_face"], cell, wall, len(faces))
        x["faces"] = faces = self.face(faces, self.face_sides(heard) + faces)
        face, one, other = b["corners"].t()
        gate = torch.sigmoid(self.corner_gate(faces)).index_select(0, face)
        through = self.corner_angle(b["corners_basis"]) * gate  # [k, d]
        both = torch.cat([through * b["w_one"][:, None], through * b["w_other"][:, None]])
        route = torch.cat([other, one]), torch.cat([one, other])
        total: Tensor = Messages.apply(self.corner_edge(edges), both, *route, len(edges))  # type: ignore[no-untyped-call]
        if self.cells:
            cells = x["cells"]
            heard = gathered(faces, b["w_walls"], wall, cell, len(cells))
            x["cells"] = cells = self.cell(cells, self.cell_walls(heard) + cells)
            cell, edge = b["hinges"].t()
            through = self.hinge_angle(b["hinges_basis"]) * b["w_hinges"][:, None]
            total = total + Messages.apply(self.hinge_cell(cells), through, cell, edge, len(edges))  # type: ignore[no-untyped-call]
        return total


def _elements(config: Settings) -> Float[Tensor, "101 f"]:
    """Features of the elements by atomic number; properties of mean 0 and deviation 1 over them."""
    features = [torch.from_numpy(table())]
    if config.properties:
        values = torch.from_numpy(magpie())
        mean, std = values[1:].mean(dim=0), values[1:].std(dim=0)
        features.append(((values - mean) / std).to(features[0].dtype))
    if config.elemental:
        features.append(torch.from_numpy(elemental()).to(features[0].dtype))
    return torch.cat(features, dim=1)


def _known(batch: Mapping[str, Tensor]) -> Float[Tensor, "c t"]:
    return torch.cat([batch["described"], batch["truss"]], dim=1)


def _plain(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


class Network(nn.Module):
    """The network on the complex.

    Args:
        settings: `network` of a model in config/models; see `Settings`.
        outputs: numbers a crystal.

    Shapes:
        input: a batch of `represent.complex`; output: [c, outputs].
    """

    elements: Tensor

    def __init__(self, settings: Mapping[str, Any], outputs: int) -> None:
        super().__init__()
        config = parse(Settings, settings, "network (complex)")
        d = config.width
        self.faces, self.cells = config.parts != "edges", config.parts == "cells"
        elements = _elements(config)
        self.register_buffer("elements", elements, persistent=False)  # [101, 92 to 135]
        # Logarithms of what spans decades (volumes, areas, solid angles), Angstrom and radian.
        self.element, self.volume = nn.Linear(elements.shape[1], d), Gaussians(1.0, 5.0, 16)
        self.atom = _plain(16, d)
        self.length, self.solid = Gaussians(0.5, 6.0, config.gaussians), Gaussians(-6.0, 1.5, 12)
        wide = config.gaussians + 12
        self.edge = nn.Sequential(nn.Linear(wide, d), nn.SiLU(), nn.Linear(d, d))
        self.radius, self.angle = Gaussians(0.5, 6.0, 12), Gaussians(0.0, math.pi, ANGLES)
        if self.faces:
            self.area, self.face = Gaussians(-0.5, 4.0, 12), nn.Linear(24, d)
        if self.cells:
            self.cell_volume, self.cell = Gaussians(-3.0, 5.0, 12), nn.Linear(24, d)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.truss = _plain(len(NAMES), d) if config.elastic else None
        self.described = None
        if config.described:
            sizes = len(OTHERS) + len(NAMES), config.described
            self.described = nn.Sequential(
                nn.Linear(*sizes), nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(sizes[1], d)
            )
        told = outputs if config.stacking else 0
        self.processes = gaussian_process.Processes() if config.stacking else None
        self.told = _plain(told, d) if config.stacking else None
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = None if config.local else nn.Linear(2 * d, d)
        self.of_atom = nn.Linear(d, d) if config.local else None
        self.of_edge = _plain(d, d) if config.local else None
        self.out = nn.Linear(d + told, outputs)
        if config.stacking:
            with torch.no_grad():  # to begin with, half of what is said
                self.out.weight[:, d:] = 0.5 * torch.eye(outputs)

    def vector(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "c d"]:
        """What the last layer sees: one layer on means over atoms and edges, and on the truss.

        With processes, what they say stands behind it. With `local` instead of all this: the means
        over atoms and over edges of one layer on each, added.
        """
        b = self.weighted(batch)
        return self._read(*self._means(*self._parts(b), b), batch)

    def _parts(self, b: Mapping[str, Tensor]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "e d"]]:
        """The vectors of atoms and edges that are read."""
        x = self.embedded(b)
        for layer in self.layers:
            x = layer(x, b)
        atoms, edges = x["atoms"], x["edges"]
        if self.of_atom is not None and self.of_edge is not None:
            atoms, edges = F.silu(self.of_atom(atoms)), F.silu(self.of_edge(edges))
        return atoms, edges

    def _means(
        self, atoms: Float[Tensor, "n d"], edges: Float[Tensor, "e d"], b: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c d"]]:
        """Of the atoms and of the edges of each crystal."""
        crystals = len(b["atoms_pointer"]) - 1
        atoms = summed(atoms, b["w_atoms"], b["of_atoms"], crystals)
        return atoms, summed(edges, b["w_edges"], b["of_edges"], crystals)

    def _read(
        self,
        atoms: Float[Tensor, "r d"],
        edges: Float[Tensor, "r d"],
        batch: Mapping[str, Tensor],
    ) -> Float[Tensor, "r v"]:
        """See `vector`; the rows are crystals, or atoms with what the batch has of their crystals.

        Args:
            atoms, edges: means over the atoms and over the edges of a row.
            batch: with `truss` and `described`, where they are read, for each row.
        """
        if self.hidden is None:
            return atoms + edges
        heard = self.hidden(torch.cat([atoms, edges], dim=1))
        if self.truss is not None:
            heard = heard + self.truss(self.dropout(batch["truss"].to(heard.dtype)))
        if self.described is not None:
            heard = heard + self.described(self.dropout(_known(batch).to(heard.dtype)))
        if self.told is None or self.processes is None:
            return F.silu(heard)
        said = batch.get("said")
        if said is None:
            said = self.processes(_known(batch))
        said = said.to(heard.dtype)
        return torch.cat([F.silu(heard + self.told(said)), said], dim=1)

    def forward(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "c out"]:
        out: Tensor = self.out(self.vector(batch))
        return out

    def with_atoms(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "c out"], Float[Tensor, "n out"]]:
        """The output for crystals, and for each atom, read as one crystal with its own edges.

        Of symmetry-reduced parts, atoms are those that stand for the others.
        """
        b = self.weighted(batch)
        atoms, edges = self._parts(b)
        ends = b["edges_ends"].t().flatten()  # [2e]
        total = b["w_ends"].new_zeros(len(atoms)).index_add_(0, ends, b["w_ends"])
        around = summed(edges.repeat(2, 1), b["w_ends"] / total[ends], ends, len(atoms))
        known = [key for key in ("truss", "described") if key in batch]
        own = {key: batch[key].index_select(0, b["of_atoms"]) for key in known}
        crystals = self._read(*self._means(atoms, edges, b), batch)
        return self.out(crystals), self.out(self._read(atoms, around, own))

    def embedded(self, b: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The vectors of the parts before the first layer."""
        length, solid, _ = b["edges_size"].t()
        volume = self.volume(b["atoms_size"].log())
        x = {
            "atoms": self.element(self.elements.to(volume.dtype)).index_select(0, b["numbers"])
            + self.atom(volume),
            "edges": self.edge(
                torch.cat([self.length(length), self.solid(solid.clamp(min=1e-4).log())], dim=1)
            ),
        }
        if self.faces:
            area, radius = b["faces_size"].t()
            x["faces"] = self.face(torch.cat([self.area(area.log()), self.radius(radius)], dim=1))
        if self.cells:
            size, radius = b["cells_size"].t()
            basis = self.cell_volume(size.clamp(min=1e-3).log()), self.radius(radius)
            x["cells"] = self.cell(torch.cat(basis, dim=1))
        return x

    def weighted(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """The batch with how often each message counts (w_*), and angles in their basis."""
        atoms, edges, faces, cells = (
            batch[f"{part}_many"] for part in ("atoms", "edges", "faces", "cells")
        )
        b: dict[str, Any] = dict(batch)
        first, second = b["edges_ends"].t()
        per_end = torch.cat([edges / atoms[first], edges / atoms[second]])
        b["w_ends"] = per_end / EDGES
        for part, many in (("atoms", atoms), ("edges", edges)):
            counts = b[f"{part}_pointer"].diff()
            crystal = torch.repeat_interleave(counts, output_size=len(many))
            total = many.new_zeros(len(counts)).index_add_(0, crystal, many)
            b[f"w_{part}"] = many / total[crystal]
            b[f"of_{part}"] = crystal
        if self.faces:
            face, one, other = b["corners"].t()
            share = b["corners_count"] * faces[face] / CORNERS
            b |= {"w_one": share / edges[one], "w_other": share / edges[other]}
            b |= {"w_sides": b["sides_count"] / SIDES}
            b["corners_basis"] = self.angle(b["corners_angle"])
        if self.cells:
            cell, wall = b["walls"].t()
            b |= {"w_walls": b["walls_count"] / WALLS}
            b["w_walls_of_face"] = b["walls_count"] * cells[cell] / faces[wall] / 2
            cell, hinge = b["hinges"].t()
            b["w_hinges"] = b["hinges_count"] * cells[cell] / edges[hinge] / HINGES
            b["hinges_basis"] = self.angle(b["hinges_angle"])
        return b
