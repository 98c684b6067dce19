"""Pictures are read as their pixels lie on the disk, broken ones are one line, sizes come from headers and a cache."""

import json
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from scaler.data.images import BrokenPictureError, picture_size, read_image, write_image
from scaler.data.sizes import cache_of, picture_sizes
from scaler.errors import UserError


def noise(width: int = 37, height: int = 23) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF tag that says how the camera was held."""
    tag = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tag
    return jpeg[:2] + b"\xff\xff\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]  # with a fill byte


def jpeg(image: np.ndarray, *flags: int) -> bytes:
    return cv2.imencode(".jpg", image, flags)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".PNG", ".ppm"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str):
    write_image(tmp_path / f"a{suffix}", noise())
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), noise())
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_red_is_the_first_channel_in_jpeg_too(tmp_path: Path):
    write_image(tmp_path / "a.jpg", np.full((16, 16, 3), (250, 10, 20), np.uint8))
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], (250, 10, 20), atol=4)


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((8, 9), 77, np.uint8),
        np.full((8, 9, 4), (77, 77, 77, 0), np.uint8),
        np.full((8, 9), 77 * 257, np.uint16),
    ],
    ids=["grey", "transparent", "16-bit"],
)
def test_other_kinds_of_pictures_become_rgb_of_8_bits(tmp_path: Path, pixels: np.ndarray):
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.full((8, 9, 3), 77))


def test_an_orientation_tag_turns_neither_the_picture_nor_its_size(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(with_orientation(jpeg(noise(37, 23)), 6))
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == (37, 23, 3)  # OpenCV would turn it
    assert read_image(tmp_path / "a.jpg").shape == (23, 37, 3)
    assert picture_size(tmp_path / "a.jpg") == (37, 23)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_picture_that_is_cut_off_is_one_line(tmp_path: Path, suffix: str, share: float):
    content = cv2.imencode(suffix, noise(200, 150))[1].tobytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BrokenPictureError, match=f"^{path}: (no picture, or cut off|an empty file)$"):
        read_image(path)


def test_a_missing_picture_a_folder_and_a_text_are_one_line_each(tmp_path: Path):
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in (("text.jpg", "no picture"), ("folder.jpg", "is a directory"), ("none.jpg", "no such file")):
        for read in (read_image, picture_size):
            with pytest.raises(BrokenPictureError, match=f"{name}: .*{reason}") as caught:
                read(tmp_path / name)
            assert caught.value.path == tmp_path / name


def test_a_suffix_of_no_picture_is_refused_before_anything_is_written(tmp_path: Path):
    for name in ("a", "a.pdf", "a.txt"):
        with pytest.raises(UserError, match="no format of pictures"):
            write_image(tmp_path / name, noise())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "flags"),
    [
        (".jpg", ()),
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".png", ()),
        (".bmp", ()),
        (".webp", ()),
        (".tiff", ()),
    ],
)
@pytest.mark.parametrize("sides", [(1, 1), (37, 23), (640, 480)])
def test_the_size_in_the_header_is_that_of_the_decoded_picture(tmp_path: Path, suffix: str, flags, sides):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, noise(*sides), flags)[1].tobytes())
    assert picture_size(path) == sides == read_image(path).shape[1::-1]


def test_the_size_needs_no_pixels(tmp_path: Path):
    for suffix in (".png", ".jpg"):
        content = cv2.imencode(suffix, noise(640, 480))[1].tobytes()
        (tmp_path / f"a{suffix}").write_bytes(content[:1000])
        assert picture_size(tmp_path / f"a{suffix}") == (640, 480)


def many(folder: Path, count: int = 500) -> list[Path]:
    header = cv2.imencode(".png", noise())[1].tobytes()[:40]
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        path.write_bytes(header)
    return paths


def test_many_sizes_are_remembered_and_a_changed_file_is_read_again(tmp_path: Path):
    paths, cache = many(tmp_path / "train"), cache_of(tmp_path / "data.toml")
    assert picture_sizes(paths, cache).values.tolist() == [[37, 23]] * 500
    held = json.loads(cache.read_text())["pictures"]
    assert held.keys() == {f"train/{i}.png" for i in range(500)}  # relative: the folder may be moved

    status = paths[0].stat()
    content = cv2.imencode(".png", noise(5, 6))[1].tobytes()[:40]
    paths[0].write_bytes(content)
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))  # same time, same length: taken from the cache
    paths[1].write_bytes(content)
    os.utime(paths[1], ns=(0, 1))
    paths[2].unlink()
    found = picture_sizes(paths, cache)
    assert found.values[:4].tolist() == [[37, 23], [5, 6], [0, 0], [37, 23]]
    assert list(found.broken) == [2]
    assert "no such file" in found.broken[2].lower()


def test_few_sizes_are_not_worth_a_file(tmp_path: Path):
    assert len(picture_sizes(many(tmp_path / "train", 20), cache_of(tmp_path / "data.toml")).values) == 20
    assert not cache_of(tmp_path / "data.toml").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema_version": 2}', '{"schema_version": 1, "pictures": {"train/0.png": 3}}']
)
def test_a_damaged_cache_counts_as_none(tmp_path: Path, content: str):
    paths, cache = many(tmp_path / "train", 3), cache_of(tmp_path / "data.toml")
    cache.write_text(content)
    assert picture_sizes(paths, cache).values.tolist() == [[37, 23]] * 3


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path):
    paths = many(tmp_path / "train")
    cache = tmp_path / "train" / "0.png" / "no folder" / "sizes.json"
    assert len(picture_sizes(paths, cache).values) == 500
