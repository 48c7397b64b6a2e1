"""Several modalities: what each fusion lets through, and what is defined where nothing is known."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gridloom.core.batch import Batch
from gridloom.core.errors import ConfigError, UnknownNameError
from gridloom.systems.crossmae import Modality, MultiModalMAE
from gridloom.systems.crossmae.multimodal import Encoded
from tests.systems.crossmae.small import DECODER, ENCODER, IMAGE, SERIES, jitter, make_batch, make_model, normal, pick

FUSIONS = ["none", "pooled", "cross", "shared"]
ARCHITECTURES = {
    "pooled_self": {"encoder": {"pool": True}, "attention": "self"},
    "pooled_cross": {"encoder": {"pool": True}},
    "sequence_self": {"attention": "self"},
    "cross": {},
    "cross_queries": {"self_attention": True},
    "cross_maps": {"encoder": {"feature_maps": True}},
}
CASES = [("none", name) for name in ARCHITECTURES] + [(fusion, "cross_maps") for fusion in FUSIONS[1:]]


def values(size: int = 3) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    x = {"a": normal(size, 5, 5, 7), "b": normal(size, 3, 5, 2, seed=1)}
    masks = {"a": pick(size, 5, 9, seed=2), "b": pick(size, 3, 3, seed=3)}
    return x, masks


def predict(model: MultiModalMAE, x, masks, **others) -> dict[str, Tensor]:
    answers = model(x, masks, **others)
    return {
        name: model.decoder(name).place(answer.asked, answer.mean, masks[name].shape[1])
        for name, answer in answers.items()
    }


def build(fusion: str, architecture: str, **others) -> MultiModalMAE:
    return make_model(fusion, **ARCHITECTURES[architecture], **others)


# What goes from one to another.


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("maps", [False, True])
def test_tokens_of_another_modality_change_predictions_in_every_fusion_but_none(fusion: str, maps: bool) -> None:
    model = make_model(fusion, encoder={"feature_maps": maps})
    x, masks = values()
    expected = predict(model, x, masks)
    for changed, other in (("a", "b"), ("b", "a")):
        assert (~masks[changed][1]).any()
        shifted = x[changed].clone()
        shifted[1] += 1.0
        found = predict(model, {**x, changed: shifted}, masks)
        moved = (found[other] - expected[other]).abs().amax(-1)
        assert (moved[1][masks[other][1]] > 1e-9).all() == (fusion != "none")
        assert not moved[[0, 2]].any()
        if fusion == "none":
            assert torch.equal(found[other], expected[other])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_padding_of_an_absent_modality_changes_nothing(fusion: str) -> None:
    model = make_model(fusion)
    x, masks = values()
    x["b"][0] = torch.nan
    together = predict(model, x, masks)["a"]
    everywhere = dict(x, b=torch.full_like(x["b"], torch.nan))
    alone = predict(model, everywhere, masks)["a"]
    torch.testing.assert_close(together[:1], alone[:1], rtol=0, atol=1e-10)
    assert torch.equal(together[1:], alone[1:]) == (fusion == "none")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_absent_modality_leaves_what_a_model_without_it_says(fusion: str) -> None:
    model = make_model(fusion)
    x, masks = values()
    absent = torch.full_like(x["b"], torch.nan)
    single = jitter(MultiModalMAE({"a": model.modalities["a"]}, 0, fusion).double())
    known = model.state_dict()
    single.load_state_dict({name: known[name] for name in single.state_dict()})
    expected = predict(single, {"a": x["a"]}, {"a": masks["a"]})["a"]
    found = predict(model, {"a": x["a"], "b": absent}, masks)["a"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("fusion", FUSIONS[1:])
def test_a_modality_is_told_by_its_embedding(fusion: str) -> None:
    model = make_model(fusion)
    x, masks = values()
    expected = predict(model, x, masks)["a"]
    with torch.no_grad():
        model.encoder.modality_embedding["b"] += normal(16)  # norms would take back the same for all
    assert not torch.allclose(predict(model, x, masks)["a"], expected)


def test_encoders_of_other_depths_are_fused_by_their_last_maps() -> None:
    torch.manual_seed(0)
    short = Modality(patches=SERIES, encoder=replace(ENCODER, feature_maps=True, depth=1), decoder=DECODER)
    deep = Modality(patches=IMAGE, encoder=replace(ENCODER, feature_maps=True), decoder=DECODER)
    x, masks = values()
    for fusion, maps in (("none", 3), ("pooled", 3), ("cross", 3), ("shared", 4)):
        model = MultiModalMAE({"a": deep, "b": short}, fusion=fusion).double()
        assert model.encoder.num_maps("a") == maps
        assert all(torch.isfinite(answer.mean).all() for answer in model(x, masks).values())


def test_attributes_beside_the_tokens_of_one_modality_are_fused_to_one_width() -> None:
    x, masks = values()
    static = normal(3, 3, 2)
    for fusion in FUSIONS:
        torch.manual_seed(0)
        modalities = {
            # An image does not know the places of series.
            "a": Modality(patches=IMAGE, encoder=ENCODER, decoder=DECODER, static=False),
            "b": Modality(patches=SERIES, encoder=ENCODER, decoder=DECODER),
        }
        model = MultiModalMAE(modalities, 2, fusion, static="concat").double()
        expected = predict(model, x, masks, static=static)
        changed = predict(model, x, masks, static=static + 1)
        assert not torch.allclose(changed["b"], expected["b"])
        assert torch.equal(changed["a"], expected["a"]) == (fusion == "none")


# Invariants of every architecture and fusion.


@pytest.mark.parametrize(("fusion", "architecture"), CASES)
def test_what_hidden_and_missing_cells_hold_changes_nothing(fusion: str, architecture: str) -> None:
    model = build(fusion, architecture)
    x, masks = values()
    valid = {name: pick(*one.shape, share=0.8, seed=5) for name, one in x.items()}
    zero = {name: torch.where(valid[name], one, torch.zeros_like(one)) for name, one in x.items()}
    expected = predict(model, zero, masks, valid=valid)
    covered = {
        name: cut.join(masks[name][..., None].expand(-1, -1, -1, cut.num_cells), 5).view_as(x[name])
        for name, cut in (("a", IMAGE), ("b", SERIES))
    }
    ask = {name: masks[name] & model.modalities[name].patches.cut(valid[name]).any(-1) for name in x}
    for other in (1e9, torch.nan, -torch.inf):
        changed = {n: torch.where(valid[n] & ~covered[n], x[n], torch.full_like(x[n], other)) for n in x}
        found = predict(model, changed, masks, valid=valid, ask=ask)
        assert all(torch.equal(found[name], expected[name]) for name in x)
        assert all(found[name].any() for name in x)


@pytest.mark.parametrize(("fusion", "architecture"), CASES)
def test_a_sample_does_not_depend_on_its_batch(fusion: str, architecture: str) -> None:
    model = build(fusion, architecture)
    x, masks = values()
    masks["a"][0, 1:] = True  # few are visible: padding, and another bucket
    together = predict(model, x, masks)
    for sample in range(3):
        own = slice(sample, sample + 1)
        alone = predict(model, {n: v[own] for n, v in x.items()}, {n: v[own] for n, v in masks.items()})
        for name in x:
            torch.testing.assert_close(together[name][own], alone[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("fusion", "architecture"), CASES)
@pytest.mark.parametrize("case", ["nothing hidden", "all hidden", "one hidden", "missing", "one absent", "none has b"])
def test_predictions_and_gradients_are_finite_where_nothing_is_known(fusion: str, architecture: str, case: str) -> None:
    model = build(fusion, architecture)
    x, masks = values()
    if case == "nothing hidden":
        masks = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    elif case == "all hidden":
        masks = {name: torch.ones_like(mask) for name, mask in masks.items()}
    elif case == "one hidden":
        for mask in masks.values():
            mask[1] = True
    elif case == "missing":
        x = {name: torch.full_like(one, torch.nan) for name, one in x.items()}
    elif case == "one absent":
        x["b"][1] = torch.nan
    else:
        x["b"][:] = torch.nan
    ask = {name: torch.ones_like(mask) for name, mask in masks.items()} if case == "missing" else None
    answers = model(x, masks, ask=ask)
    asked = sum(answer.mean.numel() for answer in answers.values())
    assert (asked == 0) == (case == "nothing hidden")
    assert all(torch.isfinite(answer.mean).all() for answer in answers.values())
    sum(answer.mean.square().sum() for answer in answers.values()).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_order_of_the_visible_tokens_changes_nothing(fusion: str) -> None:
    model = make_model(fusion, encoder={"feature_maps": True})
    x, masks = values()
    encoded = model.encoder.encode(x, masks)
    moved = {}
    for name, one in encoded.items():
        order = torch.randperm(one.maps[0].shape[1], generator=torch.Generator().manual_seed(0))
        info = {**one.info, **{key: one.info[key][:, order] for key in ("padding_mask", "positions")}}
        moved[name] = Encoded([tokens[:, order] for tokens in one.maps], info, 0)
    for name, (maps, info) in model.encoder.fuse(moved).items():
        expected = model.decoder(name)(*model.encoder.fuse(encoded)[name])
        torch.testing.assert_close(model.decoder(name)(maps, info), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", ["token", "concat", "add", "film"])
@pytest.mark.parametrize("architecture", ["pooled_self", "sequence_self", "pooled_cross"])
def test_attributes_reach_the_models_that_are_compared_with(mode: str, architecture: str) -> None:
    model = build("none", architecture, static_dim=2, static=mode)
    x, masks = values()
    static = normal(3, 3, 2)
    expected = predict(model, x, masks, static=static)
    static[1] += 1.0
    found = predict(model, x, masks, static=static)
    assert not torch.allclose(found["b"][1], expected["b"][1])
    assert torch.equal(found["b"][[0, 2]], expected["b"][[0, 2]]) and torch.equal(found["a"], expected["a"])


# The encoder alone.


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_encoder_alone_gives_an_embedding_and_a_token_for_each_patch(fusion: str) -> None:
    model = make_model(fusion).float()
    batch: Batch = make_batch(3)
    batch.fields["b"].valid[1] = False
    batch.fields["b"].values[1] = 0
    found = model.encoder(batch)
    assert found["embedding"].shape == (3, 32) and found["tokens"].shape == (3, 5 * 9 + 3 * 3, 16)
    assert not found["embedding"][1, 16:].any() and not found["tokens"][1, 45:].any()
    assert found["embedding"][0].ne(0).all()
    torch.testing.assert_close(found["embedding"][1], model.encoder(batch.take(slice(1, 2)))["embedding"][0])


# Errors.


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: MultiModalMAE({}), ConfigError, "at least one modality, got none"),
        (lambda: make_model("cross", attention="self"), ConfigError, "use fusion none, got cross"),
        (
            lambda: MultiModalMAE(
                {
                    "a": Modality(patches=IMAGE, encoder=ENCODER),
                    "b": Modality(patches=SERIES),
                }
            ),
            ConfigError,
            "the same width, got {'a': 16, 'b': 256}",
        ),
        (lambda: make_model()({"a": values()[0]["a"]}, values()[1]), UnknownNameError, "unknown modality 'b'"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(make, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
