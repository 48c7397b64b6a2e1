"""The pictures of the crossmae system: arrays in, drawings out; `crossmae.figures` takes the arrays from a run."""

__all__: list[str] = []
