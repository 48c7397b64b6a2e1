import numpy as np
import pytest
import torch

from gridloom import SemanticEncoder
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.core.registry import get_system
from gridloom.encoders.reduced import check_precision
from gridloom.systems.semantic import ModelConfig, SemanticConfig


def encoder(**changes: str) -> SemanticEncoder:
    torch.manual_seed(0)
    made = SemanticEncoder.__new__(SemanticEncoder)
    torch.nn.Module.__init__(made)
    config = SemanticConfig(model=ModelConfig(input_channels=1, latent_dim=16, width=8, **changes))
    made._begin()
    made._adopt(get_system("semantic").encoder(config), get_system("semantic"), config, {})
    return made.eval()


def fields(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 1, 64, 64, generator=torch.Generator().manual_seed(1))


def test_bfloat16_gives_nearly_the_same_embeddings_in_float32() -> None:
    made = encoder()
    full, reduced = made.encode_batch(fields()), made.encode_batch(fields(), precision="bf16")
    assert reduced.dtype == torch.float32 and not torch.equal(full, reduced)
    assert torch.nn.functional.cosine_similarity(full, reduced).min() > 0.999
    assert next(made.parameters()).dtype == torch.float32


def test_the_reduced_copy_follows_the_weights() -> None:
    made = encoder()
    before = made.encode_batch(fields(), precision="bf16")
    assert torch.equal(made.encode_batch(fields(), precision="bf16"), before)
    with torch.no_grad():
        made.encoder.get_parameter("layer1.0.conv1.weight").mul_(2.0)
    after = made.encode_batch(fields(), precision="bf16")
    assert not torch.equal(after, before)
    assert torch.nn.functional.cosine_similarity(after, made.encode_batch(fields())).min() > 0.999


def test_bfloat16_embeddings_do_not_change_with_companions() -> None:
    made = encoder()
    whole = made.encode_batch(fields(9), batch_size=9, precision="bf16")
    alone = torch.cat([made.encode_batch(fields(9)[i : i + 1], precision="bf16") for i in range(9)])
    assert torch.allclose(whole, alone, atol=1e-5)


def test_an_array_can_be_encoded_in_bfloat16() -> None:
    array = fields().numpy()
    made = encoder()
    assert np.abs(made.encode_numpy(array) - made.encode_numpy(array, precision="bf16")).max() < 0.05


def test_another_precision_is_refused() -> None:
    with pytest.raises(DataError, match="precision must be 'fp32' or 'bf16', got 'fp16'"):
        check_precision("fp16")


def test_an_encoder_with_a_map_gives_it_when_asked() -> None:
    made = encoder(latent="map")
    assert made.encode(fields(), output="map").shape == (5, 16, 8, 8)
    assert made.encode(fields()).shape == (5, 16)
    assert made.get_model_info()["outputs"] == {"embedding": ["feature"], "map": ["feature", "y", "x"]}
    with pytest.raises(UnknownNameError, match="output"):
        made.encode(fields(), output="maps")
