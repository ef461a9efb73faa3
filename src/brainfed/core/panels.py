"""The parts of a picture: a slice brought to size, an outline, a histogram, panels side by side.

Pictures are uint8 `(row, column, 3)`. Few greys and few colours keep them small as files.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from brainfed.core.labels import Tissue
from brainfed.core.lettering import ADVANCE, HEIGHT, write
from brainfed.core.png import Pixels

Greys = npt.NDArray[np.float64]
"""Brightness from 0 to 1, or plain numbers."""
Mask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]
Voxel = TypeVar("Voxel", bound=np.generic)

N_GREYS = 48
N_BARS = 64
BARS_HEIGHT = 110
GAP = 3

# Okabe and Ito, Color Universal Design (2008): told apart with every kind of colour vision.
COLOURS: dict[Tissue, tuple[str, Colour]] = {
    Tissue.TUMOUR: ("yellow", (240, 228, 66)),
    Tissue.CORE: ("purple", (204, 121, 167)),
    Tissue.OEDEMA: ("blue", (86, 180, 233)),
    Tissue.ENHANCING: ("orange", (230, 159, 0)),
    Tissue.CAVITY: ("green", (0, 158, 115)),
}


def painted(greys: Greys) -> Pixels:
    """A panel of grey values `(row, column)` from 0 to 1."""
    levels = np.rint(np.clip(greys, 0, 1) * (N_GREYS - 1)) * (255 / (N_GREYS - 1))
    return np.rint(levels).astype(np.uint8)[:, :, None].repeat(3, axis=2)


def tint(panel: Pixels, mask: Mask, colour: Colour) -> None:
    """Lay a colour half over the panel, in place, where the mask is."""
    mixed = np.rint(0.5 * panel[mask] + 0.5 * np.array(colour))
    panel[mask] = mixed.astype(np.uint8)


def smooth(flat: npt.NDArray[np.generic], size: tuple[int, int]) -> Greys:
    """A slice in other numbers of rows and columns: linear, over all voxels that a pixel covers."""
    rows, columns = (_weights(n, new) for n, new in zip(flat.shape, size, strict=True))
    result: Greys = rows @ flat.astype(np.float64) @ columns.T
    return result


def nearest(flat: npt.NDArray[Voxel], size: tuple[int, int]) -> npt.NDArray[Voxel]:
    """A slice in other numbers of rows and columns, each pixel from its nearest voxel."""
    places = [
        ((np.arange(new) + 0.5) * n / new).astype(int)
        for n, new in zip(flat.shape, size, strict=True)
    ]
    return flat[np.ix_(*places)]


def edge_of(mask: Mask) -> Mask:
    """The pixels of a mask that have a neighbour outside."""
    wide = np.pad(mask, 1)
    inner = np.roll(wide, 1, 0) & np.roll(wide, -1, 0) & np.roll(wide, 1, 1) & np.roll(wide, -1, 1)
    edge: Mask = mask & ~inner[1:-1, 1:-1]
    return edge


def lettered(panel: Pixels, edges: str) -> Pixels:
    """The panel with one letter at its left, right, upper and lower edge."""
    result = panel.copy()
    height, width = panel.shape[:2]
    row, column = height // 2 - HEIGHT, width // 2 - ADVANCE
    last_row, last_column = height - 2 * HEIGHT - 3, width - 2 * ADVANCE - 1
    places = ((row, 3), (row, last_column), (3, column), (last_row, column))
    for letter, place in zip(edges, places, strict=True):
        write(result, letter, place, times=2)
    return result


def titled(panel: Pixels, title: str) -> Pixels:
    """The panel below a strip with its title, in letters as large as there is room for."""
    times = 2 if 2 * ADVANCE * len(title) <= panel.shape[1] else 1
    strip = np.zeros((2 * HEIGHT + 8, panel.shape[1], 3), np.uint8)
    write(strip, title, (strip.shape[0] - times * HEIGHT - 3, 3), times=times)
    return np.concatenate([strip, panel])


def montage(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Panels in rows and columns on black, each row and column as large as its largest panel."""
    heights = [max(panel.shape[0] for panel in row) for row in rows]
    widths = [max(panel.shape[1] for panel in column) for column in zip(*rows, strict=True)]
    size = (sum(heights) + GAP * (len(heights) - 1), sum(widths) + GAP * (len(widths) - 1))
    result = np.zeros((*size, 3), np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for panel, width in zip(row, widths, strict=True):
            result[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
            left += width + GAP
        top += height + GAP
    return result


def legend(tissues: Iterable[Tissue], width: int) -> Pixels:
    """A strip with the colours of tissues and their names, in lines that fit the width."""
    return legend_of({str(tissue): COLOURS[tissue][1] for tissue in tissues}, width)


def legend_of(colours: Mapping[str, Colour], width: int) -> Pixels:
    """A strip with colours and what each stands for, in lines that fit the width."""
    lines, left = [_strip(width)], 4
    for name, colour in colours.items():
        needed = 20 + 2 * ADVANCE * (len(name) + 2)
        if left > 4 and left + needed > width:
            lines, left = [*lines, _strip(width)], 4
        lines[-1][4:-4, left : left + 14] = colour
        write(lines[-1], name, (4, left + 20), times=2)
        left += needed
    return np.concatenate(lines)


def _strip(width: int) -> Pixels:
    return np.zeros((2 * HEIGHT + 8, width, 3), np.uint8)


def bars(values: Greys, tumour: Greys, width: int) -> Pixels:
    """A histogram in grey, and over it that of the tumour as a line; each as high as there is room.

    Args:
        values: Their 0.1st and 99.9th percentile are the ends, and stand below.
        tumour: May be empty.
        width: In pixels.
    """
    pixels = np.full((BARS_HEIGHT, width, 3), 24, np.uint8)
    low, high = np.percentile(values, (0.1, 99.9))
    n_rows = BARS_HEIGHT - 2 * HEIGHT - 8
    rows = np.arange(BARS_HEIGHT)[:, None]
    of_column = np.arange(width) * N_BARS // width
    for data, is_line in ((values, False), (tumour, True)):
        counts, _ = np.histogram(data, N_BARS, (low, high if high > low else low + 1))
        heights = (n_rows - 8) * counts / max(1, counts.max())
        tops = (n_rows - np.rint(heights).astype(int))[of_column]
        if not is_line:
            pixels[(rows >= tops) & (rows < n_rows)] = 140
        elif data.size:
            before = np.concatenate([tops[:1], tops[:-1]])
            line = (rows >= np.minimum(tops, before) - 1) & (rows <= np.maximum(tops, before))
            pixels[line] = COLOURS[Tissue.ENHANCING][1]
    last = f"{high:.3g}"
    below = BARS_HEIGHT - 2 * HEIGHT - 3
    write(pixels, f"{low:.3g}", (below, 3), times=2)
    write(pixels, last, (below, width - 2 * ADVANCE * len(last) - 2), times=2)
    return pixels


def _weights(n_old: int, n_new: int) -> Greys:
    """`(n_new, n_old)`, rows that sum to 1."""
    places = (np.arange(n_new) + 0.5) * n_old / n_new - 0.5
    apart = np.abs(places[:, None] - np.arange(n_old)) / max(1.0, n_old / n_new)
    near = np.clip(1 - apart, 0, None)
    weights: Greys = near / near.sum(axis=1, keepdims=True)
    return weights
