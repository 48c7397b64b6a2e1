from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import gridloom
from gridloom.core.errors import CheckpointError, DataError
from gridloom.core.settings import TrainConfig
from gridloom.core.system import Trained
from gridloom.encoders.artifact import load_model, write_artifact
from gridloom.grid.normalize import fit_normalizer
from gridloom.grid.prepare import GridConfig
from gridloom.systems.semantic import SYSTEM, ModelConfig, SelfSupervised, SemanticConfig
from gridloom.systems.semantic.data import Reconstructor
from gridloom.systems.temporal import TemporalModule
from gridloom.workflows.decode import FrameCodec, decoded_pair

NAMES = ("frames_0", "frames_1", "frames_2")
CONFIG = SemanticConfig(
    data=GridConfig(path="clip", variables=NAMES, window=(32, 32)),
    model=ModelConfig(latent="map", input_channels=3, latent_dim=192, width=4),
    train=TrainConfig(),
)


def pixels(count: int = 3, size: tuple[int, int] = (32, 40)) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    nodes = torch.rand(count, 3, 5, 6, generator=generator)
    return torch.nn.functional.interpolate(nodes, size=size, mode="bilinear")


def write(folder: Path, *, scale: float = 255.0, config: SemanticConfig = CONFIG) -> Path:
    """A model whose network is silent: with as many latents as cells the linear way around is the identity."""
    data = {name: (("sample", "y", "x"), pixels(20).numpy()[:, place] * scale) for place, name in enumerate(NAMES)}
    normalizer = fit_normalizer(xr.Dataset(data)).to_json()
    torch.manual_seed(0)
    objective = SelfSupervised(config)
    for layer in (objective.encoder.head.project, objective.autoencoder.decoder.out):
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
    settings = {"system": SYSTEM, "config": config, "normalizer": normalizer, "training": {}}
    write_artifact(folder, objective, kind="model", **settings)
    return folder


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("codec") / "artifact")


@pytest.mark.parametrize("scale", [255.0, 1.0])
def test_frames_from_0_to_1_come_back_whatever_the_units_of_training(scale: float, tmp_path: Path) -> None:
    codec = FrameCodec(write(tmp_path / "artifact", scale=scale))
    frames = pixels()
    latents = codec.encode(frames)
    assert latents.shape == (3, 192, 4, 5) and (codec.channels, codec.stride, codec.frame_channels) == (192, 8, 3)
    assert 0.2 < latents.std() < 10
    assert torch.allclose(codec.decode(latents), frames, atol=1e-4)


@pytest.mark.parametrize("size", [(33, 41), (1, 7), (40, 64)])
def test_frames_of_any_size_come_back_in_it(size: tuple[int, int], artifact: Path) -> None:
    codec, frames = FrameCodec(artifact), pixels(9, size)
    latents = codec.encode(frames)
    assert latents.shape[-2:] == (-(-size[0] // 8), -(-size[1] // 8))
    assert torch.allclose(codec.decode(latents, size=size), frames, atol=1e-4)


def test_the_codec_does_what_the_model_s_own_predictor_does(artifact: Path) -> None:
    _, trained = load_model(artifact)
    with torch.no_grad():
        for parameter in trained.objective.parameters():
            parameter.add_(0.01)
    model = Trained(config=trained.config, objective=trained.objective, normalizer=trained.normalizer)
    frames = pixels() * 255
    given = xr.Dataset({name: (("sample", "y", "x"), frames.numpy()[:, place]) for place, name in enumerate(NAMES)})
    expected = Reconstructor(model).predict(given, given)
    codec = FrameCodec(artifact)
    codec._model = trained.objective.autoencoder
    decoded = codec.decode(codec.encode(frames / 255)) * 255
    for place, name in enumerate(NAMES):
        assert np.allclose(decoded[:, place].numpy(), expected[name].values, atol=0.02)


def test_units_that_are_said_are_taken(artifact: Path) -> None:
    said, found = FrameCodec(artifact, largest=1.0), FrameCodec(artifact)
    assert torch.allclose(said.encode(255 * pixels()), found.encode(pixels()), atol=1e-5)


def test_missing_cells_stay_out_of_the_latents(artifact: Path) -> None:
    frames = pixels()
    frames[0, 1, 3, 3] = torch.nan
    codec = FrameCodec(artifact)
    assert codec.encode(frames).isfinite().all()
    assert torch.equal(codec.encode(frames)[1:], codec.encode(pixels())[1:])


def test_previous_current_warped_and_fused_are_decoded(artifact: Path) -> None:
    codec, frames = FrameCodec(artifact), pixels(4, (30, 40))
    previous, current, warped, fused = codec.encode(frames).split(1)
    images = decoded_pair(codec, previous, current, (fused, None, {"z_warp": warped}), size=(30, 40))
    assert list(images) == ["previous", "current", "warped", "fused"]
    for image, frame in zip(images.values(), frames, strict=True):
        assert np.allclose(image, frame.numpy(), atol=1e-4)
    with pytest.raises(DataError, match="return_warp=True"):
        decoded_pair(codec, previous, current, (fused, None, {}))


def test_an_extracted_encoder_is_refused_for_it_has_no_decoder(artifact: Path, tmp_path: Path) -> None:
    loaded, trained = load_model(artifact)
    settings = {"system": SYSTEM, "config": CONFIG, "normalizer": loaded.normalizer, "training": {}}
    write_artifact(tmp_path / "encoder", trained.objective.encoder, kind="encoder", **settings)
    with pytest.raises(CheckpointError, match="an encoder alone; this needs the whole model"):
        FrameCodec(tmp_path / "encoder")


def test_models_that_cannot_decode_frames_are_refused(tmp_path: Path) -> None:
    small = ModelConfig(input_channels=3, latent_dim=16, width=4)
    with pytest.raises(DataError, match=r"train with --model\.latent map"):
        FrameCodec(write_as_is(tmp_path / "vector", replace(CONFIG, model=small)))


def write_as_is(folder: Path, config: SemanticConfig) -> Path:
    settings = {"system": SYSTEM, "config": config, "normalizer": {}, "training": {}}
    write_artifact(folder, SelfSupervised(config), kind="model", **settings)
    return folder


def test_frames_and_latents_that_do_not_fit_are_refused(artifact: Path) -> None:
    codec = FrameCodec(artifact)
    with pytest.raises(DataError, match=r"frames of 3 channels \(frames_0, frames_1, frames_2\), got \[1, 4, 8, 8\]"):
        codec.encode(torch.zeros(1, 4, 8, 8))
    with pytest.raises(DataError, match="expected latents of 192 channels"):
        codec.decode(torch.zeros(1, 16, 2, 2))
    with pytest.raises(DataError, match="frames of 17 x 16"):
        codec.decode(torch.zeros(1, 192, 2, 2), size=(17, 16))


def test_a_video_is_stabilized_in_the_latents_of_an_autoencoder(artifact: Path) -> None:
    still = pixels(1, (36, 44)).repeat(6, 1, 1, 1)  # not a multiple of the stride
    shaky = still + 0.05 * torch.randn(still.shape, generator=torch.Generator().manual_seed(1))
    for flow in ("none", "dis"):
        calm = gridloom.stabilize(shaky, "kalman", flow=flow, autoencoder=artifact)["frames"].values
        assert calm.shape == (6, 3, 36, 44)
        before, after = (np.square(frames - still.numpy())[3:].mean() for frames in (shaky.numpy(), calm))
        assert after < 0.6 * before
    with pytest.raises(DataError, match="the model takes 3 channels, got 192"):
        gridloom.stabilize(shaky, TemporalModule(3), autoencoder=artifact)
