"""What a checkpoint's pickle may name. Nothing named is ever imported: the list tells data from what is no data."""

import logging
import re
import sys

from gridloom.core.errors import CheckpointError, UnsafeFileError

__all__ = ["check_names"]

_LOGGER = logging.getLogger(__name__)
_SHOWN, _LONGEST = 5, 64  # names in a message, and characters of a name
_PIECES = re.compile(r"torch\.distributed\.[\w.]*\.(DTensor|ShardedTensor)")
_DATA = re.compile(
    r"""
      builtins\.(set|frozenset|list|dict|tuple|int|float|complex|bool|str|bytes|object|slice|range)
    | collections\.(OrderedDict|defaultdict|Counter|deque|ChainMap|UserDict)
    | argparse\.Namespace|types\.SimpleNamespace|functools\.partial|_codecs\.encode|copyreg\.(_reconstructor|__newobj__)
    | pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path
    | datetime\.(datetime|date|time|timedelta|timezone)
    | decimal\.Decimal|fractions\.Fraction|uuid\.UUID|enum\.\w+|typing\.\w+
    | torch\.(bool|u?int\d+|b?float\d+\w*|complex\d+)
    | torch\.(Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage
    | torch\.(Size|device|Tensor|storage\.UntypedStorage|torch_version\.TorchVersion|serialization\._get_layout)
    | torch\.(_utils\._rebuild_(tensor_v2|tensor_v3|parameter|parameter_with_state)|_tensor\._rebuild_from_type_v2)
    | torch\.(nn|optim|_C\._nn)\.[\w.]+
    | torch\.distributed\.checkpoint\.(metadata|filesystem|planner)\.\w+
    | numpy\.(dtype|ndarray|bool_?|u?int\d+|float\d+|complex\d+|str_|bytes_|datetime64|timedelta64|dtypes\.\w+)
    | numpy\._?core\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)
    | numpy\.random\.(_\w+|bit_generator)\.\w+
    """,
    re.VERBOSE,
)
"""Data types of the standard library, of torch and of numpy, functions that rebuild them, and modules in settings."""


def check_names(where: str, names: set[str]) -> None:
    """Refuse names that have no place in a checkpoint, and say which classes of other packages are passed over.

    A class of another package may well stand in a checkpoint's settings; a function of the standard library, of torch
    or of numpy that is not on the list has no use there but to run.

    Args:
        where: The file, for messages.
        names: All that its pickle asks for, with their modules.

    Raises:
        UnsafeFileError: Lists the names.
        CheckpointError: The tensors are pieces that belong to one process of several.
    """
    pieces = sorted(name for name in names if _PIECES.fullmatch(name))
    if pieces:
        raise CheckpointError(
            f"{where}: holds the pieces of tensors that one process had ({pieces[0].rpartition('.')[2]}); save with "
            f"torch.distributed.checkpoint and pass its folder, or the full state dict (get_model_state_dict with "
            f"StateDictOptions(full_state_dict=True))"
        )
    others = {name for name in names if not _DATA.fullmatch(name)}
    blocked = {name for name in others if name.partition(".")[0] in {"", "torch", "numpy", *sys.stdlib_module_names}}
    if blocked:
        raise UnsafeFileError(
            f"{where}: asks for {_some(blocked)}, which can run code or is no tensor; nothing was run. "
            f"Where you trust it, load it in its own program and save only model.state_dict()"
        )
    if others:
        _LOGGER.info("%s: objects of these classes are passed over, not opened: %s", where, _some(others))


def _some(names: set[str]) -> str:
    shown = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in sorted(names)[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
