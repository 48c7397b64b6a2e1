import math

import pytest
import torch
from torch import Tensor

from gridloom.core.batch import Batch, Field
from gridloom.core.errors import CheckpointError, ConfigError, DataError
from gridloom.systems.semantic import AutoEncoder, ModelConfig, ResNetEncoder, SelfSupervised, SemanticConfig
from gridloom.systems.semantic.infer import infer_model_config

SMALL = ModelConfig(input_channels=1, latent_dim=16, width=4)


def model(channels: int = 1, seed: int = 0) -> AutoEncoder:
    torch.manual_seed(seed)
    return AutoEncoder(ModelConfig(input_channels=channels, latent_dim=16, width=4)).eval()


def image(count: int = 3, channels: int = 1, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(1))


def batch_of(field: Field) -> Batch:
    count = torch.arange(len(field.values))
    return Batch(fields={"image": field}, features={}, window=count, key=count)


def objective(**changes) -> SelfSupervised:
    torch.manual_seed(0)
    return SelfSupervised(SemanticConfig(model=SMALL, **changes))


@pytest.mark.parametrize("size", [(128, 128), (96, 160), (32, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_field_comes_back_in_its_size(size: tuple[int, int], channels: int) -> None:
    autoencoder = model(channels)
    x = image(2, channels, size)
    assert autoencoder(x).shape == x.shape
    assert autoencoder.encoder.embed(Field.of(x)).shape == (2, 16)


def test_the_default_encoder_has_11_6_million_parameters_and_the_modules_of_the_specification() -> None:
    with torch.device("meta"):
        encoder = ResNetEncoder(ModelConfig(input_channels=1))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 11_575_568
    assert [name for name, _ in encoder.named_children()] == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert encoder.config.latent_dim == 768 and encoder.inputs.fields["image"].size == (1, 128, 128)


def test_what_hidden_cells_hold_changes_nothing() -> None:
    x = image()
    valid = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.3
    autoencoder = model()
    expected = autoencoder(torch.where(valid, x, torch.tensor(0.0)), valid)
    for hidden in (1e6, torch.nan, -torch.inf):
        assert torch.equal(autoencoder(torch.where(valid, x, torch.tensor(hidden)), valid), expected)


def test_a_missing_cell_differs_from_one_that_is_zero() -> None:
    x = image()
    x[:, :, :8] = 0
    valid = torch.ones_like(x, dtype=torch.bool)
    valid[:, :, :8] = False
    autoencoder = model()
    assert not torch.allclose(autoencoder.encoder.embed(Field.of(x)), autoencoder.encoder.embed(Field.of(x, valid)))


def test_a_mask_that_all_channels_share_is_taken() -> None:
    x = image(channels=3)
    valid = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(2)) > 0.3
    encoder = model(3).encoder
    assert torch.equal(encoder.embed(Field.of(x, valid)), encoder.embed(Field.of(x, valid.expand_as(x).clone())))


@pytest.mark.parametrize("size", [(48, 32), (32, 100), (16, 16)])
def test_a_size_that_is_not_a_multiple_of_32_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"multiples of 32, got {size[0]}x{size[1]}; cut windows .* or pad"):
        model()(image(size=size))


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(DataError, match="expected 1 channels, got 3"):
        model()(image(channels=3))
    with pytest.raises(ConfigError, match=r"model\.input_channels must be at least 1 to build"):
        AutoEncoder(ModelConfig(latent_dim=16, width=4))


@pytest.mark.parametrize("loss", ["mse", "smooth_l1"])
def test_the_loss_is_the_mean_over_a_samples_valid_cells(loss: str) -> None:
    x = 2 * image(4)
    valid = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.4
    valid[1, :, :30] = False
    field = Field.of(x, valid)
    reconstruction = objective(loss=loss)
    step = reconstruction(batch_of(field))
    with torch.no_grad():
        rebuilt = reconstruction.autoencoder(field.values, field.valid).double()
    for sample in range(4):
        errors = (rebuilt[sample][valid[sample]] - x[sample][valid[sample]].double()).tolist()
        squares = [error**2 for error in errors]
        huber = [0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5 for error in errors]
        wanted = math.fsum(squares if loss == "mse" else huber) / len(errors)
        assert step.loss[sample].item() == pytest.approx(wanted, rel=1e-5)
        assert step.metrics["rmse"][sample].item() == pytest.approx(
            math.sqrt(math.fsum(squares) / len(errors)), rel=1e-5
        )


def test_a_sample_without_any_cell_teaches_nothing() -> None:
    reconstruction = objective()
    nothing = Field.of(torch.full((1, 1, 32, 32), torch.nan))
    loss = reconstruction(batch_of(nothing)).loss
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in reconstruction.parameters())


def test_a_sample_without_any_cell_leaves_the_gradient_of_the_others() -> None:
    def gradient(count: int) -> Tensor:
        x = image(2)
        x[1] = torch.nan
        reconstruction = objective()
        reconstruction(batch_of(Field.of(x[:count]))).loss.sum().backward()
        return reconstruction.encoder.get_parameter("stem.0.weight").grad

    assert torch.allclose(gradient(1), gradient(2), atol=1e-5)


def test_the_configuration_is_read_off_the_weights() -> None:
    for config in (
        SMALL,
        ModelConfig(input_channels=3, latent_dim=7, width=8, norm="batch"),
        ModelConfig(input_channels=2, latent_dim=5, width=4, latent="map"),
        ModelConfig(input_channels=1, latent_dim=6, width=4, arch="resnet50", head_channels=5),
    ):
        assert infer_model_config("f", AutoEncoder(config).encoder.state_dict()) == config
    with pytest.raises(
        CheckpointError, match=r"not the weights of gridloom's encoder: head\.project\.weight has 2 or 4 axes there"
    ):
        infer_model_config("f", {"stem.0.weight": torch.zeros(4, 2, 7, 7)})


def test_a_latent_map_keeps_an_eighth_of_the_cells_and_its_mean_is_the_embedding() -> None:
    torch.manual_seed(0)
    autoencoder = AutoEncoder(ModelConfig(input_channels=2, latent_dim=6, width=4, latent="map")).eval()
    x = image(3, 2, (24, 40))
    answer = autoencoder.encoder(batch_of(Field.of(x)))
    assert answer["map"].shape == (3, 6, 3, 5)
    assert torch.allclose(answer["embedding"], answer["map"].mean((-2, -1)))
    assert autoencoder.encoder.outputs == {"embedding": ("feature",), "map": ("feature", "y", "x")}
    assert autoencoder(x).shape == x.shape
    with pytest.raises(DataError, match="multiples of 8, got 20x32"):
        autoencoder(image(1, 2, (20, 32)))


def test_the_linear_way_through_a_map_starts_as_the_identity_on_what_a_latent_can_hold() -> None:
    config = ModelConfig(input_channels=1, latent_dim=64, width=4, latent="map")
    autoencoder = AutoEncoder(config)
    with torch.no_grad():
        for parameter in [*autoencoder.encoder.head.project.parameters(), *autoencoder.decoder.out.parameters()]:
            parameter.zero_()
        x = image(2, 1, (16, 16))
        assert torch.allclose(autoencoder(x), x, atol=1e-5)


def test_what_hidden_cells_hold_changes_nothing_in_a_map_either() -> None:
    torch.manual_seed(0)
    autoencoder = AutoEncoder(ModelConfig(input_channels=1, latent_dim=4, width=4, latent="map")).eval()
    x = image(size=(16, 16))
    valid = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.3
    valid[0] = False
    expected = autoencoder(torch.where(valid, x, torch.tensor(0.0)), valid)
    assert torch.isfinite(expected).all()
    assert torch.equal(autoencoder(torch.where(valid, x, torch.tensor(torch.nan)), valid), expected)


def test_resnet50_has_bottlenecks_in_the_same_modules() -> None:
    with torch.device("meta"):
        encoder = ResNetEncoder(ModelConfig(input_channels=1, arch="resnet50"))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 23_931_664
    assert [name for name, _ in encoder.named_children()] == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert [len(encoder.get_submodule(f"layer{n}")) for n in range(1, 5)] == [3, 4, 6, 3]
    assert encoder.get_submodule("layer4").get_parameter("2.conv3.weight").shape == (2048, 512, 1, 1)
