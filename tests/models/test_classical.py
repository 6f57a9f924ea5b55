"""Classical baselines: our prediction from arrays is scikit-learn's own."""

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import ensemble
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Lasso, Ridge
from sklearn.svm import SVR

from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_tensors, write_tensors
from crystalmesh.models import classical

Floats = NDArray[np.float64]
FOREST: dict[str, Any] = {"trees": 12, "max_features": 0.4, "min_leaf": 2}
LINES: dict[str, tuple[dict[str, Any], Any]] = {
    "ridge": ({"alpha": 3.0}, Ridge(alpha=3.0)),
    "lasso": ({"alpha": 0.02}, Lasso(alpha=0.02, max_iter=100_000)),
    "pls": ({"components": 4}, PLSRegression(4, scale=False)),
    "svr": ({"c": 2.0, "epsilon": 0.1, "gamma": 0.5}, SVR(C=2.0, epsilon=0.1, gamma=0.5 / 12)),
}
PROCESS: dict[str, Any] = {"steps": 8, "part": 40, "freedom": 4.0}


def sample(n: int, d: int = 12, seed: int = 0) -> tuple[Floats, Floats]:
    """Features of many scales, one of them constant, and a target that bends."""
    rng = np.random.default_rng(seed)
    plain = rng.normal(size=(n, d))
    plain[:, 5] = np.round(plain[:, 5])  # ties
    targets = 5 + np.sin(plain[:, 0]) + plain[:, 1] * 0.5 + plain[:, 5] ** 2 / 4
    features = (plain + 2.0) * 10.0 ** (np.arange(d) % 7 - 3)
    features[:, 3] = 0.1
    return features, targets + 0.1 * rng.normal(size=n)


def settings_of(estimator: str) -> dict[str, Any]:
    own = PROCESS if estimator == "gaussian_process" else FOREST
    return {"estimator": estimator} | (LINES[estimator][0] if estimator in LINES else own)


def capture(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The estimators that `classical.fit` fits from here on."""
    made: list[Any] = []

    def catching(kind: Any) -> Any:
        def make(*args: Any, **kwargs: Any) -> Any:
            made.append(kind(*args, **kwargs))
            return made[-1]

        return make

    for name in classical.FORESTS.values():
        for kind in (f"{name}Regressor", f"{name}Classifier"):
            monkeypatch.setattr(ensemble, kind, catching(getattr(ensemble, kind)))
    return made


@pytest.mark.parametrize("estimator", sorted(classical.FORESTS))
def test_a_forest_predicts_as_scikit_learn(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = capture(monkeypatch)
    features, targets = sample(300)
    settings = FOREST | {"estimator": estimator}
    tensors = classical.fit(settings, features, targets, 1, None)
    others = np.concatenate([features, sample(700, seed=1)[0]])
    predicted = classical.apply(settings, tensors, others)
    forest = made[0]
    np.testing.assert_allclose(predicted, forest.predict(others), rtol=1e-6)
    # Leaves are kept as float32; with these, scikit-learn's own are the same.
    for tree in forest.estimators_:
        tree.tree_.value[:] = tree.tree_.value.astype(np.float32)
    np.testing.assert_allclose(predicted, forest.predict(others), rtol=0, atol=1e-9)
    assert tensors["feature"].dtype == np.int16
    assert tensors["value"].dtype == np.float32
    assert tensors["right"].dtype == np.int32


def test_a_threshold_parts_float32_as_scikit_learn() -> None:
    """Features so near that only their float32, or not even that, tells them apart."""
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 6, size=(400, 4))
    features = (1.0 + steps * 2.0**-23) + rng.integers(-1, 2, size=steps.shape) * 2.0**-24
    targets = steps @ np.array([1.0, 2.0, 4.0, 8.0]) + rng.normal(size=400)
    settings = {"estimator": "random_forest", "trees": 10, "max_features": 1.0, "min_leaf": 1}
    tensors = classical.fit(settings, features[:200], targets[:200], 0, None)
    forest = RandomForestRegressor(10, max_features=1.0, random_state=0)
    forest.fit(features[:200], targets[:200])
    np.testing.assert_allclose(
        classical.apply(settings, tensors, features), forest.predict(features), rtol=1e-6
    )


@pytest.mark.parametrize("estimator", sorted(classical.FORESTS))
def test_trees_vote_for_classes(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = capture(monkeypatch)
    features, targets = sample(400)
    labels = np.digitize(targets, [4.5, 5.0, 5.5, 6.0]) * 3  # classes 1, 2, 4, ... have no crystal
    settings = FOREST | {"estimator": estimator}
    tensors = classical.fit(settings, features, labels.astype(float), 0, 15)
    others, _ = sample(300, seed=2)
    shares = classical.apply(settings, tensors, others)
    assert shares.shape == (300, 15)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    forest, expected = made[0], np.zeros((300, 15))
    for tree in forest.estimators_:
        expected[np.arange(300), forest.classes_[tree.predict(others).astype(int)]] += 1 / 12
    np.testing.assert_allclose(shares, expected, atol=1e-9)


@pytest.mark.parametrize("estimator", sorted(LINES))
def test_a_model_on_standardised_features_predicts_as_scikit_learn(estimator: str) -> None:
    hyperparameters, theirs = LINES[estimator]
    features, targets = sample(200)
    others, _ = sample(600, seed=3)
    others[:, 3] += 1.0  # constant in training: must not count
    settings = {"estimator": estimator} | hyperparameters
    tensors = classical.fit(settings, features, targets, 0, None)
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread[3], spread_y = np.inf, targets.std()
    inputs = (features - mean) / spread
    if estimator == "svr":  # is fitted on inputs rounded to float32
        inputs = inputs.astype(np.float32).astype(np.float64)
    theirs.fit(inputs, (targets - targets.mean()) / spread_y)
    expected = np.ravel(theirs.predict((others - mean) / spread)) * spread_y + targets.mean()
    predicted = classical.apply(settings, tensors, others)
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-9)
    assert np.abs(predicted - sample(600, seed=3)[1]).mean() < spread_y


@pytest.mark.parametrize("estimator", sorted(classical.HYPERPARAMETERS))
def test_equal_input_gives_equal_bits(estimator: str, tmp_path: Any) -> None:
    settings = settings_of(estimator)
    features, targets = sample(100)
    a, b = (classical.fit(settings, features, targets, 5, None) for _ in range(2))
    write_tensors(tmp_path / "a", a)
    write_tensors(tmp_path / "b", b)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = classical.apply(settings, read_tensors(tmp_path / "a"), features)
    np.testing.assert_array_equal(again, classical.apply(settings, a, features))
    if estimator in classical.FORESTS:
        other = classical.fit(settings, features, targets, 6, None)
        assert (classical.apply(settings, other, features) != again).any()


def test_equal_targets_are_predicted() -> None:
    features, _ = sample(60)
    for estimator in classical.HYPERPARAMETERS:
        if estimator == "pls":
            continue  # a constant has no component
        settings = settings_of(estimator)
        tensors = classical.fit(settings, features, np.full(60, 2.5), 0, None)
        np.testing.assert_allclose(classical.apply(settings, tensors, features), 2.5)


@pytest.mark.parametrize(
    ("settings", "classes", "message"),
    [
        ({"estimator": "ridge", "alpha": 1.0}, 3, "classical.*estimator: ridge predicts no class"),
        ({"estimator": "ridge"}, None, "alpha: ridge needs it"),
        ({"estimator": "ridge", "alpha": 1.0, "trees": 3}, None, "trees: not of ridge"),
        ({"estimator": "forest"}, None, "estimator"),
        ({"estimator": "svr", "C": 1.0}, None, "C: unknown setting"),
        ({"estimator": "random_forest"} | FOREST | {"max_features": 1.5}, None, "max_features"),
    ],
)
def test_wrong_settings_are_told(
    settings: dict[str, Any], classes: int | None, message: str
) -> None:
    features, targets = sample(20)
    with pytest.raises(CrystalmeshError, match=message) as caught:
        classical.fit(settings, features, targets, 0, classes)
    assert "\n" not in str(caught.value)


def test_many_crystals_go_through_many_trees_in_a_moment() -> None:
    features, targets = sample(500)
    settings = FOREST | {"estimator": "random_forest", "trees": 100}
    tensors = classical.fit(settings, features, targets, 0, None)
    start = time.process_time()
    classical.apply(settings, tensors, np.tile(features, (3, 1)))
    assert time.process_time() - start < 2
