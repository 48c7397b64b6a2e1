"""The simple models that probes read a label with: nearest neighbors and linear ones.

Each takes features and labels of the training samples and the features of the test samples, and returns what it says
of those. Neighbors use features as they are, as a search would; linear models standardize them by the training samples.
"""

import warnings
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from gridloom.evaluate.neighbors import nearest

__all__ = ["classify_linear", "classify_neighbors", "regress_linear", "regress_nearest"]


def classify_neighbors(
    train: Shaped[np.ndarray, "train features"],
    labels: Int64[np.ndarray, " train"],
    test: Shaped[np.ndarray, "test features"],
    *,
    k: int,
    metric: Literal["cosine", "euclidean"],
) -> Int64[np.ndarray, " test"]:
    """Majority of the k nearest; a tie goes to the class whose voters are nearer.

    Args:
        train: Features with known labels.
        labels: Classes as numbers from 0 up.
        test: Features to label.
        k: Voters; fewer where there are fewer training samples.
        metric: What near means.
    """
    indices, _ = nearest(train, test, min(k, len(train)), metric=metric)
    weights = 1.0 + 0.01 * np.arange(indices.shape[1], 0, -1) / indices.shape[1]  # rank breaks ties, never majorities
    votes = np.zeros((len(test), int(labels.max()) + 1))
    for position, weight in enumerate(weights):
        votes[np.arange(len(test)), labels[indices[:, position]]] += weight
    return np.asarray(votes.argmax(axis=1), dtype=np.int64)


def classify_linear(
    train: Shaped[np.ndarray, "train features"],
    labels: Int64[np.ndarray, " train"],
    test: Shaped[np.ndarray, "test features"],
) -> Int64[np.ndarray, " test"]:
    """Logistic regression with the usual unit penalty."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) == 1:
        return np.full(len(test), labels[0])
    train, test = _reduce(*_standardize(train, test))
    model = LogisticRegression(C=1.0, solver="lbfgs", max_iter=2000, tol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the class is settled long before the last digit
        model.fit(train, labels)
    return np.asarray(model.predict(test), dtype=np.int64)


def regress_nearest(
    train: Shaped[np.ndarray, "train features"],
    labels: Float64[np.ndarray, " train"],
    test: Shaped[np.ndarray, "test features"],
) -> Float64[np.ndarray, " test"]:
    """The label of the nearest sample."""
    indices, _ = nearest(train, test, 1, metric="euclidean")
    return np.asarray(labels[indices[:, 0]])


def regress_linear(
    train: Shaped[np.ndarray, "train features"],
    labels: Float64[np.ndarray, " train"],
    test: Shaped[np.ndarray, "test features"],
    *,
    period: float | None = None,
) -> Float64[np.ndarray, " test"]:
    """Ridge regression; the penalty is the one with the least leave-one-out error among the training samples.

    Args:
        train: Features with known labels.
        labels: Numbers.
        test: Features to label.
        period: Length of the circle on which the labels lie: cosine and sine are regressed, and the answer, from 0 up
            to the period, is their angle. None for labels on a line.
    """
    from sklearn.linear_model import RidgeCV

    angle = 2 * np.pi * labels / (period or 1.0)
    targets = labels[:, None] if period is None else np.stack([np.cos(angle), np.sin(angle)], axis=1)
    train, test = _reduce(*_standardize(train, test))
    if len(train) < 3:
        said = np.repeat(targets.mean(axis=0, keepdims=True), len(test), axis=0)
    else:
        model = RidgeCV(alphas=np.logspace(-2, 5, 15)).fit(train, targets)
        said = np.asarray(model.predict(test), dtype=np.float64).reshape(len(test), -1)
    if period is None:
        return np.asarray(said[:, 0])
    return np.asarray(np.arctan2(said[:, 1], said[:, 0]) % (2 * np.pi) * period / (2 * np.pi))


def _standardize(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring each feature to mean 0 and standard deviation 1 over the training samples; constant ones to 0."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    mean, spread = train.mean(axis=0), train.std(axis=0)
    varies = spread > 1e-12 * np.maximum(np.abs(mean), 1e-300)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=varies)
    return (train - mean) * scale, (test - mean) * scale


def _reduce(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate more features than samples into the samples' span: a linear model with this penalty stays the same."""
    if train.shape[1] <= len(train):
        return train, test
    _, _, directions = np.linalg.svd(train, full_matrices=False)
    return train @ directions.T, test @ directions.T
