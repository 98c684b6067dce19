"""Batches: the same for any number of workers and ranks, from any step on, whatever pictures are broken."""

import multiprocessing
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from augment_pictures import on_disk

from scaler.data.augment import Augmenter
from scaler.data.augmentation import Augmentation
from scaler.data.dataset import Boxes, Dataset, Picture
from scaler.data.preprocessing import IMAGENET, SYMMETRIC, UNIT, Preprocessing, letterbox, normalised
from scaler.data.reading import ReadPictures
from scaler.errors import UserError
from scaler.training.loop.batches import Batch, batches, epoch_order
from scaler.training.loop.multi_scale import STEPS, drawn_size, resize_batch
from scaler.training.losses.targets import Targets
from scaler.training.network.input import ToInput

SIZE = 64
AUGMENTER = Augmenter(Augmentation(scale=(0.5, 1.5), flip=0.5, mosaic=0.5, value=(0.5, 1.5)), Preprocessing(size=SIZE))


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return on_disk(tmp_path_factory.mktemp("toys"), 11)


def plain(size: int) -> Augmenter:
    return Augmenter(Augmentation(), Preprocessing(size=size))


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.paths == other.paths
        for part, same in zip(
            (one.images, one.indices, *one.targets), (other.images, other.indices, *other.targets), strict=True
        ):
            assert torch.equal(part, same)


def test_a_batch_holds_pictures_and_targets_of_the_documented_shapes(toys: Dataset):
    pool = batches(toys, AUGMENTER, batch=4)
    found = list(pool.at(0))
    assert len(pool) == len(found) == 2
    for batch in found:
        assert batch.images.shape == (4, 3, SIZE, SIZE)
        assert batch.images.dtype == torch.uint8
        assert batch.size == 4
        assert batch.targets.boxes.dtype == torch.float32
        assert batch.targets.boxes.shape == (len(batch.targets.labels), 4)
        assert batch.targets.labels.dtype == batch.targets.pictures.dtype == torch.int64
        assert set(batch.targets.pictures.tolist()) <= set(range(4))
        assert [toys.pictures[i].path for i in batch.indices.tolist()] == [Path(path) for path in batch.paths]


def test_without_augmentation_pictures_come_letterboxed(toys: Dataset):
    [found] = batches(toys, plain(SIZE), batch=11).at(0)
    assert found.indices.tolist() == epoch_order(11, 0, 0).tolist()
    raw, boxes = ReadPictures(toys)[int(found.indices[3])]
    square, place = letterbox(raw, Preprocessing(size=SIZE))
    assert torch.equal(found.images[3], torch.from_numpy(square).permute(2, 0, 1))
    mine = found.targets.pictures == 3
    np.testing.assert_allclose(found.targets.boxes[mine], place.into(boxes.corners), atol=0.5)


def test_ignored_objects_are_not_among_the_targets(toys: Dataset):
    ignored = tuple(
        replace(picture, boxes=Boxes(picture.boxes.corners, picture.boxes.labels, picture.boxes.labels == 1))
        for picture in toys.pictures
    )
    [batch] = batches(replace(toys, pictures=ignored), plain(SIZE), batch=11).at(0)
    [whole] = batches(toys, plain(SIZE), batch=11).at(0)
    assert set(whole.targets.labels.tolist()) == {0, 1, 2}
    assert set(batch.targets.labels.tolist()) == {0, 2}


def test_any_number_of_workers_gives_the_same_batches(toys: Dataset):
    alone = batches(toys, AUGMENTER, batch=3, seed=5)
    expected = [*alone.at(0), *alone.at(1)]
    for workers in (1, 3):
        pool = batches(toys, AUGMENTER, batch=3, seed=5, workers=workers, cache="memory" if workers == 3 else "none")
        assert_same([*pool.at(0), *pool.at(1)], expected)
        pool.close()
    assert expected[0].paths != expected[3].paths
    other = list(batches(toys, AUGMENTER, batch=3, seed=6).at(0))
    assert any(one.paths != another.paths for one, another in zip(other, expected, strict=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_goes_on_gets_the_batches_of_one_that_never_stopped(toys: Dataset, workers: int):
    whole = batches(toys, AUGMENTER, batch=2, workers=workers)
    expected = [*whole.at(0), *whole.at(1), *whole.at(2)]
    resumed = batches(toys, AUGMENTER, batch=2, workers=workers)
    assert_same([*resumed.at(1, 3), *resumed.at(2)], expected[8:])
    broken_off = resumed.at(2)
    next(broken_off)
    assert_same([*resumed.at(1)], expected[5:10])  # backwards, from the middle of another epoch
    whole.close()
    resumed.close()


def test_making_batches_leaves_torchs_generator_alone(toys: Dataset):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    for epoch in range(2):
        list(batches(toys, AUGMENTER, batch=4).at(epoch))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_workers_live_through_the_epochs(toys: Dataset):
    before = {child.pid for child in multiprocessing.active_children()}
    pool = batches(toys, AUGMENTER, batch=4, workers=2)
    seen = []
    for epoch in range(6):
        assert len(list(pool.at(epoch))) == 2
        seen.append({child.pid for child in multiprocessing.active_children()} - before)
    list(pool.at(0))  # again from the start
    seen.append({child.pid for child in multiprocessing.active_children()} - before)
    assert len(seen[0]) == 2
    assert all(pids == seen[0] for pids in seen)
    pool.close()
    assert {child.pid for child in multiprocessing.active_children()} - before == set()


def test_ranks_share_an_epoch_and_have_equally_many_batches(toys: Dataset):
    one = list(batches(toys, AUGMENTER, batch=4, seed=1).at(0))
    two = [list(batches(toys, AUGMENTER, batch=2, seed=1, rank=rank, world=2).at(0)) for rank in (0, 1)]
    assert len(two[0]) == len(two[1]) == len(one)
    for whole, *parts in zip(one, *two, strict=True):
        assert sorted(whole.paths) == sorted(path for part in parts for path in part.paths)
        for part in parts:
            for row, path in enumerate(part.paths):
                assert torch.equal(part.images[row], whole.images[whole.paths.index(path)])


@pytest.mark.parametrize(("world", "batch"), [(1, 16), (2, 3), (3, 16), (4, 3), (16, 1)])
def test_every_rank_has_as_many_batches_whatever_does_not_divide(toys: Dataset, world: int, batch: int):
    ranks = [list(batches(toys, plain(16), batch=batch, rank=rank, world=world).at(0)) for rank in range(world)]
    sizes = [[b.size for b in rank] for rank in ranks]
    assert all(size == sizes[0] for size in sizes)
    seen = {path for rank in ranks for b in rank for path in b.paths}
    if full := 11 // (batch * world):
        assert sizes[0] == [batch] * full
        assert len(seen) == sum(map(sum, sizes))
    else:
        assert seen == {str(p.path) for p in toys.pictures}
        assert sum(map(sum, sizes)) < 11 + world


def test_the_last_incomplete_batch_is_left_out_of_training_unless_it_is_the_only_one(toys: Dataset):
    assert [b.size for b in batches(toys, plain(16), batch=5).at(0)] == [5, 5]
    assert [b.size for b in batches(toys, plain(16), batch=64).at(0)] == [11]


def test_an_epochs_order_is_its_own_and_whole():
    orders = [epoch_order(50, 3, epoch) for epoch in range(4)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pictures_are_skipped_with_one_line_each(tmp_path: Path, workers: int):
    toys = on_disk(tmp_path, 8)
    toys.pictures[2].path.write_bytes(b"no picture at all")
    toys.pictures[3].path.unlink()
    toys.pictures[7].path.write_bytes(toys.pictures[6].path.read_bytes()[:200])
    lines: list[str] = []
    pool = batches(toys, AUGMENTER, batch=4, workers=workers, warn=lines.append)
    found = [batch for epoch in range(3) for batch in pool.at(epoch)]
    pool.close()
    assert [batch.size for batch in found] == [4] * 6
    assert {i for batch in found for i in batch.indices.tolist()} == {0, 1, 4, 5, 6}
    assert len(lines) == 3
    assert all(line.startswith("skipped ") and "\n" not in line for line in lines)
    assert {Path(line.split(": ")[0].removeprefix("skipped ")).name for line in lines} == {
        "002.png", "003.png", "007.png",
    }  # fmt: skip
    again = list(batches(toys, AUGMENTER, batch=4, warn=lambda _: None).at(2))
    assert_same(again, found[4:])  # the stand-in does not depend on what was read before


def test_broken_pictures_are_told_on_standard_error_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    toys = on_disk(tmp_path, 3)
    toys.pictures[1].path.unlink()
    list(batches(toys, plain(16), batch=3).at(0))
    assert capsys.readouterr().err == f"skipped {toys.pictures[1].path}: no such file\n"


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_broken_pictures_is_one_clear_error(tmp_path: Path, workers: int):
    missing = tuple(Picture(tmp_path / f"{i}.jpg", Boxes.of([], [])) for i in range(5))
    data = Dataset("toys", "train", ("a",), missing)
    pool = batches(data, plain(16), batch=2, workers=workers, warn=lambda _: None)
    with pytest.raises(UserError) as caught:
        list(pool.at(0))
    pool.close()
    assert str(caught.value) == (
        f"toys: none of the 5 pictures in 'train' can be read; the first, {tmp_path / '0.jpg'}: no such file; "
        "check the data set with scaler data check"
    )


def test_an_empty_set_is_one_clear_error():
    with pytest.raises(UserError, match=r"toys: no pictures in 'train'; check the data set"):
        batches(Dataset("toys", "train", ("a",), ()), plain(16), batch=2)


def test_a_worker_that_is_killed_is_one_clear_error(toys: Dataset):
    before = {child.pid for child in multiprocessing.active_children()}
    pool = batches(toys, AUGMENTER, batch=1, workers=1)
    stream = pool.at(0)
    next(stream)
    [worker] = [child for child in multiprocessing.active_children() if child.pid not in before]
    with suppress(RuntimeError):  # torch's signal handler
        worker.kill()
        worker.join()
    with pytest.raises(UserError, match="want of memory"):
        for epoch in range(1, 100):
            list(pool.at(epoch))
    pool.close()


def test_the_memory_holds_what_it_may_and_changes_nothing(toys: Dataset):
    plain, kept = ReadPictures(toys), ReadPictures(toys, cache_mib=100)
    assert (plain.remembered, kept.remembered) == (0, 11)
    for i in range(11):
        np.testing.assert_array_equal(plain[i][0], kept[i][0])
    one_picture = plain[0][0].nbytes / 2**20
    assert ReadPictures(toys, cache_mib=3.5 * one_picture).remembered in (2, 3)
    with pytest.raises(ValueError, match="read-only"):
        kept[0][0][0] = 0


def test_reading_keeps_nothing_and_leaves_no_thread(toys: Dataset):
    pictures = ReadPictures(toys, cache_mib=1)
    threads = threading.active_count()
    for i in range(11):
        pictures[i]
    assert pictures.remembered == 11
    assert threading.active_count() == threads


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("values", [UNIT, IMAGENET, SYMMETRIC])
def test_the_input_is_that_of_the_preprocessing_in_the_layout_of_the_pictures(values: tuple, layout):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    preprocessing = Preprocessing(size=32, mean=values[0], std=values[1])
    found = ToInput(preprocessing)(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout))
    np.testing.assert_allclose(found.numpy(), normalised(images, preprocessing), atol=1e-6, rtol=0)
    assert found.is_contiguous(memory_format=layout)


def test_a_size_is_drawn_every_ten_steps_from_the_multiples_of_the_stride():
    sizes = [drawn_size(320, 0.5, 32, 1, step) for step in range(3000)]
    assert set(sizes) == set(range(160, 481, 32))
    for start in range(0, 3000, STEPS):
        assert len(set(sizes[start : start + STEPS])) == 1
    assert sizes == [drawn_size(320, 0.5, 32, 1, step) for step in range(3000)]
    assert sizes != [drawn_size(320, 0.5, 32, 2, step) for step in range(3000)]
    assert drawn_size(320, 0.0, 32, 1, 7) == 320
    assert {drawn_size(320, 0.05, 64, 1, step) for step in range(0, 200, 10)} == {320}
    assert {drawn_size(300, 0.01, 64, 1, step) for step in range(0, 200, 10)} == {300}  # no multiple is near
    assert min(drawn_size(64, 0.9, 32, 1, step) for step in range(0, 500, 10)) == 32


@pytest.mark.parametrize("size", [32, 64, 128])
def test_boxes_stay_on_their_pixels_when_a_batch_is_resized(size: int):
    images = torch.zeros(2, 3, 64, 64)
    images[1, :, 16:48, 8:40] = 1
    targets = Targets(torch.tensor([[8.0, 16.0, 40.0, 48.0]]), torch.tensor([0]), torch.tensor([1]))
    resized, moved = resize_batch(images, targets, size)
    assert resized.shape == (2, 3, size, size)
    x, y, x_end, y_end = (int(edge) for edge in moved.boxes[0])
    assert resized[1, :, y:y_end, x:x_end].mean() > 0.95
    resized[1, :, y:y_end, x:x_end] = 0
    assert resized.mean() < 0.01
    assert torch.equal(moved.labels, targets.labels)
    assert torch.equal(moved.pictures, targets.pictures)
