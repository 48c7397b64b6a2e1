from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from gridloom.core.errors import CheckpointError
from gridloom.encoders.match import load_strictly, pick_encoder, unwrap
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
