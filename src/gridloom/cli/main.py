"""`gridloom VERB ...`: finds the verb, and turns errors into one line."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence

import gridloom
from gridloom.core.errors import GridloomError, UnknownNameError

__all__ = ["VERBS", "main"]

VERBS = {
    "rasterize": "bin files of trades into heatmaps by the minute, every row accounted for",
    "train": "train a system on data; again with the same --output goes on where it was",
    "extract": "get the encoder out of a checkpoint, as an artifact or a .pth file",
    "export": "write an encoder as one file for ONNX Runtime (.onnx) or torch.export (.pt2)",
    "encode": "turn a dataset into embeddings with coordinates",
    "search": "find embeddings near a query, those that repeat others, those that are like none",
    "evaluate": "score a model beside the dumb baselines on held-out data",
    "fill": "fill the gaps of a record, with how certain and from where",
    "forecast": "forecast the frames after a record, with sample paths",
    "locate": "say where something is in images, how certain, and where else",
    "stabilize": "take the flicker out of a video, or of latents over time",
    "figures": "draw the pictures of a run, as PNG and SVG, with a gallery",
    "info": "say what a run, an artifact or a file of weights is",
    "report": "draw a run as one self-contained HTML page",
    "check": "look at a dataset before training: missing cells, gaps, split, preset",
    "data": "list or prepare the data sets that come along",
    "demo": "the whole way on real data, in a few minutes",
}

_HELP = """usage: gridloom VERB ...

Learn, extract and use representations of gridded data over time.

verbs:
{verbs}

`gridloom VERB --help` says more. MODEL is a run folder or an artifact; DATA is a file, a folder or a sample's name.
--traceback shows where an error comes from, --version the version.

  gridloom check etopo20
  gridloom train semantic etopo20 --preset elevation --output runs/relief
  gridloom encode runs/relief etopo20 --output relief.zarr
"""


def _help() -> str:
    return _HELP.format(verbs="\n".join(f"  {name:10} {summary}" for name, summary in VERBS.items()))


def _say_error(error: BaseException) -> None:
    text = " ".join(str(error).split()) or type(error).__name__
    sys.stderr.write(f"gridloom: error: {text}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        0 if all went well, 2 for an error that the user can mend, 128 + n if signal n ended it.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = "--traceback" in given
    given = [argument for argument in given if argument != "--traceback"]
    if not given or given[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if given[0] == "--version":
        sys.stdout.write(f"gridloom {gridloom.__version__}\n")
        return 0
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="gridloom: %(message)s", stream=sys.stderr)
    logging.getLogger("gridloom").setLevel(level)
    try:
        if given[0] not in VERBS:
            raise UnknownNameError("verb", given[0], VERBS)
        return int(importlib.import_module(f"gridloom.cli.{given[0]}").run(given[1:]) or 0)
    except BrokenPipeError:  # the reader of our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GridloomError, OSError) as error:
        if show_traceback:
            raise
        _say_error(error)
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("gridloom: interrupted\n")
        return 130
