"""Probes: what a representation knows about a label, read out with the simplest of models.

Folds are contiguous runs of blocks, so that a sample is not predicted from its own neighborhood, unless others are
given; everything that is fitted is fitted on the training samples. Embeddings, raw cells, principal components and
moments all go the same way.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Int64, Shaped

from gridloom.core.errors import DataError
from gridloom.core.score import Score
from gridloom.evaluate.bootstrap import block_ids, paired_block_bootstrap
from gridloom.evaluate.compare import per_method
from gridloom.evaluate.features import FoldFeatures
from gridloom.evaluate.readout import classify_linear, classify_neighbors, regress_linear, regress_nearest

__all__ = ["Splits", "contiguous_folds", "probe"]

_FEW_SHOT_DRAWS = 5
"""Draws of the few labeled samples in each fold, whose results are averaged."""

Splits = Sequence[tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]]
"""Pairs of training and test samples."""


def probe(
    features: Mapping[str, np.ndarray | FoldFeatures],
    labels: Shaped[np.ndarray, " samples"] | xr.DataArray,
    *,
    blocks: Shaped[np.ndarray, " samples"] | None = None,
    folds: int | Splits = 5,
    shots: int = 10,
    seed: int = 0,
    data: str,
    split: str,
) -> list[Score]:
    """Score each kind of features by how well simple models read the labels from it.

    Labels that are floating point are regressed: mean absolute error of the nearest sample and of ridge regression;
    with the attribute `period` they lie on a circle (the month of the year: 12), and so do their errors.
    All others are classes: accuracy of the nearest sample (Euclidean), of five voters (cosine), of logistic
    regression, and of logistic regression from `shots` labeled samples per class. Beside each there is `skill`: 1 -
    mean error / mean error of the first method.

    Args:
        features: By method: an array [samples, features], or something with `fit(train)` that is fitted in each fold
            (`PCAFeatures`).
        labels: Label of each sample. The unit of an array with the attribute `units` goes into the scores, that with
            the attribute `period` is the length of its circle.
        blocks: Block of each sample; intervals resample blocks, and samples of a block stay together in a contiguous
            fold. None cuts the samples, in their order, into 20 contiguous blocks (or as many as `folds`, if more).
        folds: Contiguous runs of blocks that are predicted in turn from all the others; or the training and test
            samples of each fold, where a split is prescribed. A sample that is tested more than once counts with the
            mean of its errors, one that never is does not count.
        shots: Labeled samples per class for the few-shot probe.
        seed: Draws the few shots and the bootstrap.
        data: Name of the data, for the scores.
        split: Part of the data, for the scores.

    Returns:
        Scores; the group is the probe: `1-nn`, `5-nn cosine`, `linear`, `10-shot linear`, `ridge`.

    Raises:
        DataError: Sizes disagree, there are fewer blocks than folds, a given fold tests what it trains on, or features
            or labels are not finite.
    """
    attributes = labels.attrs if isinstance(labels, xr.DataArray) else {}
    unit, period = str(attributes.get("units") or "1"), attributes.get("period")
    labels = np.asarray(labels)
    if blocks is None:
        blocks = block_ids(len(labels), max(20, folds) if isinstance(folds, int) else 20)
    _check(features, labels, blocks, shots)
    splits = _splits_of(contiguous_folds(blocks, folds)) if isinstance(folds, int) else folds
    tested = _count_tests(splits, len(labels))
    regression = labels.dtype.kind == "f"
    if regression:
        target, readers = labels.astype(np.float64), _regressions(None if period is None else float(period))
    else:
        target = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        readers = _classifications(shots, seed)
        _warn_of_unseen(target, splits)
    errors = {method: _errors(given, target, splits, readers, tested) for method, given in features.items()}
    number = np.unique(blocks, return_inverse=True)[1]
    count = np.bincount(number, tested > 0).astype(np.float64)
    scores: list[Score] = []
    for group in readers:
        summed = np.stack([np.bincount(number, errors[method][group]) for method in features])
        found = paired_block_bootstrap(
            summed,
            count,
            statistic=None if regression else _accuracy,
            seed=seed,
        )
        template = Score(
            data=data,
            split=split,
            method="",
            metric="mae" if regression else "accuracy",
            unit=unit if regression else "%",
            group=group,
            seed=seed,
            value=np.nan,
            low=np.nan,
            high=np.nan,
            num_blocks=found.num_blocks,
        )
        scores += per_method(template, list(features), found.statistic)
        scores += per_method(replace(template, metric="skill", unit="1"), list(features), found.skill)
    return scores


def contiguous_folds(blocks: Shaped[np.ndarray, " samples"], folds: int) -> Int64[np.ndarray, " samples"]:
    """Put runs of whole blocks, in sorted order, into folds with like numbers of blocks.

    Raises:
        DataError: Fewer than two folds, or fewer blocks than folds.
    """
    names, number = np.unique(blocks, return_inverse=True)
    if not 2 <= folds <= len(names):
        raise DataError(f"expected between 2 folds and as many as there are blocks ({len(names)}), got {folds}")
    return block_ids(len(names), folds)[number]


_Reader = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""From training features and labels, test features and labels, and the fold, to the error of each test sample."""


def _splits_of(fold_of: np.ndarray) -> Splits:
    """Training and test samples of each fold."""
    folds = range(int(fold_of.max()) + 1)
    return [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in folds]


def _count_tests(splits: Splits, size: int) -> np.ndarray:
    """How often each sample is tested."""
    tested = np.zeros(size)
    for number, (train, test) in enumerate(splits):
        if not len(train) or not len(test):
            raise DataError(
                f"fold {number}: expected samples to train and to test on, got {len(train)} and {len(test)}"
            )
        both = np.concatenate([train, test])
        if both.min() < 0 or both.max() >= size or len(np.unique(both)) < len(both):
            raise DataError(f"fold {number}: expected each sample once at most, and only 0 to {size - 1}")
        tested[test] += 1
    if not tested.any():
        raise DataError("nothing to probe: expected at least one fold, got none")
    return tested


def _errors(
    given: np.ndarray | FoldFeatures,
    target: np.ndarray,
    splits: Splits,
    readers: Mapping[str, _Reader],
    tested: np.ndarray,
) -> dict[str, np.ndarray]:
    """Error of each sample when it is predicted from the training samples of its fold, by reader."""
    errors = {group: np.zeros(len(target)) for group in readers}
    for fold, (train, test) in enumerate(splits):
        values = given if isinstance(given, np.ndarray) else given.fit(train)
        for group, reader in readers.items():
            errors[group][test] += reader(values[train], target[train], values[test], target[test], fold)
    return {group: error / np.maximum(tested, 1) for group, error in errors.items()}


def _classifications(shots: int, seed: int) -> dict[str, _Reader]:
    """Readers of classes; the error is 1 for a wrong class and 0 for the right one."""

    def by_neighbors(k: int, metric: Literal["cosine", "euclidean"]) -> _Reader:
        def read(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray, fold: int) -> np.ndarray:
            return _wrong(classify_neighbors(train, labels, test, k=k, metric=metric), truth)

        return read

    def linear(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray, fold: int) -> np.ndarray:
        return _wrong(classify_linear(train, labels, test), truth)

    def few_shot(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray, fold: int) -> np.ndarray:
        generator = np.random.default_rng([seed, fold])  # the same shots for every method
        draws = [_draw_shots(labels, shots, generator) for _ in range(_FEW_SHOT_DRAWS)]
        errors = [linear(train[few], labels[few], test, truth, fold) for few in draws]
        return np.asarray(np.mean(errors, axis=0))

    return {
        "1-nn": by_neighbors(1, "euclidean"),
        "5-nn cosine": by_neighbors(5, "cosine"),
        "linear": linear,
        f"{shots}-shot linear": few_shot,
    }


def _wrong(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.asarray(said != truth, dtype=np.float64)


def _regressions(period: float | None) -> dict[str, _Reader]:
    """Readers of numbers; the error is absolute, on a circle the shorter way round."""

    def distance(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
        apart = np.abs(said - truth)
        return np.asarray(apart if period is None else np.abs((apart + period / 2) % period - period / 2))

    def neighbor(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray, fold: int) -> np.ndarray:
        return distance(regress_nearest(train, labels, test), truth)

    def ridge(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray, fold: int) -> np.ndarray:
        return distance(regress_linear(train, labels, test, period=period), truth)

    return {"1-nn": neighbor, "ridge": ridge}


def _draw_shots(labels: np.ndarray, shots: int, generator: np.random.Generator) -> np.ndarray:
    """Up to `shots` samples of each class."""
    order = generator.permutation(len(labels))
    return np.concatenate([order[labels[order] == label][:shots] for label in np.unique(labels)])


def _accuracy(error: np.ndarray) -> np.ndarray:
    """Share of errors to percent right."""
    return 100.0 * (1.0 - error)


def _warn_of_unseen(target: np.ndarray, splits: Splits) -> None:
    """Say how many samples cannot be got right, since their class is not among the training samples."""
    unseen = [test[~np.isin(target[test], target[train])] for train, test in splits]
    count = len(np.unique(np.concatenate(unseen)))
    if count:
        warnings.warn(
            f"{count} of {len(target)} samples have a class that occurs in their fold only and count as wrong; are "
            "the samples sorted by class?",
            stacklevel=3,
        )


def _check(
    features: Mapping[str, np.ndarray | FoldFeatures], labels: np.ndarray, blocks: np.ndarray, shots: int
) -> None:
    """Refuse what cannot be probed."""
    if not features:
        raise DataError("nothing to probe: expected at least one kind of features, got none")
    if shots < 1:
        raise DataError(f"shots must be at least 1, got {shots}")
    if labels.dtype.kind not in "fiubUSOT":
        raise DataError(f"labels must be numbers, strings or booleans, got {labels.dtype}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError(f"{int((~np.isfinite(labels)).sum())} labels are not finite; drop those samples")
    if len(blocks) != len(labels):
        raise DataError(f"expected one block per label ({len(labels)}), got {len(blocks)}")
    for method, given in features.items():
        if not isinstance(given, np.ndarray):
            continue
        if given.ndim != 2 or len(given) != len(labels):
            raise DataError(f"features {method!r}: expected {len(labels)} rows of features, got shape {given.shape}")
        if not np.isfinite(given).all():
            raise DataError(f"features {method!r}: expected finite numbers, got NaN or infinity")
