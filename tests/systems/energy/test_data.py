"""Examples: where squares lie, what parts share, what keys decide, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from gridloom.core.errors import ConfigError, DataError, GridloomError, UnknownNameError
from gridloom.grid.normalize import Normalizer
from gridloom.grid.write import save_grid
from gridloom.systems.energy.config import (
    PRESETS,
    DataConfig,
    EnergyConfig,
    LossConfig,
    ModelConfig,
    SearchConfig,
)
from gridloom.systems.energy.data import from_unit, prepare, resolve, to_unit
from gridloom.systems.energy.generate import generate

SMALL = DataConfig(size=(20, 26), square=5, num_train=30, num_validation=30, num_test=60)


def squares_in(image: np.ndarray, edge: int) -> list[tuple[int, int]]:
    """Centers of whole green squares, looked for cell by cell."""
    dark = (image[0] == 0) & (image[1] == 255) & (image[2] == 0)
    half = edge // 2
    found = [
        (row, column)
        for row in range(half, dark.shape[0] - half)
        for column in range(half, dark.shape[1] - half)
        if dark[row - half : row + half + 1, column - half : column + half + 1].all()
    ]
    assert dark.sum() == edge**2 * len(found), "something else is dark"
    return found


def field_file(folder: Path, *, missing: float = 0.0) -> str:
    """A map of 40 x 160 cells that is rough everywhere."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 160)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    coords = {"latitude": np.linspace(10, 20, 40), "longitude": np.linspace(30, 70, 160)}
    save_grid(xr.Dataset({"height": (("latitude", "longitude"), values)}, coords=coords), folder / "map.nc")
    return str(folder / "map.nc")


def examples_file(folder: Path, *, count: int = 40, outputs: int = 6, **changes: Any) -> str:
    rng = np.random.default_rng(1)
    variables = {
        "image": (("sample", "channel", "y", "x"), rng.normal(size=(count, 2, 12, 10)).astype(np.float32)),
        "position": (("sample", "coordinate"), rng.uniform(-5, 5, (count, outputs))),
    }
    save_grid(xr.Dataset({**variables, **changes}), folder / "own.nc", replace=True)
    return str(folder / "own.nc")


def many(path: str, **changes: Any) -> EnergyConfig:
    """Six coordinates, one after another."""
    return EnergyConfig(
        data=DataConfig(task="examples", path=path, **changes),
        model=ModelConfig(kind="autoregressive"),
        search=SearchConfig(optimizer="autoregressive"),
    )


# --- generated ---


@pytest.mark.parametrize("placement", ["uniform", "clipped"])
def test_squares_are_where_the_answers_say(placement: Any) -> None:
    made = generate(replace(SMALL, placement=placement), 60, seed=0, part="train")
    assert made.images.shape == (60, 3, 20, 26) and made.answers.shape == (60, 1, 2)
    for image, answer in zip(made.images, made.answers, strict=True):
        assert squares_in(image, 5) == [tuple(answer[0].astype(int))]


def test_uniform_placement_takes_each_place_alike_and_clipped_prefers_the_border() -> None:
    count, config = 4000, replace(SMALL, size=(9, 9))
    for placement, border in (("uniform", 1 / 5), ("clipped", 3 / 9)):
        answers = generate(replace(config, placement=placement), count, seed=0, part="test").answers[:, 0]
        for axis in range(2):
            shares = np.bincount(answers[:, axis].astype(int), minlength=9) / count
            assert shares[:2].sum() == shares[7:].sum() == 0
            assert shares[[2, 6]] == pytest.approx([border] * 2, abs=0.03)


def test_two_squares_do_not_touch_and_both_are_answers() -> None:
    made = generate(replace(SMALL, task="two_dots"), 200, seed=0, part="train")
    assert made.answers.shape == (200, 2, 2)
    for image, answers in zip(made.images, made.answers, strict=True):
        assert set(squares_in(image, 5)) == {tuple(answer.astype(int)) for answer in answers}
        assert np.abs(answers[0] - answers[1]).max() >= 7.5
    assert 60 < made.chosen.sum() < 140
    with pytest.raises(DataError, match=r"data\.size \(9, 9\) is too small for two squares of data\.square 5"):
        generate(replace(SMALL, task="two_dots", size=(9, 9)), 20, seed=0, part="train")


@pytest.mark.parametrize("task", ["dot", "two_dots", "signal", "branches"])
def test_parts_are_independent_and_the_test_part_is_the_same_for_any_training_part(task: Any) -> None:
    config = replace(SMALL, task=task)
    parts = {part: generate(config, 30, seed=0, part=part) for part in ("train", "validation", "test")}
    other_seed = generate(config, 30, seed=1, part="train")
    for other in (parts["validation"], parts["test"], other_seed):
        assert (parts["train"].answers == other.answers).all(axis=(1, 2)).mean() < 0.2
        assert not np.array_equal(np.sort(parts["train"].answers, 0), np.sort(other.answers, 0))
    few, more = (
        prepare(resolve(EnergyConfig(data=replace(config, num_train=count)))).sources["test"] for count in (5, 30)
    )
    ours, theirs = few.collate([0, 7, 29], 0), more.collate([0, 7, 29], 0)
    assert all(torch.equal(ours.fields[name].values, theirs.fields[name].values) for name in ours.fields)


def test_signals_say_what_they_are_asked() -> None:
    bumps = generate(DataConfig(task="signal"), 200, seed=0, part="train")
    found = np.linspace(-1, 1, 100)[bumps.images.argmax(axis=1)]
    assert np.abs(found - bumps.answers[:, 0, 0]).mean() < 0.03
    levels = generate(DataConfig(task="branches"), 200, seed=0, part="train")
    assert np.abs(levels.images.mean(axis=1) - levels.answers[:, 0, 0] ** 2).max() < 0.03
    assert np.array_equal(levels.answers[:, 0], -levels.answers[:, 1]) and (levels.answers[:, 0] >= 0).all()


# --- batches ---


def test_a_batch_has_the_image_in_units_and_the_answers_between_minus_one_and_one() -> None:
    config = resolve(EnergyConfig(data=replace(SMALL, task="two_dots")))
    source = prepare(config).sources["train"]
    batch, examples = source.collate([4, 1], 3), source.examples
    assert torch.equal(batch.fields["image"].values, torch.from_numpy(examples.images[[4, 1]]) / 255)
    by_hand = 2 * examples.answers[[4, 1]] / np.array([19.0, 25.0]) - 1
    assert np.abs(batch.fields["answers"].values.numpy() - by_hand).max() < 1e-6
    chosen = by_hand[np.arange(2), examples.chosen[[4, 1]]]
    assert np.abs(batch.fields["target"].values.numpy() - chosen).max() < 1e-6
    assert batch.window.tolist() == [4, 1]
    assert (
        np.abs(from_unit(to_unit(examples.answers, config.data.bounds), config.data.bounds) - examples.answers).max()
        < 1e-5
    )


def test_centered_images_lose_the_training_part_s_mean() -> None:
    prepared = prepare(resolve(EnergyConfig(data=replace(SMALL, normalize="centered"))))
    train = prepared.sources["train"].collate(list(range(30)), 0).fields["image"].values
    assert train.double().mean((0, 2, 3)).abs().max() < 1e-6
    test = prepared.sources["test"]
    mean = prepared.sources["train"].examples.images.astype(np.float64).mean((0, 2, 3))[:, None, None]
    expected = (test.examples.images[:4] - mean) / 255
    assert np.abs(test.collate([0, 1, 2, 3], 0).fields["image"].values.numpy() - expected).max() < 1e-6


def noisy(**changes: Any) -> EnergyConfig:
    data = replace(SMALL, **{"noise": 0.5, "missing": 0.3, **changes})
    return resolve(EnergyConfig(data=data, model=ModelConfig(mask_missing=True)))


def test_noise_and_hidden_cells_belong_to_the_sample_and_the_epoch() -> None:
    source = prepare(noisy()).sources["train"]
    image = source.collate([3, 5, 8], 0).fields["image"]
    alone = source.collate([5], 0).fields["image"]
    later = source.collate([3, 5, 8], 1).fields["image"]
    assert torch.equal(image.values[1:2], alone.values) and torch.equal(image.valid[1:2], alone.valid)
    assert not torch.equal(image.values, later.values) and not torch.equal(image.valid, later.valid)
    assert (image.values[~image.valid] == 0).all()
    assert 1 - image.valid.double().mean() == pytest.approx(0.3, abs=0.03)
    clean = prepare(noisy(noise=0.0, missing=0.0)).sources["train"].collate([3, 5, 8], 0).fields["image"]
    for shown, true, known in zip(image.values, clean.values, image.valid, strict=True):
        assert (shown - true)[known].std().item() == pytest.approx(0.5 * true.std(correction=0).item(), rel=0.1)


def test_history_and_question_are_seen_through_the_same_noise_and_holes() -> None:
    config = noisy()
    prepared = prepare(config)
    task, again = prepared.task("test"), prepare(config).task("test")
    assert task.given.identical(again.given) and set(task.given) == {"image"}
    field = prepared.sources["test"].collate(list(range(60)), 0).fields["image"]
    assert np.array_equal(np.isnan(task.given["image"].values), ~field.valid.numpy())
    normalizer = Normalizer.from_json(prepared.normalizer)
    shown = normalizer.apply("green", task.given["image"].values[:, 1])
    assert np.allclose(np.nan_to_num(shown), field.values[:, 1], atol=1e-5)
    assert np.array_equal(task.truth["position"].values, prepared.sources["test"].examples.answers[:, 0])
    assert task.truth["position"].attrs["units"] == "cell" and prepared.history.sizes["sample"] == 30


# --- fields ---


@pytest.mark.parametrize(("find", "best"), [("highest", np.nanargmax), ("lowest", np.nanargmin)])
def test_the_answer_in_a_field_is_its_extreme_cell(tmp_path: Path, find: Any, best: Callable[..., int]) -> None:
    data = DataConfig(task="extreme", path=field_file(tmp_path, missing=0.2), size=(16, 16), stride=(4, 4), find=find)
    config = resolve(EnergyConfig(data=data, model=ModelConfig(mask_missing=True)))
    assert config.model.channels == ("height",) and config.data.bounds == ((0.0, 15.0),) * 2
    prepared = prepare(config)
    ends = []
    for part in ("train", "validation", "test"):
        source = prepared.sources[part]
        assert len(source) > 0
        for image, answer in zip(source.examples.images, source.examples.answers, strict=True):
            cell = np.unravel_index(best(image[0]), (16, 16))
            assert tuple(answer[0]) == cell and all(2 <= place < 14 for place in cell)
        centers = np.sort(source.examples.places["longitude"])
        ends.append((centers[0], centers[-1]))
    width = 16 * 40 / 159
    assert all(early[1] + width < late[0] for early, late in pairwise(ends)), "windows overlap"


def test_a_field_with_holes_needs_a_network_that_is_told(tmp_path: Path) -> None:
    data = DataConfig(task="extreme", path=field_file(tmp_path, missing=0.2), size=(16, 16))
    with pytest.raises(ConfigError, match=r"images have missing cells; .*set --model\.mask-missing"):
        prepare(resolve(EnergyConfig(data=data)))


def test_a_field_is_searched_in_one_variable(tmp_path: Path) -> None:
    data = DataConfig(task="extreme", path=field_file(tmp_path), variables=("height", "depth"))
    with pytest.raises(DataError, match="searches one variable, got height, depth; choose one"):
        resolve(EnergyConfig(data=data))
    with pytest.raises(DataError, match="no data: give a file"):
        resolve(EnergyConfig(data=DataConfig(task="extreme")))


# --- own examples ---


def test_own_examples_are_split_in_order_with_bounds_of_the_training_part(tmp_path: Path) -> None:
    path = examples_file(tmp_path)
    raw = xr.load_dataset(path)
    config = resolve(many(path))
    assert resolve(config) == config and config.data.size == (12, 10) and len(config.model.channels) == 2
    assert config.data.coordinates == tuple(f"y{i}" for i in range(6))
    prepared = prepare(config)
    assert prepared.splits["parts"] == {"train": [0, 28], "validation": [28, 34], "test": [34, 40]}
    seen = raw["position"].values[:28]
    reach = 0.05 * (seen.max(0) - seen.min(0))
    low, high = np.array(config.data.bounds).T
    assert np.allclose(low, seen.min(0) - reach) and np.allclose(high, seen.max(0) + reach)
    target = prepared.sources["test"].collate([0, 5], 0).fields["target"].values.numpy()
    assert np.allclose(from_unit(target, config.data.bounds), raw["position"].values[[34, 39]], atol=1e-5)
    train = raw["image"].values[:28].astype(np.float64)
    image = prepared.sources["test"].collate([0], 0).fields["image"].values[0].numpy()
    expected = (raw["image"].values[34] - train.mean((0, 2, 3))[:, None, None]) / train.std((0, 2, 3))[:, None, None]
    assert np.abs(image - expected).max() < 1e-5
    assert prepared.task("test").truth["position"].attrs["units"] == "1"


def test_own_bounds_and_names_are_kept(tmp_path: Path) -> None:
    bounds, names = tuple((-9.0, 9.0 + i) for i in range(6)), tuple("abcdef")
    config = resolve(many(examples_file(tmp_path), bounds=bounds, coordinates=names))
    assert config.data.bounds == bounds and config.data.coordinates == names
    image = ("sample", "y", "x"), np.zeros((40, 12, 10), np.float32)
    gray = resolve(EnergyConfig(data=DataConfig(task="examples", path=examples_file(tmp_path, outputs=2, image=image))))
    assert gray.data.bounds == ((0.0, 11.0), (0.0, 9.0)) and gray.data.coordinates == ("row", "column")
    assert gray.model.channels == ("channel_0",)


WRONG: list[tuple[dict[str, Any], type[GridloomError], str]] = [
    ({"count": 4}, DataError, "4 examples are too few to split"),
    ({"position": (("sample",), np.zeros(40))}, DataError, r"expected image \(sample, channel, y, x\) and position"),
    ({"position": (("other", "coordinate"), np.zeros((7, 6)))}, DataError, "of as many samples, got"),
    ({"position": (("sample", "coordinate"), np.full((40, 6), np.nan))}, GridloomError, "not finite|low < high"),
    ({"image": (("sample", "y", "x"), np.full((40, 3, 3), np.nan))}, ConfigError, "missing cells"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG)
@pytest.mark.filterwarnings("ignore:.*(All-NaN|Mean of empty|Degrees of freedom).*:RuntimeWarning")
def test_files_that_are_no_examples_are_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], error: type[GridloomError], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        prepare(resolve(many(examples_file(tmp_path, **change))))
    assert "\n" not in str(raised.value)


def test_a_file_without_positions_names_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'image'"):
        resolve(many(field_file(tmp_path)))
    with pytest.raises(DataError, match="needs images with positions"):
        resolve(many(""))


@pytest.mark.parametrize(
    "changes",
    [
        {"bounds": ((0.0, 1.0),)},
        {"bounds": ((0.0, 1.0),) * 7},
        {"coordinates": ("a", "b")},
        {"bounds": ((0.0, 1.0),) * 2, "coordinates": ("a", "b")},
    ],
)
def test_bounds_and_names_that_are_not_as_many_as_the_answers_are_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"data\.coordinates"):
        resolve(many(examples_file(tmp_path), **changes))
    if "bounds" in changes and len(changes["bounds"]) != 2:
        with pytest.raises(ConfigError, match=r"data\.coordinates and data\.bounds must be as many"):
            resolve(EnergyConfig(data=replace(SMALL, **changes)))


def test_more_coordinates_than_a_pattern_copes_with_are_refused_before_training(tmp_path: Path) -> None:
    data = DataConfig(task="examples", path=examples_file(tmp_path))
    with pytest.raises(ConfigError, match=r"pattern does not search 6 coordinates; use --search\.optimizer"):
        resolve(EnergyConfig(data=data))
    assert resolve(EnergyConfig(data=data, model=ModelConfig(kind="explicit"))).data.size == (12, 10)


# --- configuration ---


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: DataConfig(num_train=0), r"data\.num_train must be at least 1, got 0"),
    (lambda: DataConfig(path="x.nc").check_path(), r"data\.task dot makes its own data, it does not take 'x\.nc'"),
    (lambda: DataConfig(square=4), r"data\.square must be odd and fit into \(96, 96\), got 4"),
    (lambda: DataConfig(square=13, size=(11, 20)), r"data\.square must be odd and fit"),
    (lambda: DataConfig(noise=-0.1), r"data\.noise must be 0 or more"),
    (lambda: DataConfig(missing=1.0), r"data\.missing in \[0, 1\)"),
    (lambda: DataConfig(bounds=((1.0, 1.0),)), r"data\.bounds must be pairs \(low, high\)"),
    (lambda: ModelConfig(widths=()), r"model\.widths, keypoints, hidden and depth must be at least 1"),
    (lambda: ModelConfig(keypoints=0), r"model\.widths, keypoints"),
    (lambda: LossConfig(num_negatives=1), r"loss\.num_negatives must be at least 2"),
    (lambda: LossConfig(near_scales=(0.1, 0.0)), r"loss\.near_scales above 0"),
    (lambda: LossConfig(gradient_penalty=-1.0), r"loss\.gradient_penalty and loss\.langevin_negatives"),
    (lambda: LossConfig(langevin_negatives=-1), r"loss\.langevin_negatives must be 0 or more"),
    (lambda: SearchConfig(num_samples=0), r"search\.num_samples must be at least 1"),
    (lambda: SearchConfig(iterations=-1), r"iterations, noise_scale and noise_shrink 0 or more"),
    (
        lambda: EnergyConfig(data=DataConfig(task="signal"), model=ModelConfig(fusion="relative")),
        r"model\.fusion relative compares keypoints with coordinates",
    ),
    (lambda: EnergyConfig(data=DataConfig(missing=0.1)), r"set --model\.mask-missing"),
    (lambda: EnergyConfig(model=ModelConfig(kind="autoregressive")), r"go together, got pattern and autoregressive"),
    (lambda: EnergyConfig(seed=-1), "seed must be between"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_settings_that_make_no_sense_are_refused_in_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_resolve_once(name: str, tmp_path: Path) -> None:
    config = PRESETS[name]()
    if config.data.task == "examples" and not config.data.path:
        config = replace(config, data=replace(config.data, path=examples_file(tmp_path, outputs=2)))
    config = resolve(config)
    assert resolve(config) == config and len(config.data.bounds) == len(config.data.coordinates)
