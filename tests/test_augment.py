"""Colours, mixtures, determinism and the settings of the recipes."""

import numpy as np
import pytest
from augment_pictures import textured

from scaler.data.augment import Augmenter, generator
from scaler.data.augmentation import Augmentation
from scaler.data.dataset import Boxes
from scaler.data.photometric import recoloured, shifted_hsv, wants_albumentations
from scaler.data.preprocessing import Preprocessing, letterbox
from scaler.training.recipe import read_recipe, recipe_names

SIZE = 96
PICTURES = [textured(i) for i in range(6)]
RAMP = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, 2)


def augmented(settings: Augmentation, index: int = 0, seed: int = 0):
    return Augmenter(settings, Preprocessing(size=SIZE))(PICTURES, index, generator(seed, 0, index))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_augments_and_leaves_the_pictures_as_they_were(name: str):
    before = [image.copy() for image, _ in PICTURES]
    settings = read_recipe(name).augmentation
    assert settings != Augmentation()
    made = [augmented(settings, i) for i in range(6)]
    assert all(image.shape == (SIZE, SIZE, 3) for image, _ in made)
    assert sum(len(boxes) for _, boxes in made) > 6
    for (image, _), old in zip(PICTURES, before, strict=True):
        np.testing.assert_array_equal(image, old)


def test_neutral_settings_leave_even_the_array_alone():
    image, boxes = PICTURES[0]
    square, _ = letterbox(image, Preprocessing(size=SIZE))
    found, kept = augmented(Augmentation())
    np.testing.assert_array_equal(found, square)
    assert len(kept) == len(boxes)


def test_a_picture_depends_on_seed_epoch_and_index_alone():
    settings = Augmentation(
        scale=(0.5, 1.5), hue=0.1, gamma=(0.5, 2), contrast=(0.5, 1.5), jpeg_quality=(50, 90), mosaic=0.5, mixup=0.5,
        cutout=0.5, flip=0.5, rotation_degrees=10,
    )  # fmt: skip
    augmenter = Augmenter(settings, Preprocessing(size=SIZE))
    forwards = [augmenter(PICTURES, i, generator(7, 3, i)) for i in range(6)]
    backwards = [augmenter(PICTURES, i, generator(7, 3, i)) for i in reversed(range(6))][::-1]
    for (image, boxes), (again, same) in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(boxes.corners, same.corners)
        np.testing.assert_array_equal(boxes.labels, same.labels)
    for other in (generator(8, 3, 0), generator(7, 4, 0), generator(7, 3, 1)):
        assert (augmenter(PICTURES, 0, other)[0] != forwards[0][0]).any()


def test_value_saturation_and_hue_do_what_they_say():
    orange = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    np.testing.assert_allclose(shifted_hsv(orange, 0, 1, 0.5)[0, 0], (100, 50, 25), atol=2)
    np.testing.assert_allclose(shifted_hsv(orange, 0, 0, 1)[0, 0], (200, 200, 200), atol=1)
    np.testing.assert_allclose(shifted_hsv(orange, 1 / 3, 1, 1)[0, 0], (50, 200, 100), atol=4)
    np.testing.assert_allclose(shifted_hsv(orange, -1 / 3, 1, 1)[0, 0], (100, 50, 200), atol=4)
    np.testing.assert_allclose(shifted_hsv(orange, 0, 1, 9)[0, 0].max(), 255)
    np.testing.assert_array_equal(shifted_hsv(RAMP, 0.2, 1.7, 1.0), RAMP)  # grey has neither hue nor saturation
    colours, _ = textured(1)
    difference = np.abs(shifted_hsv(colours, 0, 1, 1).astype(int) - colours)
    assert difference.max() <= 8
    assert difference.mean() < 1.5


def test_gamma_and_contrast_follow_their_formulas():
    rng = np.random.default_rng(0)
    dark = recoloured(RAMP.copy(), Augmentation(gamma=(2.0, 2.0)), rng)
    np.testing.assert_allclose(dark, (RAMP / 255) ** 2 * 255, atol=1)
    flat = recoloured(RAMP.copy(), Augmentation(contrast=(0.5, 0.5)), rng)
    np.testing.assert_allclose(flat, (RAMP.astype(float) - 127.5) / 2 + 127.5, atol=1)


def test_jpeg_loses_detail_and_keeps_colours_in_their_channels():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    errors = []
    for quality in (95, 60, 10):
        found = recoloured(noise.copy(), Augmentation(jpeg_quality=(quality, quality)), rng)
        errors.append(np.abs(found.astype(int) - noise).mean())
    assert 0 < errors[0] < errors[1] < errors[2]
    red = np.full((32, 32, 3), (250, 10, 10), np.uint8)
    np.testing.assert_allclose(recoloured(red.copy(), Augmentation(jpeg_quality=(90, 90)), rng), red, atol=4)


def test_albumentations_is_wanted_only_for_what_it_does():
    assert not wants_albumentations(read_recipe("scaled-yolov4").augmentation)
    assert wants_albumentations(read_recipe("yolo-ret").augmentation)
    assert not wants_albumentations(Augmentation())


def test_mixup_blends_two_pictures_and_keeps_the_boxes_of_both():
    pictures = [
        (np.full((SIZE, SIZE, 3), value, np.uint8), Boxes.of([[5, 5, 40, 40]], [value == 200])) for value in (0, 200)
    ]
    augmenter = Augmenter(Augmentation(mixup=1.0), Preprocessing(size=SIZE))
    labels, shares = set(), []
    for epoch in range(60):
        image, boxes = augmenter(pictures, 0, generator(0, epoch, 0))
        assert len(boxes) == 2
        assert len(np.unique(image)) == 1
        labels.add(tuple(boxes.labels.tolist()))
        if boxes.labels[1] == 1:
            shares.append(1 - image[0, 0, 0] / 200)
    assert labels == {(0, 0), (0, 1)}
    assert 0.4 < np.mean(shares) < 0.6  # beta(8, 8)
    assert 0.05 < np.std(shares) < 0.2


def test_a_mosaic_holds_the_picture_itself_and_three_others():
    pictures = [(np.full((60, 60, 3), 20 * (i + 1), np.uint8), Boxes.of([[5, 5, 55, 55]], [i])) for i in range(8)]
    augmenter = Augmenter(Augmentation(mosaic=1.0, least_visible=0.0), Preprocessing(size=SIZE))
    partners: set[int] = set()
    for epoch in range(40):
        image, boxes = augmenter(pictures, 2, generator(0, epoch, 2))
        assert 60 in np.unique(image)
        assert 1 <= len(boxes) <= 4
        partners |= set(boxes.labels.tolist())
    assert partners == set(range(8))


def test_ignored_objects_are_carried():
    image, _ = PICTURES[0]
    boxes = Boxes.of([[5, 5, 40, 40], [20, 20, 60, 60]], [0, 1], [True, False])
    augmenter = Augmenter(Augmentation(mosaic=0.5, flip=0.5, mixup=1.0), Preprocessing(size=SIZE))
    _, found = augmenter([(image, boxes)], 0, generator(0, 0, 0))
    assert (found.ignored == (found.labels == 0)).all()
    assert found.ignored.any()


def test_pictures_without_objects_are_welcome():
    empty = [(image, Boxes.of([], [])) for image, _ in PICTURES]
    for name in recipe_names():
        augmenter = Augmenter(read_recipe(name).augmentation, Preprocessing(size=SIZE))
        _, boxes = augmenter(empty, 0, generator(0, 0, 0))
        assert boxes.corners.shape == (0, 4)
