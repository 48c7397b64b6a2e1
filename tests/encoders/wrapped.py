"""Checkpoints of one small autoencoder, wrapped and saved in every way by torch itself.

`python -m tests.encoders.wrapped write FOLDER RANK` runs in two processes: those that shard need each other.
`python -m tests.encoders.wrapped read FOLDER` extracts them all and prints as JSON what became of each. Nothing here
needs pytest: a benchmark does the same.
"""

import argparse
import collections
import copy
import datetime
import functools
import json
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from gridloom.core.errors import CheckpointError
from gridloom.systems.semantic import AutoEncoder
from tests.encoders.small import small_autoencoder

__all__ = ["ACCEPTED", "REFUSED", "place", "read_wrapped_files", "write_wrapped_files"]

ROOT = Path(__file__).parents[2]
Weights = Mapping[str, Tensor]
_ALONE: list[dist.ProcessGroup] = []  # the group of the first process, once there is one
compiled = functools.partial(torch.compile, backend="eager")


@dataclass(frozen=True)
class Case:
    """How a checkpoint is made.

    Attributes:
        save: Writes it, and returns what the encoder's tensors are (None: those of the model).
        options: What `extract_encoder` is told.
        says: What it says if it is refused.
        together: All processes take part; otherwise the first one writes alone.
    """

    save: Callable[[Path, AutoEncoder], Weights | None]
    options: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""
    together: bool = False


def _save(content: object, path: Path, **options: Any) -> None:
    if dist.get_rank() == 0:
        torch.save(content, path, **options)


def _of(wrap: Callable[[AutoEncoder], nn.Module], *, says: str = "", together: bool = False) -> Case:
    return Case(lambda path, model: _save(wrap(model).state_dict(), path), says=says, together=together)


def _holding(make: Callable[[Weights], object], *, says: str = "") -> Case:
    return Case(lambda path, model: _save(make(model.state_dict()), path), says=says)


def _together(save: Callable[[Path, AutoEncoder], None], *, says: str = "") -> Case:
    return Case(save, says=says, together=True)


def _more(weights: Weights) -> Weights:
    return {name: tensor + 1 for name, tensor in weights.items()}


def _average(path: Path, model: AutoEncoder, *, make: Callable[[Weights, Weights], object]) -> Weights:
    _save(make(model.state_dict(), _more(model.state_dict())), path)
    return _more(model.encoder.state_dict())


def _averaged_model(state: Weights, more: Weights) -> object:
    shadow = {"n_averaged": torch.tensor(5), **{f"module.{name}": tensor for name, tensor in more.items()}}
    return {"model": state, "shadow": shadow}


def _compile_a_layer(model: AutoEncoder) -> nn.Module:
    model.encoder.layer1 = compiled(model.encoder.layer1)
    return model


def _checkpoint_activations(model: AutoEncoder) -> nn.Module:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper, offload_wrapper

    model.encoder.layer2[0] = checkpoint_wrapper(model.encoder.layer2[0])
    model.encoder.head = offload_wrapper(model.encoder.head)
    return model


def _normalize_weights(path: Path, model: AutoEncoder, *, norm: Callable[[nn.Module], nn.Module]) -> Weights:
    """Normalize every convolution and linear layer, with magnitudes that are not those of the start."""
    layers = {name: part for name, part in model.encoder.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    for layer in layers.values():
        norm(layer)
        for name, parameter in layer.named_parameters():
            if name.endswith(("original0", "weight_g")):
                parameter.data.mul_(1.7)
    _save({"model": model.state_dict()}, path)
    weights = {}
    for name in small_autoencoder().encoder.state_dict():
        module, _, leaf = name.rpartition(".")
        part = model.encoder.get_submodule(module)
        for hook in part._forward_pre_hooks.values():
            hook(part, ())  # the older way computes the weight before a forward pass
        weights[name] = getattr(part, leaf).detach().clone()
    return weights


class Stranger:
    """A class that the reader cannot import, with a state."""

    def __init__(self) -> None:
        self.settings = {"width": 4, "state_dict": {"encoder.stem.0.weight": torch.ones(1)}}


class StrangersDict(dict):
    """A dictionary of somebody's own, as Lightning's AttributeDict or omegaconf's DictConfig."""


def _lightning(state: Weights) -> object:
    module = sys.modules["strangers_package"] = types.ModuleType("strangers_package")
    for kind in (Stranger, StrangersDict):
        setattr(module, kind.__name__, kind)
        kind.__module__ = "strangers_package"
    parameters = {
        "namespace": argparse.Namespace(path=Path("somewhere"), when=datetime.datetime.now(tz=datetime.UTC)),
        "scalar": np.float64(0.1),
        "array": np.arange(3, dtype="f4"),
        "dtype": (np.dtype("i8"), torch.float16, torch.device("cpu"), torch.Size([2])),
        "by_name": collections.defaultdict(list, {"a": [1]}),
        "text": {"a", b"b", frozenset([1])},
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
        "loss": nn.CrossEntropyLoss(weight=torch.ones(3)),
        "stranger": Stranger(),
        "own": StrangersDict(width=4, shared=Stranger),
    }
    generator = np.random.default_rng(0)
    return {
        "epoch": 3,
        "global_step": 10**12,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {f"net.{name}": tensor for name, tensor in state.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5), "dirpath": Path()}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"betas": (0.9, 0.95)}]}],
        "lr_schedulers": [{"_last_lr": [0.1], "milestones": collections.Counter({3: 1})}],
        "rng": {"numpy": np.random.get_state(), "generator": generator, "torch": torch.get_rng_state()},  # noqa: NPY002
        "hyper_parameters": parameters,
        "again": parameters,
    }


def _with_attributes(model: AutoEncoder) -> Weights:
    for number, parameter in enumerate(model.parameters()):
        parameter.group = number  # type: ignore[attr-defined]
    return model.state_dict(keep_vars=True)


def _data_parallel(model: nn.Module) -> nn.Module:
    """DDP of the first process alone."""
    return nn.parallel.DistributedDataParallel(model, process_group=_ALONE[0])


def _sharded_data_parallel(path: Path, model: AutoEncoder) -> None:
    dcp.save(_data_parallel(model).state_dict(), checkpoint_id=path, process_group=_ALONE[0])


def _sharded_after_training(path: Path, model: AutoEncoder) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    reference = copy.deepcopy(model.state_dict())
    sum(parameter.square().sum() for parameter in model.parameters()).backward()
    optimizer.step()
    model.load_state_dict(reference)
    content = {"app": {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "step": 3, "note": Path("x")}
    dcp.save(content, checkpoint_id=path, process_group=_ALONE[0])


def _fully_sharded(model: AutoEncoder, *, more: bool = False) -> AutoEncoder:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    if more:
        _checkpoint_activations(model)
    for layer in (model.encoder.layer1, model.encoder.layer4, model.encoder, model):
        fully_shard(layer, mesh=mesh)
    return model


def _full_of_sharded(path: Path, model: AutoEncoder) -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    _save(get_model_state_dict(_fully_sharded(model), options=options), path)


def _first_fsdp(path: Path, model: AutoEncoder, *, kind: str, save: Callable[[Weights, Path], None]) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType

    cpu = torch.device("cpu")
    model.encoder.layer1 = FullyShardedDataParallel(model.encoder.layer1, device_id=cpu)
    model.encoder = FullyShardedDataParallel(model.encoder, device_id=cpu)
    whole = FullyShardedDataParallel(model, device_id=cpu)
    with FullyShardedDataParallel.state_dict_type(whole, StateDictType[kind]):
        save(whole.state_dict(), path)


def _shard(content: Weights, path: Path) -> None:
    dcp.save({"model": content}, checkpoint_id=path)


def _prune(model: AutoEncoder) -> nn.Module:
    prune.l1_unstructured(model.encoder.layer1[0].conv1, "weight", amount=0.5)
    return model


def _orthogonal(model: AutoEncoder) -> nn.Module:
    parametrizations.orthogonal(model.encoder.stem[0])
    return model


def _each(norm: Callable[[nn.Module], nn.Module]) -> Callable[[AutoEncoder], nn.Module]:
    def normalize(model: AutoEncoder) -> nn.Module:
        for part in list(model.encoder.modules()):
            if isinstance(part, nn.Conv2d):
                norm(part)
        return model

    return normalize


_TEACHER = {"prefix": "teacher.module.encoder."}
ACCEPTED = {
    "plain": _of(lambda model: model),
    "encoder alone": _of(lambda model: model.encoder),
    "protocol 4": Case(lambda path, model: _save(model.state_dict(), path, pickle_protocol=4)),
    "protocol 5": Case(lambda path, model: _save({"m": model.state_dict()}, path, pickle_protocol=5)),
    "parameters with attributes": Case(lambda path, model: _save(_with_attributes(model), path)),
    "DataParallel": _of(nn.DataParallel),
    "DDP": _of(_data_parallel),
    "torch.compile": _of(compiled),
    "compiled layer": _of(_compile_a_layer),
    "compiled DDP": _of(lambda model: compiled(_data_parallel(model))),
    "DDP of compiled": _of(lambda model: _data_parallel(compiled(model))),
    "activation checkpointing": _of(_checkpoint_activations),
    "AveragedModel": _of(torch.optim.swa_utils.AveragedModel),
    "compiled DDP of AveragedModel": _of(
        lambda model: compiled(_data_parallel(torch.optim.swa_utils.AveragedModel(model)))
    ),
    "AveragedModel beside": Case(functools.partial(_average, make=_averaged_model), {"average": True}),
    "timm with EMA": _holding(lambda state: {"state_dict": state, "state_dict_ema": _more(state), "arch": "x"}),
    "EMA of timm": Case(
        functools.partial(_average, make=lambda state, more: {"state_dict": state, "state_dict_ema": more}),
        {"average": True},
    ),
    "Lightning with averaging": Case(
        functools.partial(_average, make=lambda state, more: {"current_model_state": state, "state_dict": more}),
        {"average": True},
    ),
    "Lightning": _holding(_lightning),
    "DeepSpeed": _holding(lambda state: {"module": state, "ds_config": {"zero": 1}, "ds_version": "0.16"}),
    "student and teacher": Case(
        functools.partial(_average, make=lambda state, more: {"student": state, "teacher": more}), _TEACHER
    ),
    "weight_norm": Case(functools.partial(_normalize_weights, norm=parametrizations.weight_norm)),
    "weight_norm of the whole": Case(
        functools.partial(_normalize_weights, norm=functools.partial(parametrizations.weight_norm, dim=None))
    ),
    "older weight_norm": Case(functools.partial(_normalize_weights, norm=nn.utils.weight_norm)),
    "FSDP, full": _together(functools.partial(_first_fsdp, kind="FULL_STATE_DICT", save=_save)),
    "FSDP, sharded": _together(functools.partial(_first_fsdp, kind="SHARDED_STATE_DICT", save=_shard)),
    "FSDP2, full": _together(_full_of_sharded),
    "FSDP2, sharded": _together(lambda path, model: _shard(_fully_sharded(model).state_dict(), path)),
    "FSDP2 of checkpointed, sharded": _together(
        lambda path, model: _shard(_fully_sharded(model, more=True).state_dict(), path)
    ),
    "sharded after training": Case(_sharded_after_training),
    "sharded DDP": Case(_sharded_data_parallel),
}
_PIECES, _PARTS = "pieces of tensors that one process had", "are parts of weights"
REFUSED = {
    "FSDP, local": _together(functools.partial(_first_fsdp, kind="LOCAL_STATE_DICT", save=_save), says=_PIECES),
    "FSDP, sharded, in one file": _together(
        functools.partial(_first_fsdp, kind="SHARDED_STATE_DICT", save=_save), says=_PIECES
    ),
    "FSDP2, in one file": _together(lambda path, model: _save(_fully_sharded(model).state_dict(), path), says=_PIECES),
    "flattened": _holding(
        lambda state: {"encoder._fsdp_wrapped_module._flat_param": state["encoder.stem.0.weight"]}, says="has flattened"
    ),
    "spectral_norm": _of(_each(parametrizations.spectral_norm), says=_PARTS),
    "older spectral_norm": _of(_each(nn.utils.spectral_norm), says=_PARTS),
    "pruning": _of(_prune, says=_PARTS),
    "orthogonal": _of(_orthogonal, says=_PARTS),
    "negative view": _holding(
        lambda state: {**state, "encoder.stem.0.weight": state["encoder.stem.0.weight"]._neg_view()},
        says="kept as a view",
    ),
    "whole module": Case(lambda path, model: _save(model, path), says="not a state dict but a gridloom"),
}


def place(folder: Path, name: str) -> Path:
    """Where a checkpoint is."""
    return folder / f"{name.replace(' ', '_').replace(',', '')}.ckpt"


def write(folder: Path, rank: int) -> None:
    """Write all checkpoints, with the other process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    _ALONE.append(dist.new_group([0]))
    for name, case in {**ACCEPTED, **REFUSED}.items():
        if rank and not case.together:
            continue
        model = small_autoencoder()
        weights = copy.deepcopy(model.encoder.state_dict())
        weights = case.save(place(folder, name), model) or weights
        if rank == 0:
            copies = {key: tensor.clone() for key, tensor in weights.items()}
            save_file(copies, place(folder, name).with_suffix(".expected"))
    dist.destroy_process_group()


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Extract and verify all; nothing of what wrote them is there any more."""
    from gridloom.encoders.extract import extract_encoder

    torch.set_num_threads(1)
    verdicts = {}
    for name, case in {**ACCEPTED, **REFUSED}.items():
        output = folder / "extracted" / name
        start = time.perf_counter()
        try:
            done = extract_encoder(place(folder, name), output, verify=True, **case.options)
        except CheckpointError as error:
            verdicts[name] = {"refused": str(error), "written": output.exists()}
            continue
        found, wanted = done.encoder.state_dict(), load_file(place(folder, name).with_suffix(".expected"))
        equal = found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
        seconds = time.perf_counter() - start
        verdicts[name] = {"equal": equal, "verified": done.verified, "tensors": len(wanted), "seconds": seconds}
    return verdicts


def _run(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.encoders.wrapped", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(child: subprocess.Popen) -> str:
    output, errors = child.communicate(timeout=300)
    if child.returncode:
        raise RuntimeError(errors[-3000:])
    return str(output)


def write_wrapped_files(folder: Path) -> None:
    """Write all checkpoints, in two processes."""
    folder.mkdir(parents=True, exist_ok=True)
    children = [_run("write", str(folder), str(rank)) for rank in (0, 1)]
    try:
        for child in children:
            _finish(child)
    finally:
        for child in children:
            child.kill()


def read_wrapped_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Read them in a process of its own; see `read`."""
    return dict(json.loads(_finish(_run("read", str(folder)))))


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.stdout.write(json.dumps(read(Path(sys.argv[2]))))
