"""What a person sees must be where it is said to be: sides, slices, proportions, colours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core import panels, phantom, pictures, png
from brainfed.core.labels import LabelProtocol, Tissue
from brainfed.core.lettering import letter_mask
from brainfed.core.pictures import PANEL, Drawing, Scene, draw_case, tissue_masks
from brainfed.plan import Modality

STRIP = panels.titled(np.zeros((9, 99, 3), np.uint8), "X").shape[0] - 9
CUBE = (60, 60, 60)
ONE_MM = (1.0, 1.0, 1.0)


def a_cube(*marks: tuple[slice, slice, slice]) -> np.ndarray:
    """A grey cube with bright blocks."""
    cube = np.full(CUBE, 40.0)
    cube[0, 0, 0] = 0
    for mark in marks:
        cube[mark] = 100
    return cube


def panels_of(drawing: Drawing, shape: tuple[int, ...] = CUBE) -> list[np.ndarray]:
    """The three panels of the only column, brightness by row and column, without the title."""
    greys = drawing.pixels[:, :, 0].astype(int)
    scale = PANEL / max(shape)
    heights = [round(scale * shape[axis]) for axis in (1, 0, 0)]
    top, found = STRIP, []
    for height in heights:
        found.append(greys[top : top + height])
        top += height + panels.GAP
    return found


def brightest(panel: np.ndarray) -> str:
    """In which quarter the bright block lies, read in the middle of each."""
    height, width = panel.shape
    middles = {
        f"{row} {column}": panel[
            height * r // 8 - 6 : height * r // 8 + 6, width * c // 8 - 6 : width * c // 8 + 6
        ].mean()
        for row, r in (("upper", 2), ("lower", 6))
        for column, c in (("left", 2), ("right", 6))
    }
    return max(middles, key=lambda name: middles[name])


RIGHT, LEFT = slice(8, 22), slice(38, 52)  # x grows to the patient's left
FRONT, BACK = slice(8, 22), slice(38, 52)  # y grows to the back
LOW, HIGH = slice(8, 22), slice(38, 52)  # z grows upwards
MIDDLE = slice(24, 36)


@pytest.mark.parametrize(
    ("mark", "plane", "where"),
    [
        ((MIDDLE, FRONT, RIGHT), 0, "upper left"),
        ((MIDDLE, FRONT, LEFT), 0, "upper right"),
        ((MIDDLE, BACK, RIGHT), 0, "lower left"),
        ((HIGH, MIDDLE, RIGHT), 1, "upper left"),
        ((HIGH, MIDDLE, LEFT), 1, "upper right"),
        ((LOW, MIDDLE, RIGHT), 1, "lower left"),
        ((HIGH, FRONT, MIDDLE), 2, "upper left"),
        ((HIGH, BACK, MIDDLE), 2, "upper right"),
        ((LOW, FRONT, MIDDLE), 2, "lower left"),
    ],
)
def test_sides_are_where_the_radiological_convention_has_them(
    mark: tuple[slice, slice, slice], plane: int, where: str
) -> None:
    drawing = Scene(CUBE, ONE_MM).slices({Modality.T1: a_cube(mark)})
    assert brightest(panels_of(drawing)[plane]) == where


@pytest.mark.parametrize(("plane", "edges"), [(0, "RLAP"), (1, "RLSI"), (2, "APSI")])
def test_the_letters_stand_at_their_edges(plane: int, edges: str) -> None:
    dark = np.zeros(CUBE)
    panel = panels_of(Scene(CUBE, ONE_MM).slices({Modality.T1: dark}))[plane] == 255
    strips = (panel[40:-40, :14], panel[40:-40, -14:], panel[:20, 40:-40], panel[-20:, 40:-40])
    for letter, strip in zip(edges, strips, strict=True):
        ink = letter_mask(letter, times=2)
        rows, columns = np.flatnonzero(strip.any(1)), np.flatnonzero(strip.any(0))
        there = strip[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        wanted = ink[np.ix_(np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0)))]
        np.testing.assert_array_equal(there, wanted, err_msg=letter)


def test_anisotropic_voxels_are_drawn_in_true_proportion() -> None:
    shape, spacing = (20, 90, 60), (6.0, 1.0, 1.5)  # 120 x 90 x 90 mm
    scene = Scene(shape, spacing)
    drawing = scene.slices({Modality.T1: np.zeros(shape)})
    outline = scene.outline("T1", np.zeros(shape), np.ones(shape, bool))
    assert drawing.pixels.shape[:2] == (
        STRIP + 150 + panels.GAP + 200 + panels.GAP + 200,
        150,
    )
    assert outline.pixels.shape[:2] == (STRIP + 200, 150 + 150 + 150 + 2 * panels.GAP)


def test_the_slices_with_most_tumour_are_shown_and_named() -> None:
    tumour = np.zeros((10, 20, 30), bool)
    tumour[7, 3:9, 11:19] = True
    tumour[6:9, 5, 12] = True
    scene = Scene(tumour.shape, ONE_MM, tumour=tumour)
    assert scene.numbers == [7, 5, 12]
    note = scene.slices({Modality.T1: np.zeros(tumour.shape)}).note
    assert "most tumour, axial 8 of 10, coronal 6 of 20, sagittal 13 of 30" in note


def test_without_tumour_the_slices_go_through_the_middle_of_the_brain() -> None:
    brain = np.zeros((10, 20, 30), bool)
    brain[2:5, 4:15, 10:13] = True
    nothing = np.zeros_like(brain)
    assert Scene(brain.shape, ONE_MM, brain_mask=brain, tumour=nothing).numbers == [3, 9, 11]
    assert Scene(brain.shape, ONE_MM, brain_mask=nothing).numbers == [5, 10, 15]


def test_the_window_is_that_of_the_brain() -> None:
    image = np.zeros((10, 10, 11))
    brain = np.zeros(image.shape, bool)
    brain[3:7] = True
    image[brain] = np.linspace(100, 200, int(brain.sum()))
    image[9] = 5000  # what lies outside doesn't count
    low, high = Scene(image.shape, ONE_MM, brain_mask=brain).window(image)
    assert (low, high) == pytest.approx((101, 199))


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_an_image_with_nothing_in_it_is_drawn_all_the_same(value: float) -> None:
    image = np.full((4, 8, 8), value)
    drawings = draw_case({Modality.FLAIR: image}, spacing_mm=ONE_MM)
    assert [drawing.title for drawing in drawings] == ["Slices", "Histograms"]


def test_values_that_are_no_numbers_spoil_nothing_else() -> None:
    image = a_cube((MIDDLE, FRONT, RIGHT))
    holes = image.copy()
    holes[:, 55:, 55:] = np.nan
    whole, spoilt = (
        panels_of(Scene(CUBE, ONE_MM).slices({Modality.T1: i})) for i in (image, holes)
    )
    np.testing.assert_array_equal(whole[0][:150, :80], spoilt[0][:150, :80])


@pytest.mark.parametrize("protocol", list(LabelProtocol))
def test_each_tissue_of_a_protocol_has_its_colour_and_its_name(protocol: LabelProtocol) -> None:
    values = {"brats2012": (1, 2, 3, 4), "brats2017": (1, 2, 4), "whole-tumour": (1,)}
    label = np.zeros((40, 40, 40), np.uint8)
    n = values.get(protocol, (1, 2, 3, 4) if protocol == "brats2024-post" else (1, 2, 3))
    for place, value in enumerate(n):
        label[:, :, 10 * place : 10 * place + 10] = value
    tissues = tissue_masks(label, protocol)
    drawing = Scene(label.shape, ONE_MM).label({Modality.FLAIR: np.zeros(label.shape)}, tissues)
    there = {tuple(colour) for colour in drawing.pixels.reshape(-1, 3).tolist()}
    for tissue in tissues:
        name, colour = panels.COLOURS[tissue]
        assert f"{tissue} {name}" in drawing.note
        assert colour in there  # the legend
        assert tuple(round(part / 2) for part in colour) in there  # half over black
    assert (np.logical_or.reduce(list(tissues.values())) == (label > 0)).all()
    assert sum(mask.sum() for mask in tissues.values()) == (label > 0).sum()


def test_a_cavity_is_no_tumour() -> None:
    label = np.zeros((9, 9, 9), np.uint8)
    label[2], label[6, :3] = 4, 3
    assert set(tissue_masks(label, LabelProtocol.BRATS2024_POST)) >= {Tissue.CAVITY}
    drawing = draw_case(
        {Modality.T1: label.astype(float)},
        spacing_mm=ONE_MM,
        label=label,
        protocol=LabelProtocol.BRATS2024_POST,
    )[0]
    assert "most tumour, axial 7 of 9" in drawing.note


def test_the_colours_can_be_told_apart_without_red_or_without_green() -> None:
    colours = np.array([colour for _, colour in panels.COLOURS.values()], float)
    # Brettel's and Viénot's matrices for protanopia and deuteranopia, linear enough for this.
    for matrix in (
        ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
        ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    ):
        seen = colours @ np.array(matrix).T
        apart = np.linalg.norm(seen[:, None] - seen, axis=2) + 999 * np.eye(len(seen))
        assert apart.min() > 40


def test_a_checkerboard_takes_its_squares_in_turn() -> None:
    dark, bright = np.zeros(CUBE), np.zeros(CUBE)
    dark[30:], bright[:30] = 1, 1  # the slice shown is number 29
    scene = Scene(CUBE, ONE_MM, brain_mask=np.ones(CUBE, bool))
    drawing = scene.checkerboards({"t1 on flair": (dark, bright)})
    axial = drawing.pixels[STRIP : STRIP + PANEL].astype(int)
    at = pictures.SQUARE // 2 + pictures.SQUARE * np.arange(PANEL // pictures.SQUARE)
    squares = axial[np.ix_(at, at)][1:-1, 1:-1, 1] > 100  # without the letters at the edges
    even = (np.indices(squares.shape).sum(axis=0) % 2) == 0
    np.testing.assert_array_equal(squares, even)


def test_the_checkerboards_first_image_is_the_tinted_one() -> None:
    bright = np.zeros(CUBE)
    bright[:30] = 1
    scene = Scene(CUBE, ONE_MM, brain_mask=np.ones(CUBE, bool))
    drawing = scene.checkerboards({"t1 on flair": (bright, bright)})
    colours = {tuple(pixel) for pixel in drawing.pixels.reshape(-1, 3).tolist()}
    assert (255, 214, 140) in colours


def test_the_outline_goes_around_the_mask() -> None:
    mask = np.zeros(CUBE, bool)
    mask[15:45, 15:45, 15:45] = True
    drawing = Scene(CUBE, ONE_MM).outline("T1", np.zeros(CUBE), mask)
    axial = (drawing.pixels[STRIP:, :PANEL] == panels.COLOURS[Tissue.TUMOUR][1]).all(axis=2)
    rows, columns = np.nonzero(axial)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 149, 50, 149)
    assert not axial[60:140, 60:140].any()


def test_a_mask_at_the_edge_of_the_picture_is_outlined_there() -> None:
    whole = np.ones((7, 9), bool)
    assert panels.edge_of(whole).sum() == 2 * 7 + 2 * 9 - 4


def test_the_histogram_is_highest_where_most_values_are() -> None:
    random = np.random.default_rng(2)
    values = np.concatenate([random.normal(20, 2, 5000), random.uniform(0, 100, 2000)])
    pixels = panels.bars(values, values[:0], PANEL)
    filled = (pixels[:, :, 0] == 140).sum(axis=0)
    assert 0.12 * PANEL < filled.argmax() < 0.28 * PANEL
    with_tumour = panels.bars(values, random.normal(80, 2, 500), PANEL)
    orange = (with_tumour == panels.COLOURS[Tissue.ENHANCING][1]).all(axis=2)
    assert 0.7 * PANEL < orange[:60].any(axis=0).nonzero()[0].mean() < 0.9 * PANEL


@given(st.integers(1, 40), st.integers(1, 40))
def test_resizing_keeps_an_even_image_and_its_range(n_old: int, n_new: int) -> None:
    flat = np.random.default_rng(n_old).uniform(2, 3, (n_old, 5))
    assert panels.smooth(np.full((n_old, 5), 2.5), (n_new, 4)) == pytest.approx(2.5)
    smooth, nearest = panels.smooth(flat, (n_new, 7)), panels.nearest(flat, (n_new, 7))
    assert smooth.shape == nearest.shape == (n_new, 7)
    assert flat.min() - 1e-9 <= smooth.min() <= smooth.max() <= flat.max() + 1e-9
    assert set(nearest.ravel()) <= set(flat.ravel())


def test_resizing_to_the_same_size_changes_nothing() -> None:
    flat = np.random.default_rng(1).uniform(0, 1, (6, 9))
    np.testing.assert_allclose(panels.smooth(flat, (6, 9)), flat)
    np.testing.assert_array_equal(panels.nearest(flat, (6, 9)), flat)


def test_a_legend_that_is_too_long_takes_more_lines() -> None:
    wide, narrow = (panels.legend(panels.COLOURS, width) for width in (1000, 250))
    assert narrow.shape[0] > wide.shape[0]
    for _, colour in panels.COLOURS.values():
        assert (narrow == colour).all(axis=2).sum() == (wide == colour).all(axis=2).sum()


def test_a_case_gives_all_its_pictures_and_few_bytes() -> None:
    head = phantom.make_phantom(
        np.random.default_rng(1),
        phantom.Scanner(),
        shape=(26, 100, 85),
        spacing_mm=(6.0, 2.2, 2.2),
    )
    drawings = draw_case(
        head.images,
        spacing_mm=head.spacing_mm,
        brain_mask=head.images[Modality.T1] > 150,
        label=head.label,
        protocol=LabelProtocol.BRATS2017,
        atlas=head.images[Modality.T1],
    )
    titles = [drawing.title for drawing in drawings]
    assert titles == ["Slices", "Label", "Checkerboards", "Brain mask", "Histograms"]
    assert all(drawing.pixels.dtype == np.uint8 for drawing in drawings)
    assert sum(len(png.encode(drawing.pixels)) for drawing in drawings) < 400_000
    again = draw_case(head.images, spacing_mm=head.spacing_mm)
    assert [drawing.title for drawing in again] == ["Slices", "Checkerboards", "Histograms"]


def test_two_outlines_are_told_apart_and_white_where_they_agree() -> None:
    truth, prediction = np.zeros(CUBE, bool), np.zeros(CUBE, bool)
    truth[20:40, 20:40, 10:40] = True
    prediction[20:40, 20:40, 10:50] = True
    scene = Scene(CUBE, ONE_MM, tumour=truth)
    pixels = scene.compared("WT", a_cube(), truth, prediction).pixels
    found = {tuple(colour) for colour in pixels.reshape(-1, 3)}
    assert {pictures.TRUTH[1], pictures.PREDICTION[1], (255, 255, 255)} <= found
    same = scene.compared("WT", a_cube(), truth, truth).pixels
    colours = {tuple(colour) for colour in same.reshape(-1, 3)}
    assert not {pictures.TRUTH[1], pictures.PREDICTION[1]} & colours
