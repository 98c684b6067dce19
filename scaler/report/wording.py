"""How candidates and numbers read: one wording for the console, the pictures and the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scaler.search.result import Candidate, DeviceResult, Interval, ParameterValue, SearchResult, Trained

Params = Mapping[str, ParameterValue]

ABSENT = "–"
"""Shown where a parameter is not active."""

_TITLES = {"drop": "truncation", "rfcr": "RFCR", "ese": "eSE", "variant": "network", "space": "family"}
_SHORT_TITLES = {"truncation": "trunc", "resolution": "res", "precision": "prec"}
_PARTNERS = {"repeats": "neck", "shortcut": "rfcr"}
"""Parameters that are shown inside the column of another one, where that one exists."""

_PROPER_NAMES = {
    "mobilenetv2": "MobileNetV2",
    "efficientnet": "EfficientNet",
    "fpn": "FPN",
    "panet": "PANet",
    "bifpn": "BiFPN",
    "yoloret": "YOLO-ReT",
    "scaledyolov4": "Scaled-YOLOv4",
    "vovnetret": "VoVNet-ReT",
    "lwretinanet": "RetinaNet",
} | {f"efficientnetb{n}": f"EfficientNet-B{n}" for n in range(8)}

_BEGINNINGS = {"vovnet2-": "VoVNetV2-", "vovnet-": "VoVNet-", "resnet-": "ResNet-"}
"""Of names that go on with their size."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of architecture parameters."""

    key: str
    title: str

    @property
    def short(self) -> str:
        """The title where room is short."""
        return _SHORT_TITLES.get(self.title, self.title)

    def text(self, params: Params) -> str:
        """The parameter as people write it; `ABSENT` where it is not active."""
        return _WORDING.get(self.key, _plain)(self.key, params) if self.key in params else ABSENT

    def order(self, params: Params) -> float | str | None:
        """What to sort the column by; None sorts last."""
        value = params.get(self.key)
        if self.key == "rfcr" and isinstance(value, int):
            return value + (0.5 if params.get("shortcut") else 0.0)
        return float(value) if isinstance(value, int | float) else value


def parameters(candidate: Candidate) -> Params:
    """What tells a candidate from others: the parameters of its network, and its precision where that was searched."""
    return {**candidate.params, "precision": candidate.precision} if candidate.precision else candidate.params


def columns(many: Iterable[Params]) -> tuple[Column, ...]:
    """The columns that show all of the given parameters, in the order of the search space."""
    keys = merged_keys(many)
    return tuple(Column(key, _title(key)) for key in keys if _PARTNERS.get(key) not in keys)


def merged_keys(many: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """All keys of the given parameters, in the order of the search space."""
    keys: list[str] = []
    for params in many:
        previous = -1
        for key in params:
            if key not in keys:
                keys.insert(previous + 1, key)
            previous = keys.index(key)
    return tuple(keys)


def label(params: Params, separator: str = " · ") -> str:
    """A candidate in one short line, such as `MobileNetV2 ×0.75 cut -1 · PANet · RFCR 5+s4 · 320 px`."""
    head, tail = label_parts(params)
    return separator.join([" ".join(head), *tail] if head else tail)


def label_parts(params: Params) -> tuple[list[str], list[str]]:
    """The backbone in words, and the rest of the network in words."""
    head: list[str] = []
    tail: list[str] = []
    for column in columns([params]):
        text = column.text(params)
        match column.key:
            case "space":
                head.extend([] if "variant" in params else [text])
            case "variant" | "backbone":
                head.append(text)
            case "width":
                head.append(f"×{text}" if isinstance(params["width"], float) else f"{text} channels")
            case "depth":
                head.append(f"depth ×{text}")
            case "ese" | "stem":
                tail.extend([f"{column.title} {text}"] if text not in ("all", "stride4") else [])
            case "towers":
                tail.append(f"towers of {text}")
            case "lighten":
                tail.append(f"head {text}" if text != "none" else "full head")
            case "drop":
                head.extend([f"cut {text}"] if text != "none" else [])
            case "neck":
                tail.append(text if text != "none" else "no neck")
            case "rfcr":
                tail.append(f"RFCR {text}")
            case "resolution":
                tail.append(f"{text} px")
            case "precision":
                tail.append(text)
            case _:
                tail.append(f"{column.title} {text}")
    return head, tail


def proper_name(value: ParameterValue) -> str:
    """`mobilenetv2` as `MobileNetV2`; unknown values stay as they are."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    for beginning, proper in _BEGINNINGS.items():
        if text.startswith(beginning):
            return proper + text.removeprefix(beginning)
    return _PROPER_NAMES.get(text.lower().replace("-", "").replace("_", ""), text)


def frame_ms(candidate: Candidate) -> Interval:
    """Engine and overhead together, in ms: the inverse of `fps`, whose interval is narrower than the engine's."""
    fps = candidate.fps
    return Interval(1000 / fps.mean, 1000 / fps.high, 1000 / fps.low)


def minimized(result: SearchResult, candidate: Candidate) -> Interval:
    """What a search makes small beside the accuracy: the energy of a frame in mJ, or its time in ms."""
    if result.minimize == "energy" and candidate.energy_mj is not None:
        return candidate.energy_mj
    return frame_ms(candidate)


def number(value: float) -> str:
    """A time or a rate with as many digits as it is worth: `0.52`, `32.1`, `1280`."""
    magnitude = abs(value)
    if magnitude >= 999.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if magnitude >= 0.995 or not magnitude else f"{value:.2f}"


def count(value: float) -> str:
    """A large number in the units of the field: `1.33 M`, `533 M`, `4.21 G`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            scaled = value / size
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{value:.0f}"


def percent(share: float | None) -> str:
    """A probability in per cent; never rounded to certainty."""
    if share is None:
        return ABSENT
    if share > 0.995:
        return ">99 %"
    return "<1 %" if share < 0.005 else f"{100 * share:.0f} %"


def half_width(interval: Interval) -> float:
    """Half of the interval: the number behind ±."""
    return (interval.high - interval.low) / 2


def find(device: DeviceResult, identity: str | None) -> Candidate | None:
    """The candidate with that id on the front of the device."""
    return next((candidate for candidate in device.front if candidate.id == identity), None)


def reaches(candidate: Candidate, device: DeviceResult) -> bool:
    """Whether the predicted frame rate reaches the target of the device."""
    return device.target_fps is None or candidate.fps.mean >= device.target_fps


def latest(candidate: Candidate, metric: str) -> Trained | None:
    """The run to show beside a prediction: the last of the same data set and metric, else the last; None of none."""
    comparable = [run for run in candidate.trained if run.of(metric)]
    return next(reversed(comparable or candidate.trained), None)


def comparable(run: Trained, candidate: Candidate, metric: str) -> bool:
    """Whether a run shows what was predicted: the same data set and metric, and no 8-bit integers, which runs lack."""
    return run.of(metric) and candidate.ap_loss is None


def trained_on(runs: Iterable[Trained]) -> str:
    """What measured accuracies are of: `trained on shapes`."""
    return "trained on " + ", ".join(dict.fromkeys(run.dataset for run in runs))


def _title(key: str) -> str:
    return _TITLES.get(key, key.replace("_", " "))


def _plain(key: str, params: Params) -> str:
    return proper_name(params[key])


def _truncation(key: str, params: Params) -> str:
    value = params[key]
    if isinstance(value, bool) or not isinstance(value, int):
        return proper_name(value)
    return f"-{abs(value)}" if value else "none"


def _neck(key: str, params: Params) -> str:
    repeats = params.get("repeats")
    return proper_name(params[key]) + (f" ×{repeats}" if repeats is not None else "")


def _rfcr(key: str, params: Params) -> str:
    if not params[key] or params[key] == "off":
        return "off"
    return proper_name(params[key]) + ("+s4" if params.get("shortcut") is True else "")


def _precision(key: str, params: Params) -> str:
    return str(params[key]).upper()


def _variant(key: str, params: Params) -> str:
    value = str(params[key])
    return f"YOLOv4-{value if value.startswith(('tiny', 'pacsp')) else value.upper()}"


_WORDING = {"drop": _truncation, "neck": _neck, "rfcr": _rfcr, "variant": _variant, "precision": _precision}
