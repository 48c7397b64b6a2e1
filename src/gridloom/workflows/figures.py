"""figures: the pictures of a run by themselves, and a gallery of them."""

import html
import io
from pathlib import Path

import numpy as np

from gridloom.core.atomic import read_json, write_bytes, write_json, write_text
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.core.system import Drawing
from gridloom.viz.style import save
from gridloom.workflows.view import open_view

__all__ = ["ALL", "figures"]

ALL = "all"


def figures(
    run: Path | str,
    name: str = ALL,
    *,
    output: Path | str | None = None,
    beside: Path | str | None = None,
    data: bool = False,
) -> dict[str, Path]:
    """Draw the pictures of a system from a finished run.

    Each becomes NAME.png and NAME.svg (and NAME.gif where it moves), with its caption in NAME.json; `index.html` shows
    all that are in the folder, those of other runs too.

    Args:
        run: Run folder.
        name: Name of a picture, or `all` for every one that applies to the run.
        output: Folder; `figures` in the run folder if not given.
        beside: Another run of the same system to compare with, where a picture does (a regression beside an energy).
        data: Also save the numbers behind each picture, NAME.npz.

    Returns:
        The PNG of each picture drawn, by name.

    Raises:
        UnknownNameError: No such picture.
        DataError: The picture does not apply to the run, or the two runs are of different systems.
    """
    run = Path(run)
    other = None
    if beside is not None:
        other_artifact, _, _, other = open_view(Path(beside))
    artifact, _, _, view = open_view(run, beside=other)
    if beside is not None and other_artifact.system.name != artifact.system.name:
        raise DataError(f"{beside}: system {other_artifact.system.name}, not {artifact.system.name}")
    known = artifact.system.figures
    if name != ALL and name not in known:
        raise UnknownNameError(f"figure of {artifact.system.name}", name, [*known, ALL])
    folder = run / "figures" if output is None else Path(output)
    written = {}
    for chosen in known if name == ALL else [name]:
        drawing = known[chosen](view)
        if drawing is None:
            if name != ALL:
                raise DataError(f"{run}: figure {chosen} does not apply to this run; `all` draws those that do")
            continue
        _write(drawing, chosen, folder, run=run, data=data)
        written[chosen] = folder / f"{chosen}.png"
    _write_gallery(folder)
    return written


def _write(drawing: Drawing, name: str, folder: Path, *, run: Path, data: bool) -> None:
    save(drawing.figure, folder / f"{name}.png")
    save(drawing.figure, folder / f"{name}.svg")
    if drawing.animation is not None:
        write_bytes(folder / f"{name}.gif", drawing.animation)
    if data:
        packed = io.BytesIO()
        np.savez_compressed(packed, **drawing.data)  # type: ignore[arg-type]
        write_bytes(folder / f"{name}.npz", packed.getvalue())
    write_json(folder / f"{name}.json", {"caption": drawing.caption, "run": run.name})


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Figures</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }}
main {{ columns: 2 26rem; column-gap: 2.5rem; }}
figure {{ break-inside: avoid; margin: 0 0 2.2rem; }}
img {{ width: 100%; height: auto; }}
h2 {{ font-size: 1rem; margin: 0 0 .4rem; }}
figcaption {{ color: #555; font-size: .85rem; }}
a {{ color: #0072B2; }}
</style></head><body><h1>Figures</h1><main>
{figures}
</main></body></html>
"""


def _write_gallery(folder: Path) -> None:
    """A page of all pictures in the folder that have a caption."""
    parts = []
    for record in sorted(folder.glob("*.json")):
        name = record.stem
        if not (folder / f"{name}.png").is_file():
            continue
        content = read_json(record)
        caption, run = html.escape(str(content.get("caption", ""))), html.escape(str(content.get("run", "")))
        links = " · ".join(
            f'<a href="{name}{suffix}">{suffix[1:].upper()}</a>'
            for suffix in (".svg", ".gif", ".npz")
            if (folder / f"{name}{suffix}").is_file()
        )
        parts.append(
            f'<figure><h2>{name.replace("_", " ")}</h2><img src="{name}.png" alt="{caption}">'
            f"<figcaption>{caption} Run: {run}. {links}</figcaption></figure>"
        )
    write_text(folder / "index.html", _PAGE.format(figures="\n".join(parts)))
