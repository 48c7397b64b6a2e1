"""gridloom: learn, extract and use representations of gridded data over time."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Field",
    "GridloomError",
    "SemanticEncoder",
    "Step",
    "System",
    "__version__",
    "create_semantic_encoder",
    "encode",
    "evaluate",
    "extract_encoder",
    "open_grid",
    "save_grid",
    "train",
]

_PLACES = {
    "Batch": "gridloom.core.batch",
    "Field": "gridloom.core.batch",
    "GridloomError": "gridloom.core.errors",
    "SemanticEncoder": "gridloom.encoders.encoder",
    "Step": "gridloom.core.batch",
    "System": "gridloom.core.system",
    "create_semantic_encoder": "gridloom.encoders.encoder",
    "encode": "gridloom.workflows.encode",
    "evaluate": "gridloom.workflows.evaluate",
    "extract_encoder": "gridloom.encoders.extract",
    "open_grid": "gridloom.grid.read",
    "save_grid": "gridloom.grid.write",
    "train": "gridloom.workflows.train",
}

if TYPE_CHECKING:
    from gridloom.core.batch import Batch, Field, Step
    from gridloom.core.errors import GridloomError
    from gridloom.core.system import System
    from gridloom.encoders.encoder import SemanticEncoder, create_semantic_encoder
    from gridloom.encoders.extract import extract_encoder
    from gridloom.grid.read import open_grid
    from gridloom.grid.write import save_grid
    from gridloom.workflows.encode import encode
    from gridloom.workflows.evaluate import evaluate
    from gridloom.workflows.train import train


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for, so that `import gridloom` costs next to nothing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'gridloom' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
