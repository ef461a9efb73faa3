"""Pictures of a case for a person to judge: slices, label, checkerboards, brain mask, histograms.

Volumes are `(z, y, x)` in LPS, all of a case on one grid; spacings `(z, y, x)` in mm. Pictures are
uint8 `(row, column, 3)` and follow the radiological convention: the patient's right is on the left.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainfed.core import panels
from brainfed.core.labels import LabelProtocol, Tissue, can_give, region_mask
from brainfed.core.panels import COLOURS, Greys, Mask, Voxel, montage, titled
from brainfed.core.png import Pixels
from brainfed.plan import Modality, Region

Volume = npt.NDArray[np.generic]
Spacing = tuple[float, float, float]

PANEL = 200
"""Pixels along the longest edge of the field of view."""
SQUARE = 25
"""Pixels along the edge of a checkerboard's square."""
_OUTLINE = COLOURS[Tissue.TUMOUR][1]
TRUTH = COLOURS[Tissue.TUMOUR]
PREDICTION = COLOURS[Tissue.OEDEMA]
"""Colours of outlines: what a reader drew, and what a network did."""
_TINT = np.array([1.0, 0.84, 0.55])
_REFERENCES = (Modality.T1CE, Modality.T1, Modality.FLAIR, Modality.T2)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture with its words."""

    title: str
    pixels: Pixels
    note: str
    """What it shows and what to look for."""


@dataclass(frozen=True, slots=True)
class _Plane:
    """A direction of slicing."""

    name: str
    axis: int
    edges: str
    """What lies at the left, right, upper and lower edge of the picture."""


_PLANES = (_Plane("axial", 0, "RLAP"), _Plane("coronal", 1, "RLSI"), _Plane("sagittal", 2, "APSI"))


def draw_case(
    images: Mapping[Modality, Volume],
    *,
    spacing_mm: Spacing,
    brain_mask: Mask | None = None,
    label: npt.NDArray[np.uint8] | None = None,
    protocol: LabelProtocol | None = None,
    atlas: Volume | None = None,
) -> tuple[Drawing, ...]:
    """All pictures of a case that what is known of it allows.

    Args:
        images: By modality, at least one, all on one grid.
        spacing_mm: Of that grid.
        brain_mask: Where the brain is; None where nobody knows.
        label: Label values, on the same grid.
        protocol: What they mean; given with a label.
        atlas: What the case was brought to, on the same grid.
    """
    tissues = {} if label is None or protocol is None else tissue_masks(label, protocol)
    tumour = [mask for tissue, mask in tissues.items() if tissue is not Tissue.CAVITY]
    scene = Scene(
        next(iter(images.values())).shape,
        spacing_mm,
        brain_mask=brain_mask,
        tumour=np.logical_or.reduce(tumour) if tumour else None,
    )
    reference = next(modality for modality in _REFERENCES if modality in images)
    drawings = [scene.slices(images)]
    if tissues:
        shown = [m for m in (Modality.FLAIR, Modality.T1CE) if m in images] or [reference]
        drawings.append(scene.label({m: images[m] for m in shown}, tissues))
    pairs = {
        f"{modality} on {reference}": (image, images[reference])
        for modality, image in images.items()
        if modality is not reference
    }
    if atlas is not None:
        pairs[f"{reference} on atlas"] = (images[reference], atlas)
    if pairs:
        drawings.append(scene.checkerboards(pairs))
    if brain_mask is not None:
        drawings.append(scene.outline(str(reference), images[reference], brain_mask))
    return (*drawings, scene.histograms(images))


def tissue_masks(label: npt.NDArray[np.uint8], protocol: LabelProtocol) -> dict[Tissue, Mask]:
    """Where each tissue is that the protocol tells apart; a cavity only where there is one."""
    whole = region_mask(label, protocol, Region.WT)
    if not can_give(protocol, Region.ET):
        return {Tissue.TUMOUR: whole}
    core = region_mask(label, protocol, Region.TC)
    enhancing = region_mask(label, protocol, Region.ET)
    masks = {
        Tissue.CORE: core & ~enhancing,
        Tissue.OEDEMA: whole & ~core,
        Tissue.ENHANCING: enhancing,
    }
    cavity = (label > 0) & ~whole
    return masks | {Tissue.CAVITY: cavity} if cavity.any() else masks


class Scene:
    """One grid, seen in one slice of each plane.

    Where there is tumour, each slice is the one with most of it; else it goes through the middle of
    the brain, or of the grid.

    Args:
        shape: Of the grid, `(z, y, x)`.
        spacing_mm: `(z, y, x)`.
        brain_mask: Gives the window of grey values; where None or empty, all but the lowest value.
        tumour: Where the tumour is.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        spacing_mm: Spacing,
        *,
        brain_mask: Mask | None = None,
        tumour: Mask | None = None,
    ) -> None:
        self.shape = shape
        self.spacing_mm = spacing_mm
        self.brain_mask = None if brain_mask is None or not brain_mask.any() else brain_mask
        self.tumour = None if tumour is None or not tumour.any() else tumour
        self.measured_in = "image" if self.brain_mask is None else "brain"
        self.numbers = [self._number(axis) for axis in range(3)]
        self.mm_per_pixel = max(n * step for n, step in zip(shape, spacing_mm, strict=True)) / PANEL

    def slices(self, images: Mapping[Modality, Volume]) -> Drawing:
        """Each modality in each plane, and in the note which slices these are."""
        columns = [
            [panels.lettered(panel, plane.edges) for panel, plane in self._panels(image)]
            for image in images.values()
        ]
        numbers = ", ".join(
            f"{plane.name} {self.numbers[plane.axis] + 1} of {self.shape[plane.axis]}"
            for plane in _PLANES
        )
        which = "with the most tumour" if self.tumour is not None else "through the middle"
        note = (
            f"Here and below: the slices {which}, {numbers}. Grey from the 1st to the 99th "
            f"percentile of the {self.measured_in}; voxels in true proportion."
        )
        return Drawing("Slices", _columns(images, columns), note)

    def label(self, images: Mapping[Modality, Volume], tissues: Mapping[Tissue, Mask]) -> Drawing:
        """The label in colours on some modalities, with a legend."""
        rows = []
        for modality, image in images.items():
            row = []
            for panel, plane in self._panels(image):
                for tissue, mask in tissues.items():
                    panels.tint(panel, self._cut(mask, plane), COLOURS[tissue][1])
                row.append(titled(panels.lettered(panel, plane.edges), str(modality)))
            rows.append(row)
        pixels = montage(rows)
        pixels = np.concatenate([pixels, panels.legend(tissues, pixels.shape[1])])
        names = ", ".join(f"{tissue} {COLOURS[tissue][0]}" for tissue in tissues)
        return Drawing("Label", pixels, f"In colours: {names}.")

    def checkerboards(self, pairs: Mapping[str, tuple[Volume, Volume]]) -> Drawing:
        """Squares of two images in turn.

        Args:
            pairs: By title; the first image of each is tinted.
        """
        columns = []
        for first, second in pairs.values():
            column = []
            both = zip(self._panels(first), self._panels(second), strict=True)
            for (mine, plane), (panel, _) in both:
                rows, places = np.indices(panel.shape[:2]) // SQUARE
                odd = (rows + places) % 2 == 1
                panel[odd] = np.rint(mine[odd] * _TINT).astype(np.uint8)
                column.append(panels.lettered(panel, plane.edges))
            columns.append(column)
        note = "Edges must go on from square to square; the image named first is the brownish one."
        return Drawing("Checkerboards", _columns(pairs, columns), note)

    def outline(self, title: str, image: Volume, brain_mask: Mask) -> Drawing:
        """The edge of the brain mask on one modality."""
        row = []
        for panel, plane in self._panels(image):
            panel[panels.edge_of(self._cut(brain_mask, plane))] = _OUTLINE
            row.append(titled(panels.lettered(panel, plane.edges), title))
        note = "The yellow line is the edge of the brain mask: all of the brain inside, no skull."
        return Drawing("Brain mask", montage([row]), note)

    def compared(self, title: str, image: Volume, truth: Mask, prediction: Mask) -> Drawing:
        """The edges of a true and a predicted outline on one modality."""
        row = []
        for panel, plane in self._panels(image):
            true = panels.edge_of(self._cut(truth, plane))
            predicted = panels.edge_of(self._cut(prediction, plane))
            panel[true], panel[predicted] = TRUTH[1], PREDICTION[1]
            panel[true & predicted] = 255
            row.append(titled(panels.lettered(panel, plane.edges), title))
        note = (
            f"{TRUTH[0]} the true outline, {PREDICTION[0]} the predicted one, white where both are."
        )
        return Drawing(title, montage([row]), note)

    def histograms(self, images: Mapping[Modality, Volume]) -> Drawing:
        """How often each value occurs in the brain and in the tumour, each as high as it can be."""
        columns = []
        for image in images.values():
            values = self._of_brain(image)
            tumour = values[:0] if self.tumour is None else _finite(image[self.tumour])
            columns.append([panels.bars(values, tumour, PANEL)])
        line = "" if self.tumour is None else "; the orange line is the tumour"
        where = f"Values in the {self.measured_in}"
        note = f"{where}, from their 0.1st to their 99.9th percentile{line}."
        return Drawing("Histograms", _columns(images, columns), note)

    def window(self, image: Volume) -> tuple[float, float]:
        """The values that are shown black and white: the 1st and 99th percentile of the brain."""
        low, high = np.percentile(self._of_brain(image), (1, 99))
        return float(low), float(high)

    def _panels(self, image: Volume) -> list[tuple[Pixels, _Plane]]:
        """The image in each plane, in grey."""
        low, high = self.window(image)
        result = []
        for plane in _PLANES:
            flat = self._flat(image, plane).astype(np.float64)
            flat = np.nan_to_num(flat, nan=low, posinf=high, neginf=low)
            greys = (panels.smooth(flat, self._size(plane)) - low) / (high - low or 1.0)
            result.append((panels.painted(greys), plane))
        return result

    def _cut(self, mask: Mask, plane: _Plane) -> Mask:
        return panels.nearest(self._flat(mask, plane), self._size(plane))

    def _flat(self, volume: npt.NDArray[Voxel], plane: _Plane) -> npt.NDArray[Voxel]:
        """One slice, the right way up."""
        place = tuple(self.numbers[a] if a == plane.axis else slice(None) for a in range(3))
        flat: npt.NDArray[Voxel] = volume[place]
        return flat if plane.axis == 0 else flat[::-1]  # z grows upwards, rows grow downwards

    def _size(self, plane: _Plane) -> tuple[int, int]:
        """Rows and columns of a panel, so that a millimetre is as long in all directions."""
        rows, columns = (
            max(1, round(self.shape[axis] * self.spacing_mm[axis] / self.mm_per_pixel))
            for axis in range(3)
            if axis != plane.axis
        )
        return rows, columns

    def _of_brain(self, image: Volume) -> Greys:
        mask = self.brain_mask if self.brain_mask is not None else image != image.min()
        values = _finite(image[mask])
        return values if values.size else np.zeros(1)

    def _number(self, axis: int) -> int:
        """Of the slice to show."""
        others = tuple(a for a in range(3) if a != axis)
        if self.tumour is not None:
            return int(self.tumour.sum(axis=others).argmax())
        if self.brain_mask is not None:
            there = np.flatnonzero(self.brain_mask.any(axis=others))
            return int(there[0] + there[-1]) // 2
        return self.shape[axis] // 2


def _columns(titles: Iterable[str], columns: list[list[Pixels]]) -> Pixels:
    """Panels below each other, each column under its title."""
    tops = [titled(column[0], title) for title, column in zip(titles, columns, strict=True)]
    below = [column[1:] for column in columns]
    return montage([tops, *zip(*below, strict=True)])


def _finite(values: npt.NDArray[np.generic]) -> Greys:
    numbers = values.astype(np.float64)
    finite: Greys = numbers[np.isfinite(numbers)]
    return finite
