"""What stands on top of a network: one tensor for each target, gradients among them."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crystalmesh.config.schema import Target


class Head:
    """From a network's numbers of a system to its targets.

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
        self.gradients = any(target.gradient_of for target in self.targets.values())

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
            return self.columns(net(batch))
        # Predictions and validation are made in inference mode, whose tensors have no gradients.
        with torch.inference_mode(False), torch.enable_grad():
            own = {k: one.clone() if one.is_inference() else one for k, one in batch.items()}
            positions = own["positions"].detach().clone().requires_grad_()
            outputs = net(own | {"distance": distances(positions, own)})
            said = self.columns(outputs)
            found = []
            for target, one in zip(self.targets.values(), said, strict=True):
                if target.gradient_of is None:
                    found.append(one)
                    continue
                other = said[list(self.targets).index(target.gradient_of)]
                (slope,) = torch.autograd.grad(
                    other.sum(), positions, create_graph=net.training, retain_graph=True
                )
                found.append(-slope.to(outputs.dtype))
        return tuple(found) if net.training else tuple(one.detach() for one in found)

    def columns(self, outputs: Float[Tensor, "c o"]) -> tuple[Tensor, ...]:
        """Each target of a system from the network's outputs: [c], or of classes [c, k].

        A gradient takes no column; in its place stands an empty tensor.
        """
        found, start = [], 0
        for target in self.targets.values():
            stop = start + target.outputs
            if target.kind == "classification":
                found.append(outputs[:, start:stop])
            else:
                found.append(outputs[:, start] if target.outputs else outputs[:0, 0])
            start = stop
        return tuple(found)


def distances(positions: Float[Tensor, "n 3"], batch: Mapping[str, Tensor]) -> Float[Tensor, " e"]:
    """Lengths of the edges of a batch, in Angstrom, as a function of its positions."""
    source = positions.index_select(0, batch["source"])
    edge = source + batch["shift"].to(positions.dtype) - positions.index_select(0, batch["target"])
    return (edge * edge).sum(dim=1).sqrt()
