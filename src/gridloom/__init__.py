"""gridloom: learn, extract and use representations of gridded data over time."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "EmbeddingIndex",
    "Field",
    "GridloomError",
    "SemanticEncoder",
    "Step",
    "System",
    "__version__",
    "configure",
    "create_semantic_encoder",
    "draw_figures",
    "encode_data",
    "evaluate_model",
    "export_encoder",
    "extract_encoder",
    "fill",
    "find_duplicates",
    "find_outliers",
    "forecast",
    "impute",
    "locate",
    "open_grid",
    "rasterize",
    "save_grid",
    "search_embeddings",
    "stabilize",
    "train_system",
]

# The verbs as functions have longer names than on the command line: `gridloom.train` is a package.
_PLACES = {
    "Batch": "gridloom.core.batch:Batch",
    "EmbeddingIndex": "gridloom.encoders.index:EmbeddingIndex",
    "Field": "gridloom.core.batch:Field",
    "GridloomError": "gridloom.core.errors:GridloomError",
    "SemanticEncoder": "gridloom.encoders.encoder:SemanticEncoder",
    "Step": "gridloom.core.batch:Step",
    "System": "gridloom.core.system:System",
    "configure": "gridloom.workflows.train:configure",
    "create_semantic_encoder": "gridloom.encoders.encoder:create_semantic_encoder",
    "draw_figures": "gridloom.workflows.figures:figures",
    "encode_data": "gridloom.workflows.encode:encode",
    "evaluate_model": "gridloom.workflows.evaluate:evaluate",
    "export_encoder": "gridloom.encoders.export:export_encoder",
    "extract_encoder": "gridloom.encoders.extract:extract_encoder",
    "fill": "gridloom.workflows.fill:fill",
    "find_duplicates": "gridloom.workflows.search:find_duplicates",
    "find_outliers": "gridloom.workflows.search:find_outliers",
    "forecast": "gridloom.workflows.forecast:forecast",
    "impute": "gridloom.workflows.fill:impute",
    "locate": "gridloom.workflows.locate:locate",
    "open_grid": "gridloom.grid.read:open_grid",
    "rasterize": "gridloom.workflows.rasterize:rasterize",
    "save_grid": "gridloom.grid.write:save_grid",
    "search_embeddings": "gridloom.workflows.search:search",
    "stabilize": "gridloom.workflows.stabilize:stabilize",
    "train_system": "gridloom.workflows.train:train",
}

if TYPE_CHECKING:
    from gridloom.core.batch import Batch, Field, Step
    from gridloom.core.errors import GridloomError
    from gridloom.core.system import System
    from gridloom.encoders.encoder import SemanticEncoder, create_semantic_encoder
    from gridloom.encoders.export import export_encoder
    from gridloom.encoders.extract import extract_encoder
    from gridloom.encoders.index import EmbeddingIndex
    from gridloom.grid.read import open_grid
    from gridloom.grid.write import save_grid
    from gridloom.workflows.encode import encode as encode_data
    from gridloom.workflows.evaluate import evaluate as evaluate_model
    from gridloom.workflows.figures import figures as draw_figures
    from gridloom.workflows.fill import fill, impute
    from gridloom.workflows.forecast import forecast
    from gridloom.workflows.locate import locate
    from gridloom.workflows.rasterize import rasterize
    from gridloom.workflows.search import find_duplicates, find_outliers
    from gridloom.workflows.search import search as search_embeddings
    from gridloom.workflows.stabilize import stabilize
    from gridloom.workflows.train import configure
    from gridloom.workflows.train import train as train_system


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for, so that `import gridloom` costs next to nothing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'gridloom' has no attribute {name!r}")
    import importlib

    module, attribute = _PLACES[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
