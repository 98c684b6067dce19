"""The RetinaNet family: what is shared, what is refused, what the written network computes."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_sessions import picture, run

from scaler.errors import UsageError
from scaler.export.onnx_model import to_onnx
from scaler.export.weights import random_weights
from scaler.graph.graph import Graph
from scaler.models.backbones import vovnet
from scaler.models.detectors.families import FAMILIES
from scaler.models.detectors.retinanet import BACKBONES, RetinaNetConfig, build, has_bottlenecks, mixes_kernels
from scaler.models.heads.retinanet import LIGHTER, anchors

SMALL = RetinaNetConfig(backbone="resnet-18", width=16, resolution=128, classes=3)
LEVELS = (3, 4, 5, 6, 7)


def owners(graph: Graph, part: str) -> dict[int, str]:
    """Who owns the parameters of a part of the head, by level."""
    placed = {p.name: p.weights or p.name for p in graph.placements}
    return {level: placed[f"head.p{level}.{part}"] for level in LEVELS}


class TestSharing:
    @pytest.mark.parametrize("part", ["class.tower0", "class.tower3", "class.predictor", "box.tower2", "box.predictor"])
    def test_all_levels_share_the_published_head(self, part: str):
        assert set(owners(build(SMALL), part).values()) == {f"head.p3.{part}"}

    def test_the_released_head_is_the_released_codes(self):
        graph = build(replace(SMALL, lighten="released-code"))
        own, fourth = {level: f"head.p{level}" for level in LEVELS}, "head.p4"
        for branch in ("class", "box"):
            assert owners(graph, f"{branch}.tower0") == {k: f"{v}.{branch}.tower0" for k, v in own.items()}
            shared = {3: "head.p3"} | dict.fromkeys((4, 5, 6, 7), fourth)
            assert owners(graph, f"{branch}.tower1") == {k: f"{v}.{branch}.tower1" for k, v in shared.items()}
        assert owners(graph, "class.predictor") == {k: f"{v}.class.predictor" for k, v in shared.items()}
        assert set(owners(graph, "box.predictor").values()) == {"head.p3.box.predictor"}

    def test_without_the_codes_side_effect_the_first_convolutions_are_shared_too(self):
        graph = build(replace(SMALL, lighten="released"))
        assert set(owners(graph, "class.tower0").values()) == {"head.p3.class.tower0", "head.p4.class.tower0"}

    def test_shared_weights_stand_once_in_the_file(self):
        graph = build(SMALL)
        model = to_onnx(graph, weights=random_weights())
        stored = [array.name for array in model.graph.initializer if array.name.startswith("head")]
        assert len(stored) == len(set(stored)) == 2 * (4 + 1) * 2  # branches, convolutions, weight and bias
        used = [node for node in model.graph.node if node.op_type == "Conv" and node.name.startswith("head")]
        assert len(used) == 5 * 2 * (4 + 1)


class TestBoxes:
    def test_outputs_and_boxes_of_every_level(self):
        graph = build(replace(SMALL, resolution=160))
        shapes = {label: graph.placements[place].block.shape for label, place in graph.outputs}
        sides = {3: 20, 4: 10, 5: 5, 6: 3, 7: 2}
        assert shapes == {
            f"p{level}_{branch}": (channels, side, side)
            for level, side in sides.items()
            for branch, channels in (("class", 9 * 3), ("box", 9 * 4))
        }
        assert graph.boxes == 9 * sum(side**2 for side in sides.values())
        assert [scale.stride for scale in graph.coding.scales] == [8, 16, 32, 64, 128]
        assert [scale.outputs for scale in graph.coding.scales] == [(f"p{n}_class", f"p{n}_box") for n in LEVELS]

    def test_anchors_are_the_papers(self):
        """Areas of 32^2 at P3 to 512^2 at P7, at 2^0, 2^(1/3) and 2^(2/3) times the side, of 1:2, 1:1 and 2:1."""
        for stride, side in ((8, 32), (128, 512)):
            boxes = np.array(anchors(stride))
            assert boxes.shape == (9, 2)
            np.testing.assert_allclose(boxes.prod(1), np.repeat([side**2 * 2 ** (2 * k / 3) for k in range(3)], 3))
            np.testing.assert_allclose(boxes[:, 1] / boxes[:, 0], [0.5, 1, 2] * 3)


@st.composite
def configs(draw: st.DrawFn) -> RetinaNetConfig:
    backbone = draw(st.sampled_from(BACKBONES))
    lighten = draw(st.sampled_from(sorted(LIGHTER)))
    return RetinaNetConfig(
        backbone=backbone,
        stride_in=draw(st.sampled_from(["1x1", "3x3"])) if has_bottlenecks(backbone) else "1x1",
        width=8 * draw(st.integers(2, 64)),
        towers=4 if mixes_kernels(lighten) else draw(st.integers(1, 8)),
        lighten=lighten,
        resolution=32 * draw(st.integers(4, 42)),
        classes=draw(st.integers(1, 120)),
    )


@given(configs())
@settings(derandomize=True, max_examples=60, deadline=None)
def test_every_valid_configuration_builds_a_detector_of_five_levels(config: RetinaNetConfig):
    graph = build(config)
    side = config.resolution // 32
    sides = [4 * side, 2 * side, side, -(-side // 2), -(-side // 4)]
    assert [graph.placements[place].block.shape[1] for _, place in graph.outputs[::2]] == sides
    assert graph.boxes == 9 * sum(n * n for n in sides)
    assert graph.name == config.name


REFUSED = [
    ({"backbone": "resnet-51"}, "unknown backbone 'resnet-51'; did you mean 'resnet-50'? known: "),
    ({"stride_in": "2x2"}, "stride_in = '2x2': allowed is 1x1 or 3x3 for resnet-50"),
    ({"backbone": "resnet-18", "stride_in": "3x3"}, "stride_in = '3x3': allowed is 1x1 for resnet-18"),
    ({"backbone": "vovnet-39", "stride_in": "3x3"}, "stride_in = '3x3': allowed is 1x1 for vovnet-39"),
    ({"width": 100}, "width = 100: allowed is a multiple of 8 from 16 to 512"),
    ({"width": 520}, "width = 520: allowed is a multiple of 8 from 16 to 512"),
    ({"width": 256.0}, "width = 256.0: allowed is a whole number"),
    ({"towers": 0}, "towers = 0: allowed is 1 to 8"),
    ({"lighten": "relased"}, "unknown lighten 'relased'; did you mean 'released'? known: "),
    ({"lighten": "p3-alternate", "towers": 3}, "towers = 3: allowed is 4 where lighten is p3-alternate"),
    ({"resolution": 400}, "resolution = 400: allowed is a multiple of 32 from 128 to 1344"),
    ({"resolution": 96}, "resolution = 96: allowed is a multiple of 32 from 128 to 1344"),
    ({"classes": 0}, "classes = 0: allowed is 1 or more"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_a_value_out_of_range_is_refused_in_one_line_with_field_and_range(fields, message):
    with pytest.raises(UsageError) as raised:
        RetinaNetConfig(**fields)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_name_tells_what_the_network_is():
    assert RetinaNetConfig().name == "retinanet-resnet-50-256x4-800"
    other = RetinaNetConfig(stride_in="3x3", width=128, towers=2, lighten="released", resolution=512)
    assert other.name == "retinanet-resnet-50-s3x3-128x2-released-512"


def test_the_family_is_found_by_its_name():
    family = FAMILIES["retinanet"]
    assert family.build(family.configure(classes=3)).name == RetinaNetConfig().name


def test_every_vovnet_is_a_backbone():
    assert set(vovnet.MODELS) < set(BACKBONES)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        pytest.param(replace(SMALL, backbone="resnet-50", lighten="released"), marks=pytest.mark.slow),
        replace(SMALL, lighten="released-code", resolution=160),
        pytest.param(
            replace(SMALL, backbone="resnet-50", stride_in="3x3", lighten="p3-depthwise"), marks=pytest.mark.slow
        ),
        pytest.param(replace(SMALL, lighten="p3-p4-1x1", towers=2, resolution=192), marks=pytest.mark.slow),
        replace(SMALL, backbone="vovnet2-19-slim-dw", lighten="p3-three-1x1-class-1x1"),
    ],
    ids=lambda config: config.name,
)
def test_the_written_network_computes_what_torch_computes(config: RetinaNetConfig):
    reference = pytest.importorskip("torch_reference", reason="torch is not installed", exc_type=ImportError)
    graph, weights, pictures = build(config), random_weights(3), picture(1, 3, config.resolution, config.resolution)
    model = to_onnx(graph, weights=weights)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True)
    expected = reference.run(graph, weights, pictures)
    found = run(model, pictures)
    assert found.keys() == expected.keys() == {f"p{level}_{branch}" for level in LEVELS for branch in ("class", "box")}
    for name, value in expected.items():
        assert np.abs(value).max() > 1e-3
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4 * np.abs(value).max(), err_msg=name)
