"""Values of the wrong kind in a detector's configuration: one clear line each, never a traceback."""

import pytest

from scaler.errors import UsageError
from scaler.models.detectors.retinanet import RetinaNetConfig
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config
from scaler.models.detectors.yolo_ret import YoloRetConfig

FAMILIES = {
    YoloRetConfig: {"backbone": "mobilenetv2"},
    ScaledYoloV4Config: {"variant": "csp"},
    RetinaNetConfig: {"backbone": "resnet-50"},
}
FIELDS = {
    "a name": {
        YoloRetConfig: ("backbone", "neck", "ese", "stem"),
        ScaledYoloV4Config: ("variant", "activation", "concat_norm"),
        RetinaNetConfig: ("backbone", "stride_in", "lighten"),
    },
    "a number": {YoloRetConfig: ("width",), ScaledYoloV4Config: ("width", "depth")},
    "a whole number": {
        YoloRetConfig: ("drop", "repeats", "rfcr", "resolution", "classes"),
        ScaledYoloV4Config: ("rfcr", "resolution", "classes"),
        RetinaNetConfig: ("width", "towers", "resolution", "classes"),
    },
}
WRONG = {
    "a name": (1, 1.5, True, None, ["csp"], {"csp": 1}),
    "a number": ("1", True, None, [1.0], 1j),
    "a whole number": ("1", True, None, [1], 1.5),
}


@pytest.mark.parametrize(
    ("family", "field", "value", "kind"),
    [
        (family, field, value, kind)
        for kind, by_family in FIELDS.items()
        for family, fields in by_family.items()
        for field in fields
        for value in WRONG[kind]
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_field(family, field, value, kind):
    with pytest.raises(UsageError) as raised:
        family(**FAMILIES[family] | {field: value})
    assert str(raised.value) == f"{field} = {value!r}: allowed is {kind}"


@pytest.mark.parametrize("family", [YoloRetConfig, ScaledYoloV4Config])
def test_a_whole_number_is_a_number(family):
    assert family(**FAMILIES[family], width=1).width == 1
    assert family(**FAMILIES[family], width=1) == family(**FAMILIES[family], width=1.0)


@pytest.mark.parametrize("family", [YoloRetConfig, ScaledYoloV4Config])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1])
def test_a_number_out_of_range_is_refused_with_the_range(family, value):
    with pytest.raises(UsageError, match=r"^width = .*: allowed is 0"):
        family(**FAMILIES[family], width=value)
