from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from brainfed.core import png


def read_back(tmp_path: Path, data: bytes) -> np.ndarray:
    """What another program's reader makes of the file."""
    path = tmp_path / "one.png"
    path.write_bytes(data)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("n_colours", [1, 2, 255, 256, 257, 2000])
def test_another_reader_sees_the_same_pixels(tmp_path: Path, n_colours: int) -> None:
    random = np.random.default_rng(n_colours)
    colours = random.permutation(1 << 24)[:n_colours]
    codes = colours[np.arange(47 * 53) % n_colours].reshape(47, 53)
    pixels = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=2).astype(np.uint8)
    np.testing.assert_array_equal(read_back(tmp_path, png.encode(pixels)), pixels)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_the_same_pixels_give_the_same_bytes_and_others_do_not(pixels: np.ndarray) -> None:
    data = png.encode(pixels)
    assert data == png.encode(pixels.copy())
    other = pixels.copy()
    other[-1, -1, 0] ^= 1
    assert data != png.encode(other)


def test_few_colours_make_a_small_file() -> None:
    random = np.random.default_rng(1)
    greys = (random.integers(0, 48, (200, 200, 1)) * 5).astype(np.uint8).repeat(3, axis=2)
    assert len(png.encode(greys)) < 200 * 200  # under a byte a pixel, noise and all
