"""What stands on top of a network: one tensor for each target, gradients among them."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crystalmesh.config.schema import Target


class Head:
    """From a network's numbers of a system, and of its atoms, to its targets.

    A target has columns of the output; one of each atom has them in the rows of atoms, which a
    network with `with_atoms` gives beside those of systems. All these are invariants: a vector that
    turns with the system is to be had as a gradient only.

    A target that is the negative gradient of another, as forces are of an energy, is had by
    differentiating the network (Schuett et al., NeurIPS 2017, section 3.2, arXiv 1706.08566):
    F_i = -dE / dr_i. Such forces are those of one energy surface, turn with the system, and add up
    to zero. The network needs to know nothing of it: it reads `distance`, which is formed here from
    positions. It has no weights of its own, so that a checkpoint is the same with and without it.

    Args:
        targets: of the run, by name, in their order.
    """

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self.targets = dict(targets)
        each = self.targets.values()
        self.gradients = any(target.gradient_of for target in each)
        self.of_atoms = any(target.level and not target.gradient_of for target in each)
        self.plain = not (self.gradients or self.of_atoms)  # needs the network's output only

    def __call__(self, net: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Each target from a network and a batch.

        Args:
            net: the network; where it is in training, gradients can be differentiated themselves.
            batch: of a representation with positions (`represent.Positions`) where a target is a
                gradient.

        Returns:
            See `columns`; of a gradient [n, 3], in the network's unit of the other per Angstrom.
        """
        if not self.gradients:
            return self._said(net, batch)
        # Predictions and validation are made in inference mode, whose tensors have no gradients.
        with torch.inference_mode(False), torch.enable_grad():
            own = {k: one.clone() if one.is_inference() else one for k, one in batch.items()}
            positions = own["positions"].detach().clone().requires_grad_()
            said = self._said(net, own | {"distance": distances(positions, own)})
            found = []
            for target, one in zip(self.targets.values(), said, strict=True):
                if target.gradient_of is None:
                    found.append(one)
                    continue
                other = said[list(self.targets).index(target.gradient_of)]
                (slope,) = torch.autograd.grad(
                    other.sum(), positions, create_graph=net.training, retain_graph=True
                )
                found.append(-slope.to(other.dtype))
        return tuple(found) if net.training else tuple(one.detach() for one in found)

    def _said(self, net: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """All targets but gradients."""
        if not self.of_atoms:
            return self.columns(net(batch))
        both: tuple[Tensor, Tensor] = net.with_atoms(batch)  # type: ignore[operator]
        return self.columns(*both)

    def columns(
        self, outputs: Float[Tensor, "c o"], atoms: Float[Tensor, "n o"] | None = None
    ) -> tuple[Tensor, ...]:
        """Each target from the network's outputs for systems, and for atoms where they are given.

        Returns:
            Of a number of the system [c], of classes or several numbers [c, k], of atoms [n, k].
            A gradient takes no column: in its place stands an empty tensor, as in that of a target
            of atoms where these are not given.
        """
        found, start = [], 0
        for target in self.targets.values():
            stop = start + target.outputs
            rows = atoms if target.level else outputs
            if rows is None or not target.outputs:
                found.append(outputs[:0, 0])
            elif target.wide or target.kind == "classification":
                found.append(rows[:, start:stop])
            else:
                found.append(rows[:, start])
            start = stop
        return tuple(found)


def distances(positions: Float[Tensor, "n 3"], batch: Mapping[str, Tensor]) -> Float[Tensor, " e"]:
    """Lengths of the edges of a batch, in Angstrom, as a function of its positions."""
    source = positions.index_select(0, batch["source"])
    edge = source + batch["shift"].to(positions.dtype) - positions.index_select(0, batch["target"])
    return (edge * edge).sum(dim=1).sqrt()
