"""From a dataset to a record, from a record to windows: what may be beside what."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.grid.events import pixels as pixels_of_counts
from gridloom.systems.heatmap import source
from gridloom.systems.heatmap.config import MemoryConfig
from gridloom.systems.heatmap.data import encode_source, forecast_task, open_record, prepare, resolve, split_record
from gridloom.systems.heatmap.memory import FrameMemory
from gridloom.systems.heatmap.record import Record, coarsen, read_record, session_starts
from gridloom.systems.heatmap.source import FrameSource, JoinedSource, cut_record, live_cells, remember
from tests.systems.heatmap.small import CAP, MEMORY, SIZE, config, frames_dataset, record, save

REMEMBERS = {"residual": "slot_mean", "memory": MEMORY}


def windows(found: Record, bounds: tuple[int, int], length: int = 4, stride: int = 1, **changes: bool) -> np.ndarray:
    return cut_record(found, bounds, length=length, stride=stride, **{"within_session": True, **changes})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(frames_dataset(sessions=20, series=2, halted=0.1), tmp_path_factory.mktemp("frames"))


# The record.


def test_a_record_is_what_the_rasterizer_wrote() -> None:
    dataset = frames_dataset(series=2, halted=0.2)
    found = read_record(dataset)
    assert found.num_series == 2 and len(found) == 72 and found.series == ("600000", "600001")
    assert found.count_cap == CAP and found.num_slots == 6 and found.frames.dtype == np.uint8
    np.testing.assert_array_equal(found.frames, dataset["counts"])
    np.testing.assert_array_equal(found.pixels(1, slice(3, 5)), pixels_of_counts(dataset["counts"].values[1, 3:5], CAP))
    again = read_record(found.dataset())
    assert again.count_cap == 0 and again.series == found.series
    np.testing.assert_array_equal(again.valid, found.valid)
    np.testing.assert_array_equal(again.pixels(), found.pixels())
    np.testing.assert_array_equal(again.slot, found.slot)


def test_the_order_of_dimensions_does_not_matter() -> None:
    dataset = frames_dataset(series=2, halted=0.2)
    turned = read_record(dataset.transpose("x", "channel", "time", "y", "series"))
    np.testing.assert_array_equal(turned.frames, read_record(dataset).frames)
    np.testing.assert_array_equal(turned.valid, read_record(dataset).valid)


def test_series_without_names_are_numbered_and_all_there() -> None:
    found = read_record(frames_dataset(series=3).drop_vars("series"))
    assert found.series == ("0", "1", "2")
    assert found.dataset()["frames"].sizes["series"] == 3


def test_what_a_slot_holds_that_did_not_happen_is_nothing() -> None:
    dataset = frames_dataset(halted=0.4)
    spoiled = dataset.assign(counts=dataset["counts"].where(dataset["valid"], 9).astype(np.uint8))
    np.testing.assert_array_equal(read_record(spoiled).frames, read_record(dataset).frames)


@pytest.mark.parametrize(
    ("dtype", "cap", "kept"),
    [("int8", 128, "uint8"), ("uint8", 300, "uint16"), ("uint16", 300, "uint16"), ("int64", 70_000, "uint32")],
)
def test_counts_of_any_type_are_clipped_at_their_cap(dtype: str, cap: int, kept: str) -> None:
    largest = np.iinfo(dtype).max
    counts = np.array([0, 1, 100, largest], dtype=dtype).reshape(1, 1, 2, 2)
    found = read_record(xr.Dataset({"counts": (("time", "channel", "y", "x"), counts, {"count_cap": cap})}))
    assert found.frames.dtype == kept
    assert found.frames.ravel().tolist() == [0, 1, 100, min(cap, largest)]


def test_an_array_without_coordinates_is_one_session() -> None:
    array = xr.Dataset({"any": (("time", "channel", "y", "x"), np.zeros((7, 2, 8, 8), dtype=np.float32))})
    found = read_record(array)
    assert found.num_slots == 1 and not found.slot.any() and not found.session.any() and found.valid.all()
    assert read_record(array.assign_attrs(num_slots=3)).slot.tolist() == [0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(DataError, match="slot is missing: the model knows 3 slots"):
        read_record(array, num_slots=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": (("time", "channel", "y"), np.zeros((72, 2, 8)))}, r"input must be \(B,T,C,H,W\): expected counts"),
        ({"counts": (("time", "channel", "y", "x"), np.full((72, 2, 8, 8), -1))}, "counts must be 0 or more, got -1"),
        ({"counts": (("time", "channel", "y", "x"), np.full((72, 2, 8, 8), 1.5))}, r"must lie in \[0, 1\], got 1.5"),
        ({"slot": ("time", np.arange(72.0))}, "slot must be whole numbers"),
        ({"slot": ("time", np.arange(72))}, r"slot_id out of range: expected 0 to 5, got 0 to 71"),
        (
            {"counts": (("time", "channel", "y", "x"), np.ones((72, 2, 8, 8), np.uint8), {"count_cap": 0})},
            "count_cap must be 1 or more, got 0",
        ),
    ],
)
def test_what_are_no_frames_is_said(change: dict, message: str) -> None:
    dataset = frames_dataset()
    changed = dataset.assign_coords(change) if "slot" in change else dataset.drop_vars("counts").assign(change)
    with pytest.raises(DataError, match=message) as caught:
        read_record(changed)
    assert "\n" not in str(caught.value)


def test_data_that_nobody_named_are_asked_for() -> None:
    with pytest.raises(DataError, match="no data: give frames"):
        open_record("")


# Windows.


@pytest.mark.parametrize("bounds", [(0, 72), (11, 47), (30, 37)])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_windows_never_straddle_sessions(bounds: tuple[int, int], stride: int) -> None:
    found = record()
    starts = windows(found, bounds, stride=stride)
    assert len(starts)
    for _, start in starts:
        assert len(set(found.session[start : start + 4])) == 1
        assert bounds[0] <= start + 1 and start + 4 <= bounds[1], "all frames to predict lie in the stretch"


def test_where_time_goes_on_windows_do_straddle_sessions() -> None:
    found = record()
    starts = windows(found, (12, 30), within_session=False)
    assert starts[:, 1].tolist() == list(range(11, 27))


def test_the_last_window_ends_with_its_stretch() -> None:
    starts = windows(record(), (0, 72), length=5, stride=4)
    assert starts[:, 1].tolist() == [place for first in range(0, 72, 6) for place in (first, first + 1)]


def test_every_frame_but_the_first_of_a_session_is_predicted() -> None:
    found = record()
    starts = windows(found, (0, 72), length=3, stride=2)[:, 1]
    predicted = {int(start) + step for start in starts for step in (1, 2)}
    assert predicted == set(range(72)) - set(range(0, 72, 6))


def test_windows_in_which_nothing_happened_are_left_out() -> None:
    dataset = frames_dataset(series=2)
    valid = dataset["valid"].values.copy()
    valid[1] = False
    valid[1, 10] = True
    found = read_record(dataset.assign(valid=(("series", "time"), valid)))
    starts = windows(found, (0, 72))
    assert starts[starts[:, 0] == 1, 1].tolist() == [7, 8]  # frame 10 is predicted, not the first; slots 6 to 11
    assert (starts[:, 0] == 0).sum() == 12 * 3


def test_a_window_that_fits_nowhere_says_why() -> None:
    with pytest.raises(DataError, match=r"no window of 7 frames fits into 0 to 72 \(the longest session has 6 there\)"):
        windows(record(), (0, 72), length=7)
    empty = frames_dataset()
    empty["valid"][:] = False
    with pytest.raises(DataError, match="or nothing happened in any; use a smaller"):
        windows(read_record(empty), (0, 72))


def test_a_batch_holds_its_windows() -> None:
    found, whole = record(series=2, halted=0.2), config(model=REMEMBERS)
    remembered = remember(found, whole, np.arange(SIZE * SIZE), len(found))
    starts = windows(found, (0, 72))
    made = FrameSource(found, starts, 4, seed=3, remembered=remembered)
    batch = made.collate([5, len(made) - 1, 0], 2)
    for place, number in enumerate((5, len(made) - 1, 0)):
        series, start = starts[number]
        chosen = slice(start, start + 4)
        np.testing.assert_array_equal(batch.fields["frames"].values[place], found.pixels(int(series), chosen))
        np.testing.assert_array_equal(batch.fields["frames"].valid[place].ravel(), found.valid[series, chosen])
        np.testing.assert_array_equal(batch.features["slot"][place], found.slot[chosen])
        known = remembered.values[series, start + 1 : start + 4]
        np.testing.assert_array_equal(batch.features["remembered"][place], known)
    assert batch.window.tolist() == [5, len(made) - 1, 0]
    again = made.collate([0], 2)
    assert torch.equal(again.key, batch.key[2:]) and not torch.equal(made.collate([0], 3).key, again.key)
    where = made.coordinates([0, len(made) - 1])
    assert where["series"].tolist() == ["600000", "600001"]
    assert where["slot"].tolist() == found.slot[starts[[0, -1], 1] + 3].tolist()


# What is remembered.


def walk(found: Record, restart: bool) -> np.ndarray:
    """The memory's features before every frame."""
    whole = config(model=REMEMBERS)
    memory = FrameMemory(whole.model, batch=found.num_series, num_cells=SIZE * SIZE, restart=restart)
    answers = []
    for time in range(len(found)):
        slot, session = (torch.full((found.num_series,), int(v[time])) for v in (found.slot, found.session))
        answers.append(memory.features(slot, session).numpy())
        frame = torch.from_numpy(found.pixels(time=time)).flatten(-2)
        memory.update(frame, slot, session, torch.from_numpy(found.valid[:, time]))
    return np.stack(answers, axis=1)


@pytest.mark.parametrize("within_session", [True, False])
def test_what_is_remembered_before_a_frame_is_that_of_the_frames_before_it(within_session: bool) -> None:
    found = record(series=2, halted=0.2)
    whole = config(model=REMEMBERS, data={"within_session": within_session})
    remembered = remember(found, whole, np.arange(SIZE * SIZE), 40)
    np.testing.assert_array_equal(remembered.values, walk(found, within_session))
    assert found.valid[:, 31].any()
    later = replace(found, frames=np.concatenate([found.frames[:, :31], 15 - found.frames[:, 31:]], axis=1))
    other = remember(later, whole, np.arange(SIZE * SIZE), 40)
    np.testing.assert_array_equal(other.values[:, :32], remembered.values[:, :32])
    assert not np.array_equal(other.values[:, 32], remembered.values[:, 32])


def test_the_prior_is_made_of_the_training_part_alone() -> None:
    found, cells = record(), np.arange(SIZE * SIZE)
    whole = config(model=REMEMBERS)
    prior = remember(found, whole, cells, 40).prior
    changed = replace(found, frames=np.concatenate([found.frames[:, :40], 15 - found.frames[:, 40:]], axis=1))
    assert torch.equal(remember(changed, whole, cells, 40).prior, prior)
    assert not torch.equal(remember(found, whole, cells, 41).prior, prior)
    assert torch.equal(remember(found, whole, cells, 72).prior, remember(found, whole, cells, 100).prior)


def test_above_the_limit_it_lies_on_disk_with_equal_values(monkeypatch: pytest.MonkeyPatch) -> None:
    found, cells, whole = record(), np.arange(SIZE * SIZE), config(model=REMEMBERS)
    inside = remember(found, whole, cells, 40)
    assert not isinstance(inside.values, np.memmap)
    size = inside.values.nbytes
    monkeypatch.setattr(source, "_IN_MEMORY_BYTES", size)
    assert not isinstance(remember(found, whole, cells, 40).values, np.memmap)
    monkeypatch.setattr(source, "_IN_MEMORY_BYTES", size - 1)
    outside = remember(found, whole, cells, 40)
    assert isinstance(outside.values, np.memmap) and outside.values.filename is not None
    file = Path(outside.values.filename)
    assert file.is_file()
    np.testing.assert_array_equal(outside.values, inside.values)
    made = [FrameSource(found, windows(found, (0, 72)), 4, seed=0, remembered=one) for one in (inside, outside)]
    first, second = (one.collate([3, 7], 0).features["remembered"] for one in made)
    assert torch.equal(first, second)
    del made, outside, second
    assert not file.exists(), "the scratch file goes with what it is for"


def test_cells_without_any_event_in_training_are_left_out(tmp_path: Path) -> None:
    dataset = frames_dataset()
    counts = dataset["counts"].values.copy()
    counts[:, :, 2] = 0
    counts[:43, :, 3, 4] = 0  # seen after the training part only
    made = save(dataset.assign(counts=dataset["counts"].copy(data=counts)), tmp_path)
    memory = replace(MEMORY, cells="seen")
    whole = resolve(config(made, model={**REMEMBERS, "memory": memory}))
    stop = split_record(open_record(made), whole).parts["train"][1]
    assert stop == 42
    cells = live_cells(open_record(made), stop)
    assert whole.model.num_cells == len(cells) < 64 - 8
    assert 3 * SIZE + 4 not in cells and not set(range(16, 24)) & set(cells.tolist())
    batch = prepare(whole).sources["train"].collate([0], 0)
    assert batch.features["remembered"].shape[-1] == len(cells)


# Parts.


def test_parts_do_not_overlap_in_what_is_predicted(path: str) -> None:
    for within in (True, False):
        whole = resolve(config(path, data={"within_session": within}))
        prepared, found = prepare(whole), open_record(path)
        targets = {}
        for part, made in prepared.sources.items():
            assert isinstance(made, FrameSource)
            targets[part] = {(int(s), int(t) + k) for s, t in made.starts for k in range(1, made.length)}
        for first, second in itertools.combinations(targets.values(), 2):
            assert first and second and not first & second
        assert max(t for _, t in targets["train"]) < min(t for _, t in targets["validation"])
        assert max(t for _, t in targets["validation"]) < min(t for _, t in targets["test"])
        stop = split_record(found, whole).parts["train"][1]
        assert prepared.history.sizes["time"] == stop == max(t for _, t in targets["train"]) + 1


def test_borders_lie_at_sessions_where_there_are_many() -> None:
    found = record(sessions=20)
    parts = split_record(found, config(data={"fractions": (0.64, 0.12, 0.24)})).parts
    starts = set(session_starts(found.session).tolist())
    assert parts["train"][0] == 0 and parts["test"][1] == 120
    assert {parts["validation"][0], parts["test"][0]} <= starts
    assert parts["validation"][0] == 78 and parts["test"][0] == 90  # 76 and 91, to the nearest
    few = split_record(record(sessions=3), config(data={"fractions": (0.64, 0.12, 0.24)})).parts
    assert [few["validation"][0], few["test"][0]] == [11, 13]


def test_too_few_frames_for_three_parts_are_refused() -> None:
    with pytest.raises(DataError, match="1 frames are too few for three parts"):
        split_record(record(sessions=1, slots=1), config())


def test_the_data_say_the_sizes(path: str) -> None:
    whole = resolve(config(path, model={"num_slots": 99, "channels": 7}))
    assert (whole.model.channels, whole.model.height, whole.model.width, whole.model.num_slots) == (2, SIZE, SIZE, 6)
    assert (whole.model.count_cap, whole.model.count_scale) == (CAP, "log1p")
    assert resolve(whole) == whole


AVERAGES = {"residual": "ema", "memory": MemoryConfig(averages=(0.3,), lags=(1,))}


def test_coarser_clocks_and_means_of_slots_do_not_go_together(path: str) -> None:
    with pytest.raises(ConfigError, match="takes slots together"):
        config(path, data={"coarsen": (1, 2), "window": 3}, model=REMEMBERS)


def test_coarser_clocks_are_trained_on_beside_the_record(path: str) -> None:
    whole = resolve(config(path, data={"coarsen": (1, 2), "window": 3}, model=AVERAGES))
    made, plain = (
        prepare(one).sources["train"] for one in (whole, replace(whole, data=replace(whole.data, coarsen=(1,))))
    )
    assert isinstance(made, JoinedSource) and isinstance(plain, FrameSource)
    assert len(made) == len(plain) + len(made.parts[1])
    numbers = [len(plain), 2, len(plain) + 1]
    batch, first = made.collate(numbers, 0), plain.collate([2], 0)
    assert torch.equal(batch.fields["frames"].values[1:2], first.fields["frames"].values)
    assert torch.equal(batch.features["remembered"][1:2], first.features["remembered"])
    coarse = made.parts[1].record
    assert torch.equal(batch.fields["frames"].values[0], torch.from_numpy(coarse.pixels(0, slice(0, 3))))
    assert len(set(made.collate(range(len(made)), 0).key.tolist())) == len(made)
    assert {len(values) for values in made.coordinates(numbers).values()} == {3}


def test_a_coarser_record_adds_counts_up_within_sessions() -> None:
    found = record(sessions=4, slots=5, series=2, halted=0.1)
    coarse = coarsen(found, 15, 2)
    assert coarse.slot.tolist() == [0, 2] * 3 and coarse.session.tolist() == [0, 0, 1, 1, 2, 2]
    for place, first in enumerate((0, 2, 5, 7, 10, 12)):
        total = found.frames[:, first].astype(int) + found.frames[:, first + 1]
        np.testing.assert_array_equal(coarse.frames[:, place], np.minimum(total, CAP))
        np.testing.assert_array_equal(coarse.valid[:, place], found.valid[:, first : first + 2].all(1))
    with pytest.raises(DataError, match="adds counts up, these frames are pixels"):
        coarsen(read_record(found.dataset()), 15, 2)


# The question.


def ask(found: Record, bounds: tuple[int, int] = (36, 60), leads: tuple[int, ...] = (1, 2, 4), **changes):
    options = {"max_origins": 100, "within_session": True, "name": "x", "split": "test", **changes}
    return forecast_task(found, bounds, leads=leads, **options)


@pytest.mark.parametrize("within_session", [True, False])
def test_the_truth_is_what_lies_so_many_slots_ahead(within_session: bool) -> None:
    found = record(series=2, halted=0.2)
    task = ask(found, within_session=within_session)
    whole, position = found.dataset()["frames"], task.truth["position"].values
    assert task.given["frames"].identical(whole) and task.block_dim == "origin"
    for origin, start in enumerate(position):
        for place, lead in enumerate((1, 2, 4)):
            target, chosen = start + lead, {"origin": origin, "lead": place}
            wanted, truth = task.wanted["frames"].isel(chosen), task.truth["frames"].isel(chosen)
            asked = target < 60 and (not within_session or found.session[target] == found.session[start + 1])
            for series in range(2):
                expected = asked and found.valid[series, target]
                assert wanted.values[series].all() == wanted.values[series].any() == expected
                if expected:
                    np.testing.assert_array_equal(truth.values[series], whole.values[series, target])
                    assert task.truth["slot"].values[origin, place] == found.slot[target]
                else:
                    assert np.isnan(truth.values[series]).all()
    assert task.wanted["frames"].any(("series", "lead", "channel", "y", "x")).all(), "no origin without a question"


def test_every_frame_of_the_part_is_asked_and_no_other() -> None:
    task = ask(record(), within_session=False)
    assert task.wanted["position"].values.tolist() == list(range(35, 59))
    assert int(task.wanted["frames"].sum()) == (24 + 23 + 21) * 2 * SIZE * SIZE


def test_origins_are_spread_over_the_part() -> None:
    positions = ask(record(), max_origins=5, within_session=False).wanted["position"].values
    assert positions.tolist() == [35, 41, 46, 53, 58] or (
        len(positions) == 5 and positions[[0, -1]].tolist() == [35, 58]
    )
    assert np.ptp(np.diff(positions)) <= 1


def test_leads_that_do_not_fit_are_left_out_or_refused() -> None:
    assert ask(record(), leads=(1, 30)).wanted["lead"].values.tolist() == [1]
    with pytest.raises(DataError, match=r"nothing to forecast from 36 to 60: no lead of \[30\] fits"):
        ask(record(), leads=(30,))


def test_a_part_that_there_is_not_is_named(path: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown part 'tset'; did you mean 'test'"):
        prepare(config(path)).task("tset")


# Encoding.


def test_single_frames_are_encoded_series_by_series() -> None:
    dataset, whole = frames_dataset(series=2, halted=0.3), config()
    dense, cut, frames = encode_source(whole, {}, dataset, None)
    assert dense is dataset and cut.dims == ("series", "time") and len(cut) == len(frames) == 144
    found = read_record(dataset)
    batch = frames.collate([3, 72 + 3], 0)
    np.testing.assert_array_equal(batch.fields["frames"].values, found.pixels()[:, 3])
    np.testing.assert_array_equal(batch.fields["frames"].valid.flatten(), found.valid[:, 3])
    assert batch.features["slot"].tolist() == [3, 3]
    assert frames.coordinates([0, 72])["series"].tolist() == ["600000", "600001"]


def test_frames_that_a_model_was_not_made_for_are_refused() -> None:
    whole = resolve_by_hand()
    with pytest.raises(DataError, match=r"input must be \(B,T,2,8,8\), got frames of 2x16x16"):
        encode_source(whole, {}, frames_dataset(size=16), None)
    with pytest.raises(DataError, match="slot_id out of range: the model knows 6 slots, the data have 7"):
        encode_source(whole, {}, frames_dataset(slots=7), None)
    other = frames_dataset()
    other["counts"].attrs["count_cap"] = 30
    with pytest.raises(DataError, match=r"counts up to 15 \(log1p\), the data's up to 30 \(log1p\)"):
        encode_source(whole, {}, other, None)
    with pytest.raises(DataError, match="leave stride out"):
        encode_source(whole, {}, frames_dataset(), {"time": 2})


def resolve_by_hand():
    """A configuration that has seen the data."""
    whole = config()
    return replace(whole, model=replace(whole.model, count_cap=CAP))
