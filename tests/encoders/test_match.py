import copy
import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gridloom.core.errors import CheckpointError
from gridloom.encoders.match import load_strictly, pick_encoder, unwrap
from gridloom.encoders.parametrized import fold_weight_norm
from gridloom.systems.semantic import AutoEncoder, ModelConfig, ResNetEncoder
from tests.encoders.small import small_autoencoder

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> AutoEncoder:
    return small_autoencoder()


def prefixed(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name


def inside(before: str, wrapper: str) -> Callable[[str], str]:
    return lambda name: name.replace(before, f"{before}{wrapper}.")


RENAMED = {
    "plain": prefixed(""),
    "DDP": prefixed("module."),
    "compiled DDP": prefixed("_orig_mod.module."),
    "DDP of compiled": prefixed("module._orig_mod."),
    "twice wrapped": prefixed("module.module."),
    "Lightning": prefixed("state_dict.autoencoder."),
    "Lightning of compiled": prefixed("state_dict.autoencoder._orig_mod."),
    "Fabric": prefixed("_forward_module._orig_mod."),
    "FSDP at the root": prefixed("_fsdp_wrapped_module."),
    "FSDP of each layer": inside("layer1.", "_fsdp_wrapped_module"),
    "FSDP of blocks, compiled": inside("layer2.0.", "_fsdp_wrapped_module._orig_mod"),
    "activation checkpointing": inside("layer3.1.", "_checkpoint_wrapped_module"),
    "compiled encoder": inside("encoder.", "_orig_mod"),
}


@pytest.mark.parametrize("rename", RENAMED.values(), ids=RENAMED.keys())
def test_the_encoder_is_found_whatever_wrapped_it(model: AutoEncoder, rename: Callable[[str], str]) -> None:
    file = {rename(name): tensor for name, tensor in model.state_dict().items()}
    found = pick_encoder("file.pth", file)
    wanted = model.encoder.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


compiled = partial(torch.compile, backend="eager")


@pytest.mark.parametrize("wrap", [nn.DataParallel, compiled, lambda module: compiled(nn.DataParallel(module))])
def test_the_encoder_is_found_in_torchs_own_wrappers(model: AutoEncoder, wrap: Callable) -> None:
    state = wrap(model).state_dict()
    assert state.keys() != model.state_dict().keys()
    assert pick_encoder("file.pth", state).keys() == model.encoder.state_dict().keys()


def test_a_wrapped_name_is_unwrapped_in_any_position() -> None:
    assert unwrap("module._orig_mod.encoder._fsdp_wrapped_module.stem.module.0.weight") == "encoder.stem.0.weight"
    assert unwrap("modules.stem.0.weight") == "modules.stem.0.weight"


def averaged(model: nn.Module) -> Weights:
    average = torch.optim.swa_utils.AveragedModel(model)
    state = average.state_dict()
    return {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def test_averaged_weights_are_taken_on_request_alone(model: AutoEncoder) -> None:
    file = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    file |= {f"ema_model.{name}": tensor for name, tensor in averaged(model).items()}
    stem = model.encoder.state_dict()["stem.0.weight"]
    assert torch.equal(pick_encoder("file.pth", file)["stem.0.weight"], stem)
    assert torch.equal(pick_encoder("file.pth", file, average=True)["stem.0.weight"], stem + 1)


def test_averaged_weights_that_are_not_there_are_an_error(model: AutoEncoder) -> None:
    with pytest.raises(CheckpointError, match="no averaged weights"):
        pick_encoder("file.pth", model.state_dict(), average=True)


def test_the_counter_of_an_average_is_no_weight(model: AutoEncoder) -> None:
    file = averaged(model.encoder)
    assert "n_averaged" in file
    assert pick_encoder("file.pth", file).keys() == model.encoder.state_dict().keys()


def test_several_encoders_are_refused(model: AutoEncoder) -> None:
    file = {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"several encoders: prefixes student\.encoder\., teacher\.encoder\."):
        pick_encoder("file.pth", file)


def test_names_that_differ_by_a_wrapper_alone_are_refused(model: AutoEncoder) -> None:
    state = model.state_dict()
    with pytest.raises(CheckpointError, match="stand in it twice"):
        pick_encoder("file.pth", {**state, **{f"module.{name}": tensor for name, tensor in state.items()}})


def test_a_file_without_an_encoder_says_which_prefixes_it_has() -> None:
    with pytest.raises(
        CheckpointError, match=r"no encoder weights found \(未找到encoder权重\).*blocks\.0, head\.weight"
    ):
        pick_encoder("file.pth", {"blocks.0.attn.weight": torch.ones(1), "head.weight": torch.ones(1)})


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(model: AutoEncoder) -> None:
    target = ResNetEncoder(ModelConfig(input_channels=1, latent_dim=16, width=4))
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    wrong = dict(model.encoder.state_dict())
    del wrong["head.project.bias"]
    wrong["layer5.weight"] = torch.ones(1)
    wrong["stem.0.weight"] = torch.ones(4, 3, 7, 7)
    wrong["layer1.0.conv1.weight"] = wrong["layer1.0.conv1.weight"].double()
    with pytest.raises(CheckpointError) as refused:
        load_strictly("file.pth", target, wrong)
    message = str(refused.value)
    assert "1 of " in message and "missing (head.project.bias)" in message
    assert "1 unexpected (layer5.weight)" in message
    assert "stem.0.weight is [4, 3, 7, 7], expected [4, 2, 7, 7]" in message
    assert "layer1.0.conv1.weight is torch.float64, expected torch.float32" in message
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize("name", ["schema", "semantic", "cinema", "ema_free_schema", "swath"])
def test_an_average_is_told_by_whole_words(model: AutoEncoder, name: str) -> None:
    file = {f"{name}.{key}": tensor for key, tensor in model.state_dict().items()}
    if name == "ema_free_schema":
        assert pick_encoder("file.pth", file, average=True).keys() == model.encoder.state_dict().keys()
    else:
        assert pick_encoder("file.pth", file).keys() == model.encoder.state_dict().keys()


@pytest.mark.parametrize("name", ["ema", "model_ema", "state_dict_ema", "EMACallback", "swa_model", "averagedModel"])
def test_names_of_averages_are_known(model: AutoEncoder, name: str) -> None:
    file = {f"{name}.{key}": tensor for key, tensor in model.state_dict().items()}
    assert pick_encoder("file.pth", file, average=True).keys() == model.encoder.state_dict().keys()
    with pytest.raises(CheckpointError, match=r"no plain weights.*--average"):
        pick_encoder("file.pth", file)


def test_an_average_alone_under_a_plain_name_is_the_model(model: AutoEncoder) -> None:
    file = {f"model.{name}": tensor for name, tensor in averaged(model).items()}
    assert pick_encoder("file.pth", file).keys() == model.encoder.state_dict().keys()


def test_a_prefix_may_be_written_with_wrappers_and_points(model: AutoEncoder) -> None:
    file = {f"{who}.{name}": tensor for who in ("a", "b") for name, tensor in model.encoder.state_dict().items()}
    wanted = model.encoder.state_dict().keys()
    for prefix in ("a", "a.", "a.module.", "_orig_mod.a"):
        assert pick_encoder("file.pth", file, prefix=prefix).keys() == wanted
    alone = model.encoder.state_dict()
    assert pick_encoder("file.pth", {**alone, **file}, prefix="").keys() >= wanted


def test_weight_norm_of_any_dimension_folds_to_the_weight_in_use() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.Linear(5, 1), nn.ConvTranspose2d(3, 4, 3), nn.Conv1d(1, 6, 2)]
    for layer, dim in itertools.product(layers, (0, 1, None)):
        normed = parametrizations.weight_norm(copy.deepcopy(layer), dim=dim)
        with torch.no_grad():
            normed.parametrizations.weight.original0.mul_(1.3)
        folded = fold_weight_norm({f"x.{name}": tensor for name, tensor in normed.state_dict().items()})
        assert folded.keys() == {"x.weight", "x.bias"}
        if dim != 1 or min(normed.weight.shape[:2]) > 1:  # a dimension of length 1 is not told from another
            assert torch.equal(folded["x.weight"], normed.weight)
        assert torch.allclose(folded["x.weight"], normed.weight)


def test_parts_that_are_no_weight_norm_stay_as_they_are() -> None:
    one, two = torch.ones(2, 3), torch.ones(3)
    for file in (
        {"x.weight_g": two, "x.weight_v": one},  # magnitudes along no dimension
        {"x.weight_g": torch.ones(2, 1), "x.weight_v": one, "x.weight": one},
        {"x.parametrizations.weight.original0": torch.ones(2, 1), "x.parametrizations.weight.original1": one.long()},
        {
            "x.parametrizations.weight.original0": torch.ones(2, 1),
            "x.parametrizations.weight.original1": one,
            "x.parametrizations.weight.1.base": one,
        },
    ):
        assert fold_weight_norm(file).keys() == file.keys()
