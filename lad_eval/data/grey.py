"""Grey values of more than 8 bits, or in floating point, on the scale of 0 to 255."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_WHITES = (1.0, 2.0**8 - 1, 2.0**16 - 1, 2.0**31 - 1, 2.0**32 - 1)
_DARKEST = 1 / 16
"""Share of a customary white that the brightest value must reach, or the picture is not on that scale."""


def eight_bits(values: npt.NDArray[Any], white: float | None = None) -> npt.NDArray[np.uint8]:
    """Grey values, scaled linearly and rounded; the same range for every value of the picture.

    Black and white are those of the file where it says so (16 bits: 0 and 65535). 32-bit integers and floats do not say; there 0
    is black, and white is the least of 1 (floats only), 2**8 - 1, 2**16 - 1, 2**31 - 1 and 2**32 - 1 that holds all values, if
    the brightest is more than a sixteenth of it. Else the picture's least value is black and its greatest is white.

    NaN is no measurement and becomes white, as a transparent pixel does; infinities become black and white. A picture of one
    value outside of every customary range is mid-grey, since nothing says how bright it is.

    Args:
        values: [H, W], integers or floats.
        white: the value that the file declares as white; black is 0 then.

    Returns:
        UInt8[H, W].

    Raises:
        ValueError: no value is finite.
    """
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("none of its values is finite")
    if white is None:
        least = float(values.min(where=finite, initial=values[finite][0]))
        greatest = float(values.max(where=finite, initial=values[finite][0]))
        low, high = _range(least, greatest, np.issubdtype(values.dtype, np.floating))
    else:
        low, high = 0.0, white
    scaled = np.empty(values.shape, np.uint8)
    for row, line in enumerate(values):  # row by row, since doubles of a whole large picture are several GB
        exact = line.astype(np.float64)
        share = (exact - low) / (high - low) if high > low else np.where(exact == low, 0.5, exact - low)
        scaled[row] = np.floor(np.nan_to_num(np.clip(share, 0.0, 1.0), nan=1.0) * 255 + 0.5)
    return scaled


def _range(least: float, greatest: float, floating: bool) -> tuple[float, float]:
    """What is black and what is white."""
    whites = _WHITES if floating else _WHITES[1:]
    if least >= 0:
        for white in whites:
            if greatest <= white and (white == whites[0] or greatest > white * _DARKEST):
                return 0.0, white
    return least, greatest
