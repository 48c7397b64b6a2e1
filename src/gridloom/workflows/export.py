"""export: a model, or its encoder, to one file that other programs run."""

from pathlib import Path

from gridloom.core.errors import ConfigError
from gridloom.encoders.artifact import read_artifact
from gridloom.encoders.export import export_encoder
from gridloom.encoders.export_model import export_model
from gridloom.encoders.portable import Export

__all__ = ["Export", "export"]


def export(
    model: Path | str,
    output: Path | str,
    *,
    window: tuple[int, int] | None = None,
    normalize: bool = False,
    replace: bool = False,
) -> Export:
    """Write the encoder of a system that has one, see `export_encoder`; or else the model, see `export_model`.

    Args:
        model: Run folder, artifact or file of an encoder's weights.
        output: `.onnx` or `.pt2`.
        window: For encoders: height and width in cells.
        normalize: For encoders: the file takes values in data units.
        replace: Overwrite an existing output.

    Raises:
        ConfigError: A system that has neither, or a setting that is for encoders.
    """
    system = None if Path(model).is_file() else read_artifact(model).system
    if system is None or system.encoder is not None:
        return export_encoder(model, output, window=window, normalize=normalize, replace=replace)
    if system.graph is None:
        raise ConfigError(
            f"{model}: system {system.name!r} has neither an encoder nor a graph of tensors, it cannot be exported"
        )
    if window is not None or normalize:
        raise ConfigError(
            f"{model}: --window and --normalize are for encoders, and this is the model of system {system.name!r}; "
            "leave them out"
        )
    return export_model(model, output, replace=replace)
