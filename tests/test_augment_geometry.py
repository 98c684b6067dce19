"""Boxes stay on their pixels, whatever is done to the picture, and lie inside the square."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from augment_pictures import GREEN, bounds_of, textured, with_rectangle
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.data.augment import Augmenter, generator
from scaler.data.augmentation import Augmentation
from scaler.data.dataset import Boxes, Image
from scaler.data.mosaic import Rectangle, arranged, cut_out, draw, flipped, mapped, placed
from scaler.data.preprocessing import Preprocessing, fit, letterbox

SIZE = 160
GEOMETRY = Augmentation(scale=(0.4, 2.0), aspect=0.3, translate=0.2, flip=0.5, mosaic=0.5, least_visible=0.0)


def green(image: Image) -> np.ndarray:
    """What is nearer to the rectangle's colour than to anything else of the picture."""
    values = image.astype(int)
    return (values[..., 1] - np.maximum(values[..., 0], values[..., 2])) > (GREEN[1] - GREEN[2]) / 2


@pytest.mark.parametrize("shape", [(120, 160), (333, 500), (641, 480), (160, 160), (50, 31), (1, 700), (97, 96)])
@pytest.mark.parametrize("fill", [0, 114])
def test_neutral_settings_give_exactly_the_letterbox(shape: tuple[int, int], fill: int):
    height, width = shape
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = Boxes.of([[0, 0, width, height], [width / 4, height / 4, width / 2, height / 2]], [0, 2], [False, True])
    preprocessing = Preprocessing(size=SIZE, fill=fill)
    found, kept = Augmenter(Augmentation(), preprocessing)([(image, boxes)], 0, generator(0, 0, 0))
    expected, place = letterbox(image, preprocessing)
    np.testing.assert_array_equal(found, expected)
    if min(shape) > 1:
        np.testing.assert_allclose(kept.corners, place.into(boxes.corners), atol=0.5)  # letterbox rounds its sides
        assert kept.labels.tolist() == [0, 2]
        assert kept.ignored.tolist() == [False, True]


def test_a_neutral_place_is_that_of_the_letterbox():
    for width, height in ((640, 480), (31, 77), (5000, 20), (160, 160)):
        [place] = arranged([(width, height)], SIZE, Augmentation(), np.random.default_rng(0))
        assert (place.left, place.top) == (fit(width, height, SIZE).left, fit(width, height, SIZE).top)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(30, 300), st.integers(30, 300), st.floats(-200, 150), st.floats(-200, 150), st.floats(5, 500),
    st.floats(5, 500), st.one_of(st.just(0.0), st.floats(-180, 180)), st.integers(0, 1000),
)  # fmt: skip
def test_a_box_stays_on_its_pixels(
    width: int, height: int, left: float, top: float, across: float, down: float, degrees: float, seed: int
):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, [width - 20, height - 20])
    end = start + rng.integers(15, [width - start[0], height - start[1]], endpoint=True)
    image, boxes = with_rectangle(width, height, (*start.tolist(), *end.tolist()))
    canvas = np.full((SIZE, SIZE, 3), 114, np.uint8)
    matrix = draw(canvas, image, Rectangle(left, top, left + across, top + down), degrees=degrees)
    seen = green(canvas)
    if matrix is None:
        assert not seen.any()
        return
    whole = mapped(matrix, boxes.corners)[0]
    exact = np.clip(whole, 0, SIZE)
    if not seen.any():
        assert min(exact[2:] - exact[:2]) < (15 if degrees else 3)  # of a rotated one a blurred tip may be inside
        return
    if degrees:  # the tips of a rotated rectangle are thinner than a pixel, and those outside cut the shape itself
        found = bounds_of(seen)
        assert (exact[:2] <= np.add(found[:2], 2)).all()
        assert (exact[2:] >= np.subtract(found[2:], 2)).all()
        if (whole == exact).all() and min(whole[2:] - whole[:2]) > 20:
            np.testing.assert_allclose(found, exact, atol=4)
    elif min(exact[2:] - exact[:2]) > 4:  # half a blurred edge: a source pixel is as wide as the enlargement
        np.testing.assert_allclose(bounds_of(seen), exact, atol=1.0 + max(0.5, across / width / 2, down / height / 2))


def test_a_rotation_by_a_right_angle_is_exact():
    image, boxes = with_rectangle(SIZE, SIZE, (10, 20, 50, 90))
    canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
    matrix = draw(canvas, image, Rectangle(0, 0, SIZE, SIZE), degrees=90.0)
    assert matrix is not None
    np.testing.assert_array_equal(canvas, np.rot90(image, -1))
    np.testing.assert_allclose(mapped(matrix, boxes.corners), [[SIZE - 90, 10, SIZE - 20, 50]], atol=1e-9)


def test_the_box_of_a_rotated_box_is_that_of_its_corners():
    turned = np.array([[np.cos(0.5), -np.sin(0.5), 3.0], [np.sin(0.5), np.cos(0.5), -2.0]])
    corners = np.array([[10.0, 20.0, 40.0, 30.0]])
    points = turned[:, :2] @ np.array([[10, 40, 40, 10], [20, 20, 30, 30]]) + turned[:, 2:]
    np.testing.assert_allclose(mapped(turned, corners)[0], [*points.min(1), *points.max(1)])


def test_a_rotated_picture_that_shrinks_is_averaged_as_an_upright_one_is():
    stripes = np.tile(np.array([[0], [255]], np.uint8), (400, 800, 1)).repeat(3, 2).copy()
    canvas = np.full((SIZE, SIZE, 3), 127, np.uint8)
    draw(canvas, stripes, Rectangle(0, 0, SIZE, SIZE), degrees=10.0)
    assert np.ptp(canvas.astype(int)) <= 2


def test_parts_of_a_mosaic_meet_without_a_gap_and_do_not_overlap():
    pictures = [(np.full((90, 120, 3), 10 * (i + 1), np.uint8), Boxes.of([], [])) for i in range(4)]
    for degrees in (0.0, 17.0):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            places = arranged([(120, 90)] * 4, SIZE, Augmentation(scale=(0.9, 1.4)), rng)
            corner = places[0].right, places[0].bottom
            assert {(places[1].left, places[1].bottom), (places[2].right, places[2].top)} == {corner}
            assert (places[3].left, places[3].top) == corner
            canvas = np.full((SIZE, SIZE, 3), 255, np.uint8)
            for (image, _), place in zip(pictures, places, strict=True):
                draw(canvas, image, place, degrees=degrees)
            assert set(np.unique(canvas)) <= {10, 20, 30, 40, 255}
            holes = cv2.morphologyEx(
                (canvas[..., 0] == 255).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
            )
            thin = (canvas[..., 0] == 255) & (holes == 0)
            assert thin.sum() <= (12 if degrees else 0)  # at corners of the grey alone, never a seam


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
def test_boxes_always_lie_inside_and_are_at_least_two_pixels(seed: int):
    pictures = [textured(i, 40 + 31 * i, 200 - 17 * i, 4) for i in range(5)]
    everything = Augmentation(
        scale=(0.1, 3), aspect=0.5, translate=0.5, rotation_degrees=45, flip=0.5, mosaic=0.5, mixup=0.5, cutout=0.3
    )
    image, boxes = Augmenter(everything, Preprocessing(size=SIZE))(pictures, seed % 5, generator(seed, 0, seed % 5))
    assert image.shape == (SIZE, SIZE, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert boxes.corners.dtype == np.float32
    assert (boxes.corners >= 0).all()
    assert (boxes.corners <= SIZE).all()
    assert (boxes.corners[:, 2:] - boxes.corners[:, :2] >= 2 - 1e-4).all()
    assert len(boxes.corners) == len(boxes.labels) == len(boxes.ignored)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 25.0]))
def test_an_augmented_box_covers_what_is_left_of_its_rectangle(seed: int, degrees: float):
    image, boxes = with_rectangle(200, 150, (70, 40, 130, 110))
    blank = np.full((100, 140, 3), 90, np.uint8), Boxes.of([], [])
    augmenter = Augmenter(replace(GEOMETRY, rotation_degrees=degrees), Preprocessing(size=SIZE))
    canvas, kept = augmenter([(image, boxes), blank, blank], 0, generator(seed, 0, 0))
    seen = green(canvas).copy()
    for x, y, x_end, y_end in kept.corners:
        found = seen[int(y) : int(np.ceil(y_end)), int(x) : int(np.ceil(x_end))]
        assert degrees or found.mean() > 0.5  # a corner of a rotated one may be all that is inside
        seen[max(0, int(y) - 2) : int(y_end) + 3, max(0, int(x) - 2) : int(x_end) + 3] = False
    assert seen.sum() <= 2 * SIZE  # at most slivers narrower than two pixels


def test_a_flip_moves_boxes_with_their_pixels():
    image, boxes = with_rectangle(SIZE, SIZE, (10, 20, 50, 90))
    mirrored, moved = flipped(image, boxes)
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    assert bounds_of(green(mirrored)) == moved.corners[0].tolist() == [SIZE - 50, 20, SIZE - 10, 90]
    again, back = flipped(mirrored, moved)
    np.testing.assert_array_equal(again, image)
    np.testing.assert_array_equal(back.corners, boxes.corners)


def test_a_box_stays_if_enough_of_it_is_inside():
    half_outside = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, 0.0]])
    boxes = Boxes.of([[0, 0, 40, 10], [0, 20, 25, 30], [10, 40, 21, 60], [30, 50, 90, 70]], [0, 1, 2, 0])
    kept = placed(boxes, half_outside, 100, least_visible=0.5)  # half, a fifth, one pixel, all
    assert kept.labels.tolist() == [0, 0]
    np.testing.assert_array_equal(kept.corners, [[0, 0, 20, 10], [10, 50, 70, 70]])
    assert placed(boxes, half_outside, 100, least_visible=0.51).labels.tolist() == [0]
    assert placed(boxes, half_outside, 100, least_visible=0.1).labels.tolist() == [0, 1, 0]


def test_random_place_reaches_everywhere_and_crops_everywhere():
    small, large = Augmentation(scale=(0.5, 0.5), random_place=True), Augmentation(scale=(2.0, 2.0), random_place=True)
    rng = np.random.default_rng(0)
    lefts = [arranged([(100, 100)], SIZE, small, rng)[0].left for _ in range(300)]
    assert min(lefts) >= 0
    assert max(lefts) <= SIZE / 2
    assert np.ptp(lefts) > 0.9 * SIZE / 2
    lefts = [arranged([(100, 100)], SIZE, large, rng)[0].left for _ in range(300)]
    assert min(lefts) >= -SIZE
    assert max(lefts) <= 0
    assert np.ptp(lefts) > 0.9 * SIZE


def test_the_aspect_changes_within_its_range_and_the_longer_side_fills_the_scale():
    rng = np.random.default_rng(0)
    places = [arranged([(100, 80)], 1000, Augmentation(aspect=0.3), rng)[0] for _ in range(500)]
    sides = np.array([(p.right - p.left, p.bottom - p.top) for p in places])
    ratio = sides[:, 0] / sides[:, 1] / 1.25
    assert (sides.max(1) == 1000).all()
    assert 0.7 / 1.3 - 0.01 <= ratio.min() < 0.65
    assert 1.5 < ratio.max() <= 1.3 / 0.7 + 0.01


def test_cutout_hides_in_grey_and_drops_what_is_mostly_hidden():
    rng, dropped = np.random.default_rng(0), 0
    boxes = Boxes.of([[x, y, x + 20, y + 20] for x in range(0, 160, 20) for y in range(0, 160, 20)], [0] * 64)
    for _ in range(10):
        image, kept = cut_out(np.full((SIZE, SIZE, 3), 200, np.uint8), boxes, 114, rng)
        hidden = (image == 114).all(-1)
        assert set(np.unique(image)) == {114, 200}
        shares = {tuple(b): hidden[int(b[1]) : int(b[3]), int(b[0]) : int(b[2])].mean() for b in boxes.corners}
        assert {tuple(b) for b in kept.corners} == {b for b, share in shares.items() if share <= 0.6}
        dropped += len(boxes) - len(kept)
    assert dropped > 10
