"""A device for the tests of deployment: a fake trtexec that also runs the network, by answers computed beforehand."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bundle_device import FakeDevice, Outcome

from scaler.data.images import read_image
from scaler.data.preprocessing import letterbox, normalised
from scaler.evaluation.onnx_detector import OnnxDetector

INFER = r"""
case "$*" in *--exportOutput=*)
    printf '%s\n' "$*" >>"$HOME/inferred"
    if [ -n "${FAKE_DIE_AT:-}" ] && [ "$(wc -l <"$HOME/inferred")" = "$FAKE_DIE_AT" ]; then
        pid=$HOME/scaler-bundle/results/work/pid
        if [ -s "$pid" ]; then kill -KILL "$(cat "$pid")"; else kill -KILL $PPID; fi
        exit 1
    fi
    known=$FAKE_MEMORY/infer-$FAKE_TRTEXEC_VERSION
    for option; do
        case $option in
            --loadInputs=image:*) inputs=${option#*:} ;;
            --exportOutput=*) outputs=${option#*=} ;;
            --loadEngine=*) [ -s "${option#*=}" ] || exit 1 ;;
            *) known="$known $option" ;;
        esac
    done
    if [ ! -f "$known" ]; then
        "$FAKE_PYTHON" -IS "$FAKE_PROGRAM" "$@" || exit 1
        : >"$known"
    fi
    printf '\n&&&& PASSED TensorRT.trtexec\n'
    sum=$(sha256sum "$inputs")
    cp "$FAKE_OUTPUTS/${sum%% *}.json" "$outputs" || exit 1
    exit 0 ;;
esac
"""
"""In front of the fake, which is asked once whether it knows the options: outputs are those of the very input, and an
input that differs by a bit has none."""


def exported(outputs: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """What `exportJSONOutput` of sampleReporting.cpp writes: numbers as a C++ stream prints them."""
    rows = [
        f'{{ "name" : "{name}"\n  , "dimensions" : "{"x".join(map(str, values.shape))}"\n'
        f'  , "values" : [ {", ".join(f"{value:.6g}" for value in values.ravel())} ]\n  }}\n'
        for name, values in outputs.items()
    ]
    return "[\n  " + ", ".join(rows) + "]\n"


@dataclass
class DeployDevice(FakeDevice):
    """A device with the unpacked bundle of a network."""

    def answers(self, model: Path, pictures: list[Path]) -> "DeployDevice":
        """Know what the network says of these pictures."""
        detector = OnnxDetector(model, "cpu")
        folder = self.home / "outputs"
        folder.mkdir(exist_ok=True)
        for path in pictures:
            fitted, _ = letterbox(read_image(path), detector.preprocessing)
            boxes, scores = detector.raw(fitted[None])
            content = normalised(fitted[None], detector.preprocessing).astype("<f4").tobytes()
            name = hashlib.sha256(content).hexdigest()
            (folder / f"{name}.json").write_text(exported({"boxes": boxes, "scores": scores}))
        self.environment["FAKE_OUTPUTS"] = str(folder)
        self.wrapper += INFER
        return self

    def deploy(self, *options: str) -> Outcome:
        """Run measure.sh with quick settings."""
        return self.measure("--power-seconds", "1", *options)

    @property
    def inferred(self) -> list[str]:
        """The calls of trtexec that ran the network on a picture."""
        path = self.home / "inferred"
        return path.read_text().splitlines() if path.is_file() else []

    @property
    def engine(self) -> Path:
        """The engine that stays on the device."""
        (found,) = (self.bundle / "engine").glob("*.engine")
        return found
