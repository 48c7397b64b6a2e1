"""Words for where something lies."""

from collections.abc import Mapping

__all__ = ["describe_place"]


def describe_place(coordinates: Mapping[str, float]) -> str:
    """Say a place in one short line: `27°N, 62°W, month 3`.

    Args:
        coordinates: Numbers by name; names that begin with lat and lon are degrees.
    """
    parts = []
    for name, value in coordinates.items():
        if name.startswith("lat"):
            parts.append(f"{abs(value):.0f}°{'S' if value < 0 else 'N'}")
        elif name.startswith("lon"):
            east = (value + 180) % 360 - 180
            parts.append(f"{abs(east):.0f}°{'W' if east < 0 else 'E'}")
        else:
            parts.append(f"{name} {value:.4g}")
    return ", ".join(parts)
