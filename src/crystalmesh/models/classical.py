"""Classical baselines on descriptors: forests, linear models and kernel machines.

scikit-learn fits them (Pedregosa et al., J. Mach. Learn. Res. 12, 2825 (2011)); what it learned is
kept as plain arrays, and `apply` predicts from the arrays alone: no pickle is ever read.
It is imported where it fits, as it takes a second or two.

    random_forest   Breiman, Mach. Learn. 45, 5 (2001)
    extra_trees     Geurts, Ernst & Wehenkel, Mach. Learn. 63, 3 (2006)
    ridge, lasso    penalties alpha |w|^2 and alpha |w|_1 as scikit-learn scales them
    pls             partial least squares, Wold, Sjostrom & Eriksson, Chemom. Intell. Lab. Syst.
                    58, 109 (2001)
    svr             support vector regression, kernel exp(-gamma / d |x - y|^2) of d features
    gaussian_process  ours, by the literature: see models.gaussian_process
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from crystalmesh.config.read import parse
from crystalmesh.config.schema import Count, Positive
from crystalmesh.errors import CrystalmeshError
from crystalmesh.models import gaussian_process

Floats = NDArray[np.float64]
WHERE = "network (classical)"

FORESTS = {"random_forest": "RandomForest", "extra_trees": "ExtraTrees"}  # sklearn.ensemble
HYPERPARAMETERS = {  # of each estimator: all of them are given, and no others
    "random_forest": {"trees", "max_features", "min_leaf"},
    "extra_trees": {"trees", "max_features", "min_leaf"},
    "ridge": {"alpha"},
    "lasso": {"alpha"},
    "pls": {"components"},
    "svr": {"c", "epsilon", "gamma"},
    "gaussian_process": {"steps", "part", "freedom"},
}
CONSTANT = 1e-9  # a standard deviation below this, relative to the largest value, is rounding
ROWS = 256  # crystals that go down all trees at once


class Settings(BaseModel):
    """The estimator and its hyperparameters; all but the forests standardise the targets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    estimator: Literal[
        "random_forest", "extra_trees", "ridge", "lasso", "pls", "svr", "gaussian_process"
    ]
    trees: Count | None = None
    max_features: Annotated[float, Field(gt=0, le=1)] | None = None  # share tried at a split
    min_leaf: Count | None = None  # crystals
    alpha: Positive | None = None
    components: Count | None = None
    c: Positive | None = None
    epsilon: Annotated[float, Field(ge=0)] | None = None  # standard deviations of the target
    gamma: Positive | None = None
    steps: Count | None = None  # of finding the relevance of the descriptors
    part: Count | None = None  # crystals of a step
    freedom: Positive | None = None  # degrees of freedom of the errors' distribution


def fit(
    settings: Mapping[str, Any],
    features: Float[Floats, "n d"],
    targets: Float[Floats, " n"],
    seed: int,
    classes: int | None,
) -> dict[str, NDArray[Any]]:
    """Fit an estimator, on one thread.

    Args:
        settings: `network` of a model in config/models; see `Settings`.
        features: of the crystals to train on.
        targets: of these; class numbers from 0 where there are classes.
        seed: of the forests and of the Gaussian process; the other estimators draw nothing.
        classes: how many there are; None for regression.

    Returns:
        What `apply` needs, by name.
        Forests, all trees one after the other in depth-first order, so that the left child of
        node i is i + 1: roots [trees]; feature [nodes], -1 at a leaf; value [nodes], the threshold
        of a split or the prediction of a leaf; right [nodes], the right child of a split or the
        class of a leaf; classes [1], how many, only where there are any.
        Linear models and PLS: mean [d], coefficient [d] and intercept [1].
        SVR: mean [d], inverse [d] (of the deviation; 0 of a constant feature), support [s, d]
        (standardised), dual [s], intercept [1].
        Gaussian process: mean, inverse, middle [1] and spread [1] of the targets, and what
        `gaussian_process.fit` returns.

    Raises:
        CrystalmeshError: a setting is missing, unknown or not one of the estimator's, or the
            estimator knows no classes.
    """
    config = _parse(settings)
    if config.estimator in FORESTS:
        return _grow(config, features, targets, seed, classes)
    if classes is not None:
        raise CrystalmeshError(
            f"{WHERE}.estimator: {config.estimator} predicts no classes; use {' or '.join(FORESTS)}"
        )
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    constant = deviation <= CONSTANT * np.abs(features).max(axis=0)
    inverse = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))
    inputs = (features - mean) * inverse
    middle, spread = float(targets.mean()), float(targets.std()) or 1.0
    outputs = (targets - middle) / spread
    if config.estimator == "svr":
        return {"mean": mean, "inverse": inverse, **_svr(config, inputs, outputs, middle, spread)}
    if config.estimator == "gaussian_process":
        own: Any = {name: getattr(config, name) for name in HYPERPARAMETERS[config.estimator]}
        found = gaussian_process.fit(inputs, outputs, gaussian_process.Settings(**own), seed)
        scales = {"middle": np.array([middle]), "spread": np.array([spread])}
        return {"mean": mean, "inverse": inverse, **scales, **found}
    return {"mean": mean, **_line(config, inputs, outputs, inverse, middle, spread)}


def _svr(
    config: Settings,
    inputs: Float[Floats, "n d"],
    outputs: Float[Floats, " n"],
    middle: float,
    spread: float,
) -> dict[str, NDArray[Any]]:
    from sklearn.svm import SVR

    inputs = inputs.astype(np.float32).astype(np.float64)  # as the support is kept
    machine = SVR(C=config.c, epsilon=config.epsilon, gamma=_gamma(config, inputs.shape[1]))
    machine.fit(inputs, outputs)
    return {
        "support": inputs[machine.support_].astype(np.float32),
        "dual": spread * machine.dual_coef_[0],
        "intercept": middle + spread * machine.intercept_,
    }


def _line(
    config: Settings,
    inputs: Float[Floats, "n d"],
    outputs: Float[Floats, " n"],
    inverse: Float[Floats, " d"],
    middle: float,
    spread: float,
) -> dict[str, NDArray[Any]]:
    """Ridge, lasso or partial least squares."""
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.linear_model import Lasso, Ridge

    line: Any
    if config.estimator == "ridge":
        line = Ridge(alpha=config.alpha, solver="cholesky")
    elif config.estimator == "lasso":
        line = Lasso(alpha=config.alpha, max_iter=100_000)
    else:
        line = PLSRegression(config.components, scale=False)
    line.fit(inputs, outputs)
    return {
        "coefficient": spread * inverse * line.coef_.ravel(),
        "intercept": np.array([middle + spread * float(np.ravel(line.intercept_)[0])]),
    }


def apply(
    settings: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    features: Float[Floats, "n d"],
) -> Floats:
    """Predict from what `fit` returned, with the same settings.

    Returns:
        [n], or, where there are classes, [n, classes]: the share of the trees whose leaf has most
        of that class.
    """
    config = _parse(settings)
    if config.estimator in FORESTS:
        return _vote(tensors, features)
    inputs = features - tensors["mean"]
    if "inverse" not in tensors:
        predicted: Floats = inputs @ tensors["coefficient"] + tensors["intercept"]
        return predicted
    inputs *= tensors["inverse"]
    if config.estimator == "gaussian_process":
        scaled: Floats = tensors["spread"] * gaussian_process.apply(tensors, inputs)
        return tensors["middle"] + scaled
    support = tensors["support"].astype(np.float64)
    gamma = _gamma(config, features.shape[1])
    results = np.empty(len(inputs))
    for start in range(0, len(inputs), ROWS):
        block = inputs[start : start + ROWS]
        squares = (block * block).sum(axis=1)[:, None] + (support * support).sum(axis=1)
        squares -= 2.0 * (block @ support.T)  # [rows, s]
        kernel = np.exp(-gamma * np.maximum(squares, 0.0))
        results[start : start + ROWS] = kernel @ tensors["dual"] + tensors["intercept"]
    return results


def _parse(settings: Mapping[str, Any]) -> Settings:
    config = parse(Settings, settings, WHERE)
    given = {name for name, value in config if value is not None} - {"estimator"}
    wanted = HYPERPARAMETERS[config.estimator]
    for name in sorted(given ^ wanted):
        fault = f"{config.estimator} needs it" if name in wanted else f"not of {config.estimator}"
        raise CrystalmeshError(f"{WHERE}.{name}: {fault}")
    return config


def _gamma(config: Settings, width: int) -> float:
    assert config.gamma is not None
    return config.gamma / width


def _grow(
    config: Settings, features: Floats, targets: Floats, seed: int, classes: int | None
) -> dict[str, NDArray[Any]]:
    from sklearn import ensemble

    kind = "Regressor" if classes is None else "Classifier"
    forest: Any = getattr(ensemble, FORESTS[config.estimator] + kind)(
        n_estimators=config.trees,
        max_features=config.max_features,
        min_samples_leaf=config.min_leaf,
        random_state=seed,
        n_jobs=1,
    )
    forest.fit(features, targets if classes is None else targets.astype(np.int64))
    trees = [tree.tree_ for tree in forest.estimators_]
    counts = np.array([tree.node_count for tree in trees])
    roots = np.cumsum(counts) - counts
    arrays = []
    for root, tree in zip(roots.tolist(), trees, strict=True):
        leaf = tree.children_left < 0
        assert (leaf | (tree.children_left == np.arange(len(leaf)) + 1)).all()
        right, value = tree.children_right + root, _below(tree.threshold)
        if classes is None:
            right, value = np.where(leaf, 0, right), np.where(leaf, tree.value[:, 0, 0], value)
        else:
            commonest = forest.classes_[tree.value[:, 0].argmax(axis=1)]
            right, value = np.where(leaf, commonest, right), np.where(leaf, 0.0, value)
        feature = np.where(leaf, -1, tree.feature)
        arrays.append((feature.astype(np.int16), value.astype(np.float32), right.astype(np.int32)))
    found: dict[str, NDArray[Any]] = {
        name: np.concatenate(parts)
        for name, parts in zip(
            ("feature", "value", "right"), zip(*arrays, strict=True), strict=True
        )
    }
    found["roots"] = roots.astype(np.int32)
    if classes is not None:
        found["classes"] = np.array([classes])
    return found


def _below(threshold: Floats) -> NDArray[np.float32]:
    """The largest float32 up to each threshold.

    The trees compare features as float32 with thresholds as float64; with these the outcome is
    the same for every float32, in half the space.
    """
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def _vote(tensors: Mapping[str, NDArray[Any]], features: Floats) -> Floats:
    feature, value, right = tensors["feature"], tensors["value"], tensors["right"]
    roots, classes = tensors["roots"].astype(np.int64), tensors.get("classes")
    inputs = features.astype(np.float32)
    n, trees = len(inputs), len(roots)
    results = np.zeros(n if classes is None else (n, int(classes[0])))
    for start in range(0, n, ROWS):
        block = inputs[start : start + ROWS]
        node = np.repeat(roots, len(block))  # [trees * rows]
        row = np.tile(np.arange(len(block)), trees)
        inner = np.flatnonzero(feature[node] >= 0)
        while inner.size:
            at = node[inner]
            left = block[row[inner], feature[at]] <= value[at]
            node[inner] = at = np.where(left, at + 1, right[at])
            inner = inner[feature[at] >= 0]
        if classes is None:
            leaves = value[node].astype(np.float64).reshape(trees, -1)
            results[start : start + ROWS] = leaves.sum(axis=0) / trees
        else:
            np.add.at(results, (start + row, right[node]), 1.0)
    return results if classes is None else results / trees
