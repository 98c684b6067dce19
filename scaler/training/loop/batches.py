"""Batches of training pictures: read, augmented and gathered by worker processes, the same for any number of them.

Picture i of epoch e depends on the seed, e and i alone, the order of an epoch on the seed and e. A step of all ranks
together takes the same pictures whatever their number, if the batch of a rank shrinks as they grow.
"""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate
from torch.utils.data import Dataset as TorchDataset

from scaler.data import require_cv2
from scaler.data.augment import Augmenter, generator
from scaler.data.dataset import Boxes, Dataset, IntArray
from scaler.data.reading import ReadPictures
from scaler.errors import UserError
from scaler.training.losses.targets import Targets

Cache: TypeAlias = Literal["none", "memory"]
CACHE_MIB = 2048.0
"""Most memory for decoded pictures."""
_ORDER = (1,)  # spawn key of the generator of an epoch's order
_Key = tuple[int, int]  # epoch, index of the picture


class Batch(NamedTuple):
    """Pictures and their objects."""

    images: Tensor
    """`[n, 3, size, size]`, uint8, RGB; in memory the channels are last; `network.input.ToInput` makes floats of it."""
    targets: Targets
    """Without the ignored objects."""
    indices: Tensor
    """`[n]`, int64: the pictures in the data set (the first of a mosaic); in place of a broken one its stand-in."""
    paths: tuple[str, ...]
    """Likewise."""

    @property
    def size(self) -> int:
        """Number of pictures."""
        return len(self.paths)


class Batches:
    """The batches of every epoch, from workers that live as long as this object.

    Whoever asks for one epoch after the other never waits between them: the workers run ahead.
    """

    def __init__(self, maker: _Maker, order: _Order, workers: int, pin: bool, warn: Callable[[str], None]) -> None:
        self._paths = maker.paths
        self._order = order
        self._warn = warn
        self._warned: set[int] = set()
        with _many_workers_allowed():
            self._loader: DataLoader[_Made] | None = DataLoader(
                maker,
                batch_sampler=order,
                num_workers=workers,
                collate_fn=_as_it_is,
                pin_memory=pin,
                worker_init_fn=_start_worker,
                generator=torch.Generator().manual_seed(0),  # or it draws from the global one at every epoch
                persistent_workers=workers > 0,
            )
        self._stream: Iterator[_Made] | None = None
        self._next = (-1, -1)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._order.steps

    def at(self, epoch: int, step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a step on, both counted from 0: the same as in an epoch from its start.

        Raises:
            UserError: All pictures are broken, or a worker died.
        """
        for current in range(step, len(self)):
            with killed_workers_told():
                made = self._made(epoch, current)
            for index, reason in made.broken:
                self._skipped(index, reason)
            if made.batch is None:
                raise UserError(made.error)
            yield made.batch

    def close(self) -> None:
        """Stop the workers; after that there are no batches."""
        self._stream = self._loader = None

    def _made(self, epoch: int, step: int) -> _Made:
        if self._loader is None:
            raise ValueError("the batches are closed")
        if self._stream is None or self._next != (epoch, step):
            self._order.start = (epoch, step)
            with _many_workers_allowed():
                self._stream = iter(self._loader)
        self._next = (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)
        return next(self._stream)

    def _skipped(self, index: int, reason: str) -> None:
        if index not in self._warned:
            self._warned.add(index)
            self._warn(f"skipped {self._paths[index]}: {reason}")


@contextmanager
def killed_workers_told() -> Iterator[None]:
    """Tell in one line that a worker was killed; torch raises that from a signal handler, so anywhere in the loop.

    Raises:
        UserError: A worker was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that reads pictures was killed, probably for want of memory (or of shared memory: /dev/shm in a "
            "container); take fewer --workers or a smaller --batch"
        ) from None


def batches(
    dataset: Dataset,
    augmenter: Augmenter,
    *,
    batch: int,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
    cache: Cache = "none",
    cache_mib: float = CACHE_MIB,
    warn: Callable[[str], None] | None = None,
) -> Batches:
    """Return the batches of a data set; the workers start when the first is asked for.

    An epoch leaves out the pictures that fill no batch, others each time, if there is a full one at all.

    Args:
        dataset: At least one picture.
        augmenter: Makes the pictures and knows their size.
        batch: Pictures of a step of this rank.
        seed: Of the order and the augmentation, 0 or more.
        workers: Processes beside this one; 0 makes the pictures here.
        rank: Of this process, from 0.
        world: Processes that share the work; each has equally many batches. Where pictures are missing for that, some
            come twice.
        pin: Whether they lie in page-locked memory, from which a GPU takes them without being waited for.
        cache: `memory` keeps decoded pictures, shared by the workers where processes are forked.
        cache_mib: Most memory for them in MiB.
        warn: Called with a line for each broken picture, once; prints on standard error by default.

    Raises:
        UserError: The data set is empty.
    """
    pictures = ReadPictures(dataset, cache_mib if cache == "memory" else 0.0)
    order = _Order(len(pictures), batch, seed, rank, world)
    return Batches(_Maker(pictures, augmenter, seed), order, workers, pin, warn or _to_standard_error)


def epoch_order(pictures: int, seed: int, epoch: int) -> IntArray:
    """The shuffled order of an epoch, the same for any number of ranks."""
    return np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=_ORDER)).permutation(pictures)


class _Order(Sampler[list[_Key]]):
    """What is made when: lists of (epoch, picture); epochs follow one another without end."""

    def __init__(self, pictures: int, batch: int, seed: int, rank: int, world: int) -> None:
        self.start = (0, 0)
        """Epoch and step that the next stream begins with."""
        self._pictures, self._batch, self._seed = pictures, batch, seed
        self._rank, self._world = rank, world
        share = -(-pictures // world)  # of every rank, the last pictures twice where they do not divide
        self.steps = pictures // (batch * world) or -(-share // batch)
        self._share = share

    def __iter__(self) -> Iterator[list[_Key]]:
        epoch, step = self.start
        while True:
            mine = self._mine(epoch)
            for current in range(step, self.steps):
                rows = mine[current * self._batch : (current + 1) * self._batch]
                yield [(epoch, int(row)) for row in rows]
            epoch, step = epoch + 1, 0

    def _mine(self, epoch: int) -> IntArray:
        rows = epoch_order(self._pictures, self._seed, epoch)
        return np.resize(rows, self._share * self._world)[self._rank :: self._world]


class _Made(NamedTuple):
    """What a worker sends."""

    batch: Batch | None
    broken: tuple[tuple[int, str], ...]
    """Index and reason of the pictures that this worker has found to be broken since its last batch."""
    error: str = ""
    """Why there is no batch."""


class _Maker(TorchDataset[_Made]):
    """Makes whole batches; lives in each worker."""

    def __init__(self, pictures: ReadPictures, augmenter: Augmenter, seed: int) -> None:
        self.paths = tuple(str(picture.path) for picture in pictures.dataset.pictures)
        self._pictures, self._augmenter, self._seed = pictures, augmenter, seed
        self._told = 0

    def __getitems__(self, keys: Sequence[_Key]) -> _Made:
        try:
            made = [self._one(*key) for key in keys]
        except UserError as error:  # as text: the loader would wrap an exception in its own words
            return _Made(None, self._news(), str(error))
        rows = [self._pictures.stand_in(index) for _, index in keys]
        batch = Batch(
            default_collate([image for image, _ in made]).permute(0, 3, 1, 2),  # into shared memory, in a worker
            _targets([boxes for _, boxes in made]),
            torch.tensor(rows),
            tuple(self.paths[row] for row in rows),
        )
        return _Made(batch, self._news())

    def _one(self, epoch: int, index: int) -> tuple[Tensor, Boxes]:
        image, boxes = self._augmenter(self._pictures, index, generator(self._seed, epoch, index))
        return torch.from_numpy(image), boxes

    def _news(self) -> tuple[tuple[int, str], ...]:
        news = list(self._pictures.broken.items())[self._told :]
        self._told += len(news)
        return tuple(news)


def _targets(parts: list[Boxes]) -> Targets:
    trained = [~boxes.ignored for boxes in parts]
    counts = [int(keep.sum()) for keep in trained]
    return Targets(
        torch.from_numpy(np.concatenate([boxes.corners[keep] for boxes, keep in zip(parts, trained, strict=True)])),
        torch.from_numpy(np.concatenate([boxes.labels[keep] for boxes, keep in zip(parts, trained, strict=True)])),
        torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(counts)),
    )


def _as_it_is(made: Any) -> Any:  # the type of `collate_fn` knows nothing of whole batches
    return made


@contextmanager
def _many_workers_allowed() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores
        yield


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains
    require_cv2().setNumThreads(0)


def _to_standard_error(line: str) -> None:
    print(line, file=sys.stderr)
