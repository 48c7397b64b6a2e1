"""The whole use of an encoder as its documentation shows it: with the default sizes, on an extracted file."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gridloom import SemanticEncoder, create_semantic_encoder, extract_encoder
from gridloom.core.batch import Batch, Field
from gridloom.systems.semantic import ModelConfig, SelfSupervised, SemanticConfig


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder of 768 numbers, trained for two steps and extracted."""
    folder = tmp_path_factory.mktemp("use")
    torch.manual_seed(0)
    objective = SelfSupervised(SemanticConfig(model=ModelConfig(input_channels=1, width=4)))
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-2)
    image = Field.of(torch.randn(4, 1, 64, 64))
    batch = Batch(fields={"image": image}, features={}, window=torch.arange(4), key=torch.arange(4))
    for _ in range(2):
        optimizer.zero_grad()
        objective(batch).loss.mean().backward()
        optimizer.step()
    torch.save({"model_state_dict": objective.autoencoder.state_dict(), "epoch": 2}, folder / "autoencoder.pth")
    return str(extract_encoder(folder / "autoencoder.pth", folder / "encoder_weights.pth", verify=True).output)


def test_made_both_ways_it_encodes(weights: str) -> None:
    encoder = SemanticEncoder(input_channels=1, latent_dim=768, pretrained_path=weights, freeze_weights=False)
    embeddings = encoder.encode(torch.randn(4, 1, 128, 128))
    assert embeddings.shape == (4, 768)
    extractor = create_semantic_encoder(pretrained_path=weights, freeze_weights=True)
    assert not extractor.encode(torch.randn(1, 1, 128, 128)).requires_grad


def test_weights_are_managed(weights: str, tmp_path: Path) -> None:
    encoder = SemanticEncoder(pretrained_path=weights)
    encoder.load_pretrained_weights(weights)
    encoder.freeze_parameters(True)
    encoder.freeze_parameters(False)
    encoder.freeze_layers(["stem", "layer1", "layer2", "layer3", "layer4"])
    left = {name.split(".")[0] for name, parameter in encoder.encoder.named_parameters() if parameter.requires_grad}
    assert left == {"head"}
    encoder.save_encoder_weights(tmp_path / "output_weights.pth")
    again = SemanticEncoder(pretrained_path=tmp_path / "output_weights.pth")
    image = torch.randn(1, 1, 128, 128)
    assert torch.equal(again.encode(image), encoder.encode(image))


def test_large_batches_and_arrays_are_encoded(weights: str) -> None:
    encoder = SemanticEncoder(pretrained_path=weights, freeze_weights=True)
    assert encoder.encode_batch(torch.randn(20, 1, 128, 128), batch_size=16).shape == (20, 768)
    depth_maps = np.random.default_rng(0).uniform(0.4, 8, (3, 128, 128))
    assert encoder.encode_numpy(depth_maps, batch_size=32, normalize=True).shape == (3, 768)
    assert encoder.encode_numpy(depth_maps[:, None]).shape == (3, 768)


class Classifier(nn.Module):
    """A head on an encoder whose early layers are frozen."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.backbone = SemanticEncoder(pretrained_path=weights, freeze_weights=False)
        self.backbone.freeze_layers(["stem", "layer1"])
        self.classifier = nn.Linear(768, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.backbone.encode(x))


def test_it_is_the_backbone_of_a_model_that_learns(weights: str) -> None:
    torch.manual_seed(0)
    model = Classifier(weights).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    images, labels = torch.randn(5, 1, 64, 64), torch.arange(5)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert "backbone.encoder.layer2.0.conv1.weight" in moved
    assert not any(name.startswith(("backbone.encoder.stem", "backbone.encoder.layer1.")) for name in moved)


def test_two_images_are_compared(weights: str) -> None:
    encoder = SemanticEncoder(pretrained_path=weights)
    image = torch.randn(1, 1, 128, 128)
    with torch.no_grad():
        first, second = encoder.encode(image), encoder.encode(image + 0.01)
        similarity = nn.functional.cosine_similarity(first, second)
    assert similarity.item() == pytest.approx(SemanticEncoder.similarity(first, second).item(), abs=1e-6)
    assert similarity.item() > 0.9


def test_it_can_be_asked_about_itself(weights: str) -> None:
    encoder = SemanticEncoder(pretrained_path=weights, device="cpu")
    info = encoder.get_model_info()
    expected = {"total_parameters", "trainable_parameters", "latent_dim", "input_channels", "device", "frozen"}
    assert expected <= info.keys()
    assert f"{info['total_parameters']:,}" == f"{encoder.count_parameters():,}"
    assert info["trainable_parameters"] == encoder.count_parameters(only_trainable=True)
    assert str(encoder) == repr(encoder) and "768" in str(encoder)
    assert all(parameter.requires_grad for _, parameter in encoder.named_parameters())
    encoder.eval()
    start = time.time()
    with torch.no_grad():
        encoder.encode(torch.randn(8, 1, 128, 128))
    assert time.time() - start < 30
