"""OpenCV where it is used, and quiet."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gridloom.core.errors import ConfigError

__all__ = ["opencv", "silence"]


def opencv() -> Any:
    """Import OpenCV.

    Returns:
        The module `cv2`.

    Raises:
        ConfigError: It is not installed; the message says what to install.
    """
    # ffmpeg's own lines on standard error; read when the first video is opened, a user's setting stands
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError:
        raise ConfigError(
            "video and optical flow need OpenCV, which is not installed; pip install gridloom[video]"
        ) from None
    return cv2


@contextmanager
def silence() -> Iterator[None]:
    """Keep OpenCV's warnings off standard error inside the block: what went wrong is raised as an error of ours."""
    logging = opencv().utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
