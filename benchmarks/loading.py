"""Prints how fast training pictures are made, alone and beside a step as long as a GPU's.

The pictures are clouds of 1/f noise of COCO's size, whose JPEG files are as large as COCO's (about 150 kB): flat
drawings would decode too fast. A step is simulated by a sleep, because what a GPU computes leaves the processor to the
workers; what the loop then waits for is the loading alone.

Two cores can show what a picture costs (in processor time, which other programs hardly change), that workers give the
same throughput as this cost promises up to two of them, and that the loop does not wait where the promise is above the
need. They cannot show four workers at once: for those the promise stands, workers / cost, on as many free cores.

    python -m benchmarks.loading --pictures 128 --batch 16 --step-ms 100
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from scaler.data.augment import Augmenter, generator
from scaler.data.augmentation import Augmentation
from scaler.data.dataset import Boxes, Dataset, Picture
from scaler.data.preprocessing import Preprocessing
from scaler.data.reading import ReadPictures
from scaler.training.loop.batches import Batch, Batches, batches
from scaler.training.recipe import read_recipe, recipe_names

WIDTH, HEIGHT = 640, 480
QUALITY = 85


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--step-ms", type=float, default=100.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = clouds(Path(folder), options.pictures)
        kilobytes = sum(picture.path.stat().st_size for picture in data.pictures) / len(data.pictures) / 1000
        print(f"{len(data.pictures)} pictures of {WIDTH} x {HEIGHT}, {kilobytes:.0f} kB each; {os.cpu_count()} cores\n")
        one_core(data, options.size)
        beside_a_step(data, options)


def one_core(data: Dataset, size: int) -> None:
    """Pictures per second of processor time, without torch, from files and from memory."""
    print(f"Pictures of {size} px per second of one core\n\n| recipe | from files | from memory |\n|---|---:|---:|")
    cv2.setNumThreads(1)
    from_files, from_memory = ReadPictures(data), ReadPictures(data, cache_mib=4096)
    settings = {"(letterbox alone)": Augmentation()}
    settings |= {name: read_recipe(name).augmentation for name in recipe_names()}
    for name, augmentation in settings.items():
        augmenter = Augmenter(augmentation, Preprocessing(size=size))
        rates = (made_per_second(augmenter, pictures) for pictures in (from_files, from_memory))
        print(f"| {name} | {' | '.join(f'{rate:.0f}' for rate in rates)} |")


def made_per_second(augmenter: Augmenter, pictures: ReadPictures, count: int = 100) -> float:
    augmenter(pictures, 0, generator(0, 0, 0))
    start = time.process_time()
    for i in range(count):
        augmenter(pictures, i % len(pictures), generator(0, 1, i))
    return count / (time.process_time() - start)


def beside_a_step(data: Dataset, options: argparse.Namespace) -> None:
    needed = options.batch / options.step_ms * 1000
    print(
        f"\nscaled-yolov4 (mosaic) at {options.size} px; a step of {options.batch} pictures in {options.step_ms:g} ms",
        end="",
    )
    print(f" needs {needed:.0f} pictures/s\n")
    print(
        "| workers | pictures come from | alone, pictures/s | with the step | waits | cost, ms | promise, pictures/s |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|")
    augmenter = Augmenter(read_recipe("scaled-yolov4").augmentation, Preprocessing(size=options.size))
    for cache in ("none", "memory"):
        for workers in options.workers:
            pool = batches(data, augmenter, batch=options.batch, workers=workers, cache=cache)
            before, made = processor_seconds(), Counter[str]()
            alone, _ = measured(endless(pool), options.steps, 0.0, made)
            rate, waiting = measured(endless(pool, epoch=1000), options.steps, options.step_ms / 1000, made)
            pool.close()
            cost = (processor_seconds() - before) / made["pictures"]
            where = "files" if cache == "none" else "memory"
            cells = (
                f"{alone:.0f} | {rate:.0f} | {100 * waiting:.0f} % | {1000 * cost:.1f} | {max(workers, 1) / cost:.0f}"
            )
            print(f"| {workers} | {where} | {cells} |", flush=True)


def processor_seconds() -> float:
    """Of this process and the workers that have ended."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def endless(pool: Batches, epoch: int = 0) -> Iterator[Batch]:
    while True:
        yield from pool.at(epoch)
        epoch += 1


def measured(stream: Iterator[Batch], steps: int, step_s: float, made: Counter[str]) -> tuple[float, float]:
    """Pictures per second and the share of the time that the loop waits, once the workers have started."""
    for batch in islice(stream, 10):
        made["pictures"] += batch.size
        time.sleep(step_s)
    start, waited, pictures = time.perf_counter(), 0.0, 0
    for _ in range(steps):
        asked = time.perf_counter()
        pictures += next(stream).size
        waited += time.perf_counter() - asked
        time.sleep(step_s)
    elapsed = time.perf_counter() - start
    made["pictures"] += pictures
    return pictures / elapsed, waited / elapsed


def clouds(folder: Path, count: int) -> Dataset:
    """Pictures with the spectrum of photographs, and seven boxes each."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = np.inf
    pictures = []
    for number in range(count):
        waves = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
        waves[1:] = 0.8 * waves[:1] + 0.2 * waves[1:]  # colours go together
        noise = np.fft.irfft2(waves / frequency, (HEIGHT, WIDTH)).transpose(1, 2, 0)
        image = np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
        path = folder / f"{number:05}.jpg"
        cv2.imwrite(str(path), image, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
        starts = rng.uniform(0, 400, (7, 2))
        corners = np.concatenate([starts, starts + rng.uniform(10, 80, (7, 2))], 1)
        pictures.append(Picture(path, Boxes.of(corners, rng.integers(0, 3, 7)), WIDTH, HEIGHT))
    return Dataset("clouds", "train", ("a", "b", "c"), tuple(pictures))


if __name__ == "__main__":
    main()
