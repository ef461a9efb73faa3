import numpy as np

from brainfed.core.brainmask import foreground


def a_ball(radius: float = 0.7, n: int = 32) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n)] * 3, indexing="ij")
    return z**2 + y**2 + x**2 < radius**2


def test_of_a_stripped_image_all_but_the_background_value_is_brain() -> None:
    ball = a_ball()
    noise = np.random.default_rng(0).normal(0, 1, ball.shape)
    # A z-scored image: its background is neither 0 nor the smallest value.
    image = np.where(ball, noise, -0.42).astype(np.float32)
    np.testing.assert_array_equal(foreground([image]), ball)


def test_of_a_whole_head_the_noise_around_it_is_left_out() -> None:
    ball = a_ball()
    noise = np.abs(np.random.default_rng(0).normal(0, 3, ball.shape))
    mask = foreground([(100.0 * ball + noise).astype(np.float32)])
    assert np.count_nonzero(mask != ball) < 0.01 * ball.sum()


def test_a_padded_frame_around_a_noisy_head_is_not_taken_for_a_stripped_background() -> None:
    ball = a_ball(0.6)
    noise = np.abs(np.random.default_rng(0).normal(0, 3, ball.shape)) + 0.01
    image = (100.0 * ball + noise).astype(np.float32)
    image[:, [0, -1], :] = 0
    image[:, :, [0, -1]] = 0
    mask = foreground([image])
    assert np.count_nonzero(mask != ball) < 0.01 * ball.sum()


def test_holes_are_filled_and_specks_dropped() -> None:
    ball = a_ball()
    image = np.where(ball, 100, 0).astype(np.float32)
    image[16, 16, 14:18] = 0
    image[16, 1, 1] = 100
    np.testing.assert_array_equal(foreground([image]), ball)


def test_what_one_modality_does_not_show_another_may() -> None:
    ball = a_ball()
    upper = ball.copy()
    upper[:16] = False
    images = [np.where(m, 50, 0).astype(np.float32) for m in (upper, ball)]
    np.testing.assert_array_equal(foreground(images), ball)
