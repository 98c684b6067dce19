"""A trained network as a detector, run by torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from scaler.data.dataset import FloatArray, Image
from scaler.data.preprocessing import Preprocessing
from scaler.errors import UnsupportedError, UserError
from scaler.evaluation.detect import detect
from scaler.evaluation.detections import Detections, Selection
from scaler.training.batches import to_input
from scaler.training.codings import decoded
from scaler.training.fusing import fused
from scaler.training.network import NetworkSpec


class TorchDetector:
    """Runs a copy of a module, for inference; the module that is trained stays as it is.

    Args:
        spec: The network.
        module: What `scaler.training.module.to_torch` made of the spec's graph, with its numbers.
        device: Where to run: `cpu`, `cuda`, `cuda:1`, or `auto`.
        fuse: Whether batch normalisation is folded into the convolutions: the same numbers, faster.
        half: Whether the network runs in 16 bits, on a GPU; boxes are decoded in 32.

    Raises:
        UnsupportedError: The device is not there, or it has no half precision.
        UserError: The network is no detector.
    """

    def __init__(
        self, spec: NetworkSpec, module: nn.Module, device: str = "cpu", *, fuse: bool = True, half: bool = False
    ) -> None:
        graph = spec.graph()
        if graph.coding is None:
            raise UnsupportedError(f"{graph.name or spec.family}: it is no detector, there are no boxes to decode")
        self._spec, self._coding = spec, graph.coding
        self._device = checked_device(device)
        if half and self._device.type == "cpu":
            raise UnsupportedError("half precision needs a GPU; leave it off on a CPU")
        self._type = torch.float16 if half else torch.float32
        self._channels_last = self._device.type != "cpu"
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

    def raw(self, images: Image) -> tuple[FloatArray, FloatArray]:
        """Boxes and scores of fitted pictures, see `Detector.raw`.

        A picture's do not depend on its neighbours; with another number of them they differ by rounding.

        Raises:
            UserError: The GPU has too little memory for so many.
        """
        pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
        try:
            with torch.inference_mode():
                inputs = to_input(pictures, self.preprocessing, self._device, channels_last=self._channels_last)
                boxes, scores = decoded(self._network(inputs.to(self._type)), self._coding)
                return boxes.cpu().numpy(), scores.cpu().numpy()
        except torch.OutOfMemoryError:
            raise UserError(
                f"{self._device} has too little memory for {len(images)} pictures at a time; use a smaller --batch"
            ) from None

    def detect(self, images: Sequence[Image], selection: Selection) -> list[Detections]:
        """Objects of pictures of any size."""
        return detect(self, images, selection)


def checked_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first GPU, or the CPU where there is none.

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
        raise UnsupportedError(f"--device {name}: no such device; use auto, cpu, cuda or cuda:<number>")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise UnsupportedError(f"--device {name}: torch finds {found or 'no'} GPU{'s' * (found > 1)}; use --device cpu")
    return device
