"""Finding an encoder's tensors among those of a checkpoint, whatever wrapped it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from gridloom.core.errors import CheckpointError
from gridloom.encoders.weights import check_values

__all__ = ["check_fit", "load_strictly", "pick_encoder", "unwrap"]

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module", "_checkpoint_wrapped_module"}
_ANCHOR = "stem.0.weight"
_MOST, _LONGEST = 3, 64  # names in a message, and characters of a name
_PREFIXES = 8


def unwrap(name: str) -> str:
    """Drop what DDP, torch.compile, FSDP and the like put into a name, in any position and nesting."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _is_average(prefix: str) -> bool:
    return any("ema" in part.lower() or "averaged" in part.lower() for part in prefix.split("."))


def pick_encoder(
    path: Path | str, tensors: Mapping[str, Tensor], *, anchor: str = _ANCHOR, average: bool = False
) -> dict[str, Tensor]:
    """Return the tensors of the encoder, by their names inside it.

    Args:
        path: Where they come from, for messages.
        tensors: All tensors of the file.
        anchor: Name of a tensor that every encoder of this kind has.
        average: Take the running average (EMA) of the weights where the file has one beside them.

    Raises:
        CheckpointError: There is no encoder, or several; the prefixes that were seen are listed.
    """
    # AveragedModel counts its updates beside the weights.
    tensors = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] != "n_averaged"}
    plain = {unwrap(name): tensor for name, tensor in tensors.items()}
    if len(plain) != len(tensors):
        raise CheckpointError(
            f"{path}: {len(tensors) - len(plain)} tensors stand in it twice, with and without a wrapper "
            f"({', '.join(sorted(_WRAPPERS))}); save the one state dict you mean by itself"
        )
    prefixes = sorted(name[: -len(anchor)] for name in plain if name == anchor or name.endswith(f".{anchor}"))
    if not prefixes:
        seen = sorted({".".join(name.split(".")[:2])[:_LONGEST] for name in plain})
        raise CheckpointError(
            f"{path}: no encoder weights found (未找到encoder权重): nothing ends with {anchor!r}; "
            f"prefixes seen: {', '.join(seen[:_PREFIXES])}{', ...' if len(seen) > _PREFIXES else ''}"
        )
    chosen = [prefix for prefix in prefixes if _is_average(prefix) == average]
    if not chosen:
        raise CheckpointError(
            f"{path}: no {'averaged' if average else 'plain'} weights of an encoder; prefixes: {_some(prefixes)}"
        )
    if len(chosen) > 1:
        raise CheckpointError(f"{path}: several encoders: prefixes {_some(chosen)}; save the one you mean by itself")
    prefix = chosen[0]
    return {name[len(prefix) :]: tensor for name, tensor in plain.items() if name.startswith(prefix)}


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


def _some(names: list[str], separator: str = ", ") -> str:
    shown = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names[:_MOST]]
    return separator.join(shown) + (f"{separator}..." if len(names) > _MOST else "")
