import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from gridloom import SemanticEncoder, create_semantic_encoder
from gridloom.core.errors import CheckpointError, DataError, UnknownNameError
from tests.encoders.small import LATENT, images, small_autoencoder, small_encoder, weights_file


def bits(encoder: SemanticEncoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.encoder.state_dict().items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- making one ---


def test_random_weights_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="its weights are random"):
        encoder = SemanticEncoder(latent_dim=8, device="cpu")
    assert encoder.latent_dim == 8 and encoder.input_channels == 1 and not encoder.training


def test_both_ways_of_making_one_agree_and_do_not_warn(tmp_path: Path) -> None:
    file = weights_file(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = SemanticEncoder(1, LATENT, file, False, "cpu")
        second = create_semantic_encoder(str(file), latent_dim=LATENT, freeze_weights=True, device="cpu")
    assert same(bits(first), bits(second))
    assert second.get_model_info()["frozen"] and not first.get_model_info()["frozen"]


def test_another_size_than_the_files_is_refused(tmp_path: Path) -> None:
    file = weights_file(tmp_path)
    with pytest.raises(CheckpointError, match=r"latent_dim is 16 in the weights, 768 was asked; pass 16"):
        SemanticEncoder(pretrained_path=file)
    with pytest.raises(CheckpointError, match=r"input_channels is 1 in the weights, 3 was asked"):
        SemanticEncoder(3, LATENT, file)
    small_encoder(tmp_path).save_pretrained(tmp_path / "folder")
    with pytest.raises(
        CheckpointError, match=r"latent_dim is 16, 768 was asked; pass latent_dim=16, or use Sem.*from_pre"
    ):
        SemanticEncoder(pretrained_path=tmp_path / "folder")


def test_a_file_that_is_not_there_says_so_in_both_languages(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"weights file not found \(权重文件不存在\)"):
        create_semantic_encoder(tmp_path / "encoder_weights.pth")


# --- loading and saving ---


def test_saving_and_loading_keeps_every_bit(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path, norm="batch")
    encoder.save_pretrained(tmp_path / "folder")
    encoder.save_encoder_weights(tmp_path / "weights.pth")
    for path in (tmp_path / "folder", tmp_path / "weights.pth"):
        again = SemanticEncoder.from_pretrained(path, device="cpu")
        assert same(bits(again), bits(encoder))
        assert torch.equal(again.encode(images()), encoder.encode(images()))


def test_statistics_survive_saving(tmp_path: Path, tiny_run: Path) -> None:
    encoder = SemanticEncoder.from_pretrained(tiny_run, device="cpu")
    encoder.save_pretrained(tmp_path / "folder")
    again = SemanticEncoder.from_pretrained(tmp_path / "folder", device="cpu")
    assert encoder.normalizer is not None and again.normalizer is not None
    assert again.normalizer.to_json() == encoder.normalizer.to_json()
    assert again.get_model_info() == encoder.get_model_info()


def test_weights_are_loaded_into_an_encoder_that_is_there(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    other = small_autoencoder(seed=5)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    encoder.load_pretrained_weights(tmp_path / "other.pth")
    assert same(bits(encoder), other.encoder.state_dict())


def test_a_load_that_fails_changes_nothing(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    before = bits(encoder)
    ruined = {name: tensor.clone() + 1 for name, tensor in encoder.encoder.state_dict().items()}
    ruined["head.project.bias"][0] = float("nan")
    torch.save(ruined, tmp_path / "ruined.pth")
    torch.save({"weight": torch.ones(3)}, tmp_path / "foreign.pth")
    for path in (
        tmp_path / "ruined.pth",
        tmp_path / "foreign.pth",
        weights_file(tmp_path, latent=7),
        tmp_path / "no.pth",
    ):
        with pytest.raises(CheckpointError, match=path.name.replace(".", r"\.")):
            encoder.load_pretrained_weights(path)
        assert same(bits(encoder), before)


# --- freezing ---


def test_freezing_everything_and_back(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    total = sum(parameter.numel() for parameter in encoder.encoder.parameters())
    assert encoder.count_parameters() == encoder.count_parameters(only_trainable=True) == total
    encoder.freeze_parameters(True)
    assert encoder.count_parameters(only_trainable=True) == 0 and encoder.get_model_info()["frozen"]
    encoder.freeze_parameters(False)
    assert encoder.count_parameters(only_trainable=True) == total and not encoder.get_model_info()["frozen"]


def test_layers_are_frozen_by_whole_names(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    encoder.encoder.add_module("layer10", nn.Linear(2, 2))
    encoder.encoder.add_module("post_stem", nn.Linear(2, 2))
    encoder.freeze_layers(["stem", "layer1"])
    frozen = {name for name, parameter in encoder.encoder.named_parameters() if not parameter.requires_grad}
    expected = {n for n, _ in encoder.encoder.named_parameters() if n.split(".")[0] in ("stem", "layer1")}
    assert frozen == expected != set()
    assert encoder.get_model_info()["frozen_layers"] == ["layer1", "stem"]


def test_an_inner_module_is_frozen_alone(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    encoder.freeze_layers("layer2.0")
    assert not encoder.encoder.get_parameter("layer2.0.conv1.weight").requires_grad
    assert encoder.encoder.get_parameter("layer2.1.conv1.weight").requires_grad


def test_an_unknown_layer_names_the_nearest_and_freezes_nothing(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    with pytest.raises(UnknownNameError, match=r"unknown layer 'layr1'; did you mean 'layer1'\?.*known: head, layer1"):
        encoder.freeze_layers(["stem", "layr1"])
    assert encoder.count_parameters(only_trainable=True) == encoder.count_parameters()


def test_frozen_statistics_stand_still_in_a_training_model(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path, norm="batch")
    encoder.freeze_layers(["stem"])
    model = nn.Sequential(encoder, nn.Linear(LATENT, 2)).train()
    assert encoder.training and not encoder.encoder.get_submodule("stem").training
    before = bits(encoder)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    model(images(8) * 3 + 2).square().mean().backward()
    optimizer.step()
    after = bits(encoder)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("stem."))
    assert not torch.equal(before["layer1.0.norm1.running_mean"], after["layer1.0.norm1.running_mean"])
    assert not torch.equal(before["layer1.0.conv1.weight"], after["layer1.0.conv1.weight"])


def test_a_thawed_encoder_follows_train_again(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path, norm="batch")
    encoder.freeze_parameters(True)
    assert not any(module.training for module in encoder.train().encoder.modules())
    encoder.freeze_parameters(False)
    assert all(module.training for module in encoder.encoder.modules())


# --- encoding tensors ---


def test_embeddings_have_the_latent_size(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path, channels=3)
    assert encoder.encode(images(2, channels=3, size=64)).shape == (2, LATENT)
    assert torch.equal(encoder(images(2, channels=3)), encoder.encode(images(2, channels=3)))


def test_a_tensor_of_three_dimensions_is_refused_with_the_mend(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    with pytest.raises(DataError, match=r"Expected 4D tensor, got 3D tensor \(4x32x32\).*x\.unsqueeze\(1\)"):
        encoder.encode(images()[:, 0])
    assert encoder.encode(images()[:, 0].unsqueeze(1)).shape == (4, LATENT)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, 3, 32, 32), "expected 1 channels, got 3"),
        ((2, 1, 33, 32), "multiples of 32, got 33x32"),
        ((2, 1, 0, 0), "0x0"),
    ],
)
def test_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        small_encoder(tmp_path).encode(torch.zeros(shape))


def test_gradients_flow_as_in_any_backbone(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path).train()
    encoder.freeze_layers(["stem", "layer1"])
    encoder.encode(images()).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in encoder.encoder.named_parameters()}
    assert all((gradients[n] is None) == (n.split(".")[0] in ("stem", "layer1")) for n in gradients)
    assert gradients["layer2.0.conv1.weight"].abs().sum() > 0


def test_no_gradients_when_frozen_or_in_inference_mode(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    assert encoder.encode(images()).requires_grad
    with torch.inference_mode():
        assert not encoder.encode(images()).requires_grad
    with torch.no_grad():
        assert not encoder.encode(images()).requires_grad
    encoder.freeze_parameters(True)
    assert not encoder.encode(images()).requires_grad


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_an_embedding_does_not_depend_on_its_companions(tmp_path: Path, norm: str) -> None:
    encoder = small_encoder(tmp_path, norm=norm)
    batch = images(6)
    batch[3:] = batch[3:] * 50 + 10
    with torch.no_grad():
        together = encoder.encode(batch)
        alone = torch.cat([encoder.encode(sample[None]) for sample in batch])
    scale = together.abs().amax(1, keepdim=True).clamp(min=1.0)
    assert ((together - alone) / scale).abs().max() <= 1e-6


def test_missing_cells_are_seen_as_missing_whatever_they_hold(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    whole = images()
    gaps, infinite, zeros = whole.clone(), whole.clone(), whole.clone()
    gaps[:, :, :8, :8], infinite[:, :, :8, :8], zeros[:, :, :8, :8] = torch.nan, torch.inf, 0.0
    assert torch.equal(encoder.encode(gaps), encoder.encode(infinite))
    assert not torch.allclose(encoder.encode(gaps), encoder.encode(zeros))
    assert torch.isfinite(encoder.encode(torch.full((1, 1, 32, 32), torch.nan))).all()


# --- encoding many ---


@pytest.mark.parametrize("training", [True, False])
def test_a_large_batch_is_encoded_in_eval_mode_and_the_mode_is_restored(tmp_path: Path, training: bool) -> None:
    encoder = small_encoder(tmp_path, norm="batch")
    wanted = encoder.encode(images(7)).detach()
    encoder.train(training)
    encoder.encoder.get_submodule("layer3").eval()
    before = [module.training for module in encoder.modules()]
    statistics = bits(encoder)
    found = encoder.encode_batch(images(7), batch_size=3)
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert [module.training for module in encoder.modules()] == before
    assert same(bits(encoder), statistics)
    assert found.device == torch.device("cpu") and not found.requires_grad


def test_the_mode_is_restored_after_an_error(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path).train()
    with pytest.raises(DataError):
        encoder.encode_batch(torch.zeros(2, 1, 33, 33))
    assert all(module.training for module in encoder.modules())


def test_the_size_of_the_parts_changes_nothing(tmp_path: Path) -> None:
    encoder, batch = small_encoder(tmp_path), images(9)
    wanted = encoder.encode_batch(batch, batch_size=9)
    for size in (1, 2, 4, 16, 100):
        assert torch.allclose(encoder.encode_batch(batch, batch_size=size), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        encoder.encode_batch(batch, batch_size=0)


def test_no_samples_give_no_embeddings(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    assert encoder.encode_batch(torch.zeros(0, 1, 32, 32)).shape == (0, LATENT)
    with pytest.raises(DataError, match="Expected 4D tensor, got 2D tensor"):
        encoder.encode_batch(torch.zeros(0, 32))


def test_embeddings_of_a_large_batch_can_be_trained_on(tmp_path: Path) -> None:
    features = small_encoder(tmp_path).encode_batch(images(3))
    head = nn.Linear(LATENT, 1)
    head(features).sum().backward()
    assert head.weight.grad is not None


def test_progress_is_shown_when_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = small_encoder(tmp_path)
    encoder.encode_batch(images(4), batch_size=2)
    assert capfd.readouterr().err == ""
    encoder.encode_batch(images(4), batch_size=2, show_progress=True)
    assert "encoding" in capfd.readouterr().err


# --- asking ---


def test_similarity_is_the_cosine_of_every_pair() -> None:
    a, b = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [-3.0, -4.0], [0.0, 0.0]])
    expected = torch.tensor([[0.6, -1.0, 0.0], [0.0, -0.8, 0.0]])
    assert torch.allclose(SemanticEncoder.similarity(a, b), expected)


def test_info_and_repr_say_what_it_is(tmp_path: Path, tiny_run: Path) -> None:
    encoder = SemanticEncoder.from_pretrained(tiny_run, device="cpu")
    info = encoder.get_model_info()
    assert info["total_parameters"] == info["trainable_parameters"] == encoder.count_parameters() > 0
    assert (info["latent_dim"], info["input_channels"], info["device"], info["frozen"]) == (16, 1, "cpu", False)
    assert info["variables"] == info["normalizer"] == ["temperature"]
    assert repr(encoder).startswith("SemanticEncoder(system=semantic, inputs=image [channel, y, x], input_channels=1")
    assert f"parameters={encoder.count_parameters():,}" in repr(encoder)
    encoder.freeze_parameters(True)
    assert "(frozen)" in repr(encoder)
    assert small_encoder(tmp_path).get_model_info()["normalizer"] is None


def test_the_device_follows_the_weights(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    assert encoder.device == torch.device("cpu")
    assert encoder.to("meta").device == torch.device("meta")
