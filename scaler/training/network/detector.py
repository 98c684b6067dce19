"""A trained network as a detector, run by torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from scaler.data.dataset import FloatArray, Image
from scaler.data.preprocessing import Preprocessing
from scaler.errors import UnsupportedError, UserError
from scaler.evaluation.detect import detect
from scaler.evaluation.detections import Detections, Selection
from scaler.training.network.codings import decoded
from scaler.training.network.fusing import fused
from scaler.training.network.input import ToInput
from scaler.training.network.memory import is_out_of_memory, release
from scaler.training.network.spec import NetworkSpec


class TorchDetector:
    """Runs a copy of a module, for inference; the module that is trained stays as it is.

    Args:
        spec: The network.
        module: What `scaler.training.network.module.to_torch` made of the spec's graph, with its numbers.
        device: Where to run: `cpu`, `cuda`, `cuda:1`, or `auto`.
        fuse: Whether batch normalisation is folded into the convolutions: the same numbers, faster.
        half: Whether the network runs in 16 bits, on a GPU; boxes are decoded in 32.
        most: Pictures that go through the network together at most; fewer where the memory is too small for as many.
        selection: Which boxes counted when the network's AP was computed.

    Raises:
        UnsupportedError: The device is not there, or it has no half precision.
        UserError: The network is no detector.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        module: nn.Module,
        device: str = "cpu",
        *,
        fuse: bool = True,
        half: bool = False,
        most: int | None = None,
        selection: Selection | None = None,
    ) -> None:
        graph = spec.graph()
        if graph.coding is None:
            raise UnsupportedError(f"{graph.name or spec.family}: it is no detector, there are no boxes to decode")
        self._spec, self._coding = spec, graph.coding
        self._device = checked_device(device)
        if half and self._device.type == "cpu":
            raise UnsupportedError("half precision needs a GPU; leave it off on a CPU")
        self._most, self._selection = most, selection
        self._type = torch.float16 if half else torch.float32
        self._to_input = ToInput(spec.preprocessing, self._device)
        network = fused(module) if fuse else copy.deepcopy(module).eval()
        self._network = network.to(self._device, self._type)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names."""
        return self._spec.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """What it wants pictures to be like."""
        return self._spec.preprocessing

    @property
    def selection(self) -> Selection | None:
        """Which boxes counted when its AP was computed in training; None where nobody told."""
        return self._selection

    def raw(self, images: Image) -> tuple[FloatArray, FloatArray]:
        """Boxes and scores of fitted pictures, see `Detector.raw`; half as many at a time where the memory is full.

        A picture's do not depend on its neighbours; with another number of them they differ by rounding.

        Raises:
            UserError: The memory is too small for one picture.
        """
        found: list[tuple[FloatArray, FloatArray]] = []
        done = 0
        while done < len(images):
            count = min(self._most or len(images), len(images) - done)
            try:
                found.append(self._run(images[done : done + count]))
                done += count
                continue
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # outside of the handler, whose traceback keeps the maps alive
            release(str(self._device))
            self._most = self._halved(count)
        boxes, scores = (np.concatenate(part) for part in zip(*found, strict=True))
        return boxes, scores

    def detect(self, images: Sequence[Image], selection: Selection) -> list[Detections]:
        """Objects of pictures of any size."""
        return detect(self, images, selection)

    def _run(self, images: Image) -> tuple[FloatArray, FloatArray]:
        pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
        layout = torch.contiguous_format if self._device.type == "cpu" else torch.channels_last
        with torch.inference_mode():
            inputs = self._to_input(pictures.to(self._device, memory_format=layout))
            boxes, scores = decoded(self._network(inputs.to(self._type)), self._coding)
            return boxes.cpu().numpy(), scores.cpu().numpy()

    def _halved(self, count: int) -> int:
        """Pictures at a time after so many did not fit."""
        if count == 1:
            size = self.preprocessing.size
            raise UserError(
                f"{self._device} has too little memory for one picture of {size} px; run a smaller network or "
                "resolution, or another device"
            )
        return count // 2


def checked_device(name: str, option: str = "--device") -> torch.device:
    """The device of a name; `auto` is the first GPU, or the CPU where there is none.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:1`.
        option: What the user gave it by, to be told.

    Raises:
        UnsupportedError: torch knows no such device, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UnsupportedError(f"{option} {name}: no such device; use auto, cpu, cuda or cuda:<number>")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        gpus = f"{found or 'no'} GPU{'s' * (found > 1)}"
        raise UnsupportedError(f"{option} {name}: torch finds {gpus}; use {option} cpu")
    return device
