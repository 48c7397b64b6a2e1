"""What is special to one kind of data."""

import torch

from gridloom.core.batch import Field
from tests.contract.test_battery import some_batch, trained_objective


def test_a_later_frame_changes_nothing_earlier() -> None:
    objective, batch = trained_objective("fake_sequence"), some_batch("fake_sequence")
    frames = batch.fields["frames"]
    changed = frames.values.clone()
    changed[:, 4:] = 200 - changed[:, 4:] // 2
    later = batch.with_field("frames", Field(values=changed, valid=frames.valid))
    before, after = objective.next_frames(batch), objective.next_frames(later)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_an_absent_modality_leaves_its_layer_without_a_gradient() -> None:
    objective, batch = trained_objective("fake_modalities"), some_batch("fake_modalities")
    series = batch.fields["series"]
    absent = batch.with_field("series", Field.of(series.values, torch.zeros_like(series.valid)))
    objective(absent).loss.sum().backward()
    assert objective.encoder.layers["series"].weight.grad is None
    assert objective.encoder.layers["static"].weight.grad is not None


def test_negatives_of_a_sample_are_its_own() -> None:
    objective, batch = trained_objective("fake_point"), some_batch("fake_point")
    assert torch.equal(objective(batch).loss[3:5], objective(batch.take(slice(3, 5))).loss)
    other_epoch = batch.take(slice(0, 8))
    object.__setattr__(other_epoch, "key", other_epoch.key + 1)
    assert not torch.equal(objective(batch).loss, objective(other_epoch).loss)


def test_after_a_cut_nothing_of_the_frames_before_is_left() -> None:
    objective, batch = trained_objective("fake_clip"), some_batch("fake_clip")
    assert batch.features["cut"][0, 2] and not batch.features["cut"][1].any()
    clip = batch.fields["clip"]
    changed = clip.values.clone()
    changed[:, :2] += 5
    other = batch.with_field("clip", Field(values=changed, valid=clip.valid))
    assert torch.equal(objective.answer(batch)[0, 2:], objective.answer(other)[0, 2:])
    assert not torch.equal(objective.answer(batch)[1, 2:], objective.answer(other)[1, 2:])
