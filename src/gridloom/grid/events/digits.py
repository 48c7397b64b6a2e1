"""Numbers out of text, whole columns at once: eight characters are one 64-bit word, and arithmetic works on all eight.

Each parser says which rows it could read; the others are for a parser that knows more ways of writing. What is read
here equals what `float` makes of the text, to the last bit.
"""

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8, UInt64

__all__ = ["PADDING", "clock_seconds", "decimals", "words_of"]

PADDING = 8
"""Bytes that have to follow the text in its buffer."""

_ZEROS = np.uint64(0x3030303030303030)
_HIGH = np.uint64(0x8080808080808080)
_CLOCK = np.uint64(0x30303A30303A3030)  # 00:00:00, the first character in the lowest byte
_CLOCK_ROOM = np.uint64(0x767A7F767A7F767D)  # 0x7F less the largest digit there: 29:59:59
_DIGITS_ROOM = 0x7676767676767676
_EVEN = np.uint64(0x000000FF000000FF)
_MINUTES, _HOURS, _HOURS_AND_MINUTES = np.uint64(24), np.uint64(0xFF), np.uint64(0xFF0000FF)
_TO_MINUTES = np.uint64(1 + (60 << 24))
_PAIRS_HIGH = np.uint64(100 + (1_000_000 << 32))
_PAIRS_LOW = np.uint64(1 + (10_000 << 32))
_DAY = 86_400


def words_of(text: UInt8[np.ndarray, " byte"]) -> np.ndarray:
    """Return a view whose element i is the word of the eight bytes from i on; `PADDING` bytes at the end have none."""
    return np.ndarray((max(len(text) - PADDING + 1, 0),), dtype="<u8", buffer=text, strides=(1,))


def clock_seconds(
    words: UInt64[np.ndarray, " row"], lengths: np.ndarray
) -> tuple[Int32[np.ndarray, " row"], Bool[np.ndarray, " row"]]:
    """Read `HH:MM:SS`.

    Args:
        words: Words from the first character on.
        lengths: Number of characters.

    Returns:
        Seconds of the day (meaningless where not read), and which rows were read.
    """
    digits = words ^ _CLOCK
    read = _fits(digits, _CLOCK_ROOM) & (lengths == 8)
    pairs = digits * np.uint64(10)
    digits >>= np.uint64(8)
    pairs += digits
    # Minutes stand in bits 24 to 31 and seconds in 48 to 55, where the multiplication adds them to the hours.
    seconds = pairs >> np.uint64(48)
    seconds &= _HOURS
    pairs &= _HOURS_AND_MINUTES
    pairs *= _TO_MINUTES
    pairs >>= _MINUTES
    pairs &= np.uint64(0xFFF)
    pairs *= np.uint64(60)
    pairs += seconds
    result = pairs.astype(np.int32)
    read &= result < _DAY
    return result, read


def decimals(
    words: UInt64[np.ndarray, " row"], lengths: np.ndarray, *, places: int
) -> tuple[Int64[np.ndarray, " row"], Bool[np.ndarray, " row"]]:
    """Read numbers of at most eight characters with a fixed number of digits after the point, such as 12.34.

    Args:
        words: Words from the first character on.
        lengths: Number of characters.
        places: Digits after the point; 0 for whole numbers without a point.

    Returns:
        The number in units of its last digit (1234 for 12.34; meaningless where not read), and which rows were read.
    """
    shift = (8 - lengths).astype(np.uint64)
    shift <<= np.uint64(3)
    digits = words ^ _ZEROS
    digits <<= shift  # right-aligned behind zeros
    read = (lengths >= places + 2 if places else lengths >= 1) & (lengths <= 8)
    if places:
        point = 8 * (7 - places)
        digits ^= np.uint64((0x2E ^ 0x30) << point)
        read &= _fits(digits, np.uint64(_DIGITS_ROOM | 0x7F << point))
        below = np.uint64((1 << point) - 1)
        before = digits & below
        before <<= np.uint64(8)
        digits &= ~below
        digits |= before
    else:
        read &= _fits(digits, np.uint64(_DIGITS_ROOM))
    pairs = digits * np.uint64(10)
    pairs += digits >> np.uint64(8)
    number = pairs & _EVEN
    number *= _PAIRS_HIGH
    pairs >>= np.uint64(16)
    pairs &= _EVEN
    pairs *= _PAIRS_LOW
    number += pairs
    number >>= np.uint64(32)
    return number.view(np.int64), read


def _fits(digits: np.ndarray, room: np.uint64) -> np.ndarray:
    """Whether no byte is larger than the room left to 0x7F allows."""
    over = digits + room
    over |= digits
    over &= _HIGH
    fits: np.ndarray = over == 0
    return fits
