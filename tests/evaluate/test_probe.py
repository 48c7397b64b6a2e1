"""Probes, and the features they compare."""

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.evaluate.features import PCAFeatures, flatten, moments
from gridloom.evaluate.probe import contiguous_folds, probe
from gridloom.evaluate.readout import classify_linear, classify_neighbors, regress_linear


def classes(num_samples=300, num_classes=3, width=6, distance=4.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_samples)
    centers = distance * np.eye(num_classes, width)
    return centers[labels] + generator.normal(size=(num_samples, width)), labels


def by_group(scores, method, metric="accuracy"):
    return {s.group: s for s in scores if (s.method, s.metric) == (method, metric)}


def test_good_features_are_told_from_noise():
    values, labels = classes()
    noise = np.random.default_rng(1).normal(size=values.shape)
    scores = probe({"noise": noise, "good": values}, labels, data="toy", split="test")
    good, bad, skill = by_group(scores, "good"), by_group(scores, "noise"), by_group(scores, "good", "skill")
    assert list(good) == ["1-nn", "5-nn cosine", "linear", "10-shot linear"]
    for group in good:
        assert good[group].value > 90
        assert bad[group].value < 50
        assert good[group].low > bad[group].high
        assert skill[group].low > 0
        assert (good[group].unit, good[group].num_blocks, good[group].data) == ("%", 20, "toy")
        assert good[group].low <= good[group].value <= good[group].high


def test_string_labels_give_the_same_scores_as_numbers():
    values, labels = classes(100)
    numbers = probe({"a": values}, labels, data="toy", split="test")
    names = probe({"a": values}, np.array(["ash", "elm", "oak"])[labels], data="toy", split="test")
    assert numbers == names


def test_accuracy_agrees_with_a_slow_nearest_neighbor():
    values, labels = classes(60, distance=1.5)
    scores = by_group(probe({"a": values}, labels, data="toy", split="test", folds=4), "a")
    fold = contiguous_folds(np.arange(60) * 20 // 60, 4)
    hits = 0
    for i in range(60):
        others = [j for j in range(60) if fold[j] != fold[i]]
        hits += labels[min(others, key=lambda j: np.sum((values[i] - values[j]) ** 2))] == labels[i]
    assert scores["1-nn"].value == pytest.approx(100 * hits / 60)


def test_folds_are_contiguous_and_keep_blocks_together():
    blocks = np.repeat(np.arange(11), 7)
    folds = contiguous_folds(blocks, 4)
    assert (np.diff(folds) >= 0).all()
    assert all(len(set(folds[blocks == block])) == 1 for block in range(11))
    assert set(folds) == {0, 1, 2, 3}
    with pytest.raises(DataError, match=r"as many as there are blocks \(11\), got 12"):
        contiguous_folds(blocks, 12)


def test_a_neighbor_in_time_does_not_help_across_folds():
    generator = np.random.default_rng(2)
    labels = np.repeat(generator.integers(0, 2, 60), 10)  # runs of one class
    drift = np.arange(600.0)[:, None]  # tells the time, and nothing else
    score = by_group(probe({"drift": drift}, labels, data="toy", split="test"), "drift")["1-nn"]
    assert score.value < 70


def test_fitted_features_see_the_training_folds_only():
    seen = []

    class Spy:
        def fit(self, train):
            seen.append(train)
            return np.zeros((100, 1))

    probe({"spy": Spy()}, classes(100)[1], data="toy", split="test")
    assert [len(train) for train in seen] == [80] * 5
    np.testing.assert_array_equal(seen[0], np.arange(20, 100))


def test_pca_features_agree_with_sklearn():
    from sklearn.decomposition import PCA

    values = classes(50)[0]
    train = np.arange(30)
    expected = PCA(3).fit(values[train]).transform(values)
    np.testing.assert_allclose(np.abs(PCAFeatures(values, 3).fit(train)), np.abs(expected), atol=1e-9)
    assert PCAFeatures(values, 100).fit(train).shape == (50, 6)
    assert PCAFeatures(values, 100).fit(train[:5]).shape == (50, 4)  # a fifth direction would be rounding errors


def test_float_labels_are_regressed():
    generator = np.random.default_rng(3)
    values = generator.normal(size=(200, 5))
    labels = values @ np.arange(5.0) + 0.1 * generator.normal(size=200)
    labels = xr.DataArray(labels, dims="sample", attrs={"units": "months"})
    scores = probe({"a": values}, labels, data="toy", split="test")
    found = by_group(scores, "a", "mae")
    assert list(found) == ["1-nn", "ridge"]
    assert found["ridge"].value == pytest.approx(0.08, abs=0.03)
    assert found["1-nn"].value > 1.0
    assert found["ridge"].unit == "months"


def test_given_folds_test_what_they_name_and_average_over_repetitions():
    values, labels = classes(90, distance=1.5)
    order = np.random.default_rng(4).permutation(90)
    splits = [(order[:40], order[40:80]), (order[40:80], order[:40]), (order[10:50], order[50:80])]
    score = by_group(probe({"a": values}, labels, folds=splits, blocks=np.arange(90), data="toy", split="test"), "a")
    wrong = {}
    for train, test in splits:
        for i in test:
            nearest = min(train, key=lambda j: np.sum((values[i] - values[j]) ** 2))
            wrong.setdefault(i, []).append(labels[nearest] != labels[i])
    assert score["1-nn"].num_blocks == len(wrong) == 80  # the ten that are never tested do not count
    assert score["1-nn"].value == pytest.approx(100 - 100 * np.mean([np.mean(each) for each in wrong.values()]))


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([], "at least one fold, got none"),
        ([(np.arange(10), np.arange(9, 20))], "fold 0: expected each sample once at most"),
        ([(np.arange(10), np.arange(10, 21))], "fold 0: .* only 0 to 19"),
        ([(np.arange(10), np.arange(0))], "fold 0: expected samples to train and to test on, got 10 and 0"),
    ],
)
def test_folds_that_cannot_be_are_refused(folds, message):
    with pytest.raises(DataError, match=message):
        probe({"a": np.zeros((20, 2))}, np.arange(20) % 2, folds=folds, data="toy", split="test")


def test_labels_on_a_circle_have_no_jump():
    generator = np.random.default_rng(5)
    month = generator.uniform(0, 12, 200)
    values = np.stack([np.cos(np.pi * month / 6), np.sin(np.pi * month / 6)], axis=1)
    values += 0.02 * generator.normal(size=values.shape)

    def read(**attributes):
        labels = xr.DataArray(month, dims="sample", attrs={"units": "months", **attributes})
        return by_group(probe({"a": values}, labels, data="toy", split="test"), "a", "mae")

    circle, line = read(period=12), read()
    assert circle["ridge"].value < 0.06 and circle["1-nn"].value < 0.1
    assert line["ridge"].value > 0.5
    said = regress_linear(values[:150], month[:150], values[150:], period=12.0)
    assert (said >= 0).all() and (said < 12).all()
    assert regress_linear(values[:2], np.array([11.0, 1.0]), values[:1], period=12.0)[0] % 12 == pytest.approx(
        0, abs=1e-9
    )


def test_more_features_than_samples_read_the_same_as_without_rotation():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    values, labels = classes(40, width=100, distance=3.0)
    scaler = StandardScaler().fit(values[:30])
    model = LogisticRegression(max_iter=2000, tol=1e-6).fit(scaler.transform(values[:30]), labels[:30])
    np.testing.assert_array_equal(
        classify_linear(values[:30], labels[:30], values[30:]), model.predict(scaler.transform(values[30:]))
    )


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_no_warning_leaks_from_badly_scaled_or_constant_features(scale):
    values, labels = classes(80)
    values = np.concatenate([values * scale, np.full((80, 2), 7.0)], axis=1)
    scores = by_group(probe({"a": values}, labels, data="toy", split="test"), "a")
    assert scores["linear"].value > 85


def test_five_voters_decide_by_majority_and_break_ties_by_rank():
    train = np.array([[1.0, 0.0], [1.0, 0.01], [1.0, 0.02], [1.0, 0.03], [1.0, 0.04]])
    test = np.array([[1.0, -0.01]])
    assert classify_neighbors(train, np.array([0, 0, 1, 1, 1]), test, k=5, metric="cosine")[0] == 1
    assert classify_neighbors(train, np.array([1, 0, 0, 1, 2]), test, k=5, metric="cosine")[0] in (0, 1)
    assert classify_neighbors(train, np.array([1, 1, 0, 0, 2]), test, k=5, metric="cosine")[0] == 1


def test_ridge_answers_the_mean_where_nothing_can_be_learned():
    noise = np.random.default_rng(4).normal(size=(60, 20))
    labels = np.random.default_rng(5).normal(size=60) + 9.0
    np.testing.assert_allclose(regress_linear(noise, labels, noise[:5] * 0), labels.mean(), atol=0.3)


def test_a_class_known_to_one_fold_only_is_warned_of():
    values, labels = classes(100)
    with pytest.warns(UserWarning, match="20 of 100 samples have a class that occurs in their fold only"):
        scores = probe({"a": values}, np.where(np.arange(100) < 20, 9, labels), data="toy", split="test")
    assert by_group(scores, "a")["1-nn"].value <= 80


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        ({}, np.zeros(20, dtype=int), "at least one kind"),
        ({"a": np.zeros((19, 2))}, np.zeros(20, dtype=int), "expected 20 rows of features"),
        ({"a": np.full((20, 2), np.nan)}, np.zeros(20, dtype=int), "expected finite numbers"),
        ({"a": np.zeros((20, 2))}, np.full(20, np.nan), "20 labels are not finite"),
    ],
)
def test_what_cannot_be_probed_is_refused(features, labels, message):
    with pytest.raises(DataError, match=message):
        probe(features, labels, data="toy", split="test")


def test_moments_equal_a_slow_reference():
    generator = np.random.default_rng(6)
    fields = generator.normal(size=(2, 2, 5, 6))
    valid = generator.random(fields.shape) < 0.7
    found = moments(fields, valid).reshape(2, 2, 4)
    for n, c in np.ndindex(2, 2):
        field, known = fields[n, c], valid[n, c]
        dx = [abs(field[y, x + 1] - field[y, x]) for y in range(5) for x in range(5) if known[y, x] and known[y, x + 1]]
        dy = [abs(field[y + 1, x] - field[y, x]) for y in range(4) for x in range(6) if known[y, x] and known[y + 1, x]]
        np.testing.assert_allclose(found[n, c], [field[known].mean(), field[known].std(), np.mean(dx), np.mean(dy)])


def test_moments_of_nothing_are_zero_and_hidden_values_do_not_count():
    fields = np.full((2, 1, 4, 4), np.nan)
    fields[1] = 3.0
    np.testing.assert_array_equal(moments(fields), [[0, 0, 0, 0], [3, 0, 0, 0]])
    other = np.where(np.eye(4, dtype=bool), 1e9, 3.0)[None, None]
    np.testing.assert_array_equal(moments(other, ~np.eye(4, dtype=bool)[None, None])[0], [3, 0, 0, 0])


def test_flatten_fills_missing_cells_with_their_mean():
    fields = np.array([[[1.0, np.nan]], [[3.0, np.nan]], [[np.nan, np.nan]]])
    np.testing.assert_array_equal(flatten(fields), [[1, 0], [3, 0], [2, 0]])
