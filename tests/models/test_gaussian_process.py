"""The Gaussian process: exact gradient, scikit-learn's predictions, what matters, what is wrong."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from crystalmesh.models import gaussian_process

Floats = NDArray[np.float64]


def sample(n: int, d: int, seed: int) -> tuple[Floats, Floats]:
    """Standardised features, of which two matter, and targets with a little noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d))
    targets = np.sin(2 * features[:, 0]) + features[:, 1] + 0.05 * rng.normal(size=n)
    return features, (targets - targets.mean()) / targets.std()


def how(steps: int, part: int, freedom: float) -> gaussian_process.Settings:
    return gaussian_process.Settings(steps=steps, part=part, freedom=freedom)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_gradient_is_that_of_the_likelihood(seed: int) -> None:
    features, targets = sample(40, 5, seed)
    place = np.random.default_rng(seed).normal(-1, 0.5, 7)
    _, found = gaussian_process.gradient(place, features, targets)

    def loss(place: Floats) -> float:
        return gaussian_process.gradient(place, features, targets)[0]

    np.testing.assert_allclose(found, approx_fprime(place, loss, 1e-7), rtol=0, atol=1e-5)


def test_the_likelihood_is_that_of_scikit_learn() -> None:
    features, targets = sample(50, 3, 1)
    place = np.log([0.3, 1.2, 0.1, 1.7, 0.2])
    kernel = ConstantKernel(1.7) * Matern(1 / np.array([0.3, 1.2, 0.1]), nu=0.5) + WhiteKernel(0.2)
    theirs = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None).fit(features, targets)
    expected = -theirs.log_marginal_likelihood_value_ / 50 - 0.5 * np.log(2 * np.pi)
    loss, _ = gaussian_process.gradient(place, features, targets)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_with_normal_errors_it_predicts_as_scikit_learn() -> None:
    """With the noise that is left when each crystal in turn is left out."""
    features, targets = sample(80, 4, 2)
    features = features.astype(np.float32).astype(np.float64)
    found = gaussian_process.fit(features, targets, how(20, 60, 1e12), 0)
    weights, squared, noise = gaussian_process.hyperparameters(features, targets, 20, 60, 0)

    def fitted(noise: float, rows: NDArray[np.bool_]) -> GaussianProcessRegressor:
        kernel = ConstantKernel(squared) * Matern(1 / weights, nu=0.5) + WhiteKernel(noise)
        process = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None)
        return process.fit(features[rows], targets[rows])

    residuals = np.empty(80)
    for row in range(80):
        (predicted,) = fitted(noise, np.arange(80) != row).predict(features[row : row + 1])
        residuals[row] = abs(predicted - targets[row])
    noise *= min(1.0, (1.4826 * np.median(residuals)) ** 2 / (residuals**2).mean())
    others, _ = sample(700, 4, 3)
    predicted = gaussian_process.apply(found, others)
    expected = fitted(noise, np.ones(80, dtype=bool)).predict(others)
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-4)
    assert len(gaussian_process.apply(found, others[:0])) == 0


def test_who_is_left_out_is_predicted_from_all_others() -> None:
    """With weights, s^2 and noise as they are; the noise follows from what `fit` returns."""
    features, targets = sample(60, 3, 8)
    found, said = gaussian_process.fit_and_leave_out(features, targets, how(20, 50, 4.0), 0)
    assert {k: v.tolist() for k, v in found.items()} == {
        k: v.tolist()
        for k, v in gaussian_process.fit(features, targets, how(20, 50, 4.0), 0).items()
    }
    support, dual = found["support"].astype(np.float64), found["dual"]
    noise = (targets - gaussian_process.apply(found, support)) / dual
    assert noise.min() > 0
    apart = support[:, None] * found["weights"] - support * found["weights"]
    kernel = found["squared"] * np.exp(-np.sqrt((apart**2).sum(axis=2)))
    for row in range(60):
        others = np.arange(60) != row
        matrix = kernel[np.ix_(others, others)] + np.diag(noise[others])
        expected = kernel[row, others] @ np.linalg.solve(matrix, targets[others])
        assert said[row] == pytest.approx(expected, abs=1e-4)


def test_processes_of_a_network_say_what_they_say_alone() -> None:
    features, targets = sample(50, 4, 9)
    both = [
        gaussian_process.fit(features, y, how(10, 40, 4.0), 0) for y in (targets, np.tanh(targets))
    ]
    state = {k: torch.from_numpy(np.stack([one[k] for one in both])) for k in both[0]}
    state |= {"squared": state["squared"][:, 0], "support": state["support"][0].half()}
    processes = gaussian_process.Processes()
    processes.load_state_dict(state)
    assert not list(processes.parameters())
    assert processes.support.dtype == torch.float16
    others, _ = sample(300, 4, 10)
    said = processes(torch.from_numpy(others))
    for k, one in enumerate(both):
        half = one | {"support": state["support"].numpy()}
        expected = gaussian_process.apply(half, others)
        np.testing.assert_allclose(said[:, k].numpy(), expected, rtol=0, atol=6e-7)
    assert (said * 1e6 - (said * 1e6).round()).abs().max() < 1e-3
    again = gaussian_process.Processes()
    again.load_state_dict(processes.state_dict())
    assert torch.equal(again(torch.from_numpy(others)), said)


def test_it_finds_what_matters() -> None:
    features, targets = sample(200, 8, 4)
    weights = gaussian_process.fit(features, targets, how(150, 120, 4.0), 0)["weights"]
    assert weights[:2].min() > 4 * weights[2:].max()
    others, right = sample(300, 8, 5)
    predicted = gaussian_process.apply(
        gaussian_process.fit(features, targets, how(150, 120, 4.0), 0), others
    )
    assert np.abs(predicted - right).mean() < 0.2


def test_a_few_wrong_labels_count_little() -> None:
    features, targets = sample(200, 3, 6)
    wrong = targets.copy()
    wrong[::20] += np.where(np.arange(10) % 2, 8.0, -8.0)
    others, right = sample(300, 3, 7)

    def error(freedom: float) -> float:
        found = gaussian_process.fit(features, wrong, how(60, 120, freedom), 0)
        return float(np.abs(gaussian_process.apply(found, others) - right).mean())

    assert error(4.0) < 0.9 * error(1e12)
