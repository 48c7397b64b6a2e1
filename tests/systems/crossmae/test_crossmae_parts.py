"""Encoder, decoder and what is between them: the contract, and equality with slow references."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gridloom.core.errors import ConfigError, DataError
from gridloom.nn.attention import NORM_EPS
from gridloom.systems.crossmae import (
    DecoderShape,
    EncoderShape,
    ImageDecoder,
    ImageEncoder,
    ImagePatches,
    SeriesPatches,
    VectorDecoder,
    VectorEncoder,
    WeightedFeatureMaps,
)
from gridloom.systems.crossmae.static import StaticAttributes
from gridloom.systems.crossmae.tokens import MaskInfo, length_buckets, where_true
from tests.systems.crossmae.small import DECODER, ENCODER, IMAGE, SERIES, jitter, normal, pick, slow_decode


def image_encoder(**changes) -> ImageEncoder:
    torch.manual_seed(0)
    return jitter(ImageEncoder(IMAGE, replace(ENCODER, **changes)).double())


def image_decoder(maps: int = 1, **changes) -> ImageDecoder:
    torch.manual_seed(0)
    return jitter(ImageDecoder(IMAGE, replace(DECODER, **changes), context_dim=16, num_maps=maps).double())


def ragged() -> tuple[Tensor, Tensor]:
    """Fields with missing cells and patches, and masks of other lengths in each sample."""
    x = normal(3, 4, 5, 7)
    x[pick(*x.shape, share=0.2)] = torch.nan
    x[0, 1, :2, :3] = torch.nan  # a patch without data
    mask = pick(3, 4, 9, share=0.6, seed=1)
    mask[1] = pick(4, 9, share=0.2, seed=2)
    return x, mask


# Patches.


def test_cutting_and_joining_patches_gives_back_grids_that_they_do_not_divide() -> None:
    patches = ImagePatches(29, 18, (4, 5))
    x = normal(2, 3, 29, 18)
    cells = patches.cut(x)
    assert patches.layout == (8, 4) and cells.shape == (2, 3, 32, 20)
    assert torch.equal(patches.join(cells, 3), x)
    place = 2 * 4 + 3  # third row of patches, last column: cells 8..11 down, 15..17 across and two that are not there
    box = cells[1, 2, place].view(4, 5)
    assert torch.equal(box[:, :3], x[1, 2, 8:12, 15:18]) and not box[:, 3:].any()


def test_cutting_and_joining_series_keeps_features_and_a_short_last_patch() -> None:
    x = normal(2, 3, 5, 2)
    cells = SERIES.cut(x)
    assert cells.shape == (2, 3, 3, 4) and SERIES.num_times(5) == 3
    assert torch.equal(SERIES.join(cells, 5), x)
    assert torch.equal(cells[1, 2, 0], torch.cat([x[1, 0, 4], torch.zeros(2, dtype=x.dtype)]))
    single = SeriesPatches(3, 2)
    assert torch.equal(single.cut(x[..., 0]), single.cut(x[..., :1]))


def test_the_layout_of_the_specification_has_522_patches_of_which_94_can_be_seen() -> None:
    patches = ImagePatches(290, 180, (10, 10))
    x = torch.full((1, 2, 29, 18), torch.nan).flatten(2)
    x[..., torch.arange(94) * 5] = 1.0
    x = x.view(1, 2, 29, 18).repeat_interleave(10, 2).repeat_interleave(10, 3)
    encoder = ImageEncoder(patches, EncoderShape(dim=16, depth=1, num_heads=2))
    tokens, info = encoder(x, torch.zeros(1, 2, 522, dtype=torch.bool))
    assert patches.num_places == 522 and tokens.shape == (1, 2 * 94, 16) and not info["padding_mask"].any()


# The encoder's contract.


def test_an_encoder_keeps_the_sequence_of_visible_patches_with_data() -> None:
    x, mask = ragged()
    tokens, info = image_encoder()(x, mask)
    has_data = IMAGE.cut(torch.isfinite(x)).any(-1)
    visible = (has_data & ~mask).flatten(1)
    assert not has_data.all()
    assert tokens.shape == (3, int(visible.sum(1).max()), 16)
    assert torch.equal(info["mask"], mask & has_data)  # True = hidden; without data it is no target
    assert torch.equal((~info["padding_mask"]).sum(1), visible.sum(1))  # True = padding
    for sample in range(3):
        own = info["positions"][sample][~info["padding_mask"][sample]]
        assert torch.equal(own, visible[sample].nonzero()[:, 0])


def test_patches_without_data_are_never_predicted() -> None:
    x, _ = ragged()
    hidden = torch.ones(3, 4, 9, dtype=torch.bool)
    tokens, info = image_encoder()(x, hidden)
    predicted = image_decoder()(tokens, info)
    has_data = IMAGE.cut(torch.isfinite(x)).any(-1)
    assert torch.equal(predicted.ne(0).any(-1), has_data) and not has_data.all()


def test_a_decoder_leaves_zeros_where_nothing_was_predicted() -> None:
    x, mask = ragged()
    tokens, info = image_encoder()(x, mask)
    predicted = image_decoder()(tokens, info)
    assert predicted.shape == (3, 4, 9, 6)
    assert torch.equal(predicted.ne(0).any(-1), info["mask"])


def test_series_are_encoded_and_decoded_by_place_and_stretch_of_time() -> None:
    torch.manual_seed(0)
    encoder = jitter(VectorEncoder(SERIES, ENCODER, static_dim=2).double())
    decoder = jitter(VectorDecoder(SERIES, DECODER, context_dim=16).double())
    x, mask = normal(2, 3, 5, 2), pick(2, 3, 3)
    tokens, info = encoder(x, mask, static=normal(2, 2))
    assert tokens.shape[1] == int((~mask).flatten(1).sum(1).max()) + 1  # and one for static attributes
    assert not info["padding_mask"][:, -1].any()
    predicted = decoder(tokens, info)
    assert predicted.shape == (2, 3, 3, 4) and torch.equal(predicted.ne(0).any(-1), mask)
    torch.testing.assert_close(predicted, slow_decode(decoder, tokens, info), rtol=0, atol=1e-6)


def test_validity_is_an_input_of_its_own() -> None:
    x = normal(1, 1, 5, 7)
    x[0, 0, 0, 0] = 0.0
    valid = torch.ones_like(x, dtype=torch.bool)
    encoder, nothing = image_encoder(), torch.zeros(1, 1, 9, dtype=torch.bool)
    expected = encoder(x, nothing, valid)[0]
    valid[0, 0, 0, 0] = False
    assert not torch.allclose(encoder(x, nothing, valid)[0], expected)


# Feature maps.


def test_feature_maps_are_the_chosen_layers_and_the_input_that_no_norm_touches() -> None:
    x, mask = ragged()
    seen = {}
    encoder = image_encoder(feature_maps=True)
    for name, module in (("0", encoder.layers[0]), ("1", encoder.layers[1])):
        module.register_forward_hook(lambda _m, given, out, name=name: seen.update({name: (given[0], out)}))
    mask[:] = mask[0]  # one length, so that all samples run together
    maps, _ = encoder(normal(3, 4, 5, 7), mask)
    raw = [seen["0"][0], seen["0"][1], seen["1"][1]]
    assert len(maps) == 3 == encoder.shape.num_maps
    assert torch.equal(maps[0], raw[0])
    assert all(torch.equal(maps[n], encoder.norm(raw[n])) for n in (1, 2))
    assert torch.equal(maps[2], image_encoder()(normal(3, 4, 5, 7), mask)[0])  # the last map is the plain encoder's
    plain, _ = image_encoder(feature_maps=True, normalize_maps=False)(normal(3, 4, 5, 7), mask)
    assert all(torch.equal(one, other) for one, other in zip(plain, raw, strict=True))
    one, _ = image_encoder(feature_maps=True, use_fm_layers=(1,), use_input=False)(normal(3, 4, 5, 7), mask)
    assert len(one) == 1 and torch.equal(one[0], maps[2])
    assert x.shape[0] == 3


def test_weighted_feature_maps_equal_a_loop_and_their_lazy_form() -> None:
    torch.manual_seed(0)
    mixing = WeightedFeatureMaps(3, 4).double()
    maps = [normal(2, 5, 6, seed=n) for n in range(3)]
    mixed = mixing(maps)
    assert mixed.shape == (2, 5, 6, 4) and [n for n, _ in mixing.named_parameters()] == ["linear.weight"]
    for layer in range(4):
        slow = torch.zeros(2, 5, 6, dtype=torch.float64)
        for number, one in enumerate(maps):
            slow += mixing.weights[layer, number] * one
        torch.testing.assert_close(mixed[..., layer], slow, rtol=0, atol=1e-12)
        torch.testing.assert_close(mixing.mix(maps, layer), slow, rtol=0, atol=1e-12)


# The decoder against the specification's loop.


@pytest.mark.parametrize("maps", [False, True])
def test_a_decoder_equals_the_loop_over_samples_and_positions(maps: bool) -> None:
    x, mask = ragged()
    tokens, info = image_encoder(feature_maps=maps)(x, mask)
    assert info["padding_mask"].any()
    decoder = image_decoder(3 if maps else 1)
    torch.testing.assert_close(decoder(tokens, info), slow_decode(decoder, tokens, info), rtol=0, atol=1e-6)


def test_partial_prediction_equals_the_loop_and_the_full_prediction_there() -> None:
    x, mask = ragged()
    tokens, info = image_encoder()(x, mask)
    decoder = image_decoder()
    some = MaskInfo(
        mask=info["mask"] & pick(3, 4, 9, seed=3), padding_mask=info["padding_mask"], positions=info["positions"]
    )
    found = decoder(tokens, some)
    torch.testing.assert_close(found, slow_decode(decoder, tokens, some), rtol=0, atol=1e-6)
    whole = torch.where(some["mask"][..., None], decoder(tokens, info), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)
    assert decoder.answer(tokens, some).mean.shape[1] < decoder.answer(tokens, info).mean.shape[1]


def test_each_decoder_layer_has_its_own_norm_after_the_mix() -> None:
    decoder = image_decoder(3)
    assert len(decoder.context_norms) == 2 and all(norm.eps == NORM_EPS for norm in decoder.context_norms)


# Invariants of one modality.


def test_what_hidden_and_missing_cells_hold_changes_nothing() -> None:
    x, mask = ragged()
    encoder, decoder = image_encoder(feature_maps=True), image_decoder(3)
    valid = torch.isfinite(x)
    covered = IMAGE.join(mask[..., None].expand(-1, -1, -1, 6), 4)
    tokens, info = encoder(torch.where(valid, x, torch.zeros_like(x)), mask, valid)
    expected = decoder(tokens, info)
    for other in (1e9, torch.nan, torch.inf):
        tokens, told = encoder(torch.where(valid & ~covered, x, torch.full_like(x, other)), mask, valid)
        asked = MaskInfo(mask=info["mask"], padding_mask=told["padding_mask"], positions=told["positions"])
        assert torch.equal(decoder(tokens, asked), expected)


def test_a_sample_does_not_depend_on_its_neighbors_nor_on_padding() -> None:
    x, mask = ragged()
    mask[2] = True
    mask[2, 0, :4] = False  # a short sample, another bucket
    encoder, decoder = image_encoder(feature_maps=True), image_decoder(3)
    tokens, info = encoder(x, mask)
    assert len(length_buckets(info["padding_mask"])) > 1
    together = decoder(tokens, info)
    for sample in range(3):
        alone = decoder(*encoder(x[sample : sample + 1], mask[sample : sample + 1]))
        torch.testing.assert_close(together[sample : sample + 1], alone, rtol=0, atol=1e-12)


def test_the_order_of_the_visible_tokens_changes_nothing() -> None:
    x, mask = ragged()
    encoder, decoder = image_encoder(feature_maps=True), image_decoder(3)
    tokens, info = encoder(x, mask)
    order = torch.randperm(tokens[0].shape[1], generator=torch.Generator().manual_seed(0))
    moved = MaskInfo(
        mask=info["mask"], padding_mask=info["padding_mask"][:, order], positions=info["positions"][:, order]
    )
    assert not torch.equal(order, order.sort()[0])
    torch.testing.assert_close(decoder([m[:, order] for m in tokens], moved), decoder(tokens, info), rtol=0, atol=1e-12)


def test_positions_are_told_apart() -> None:
    x, mask = ragged()
    predicted = image_decoder()(*image_encoder()(x, mask))
    rows = predicted[0][mask[0] & predicted[0].ne(0).any(-1)]
    assert torch.pdist(rows).min() > 1e-4


# Chosen positions.


def test_positions_of_equally_many_are_not_padded() -> None:
    chosen = where_true(torch.tensor([[True, False, True], [False, True, True]]))
    assert chosen.padding is None and chosen.positions.tolist() == [[0, 2], [1, 2]]
    ragged_rows = where_true(torch.tensor([[True, False, True], [False, False, False]]))
    assert ragged_rows.positions.tolist() == [[0, 2], [0, 0]] and ragged_rows.mask().tolist() == [
        [False] * 2,
        [True] * 2,
    ]


def test_buckets_hold_every_sample_once_at_its_length() -> None:
    lengths = torch.tensor([8, 1, 0, 7, 3, 4])
    padding = torch.arange(8) >= lengths[:, None]
    buckets = length_buckets(padding)
    assert sorted(torch.cat([samples for samples, _ in buckets]).tolist()) == list(range(6))
    assert all(int(lengths[samples].max()) == length for samples, length in buckets)
    assert sum(len(samples) * length for samples, length in buckets) < 6 * 8


# Static attributes.


@pytest.mark.parametrize("mode", ["token", "concat", "add", "film"])
@pytest.mark.parametrize("per_place", [False, True])
def test_a_static_attribute_changes_predictions(mode: str, per_place: bool) -> None:
    torch.manual_seed(0)
    encoder = jitter(VectorEncoder(SERIES, ENCODER, static_dim=2, static=mode).double())
    decoder = jitter(VectorDecoder(SERIES, DECODER, context_dim=encoder.output_dim).double())
    assert encoder.output_dim == (18 if mode == "concat" else 16)
    x, mask = normal(2, 3, 5, 2), pick(2, 3, 3)
    static = normal(2, 3, 2) if per_place else normal(2, 2)
    tokens, info = encoder(x, mask, static=static)
    expected = decoder(tokens, info)
    other = static.clone()
    other[1, ..., 0] += 1.0
    changed = decoder(*encoder(x, mask, static=other))
    assert torch.equal(changed[0], expected[0])
    assert ((changed[1] - expected[1]).abs().amax(-1)[mask[1]] > 1e-9).all()
    other[1, ..., 0] = torch.nan
    missing = decoder(*encoder(x, mask, static=other))
    other[1, ..., 0] = 0.0
    assert torch.equal(missing, decoder(*encoder(x, mask, static=other)))


@pytest.mark.parametrize("mode", ["concat", "add", "film"])
def test_attributes_of_a_place_reach_the_tokens_of_that_place(mode: str) -> None:
    torch.manual_seed(0)
    encoder = jitter(VectorEncoder(SERIES, ENCODER, static_dim=2, static=mode).double())
    x, static = normal(2, 3, 5, 2), normal(2, 3, 2)
    tokens, info = encoder(x, torch.zeros(2, 3, 3, dtype=torch.bool), static=static)
    static[0, 1] += 1.0
    changed, _ = encoder(x, torch.zeros(2, 3, 3, dtype=torch.bool), static=static)
    differs = (changed != tokens).any(-1)
    assert torch.equal(differs[0], info["positions"][0] % 3 == 1) and not differs[1].any()


def test_a_film_scales_and_shifts_each_token() -> None:
    torch.manual_seed(0)
    attributes = StaticAttributes(2, 16, "film").double()
    info = MaskInfo(mask=pick(2, 1, 3), padding_mask=pick(2, 3), positions=torch.zeros(2, 3, dtype=torch.int64))
    tokens, static = normal(2, 3, 16), normal(2, 2, seed=1)
    (found,), _ = attributes([tokens], info, static, 3)
    told = static @ attributes.static_proj.weight.T + attributes.static_proj.bias
    expected = tokens * (1 + told[:, None, :16]) + told[:, None, 16:]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


# Errors.


def _encode(x: Tensor, mask: Tensor, **others) -> None:
    ImageEncoder(IMAGE, ENCODER, static_dim=2)(x, mask, **others)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ImagePatches(5, 7, (0, 3)), ConfigError, "at least 1"),
        (lambda: SeriesPatches(0, 2), ConfigError, "at least 1, got 0, 2, 1"),
        (lambda: EncoderShape(depth=2, use_fm_layers=(2,)), ConfigError, "between 0 and 1, got 2"),
        (lambda: EncoderShape(feature_maps=True, use_fm_layers=(), use_input=False), ConfigError, "at least one layer"),
        (lambda: DecoderShape(dim=6) and image_decoder(dim=6), ConfigError, "dim must be a multiple of 4, got 6"),
        (lambda: IMAGE.cut(torch.zeros(1, 2, 6, 7)), DataError, "5 x 7 cells down and across, got 6 x 7"),
        (lambda: SERIES.cut(torch.zeros(1, 3, 5)), DataError, "3 x 2 places and features, got 3 x 1"),
        (
            lambda: _encode(torch.zeros(1, 2, 5, 7), torch.zeros(1, 2, 8, dtype=torch.bool)),
            DataError,
            r"expected \[1, 2, 9\].*got \[1, 2, 8\]",
        ),
        (
            lambda: _encode(torch.zeros(1, 2, 5, 7), torch.zeros(1, 2, 9, dtype=torch.bool)),
            DataError,
            "expected 2 static attributes, got none",
        ),
        (
            lambda: _encode(torch.zeros(1, 2, 5, 7), torch.zeros(1, 2, 9, dtype=torch.bool), static=torch.zeros(1, 3)),
            DataError,
            r"expected \[1, 2\].*or \[1, 9, 2\].*got \[1, 3\]",
        ),
    ],
)
def test_what_does_not_fit_is_one_clear_line(make, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
