"""Capital letters and figures, five by seven pixels each, drawn into pictures."""

import numpy as np
import numpy.typing as npt

from brainfed.core.png import Pixels

# Five columns a glyph, the lowest bit on top: the letters of the small displays of the 1980s.
_GLYPHS = {
    " ": "0000000000", "-": "0808080808", "+": "08083e0808", ".": "0060600000",
    ":": "0036360000", "(": "001c224100", ")": "0041221c00", "%": "2313086462",
    "0": "3e5149453e", "1": "00427f4000", "2": "4261514946", "3": "2141454b31",
    "4": "1814127f10", "5": "2745454539", "6": "3c4a494930", "7": "0171090503",
    "8": "3649494936", "9": "064949291e", "A": "7e1111117e", "B": "7f49494936",
    "C": "3e41414122", "D": "7f4141221c", "E": "7f49494941", "F": "7f09090901",
    "G": "3e4149497a", "H": "7f0808087f", "I": "00417f4100", "J": "2040413f01",
    "K": "7f08142241", "L": "7f40404040", "M": "7f020c027f", "N": "7f0408107f",
    "O": "3e4141413e", "P": "7f09090906", "Q": "3e4151215e", "R": "7f09192946",
    "S": "4649494931", "T": "01017f0101", "U": "3f4040403f", "V": "1f2040201f",
    "W": "3f4038403f", "X": "6314081463", "Y": "0708700807", "Z": "6151494543",
}  # fmt: skip
HEIGHT = 7
ADVANCE = 6
"""Pixels from one letter to the next, before magnification."""


def letter_mask(text: str, *, times: int = 1) -> npt.NDArray[np.bool_]:
    """Where the ink of a line of text is: `(7 times, 6 times letters)`; unknown letters are blank.

    Args:
        text: The line; small letters are drawn as capitals.
        times: Magnification.
    """
    columns = bytes.fromhex("".join(_GLYPHS.get(c, _GLYPHS[" "]) + "00" for c in text.upper()))
    bits = np.unpackbits(np.frombuffer(columns, np.uint8)[:, None], axis=1, bitorder="little")
    ink = bits[:, :HEIGHT].T.astype(np.bool_)
    return ink.repeat(times, axis=0).repeat(times, axis=1)


def write(
    pixels: Pixels,
    text: str,
    at: tuple[int, int],
    *,
    colour: tuple[int, int, int] = (255, 255, 255),
    times: int = 1,
) -> None:
    """Draw a line of text into a picture, with a dark edge that keeps it readable on bright ground.

    Args:
        pixels: `(row, column, 3)`, changed in place.
        text: The line.
        at: Row and column of its upper left corner; what lies outside the picture is cut off.
        colour: Of the ink.
        times: Magnification.
    """
    ink = np.pad(letter_mask(text, times=times), times)
    edge = ink.copy()
    for axis in (0, 1):
        for shift in (-times, times):
            edge |= np.roll(ink, shift, axis)
    top, left = at[0] - times, at[1] - times
    rows = slice(max(0, -top), max(0, pixels.shape[0] - top))
    columns = slice(max(0, -left), max(0, pixels.shape[1] - left))
    ink, edge = ink[rows, columns], edge[rows, columns]
    place = pixels[max(0, top) :, max(0, left) :][: ink.shape[0], : ink.shape[1]]
    place[edge] = 0
    place[ink] = colour
