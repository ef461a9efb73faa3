import numpy as np
import pytest

from brainfed.core.lettering import ADVANCE, HEIGHT, letter_mask, write


def rows_of(text: str) -> list[str]:
    return ["".join("#" if ink else "." for ink in row) for row in letter_mask(text)]


def test_letters_are_the_right_way_up_and_not_mirrored() -> None:
    assert rows_of("L") == ["#....."] * 6 + ["#####."]
    assert rows_of("R")[0] == "####.."
    assert rows_of("R")[6] == "#...#."
    assert rows_of("P")[6] == "#....."


def test_small_letters_are_capitals_and_unknown_ones_blank() -> None:
    np.testing.assert_array_equal(letter_mask("t1ce"), letter_mask("T1CE"))
    assert not letter_mask("é\n").any()
    assert letter_mask("T1ce", times=2).shape == (2 * HEIGHT, 2 * 4 * ADVANCE)


def test_all_letters_differ() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+.:()% "
    assert len({letter_mask(letter).tobytes() for letter in letters}) == len(letters)


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_a_letter_can_be_read_on_any_ground(ground: int) -> None:
    pixels = np.full((20, 20, 3), ground, np.uint8)
    write(pixels, "L", (5, 6))
    assert (pixels[5:12, 6] == 255).all()
    assert (pixels[5:12, 5] == 0).all()
    assert (pixels[5:10, 7] == 0).all()


@pytest.mark.parametrize("at", [(-3, -3), (15, 17), (40, 2), (2, 40), (-30, 2), (5, 6)])
def test_what_lies_outside_is_cut_off(at: tuple[int, int]) -> None:
    pixels = np.full((20, 20, 3), 77, np.uint8)
    write(pixels, "M", at)
    large = np.full((120, 120, 3), 77, np.uint8)
    write(large, "M", (at[0] + 50, at[1] + 50))
    np.testing.assert_array_equal(pixels, large[50:70, 50:70])
