"""A Gaussian process that finds out which descriptors matter, with errors of heavy tails.

The kernel is s^2 exp(-|w (x - y)|) with a weight w for each descriptor (automatic relevance
determination: Neal, Bayesian Learning for Neural Networks, 1996; Rasmussen & Williams, Gaussian
Processes for Machine Learning, 2006, sections 4.2 and 5.1). Weights, s and the noise maximise the
marginal likelihood of random parts of the training crystals, by Adam (Kingma & Ba,
arXiv:1412.6980, 2014).

Few labels are far off, and must not count by their square: by the residuals of crystals that are
left out (Rasmussen & Williams, equation 5.12) the noise is made as small as their median tells, and
weighted for each as by Student's t (Lange, Little & Taylor, J. Am. Stat. Assoc. 84, 881 (1989)).

Written out in NumPy, whose bits are the same on every machine; scikit-learn's gradient needs an
array of n x n x d.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.linalg import cho_solve, cholesky, lapack
from torch import Tensor, nn

Floats = NDArray[np.float64]

LIMIT = 5.0  # of a descriptor, standard deviations
NOISE = 0.14  # variance at the start, where that of the targets is 1
RATE, RATE_SCALE = 0.1, 0.05  # of Adam: of the weights' logarithms, of those of s^2 and noise
MOMENTS = 0.9, 0.999
ROUNDS = 3  # of weighting the noise
LEAST = 1e-12  # square of a distance: rounding is below it
ROWS = 256  # crystals that are predicted at once
DIGITS = 6  # after the point, of what networks are told


class Settings(BaseModel):
    """How a process is fitted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(gt=0)  # of Adam
    part: int = Field(gt=1)  # crystals of each step
    freedom: float = Field(gt=0)  # degrees of freedom of Student's t


def fit(
    features: Float[Floats, "n d"], targets: Float[Floats, " n"], settings: Settings, seed: int
) -> dict[str, NDArray[Any]]:
    """Fit the process.

    Args:
        features: standardised.
        targets: standardised.
        settings: see `Settings`.
        seed: of the parts.

    Returns:
        weights [d], support [n, d] (the features, limited), dual [n] and squared [1], s^2.
    """
    return _fitted(features, targets, settings, seed)[0]


def fit_and_leave_out(
    features: Float[Floats, "n d"], targets: Float[Floats, " n"], settings: Settings, seed: int
) -> tuple[dict[str, NDArray[Any]], Float[Floats, " n"]]:
    """What `fit` returns, and what the process says of each crystal from all others.

    Weights, s^2 and noise know the crystal, so that it is a little nearer to the target than to
    that of a new crystal.
    """
    tensors, factor = _fitted(features, targets, settings, seed)
    return tensors, targets - tensors["dual"] / np.diag(_inverse(factor))


def _fitted(
    features: Float[Floats, "n d"], targets: Float[Floats, " n"], settings: Settings, seed: int
) -> tuple[dict[str, NDArray[Any]], Float[Floats, "n n"]]:
    """What `fit` returns, and the Cholesky factor of the kernel with the noise."""
    inputs = np.clip(features, -LIMIT, LIMIT).astype(np.float32).astype(np.float64)
    weights, squared, noise = hyperparameters(inputs, targets, settings.steps, settings.part, seed)
    kernel = squared * np.exp(-_distances(inputs * weights, inputs * weights))
    certain = np.ones(len(targets))
    for turn in range(ROUNDS + 1):
        factor = cholesky(kernel + np.diag(noise / certain), lower=True, check_finite=False)
        dual: Floats = cho_solve((factor, True), targets, check_finite=False)
        if turn < ROUNDS:
            apart = np.abs(dual / np.diag(_inverse(factor)))  # from those who are left out
            scale = 1.4826 * float(np.median(apart)) or 1.0  # as a deviation, were they normal
            if not turn:  # what the likelihood took for noise is also what is wrong
                noise *= min(1.0, scale**2 / float((apart**2).mean() or 1.0))
            certain = (settings.freedom + 1) / (settings.freedom + (apart / scale) ** 2)
    tensors: dict[str, NDArray[Any]] = {
        "weights": weights,
        "support": inputs.astype(np.float32),
        "dual": dual,
        "squared": np.array([squared]),
    }
    return tensors, factor


def apply(tensors: Mapping[str, NDArray[Any]], features: Float[Floats, "n d"]) -> Floats:
    """Predict standardised targets [n] from standardised features and what `fit` returned."""
    weights, squared = tensors["weights"], float(tensors["squared"][0])
    support = tensors["support"].astype(np.float64) * weights
    inputs = np.clip(features, -LIMIT, LIMIT) * weights
    blocks = [inputs[start : start + ROWS] for start in range(0, len(inputs), ROWS)]
    predicted = [
        squared * np.exp(-_distances(block, support)) @ tensors["dual"] for block in blocks
    ]
    return np.concatenate([np.zeros(0), *predicted])


class Processes(nn.Module):
    """Processes on the same crystals as a part of a network: fitted before it, and not trained.

    Shapes:
        input [c, d]; output [c, processes], rounded, as last bits may depend on the machine.
        What `fit` returns of each, one below the other, as buffers: weights [p, d], dual [p, n]
        (0 of a crystal that a process does not know), squared [p], and support [n, d]. None of
        them has a size before it is loaded.
    """

    dual: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("weights", "support", "dual", "squared"):
            self.register_buffer(name, torch.zeros(0))

    def _load_from_state_dict(self, state: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        for name in self._buffers:
            if prefix + name in state:
                self._buffers[name] = torch.empty_like(state[prefix + name])
        super()._load_from_state_dict(state, prefix, *args)

    def forward(self, inputs: Float[Tensor, "c d"]) -> Float[Tensor, "c p"]:
        if not len(self.dual):
            raise RuntimeError("no processes are loaded")
        if inputs.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("a process is not differentiated by what it reads: it is rounded")
        known = {name: buffer.cpu().numpy() for name, buffer in self.named_buffers()}
        rows = inputs.detach().cpu().double().numpy()
        said = []
        for weights, dual, squared in zip(
            *(known[name] for name in ("weights", "dual", "squared")), strict=True
        ):
            one = {"weights": weights, "dual": dual, "squared": squared[None]}
            said.append(np.round(apply(one | {"support": known["support"]}, rows), DIGITS))
        return torch.from_numpy(np.stack(said, axis=1)).to(inputs)


def hyperparameters(
    inputs: Float[Floats, "n d"], targets: Float[Floats, " n"], steps: int, part: int, seed: int
) -> tuple[Float[Floats, " d"], float, float]:
    """Weights, s^2 and variance of the noise."""
    width, part = inputs.shape[1], min(part, len(inputs))
    rng = np.random.default_rng(seed)
    place = np.concatenate([np.full(width, -0.5 * np.log(2 * width)), [0.0, np.log(NOISE)]])
    rates = np.concatenate([np.full(width, RATE), [RATE_SCALE, RATE_SCALE]])
    for step in _adam(place, rates, steps):
        rows = rng.choice(len(inputs), part, replace=False)
        step[:] = gradient(place, inputs[rows], targets[rows])[1]
    return np.exp(place[:width]), float(np.exp(place[width])), float(np.exp(place[width + 1]))


def _adam(place: Floats, rates: Floats, steps: int) -> Iterator[Floats]:
    """Give an array for the gradient at `place`, then move `place`; rates fall as a cosine does."""
    mean, square, gradient = np.zeros_like(place), np.zeros_like(place), np.empty_like(place)
    first, second = MOMENTS
    for step in range(steps):
        yield gradient
        mean += (1 - first) * (gradient - mean)
        square += (1 - second) * (gradient * gradient - square)
        corrected = mean / (1 - first ** (step + 1))
        spread = np.sqrt(square / (1 - second ** (step + 1))) + 1e-8
        place -= 0.5 * (1 + np.cos(np.pi * step / steps)) * rates * corrected / spread


def gradient(
    place: Float[Floats, " d+2"], inputs: Float[Floats, "n d"], targets: Float[Floats, " n"]
) -> tuple[float, Float[Floats, " d+2"]]:
    """Negative logarithm of the marginal likelihood by crystal, less a constant, and its gradient.

    Args: logarithms of the weights, of s^2 and of the variance of the noise; crystals.
    """
    n, width = inputs.shape
    weights, squared, noise = np.exp(place[:width]), np.exp(place[width]), np.exp(place[width + 1])
    scaled = inputs * weights
    distance = _distances(scaled, scaled)
    kernel = squared * np.exp(-distance)
    factor = cholesky(kernel + noise * np.eye(n), lower=True, check_finite=False)
    dual = cho_solve((factor, True), targets, check_finite=False)
    loss = (0.5 * targets @ dual + np.log(np.diag(factor)).sum()) / n
    outer = 0.5 * (_inverse(factor) - dual[:, None] * dual) / n  # by the kernel's entries
    by = -outer * kernel / distance  # by weight^2 difference^2, times two
    np.fill_diagonal(by, 0.0)
    apart = 2 * (by.sum(axis=1) @ scaled**2 - (scaled * (by @ scaled)).sum(axis=0))
    return float(loss), np.concatenate([apart, [(outer * kernel).sum(), noise * np.trace(outer)]])


def _distances(one: Float[Floats, "n d"], other: Float[Floats, "m d"]) -> Float[Floats, "n m"]:
    squares = (one * one).sum(axis=1)[:, None] + (other * other).sum(axis=1)
    squares -= 2.0 * (one @ other.T)
    distances: Floats = np.sqrt(np.maximum(squares, LEAST))
    return distances


def _inverse(factor: Float[Floats, "n n"]) -> Float[Floats, "n n"]:
    """Of the matrix whose lower Cholesky factor this is."""
    half, _ = lapack.dpotri(factor, lower=1)
    half = np.tril(half)
    whole: Floats = half + np.tril(half, -1).T
    return whole
