"""Finding an encoder's tensors among those of a checkpoint, whatever wrapped it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from gridloom.core.errors import CheckpointError, did_you_mean
from gridloom.encoders.parametrized import fold_weight_norm, still_in_parts
from gridloom.encoders.weights import check_values

__all__ = ["check_fit", "load_strictly", "pick_encoder", "unwrap"]

_WRAPPERS = {
    "module",  # DataParallel, DistributedDataParallel, AveragedModel, DeepSpeed
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",
    "_fpw_module",  # FairScale
    "_forward_module",  # Lightning's Fabric and its DeepSpeed strategy
    "_checkpoint_wrapped_module",  # activation checkpointing
}
_AVERAGE_WORDS = {"ema", "swa", "averaged"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of model_ema, EMACallback and averagedModel
_COUNTER = "n_averaged"  # AveragedModel counts its updates beside the weights
_ANCHOR = "stem.0.weight"
_MOST, _LONGEST = 3, 64  # names in a message, and characters of a name
_PREFIXES, _MANY = 8, 64  # in a message, and more than anybody's file has


def unwrap(name: str) -> str:
    """Drop what DDP, torch.compile, FSDP and the like put into a name, in any position and nesting."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def pick_encoder(
    path: Path | str,
    tensors: Mapping[str, Tensor],
    *,
    anchor: str = _ANCHOR,
    average: bool = False,
    prefix: str | None = None,
) -> dict[str, Tensor]:
    """Return the tensors of the encoder, by their names inside it; weight normalization is folded.

    Args:
        path: Where they come from, for messages.
        tensors: All tensors of the file.
        anchor: Name of a tensor that every encoder of this kind has.
        average: Take the running average (EMA) of the weights where the file has one beside them.
        prefix: What stands before the encoder's names, with or without wrappers; where the file has several encoders.

    Raises:
        CheckpointError: There is no encoder, or several; the prefixes that were seen are listed.
    """
    plain = {unwrap(name): tensor for name, tensor in tensors.items() if name.rpartition(".")[2] != _COUNTER}
    num_twice = sum(name.rpartition(".")[2] != _COUNTER for name in tensors) - len(plain)
    if num_twice:
        raise CheckpointError(
            f"{path}: {num_twice} tensors stand in it twice, with and without a wrapper "
            f"({', '.join(sorted(_WRAPPERS))}); save the one state dict you mean by itself"
        )
    plain = fold_weight_norm(plain)
    prefixes = sorted(name[: -len(anchor)] for name in plain if name == anchor or name.endswith(f".{anchor}"))
    if not prefixes:
        raise _no_encoder(path, plain, anchor)
    if prefix is None:
        prefix = _choose(path, prefixes, tensors, average=average)
    else:
        prefix = _asked(path, prefixes, prefix, average=average)
    found = {name[len(prefix) :]: tensor for name, tensor in plain.items() if name.startswith(prefix)}
    _refuse_parts(path, found)
    return found


def _averages(prefixes: Sequence[str], tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the prefixes of averaged weights: by their names, or by what stands beside them."""
    named = {prefix for prefix in prefixes if _AVERAGE_WORDS & {word.lower() for word in _WORD.findall(prefix)}}
    counted = tuple(unwrap(name).removesuffix(_COUNTER) for name in tensors if name.endswith(f".{_COUNTER}"))
    beside = {prefix for prefix in prefixes if prefix.startswith(counted)}
    if any(prefix.startswith("current_model_state.") for prefix in prefixes):  # Lightning's callback WeightAveraging
        beside |= {prefix for prefix in prefixes if prefix.startswith("state_dict.")}
    # An average alone in its file is simply the model, unless its name says that it is one.
    return named | (beside if set(prefixes) - named - beside else set())


def _choose(path: Path | str, prefixes: Sequence[str], tensors: Mapping[str, Tensor], *, average: bool) -> str:
    averages = _averages(prefixes[:_MANY], tensors)
    chosen = [prefix for prefix in prefixes if (prefix in averages) == average]
    if not chosen:
        raise CheckpointError(
            f"{path}: no {'averaged' if average else 'plain'} weights of an encoder; prefixes: {_some(prefixes)}"
            + ("" if average else "; ask for averaged ones with --average")
        )
    if len(chosen) > 1:
        raise CheckpointError(
            f"{path}: several encoders: prefixes {_some(chosen)}; name one with --prefix, or save it by itself"
        )
    return chosen[0]


def _asked(path: Path | str, prefixes: Sequence[str], asked: str, *, average: bool) -> str:
    if average:
        raise CheckpointError(f"{path}: a prefix says which weights are meant, averaged or not; leave --average out")
    prefix = unwrap(asked.rstrip("."))
    prefix += "." if prefix else ""
    if prefix not in prefixes:
        near = did_you_mean(prefix.rstrip("."), [known.rstrip(".") for known in prefixes])
        raise CheckpointError(f"{path}: no encoder under the prefix {asked!r:.80}{near}; prefixes: {_some(prefixes)}")
    return prefix


def _no_encoder(path: Path | str, plain: Mapping[str, Tensor], anchor: str) -> CheckpointError:
    module = f".{anchor.rpartition('.')[0]}."
    _refuse_parts(path, [name for name in plain if module in f".{name}"])
    if any(name.rpartition(".")[2].startswith(("_flat_param", "flat_param")) for name in plain):
        return CheckpointError(
            f"{path}: weights that FSDP has flattened (_flat_param), whose shapes are not in the file; save with "
            f"StateDictType.FULL_STATE_DICT, or with torch.distributed.checkpoint, and pass that"
        )
    seen = sorted({".".join(name.split(".")[:2])[:_LONGEST] for name in plain})
    return CheckpointError(
        f"{path}: no encoder weights found (未找到encoder权重): nothing ends with {anchor!r}; "
        f"prefixes seen: {', '.join(seen[:_PREFIXES])}{', ...' if len(seen) > _PREFIXES else ''}"
    )


def _refuse_parts(path: Path | str, names: Iterable[str]) -> None:
    parts = still_in_parts(names)
    if parts:
        raise CheckpointError(
            f"{path}: {len(parts)} tensors are parts of weights, as of spectral_norm or pruning ({_some(parts)}); how "
            f"to join them is not in the file: call remove_parametrizations, remove_spectral_norm or prune.remove on "
            f"the model and save its state dict"
        )


def check_fit(path: Path | str, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Compare names, shapes and dtypes with those of a module, which may be on the meta device.

    Raises:
        CheckpointError: Lists what is missing, unexpected or differs.
    """
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - wanted.keys())
    common = sorted(wanted.keys() & tensors.keys())
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(wanted)} missing ({_some(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({_some(unexpected)})")
    shapes = [
        f"{name} is {list(tensors[name].shape)}, expected {list(wanted[name].shape)}"
        for name in common
        if tensors[name].shape != wanted[name].shape
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape ({_some(shapes, '; ')})")
    dtypes = [
        f"{n} is {tensors[n].dtype}, expected {wanted[n].dtype}" for n in common if tensors[n].dtype != wanted[n].dtype
    ]
    if dtypes:
        problems.append(
            f"{len(dtypes)} of another dtype ({_some(dtypes, '; ')}); convert them first, e.g. with .float()"
        )
    if problems:
        raise CheckpointError(f"{path}: the weights do not fit {type(module).__name__}: {'; '.join(problems)}")


def load_strictly(path: Path | str, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into a module: all of them, of the same shape and dtype and finite, or none.

    Raises:
        CheckpointError: Lists what is missing, unexpected or differs in shape.
    """
    check_fit(path, module, tensors)
    check_values(path, tensors)
    module.load_state_dict(tensors, strict=True)


def _some(names: Sequence[str], separator: str = ", ") -> str:
    shown = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names[:_MOST]]
    return separator.join(shown) + (f"{separator}..." if len(names) > _MOST else "")
