"""What building and running a network takes of a device's memory, and what a search does with it."""

import pytest

from scaler.cost import graph_cost
from scaler.devices import load_device
from scaler.latency.estimator import load_estimator
from scaler.models.detectors.families import build
from scaler.models.detectors.retinanet import RetinaNetConfig
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.search import memory
from scaler.search.evaluation import DEVICE_MEMORY, Evaluator
from scaler.search.predictors import load_predictor
from scaler.search.run import SearchOptions, search
from scaler.space_file import read_space

P7 = ScaledYoloV4Config(variant="p7", width=1.25, resolution=1536)
SMALL = YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, resolution=320)
CONFIGS = (
    SMALL,
    ScaledYoloV4Config(variant="tiny", resolution=416),
    ScaledYoloV4Config(variant="csp", resolution=640),
    ScaledYoloV4Config(variant="p6", resolution=1280),
    P7,
    RetinaNetConfig(backbone="resnet-101", resolution=800),
)


def test_the_weights_count_twice_at_full_precision_and_once_at_the_engines():
    graph, nano = build(SMALL), load_device("nano")
    weights = graph_cost(graph).folded_params
    wider = memory.build_gib(graph, nano, "fp32") - memory.build_gib(graph, nano, "fp16")
    assert memory.build_gib(graph, nano, "fp16") > memory.RESERVED_GIB + 10 * weights / 2**30
    assert 2 * weights / 2**30 < wider < 0.1


def test_p7_fits_an_orin_but_not_four_gigabytes():
    graph = build(P7)
    assert memory.excess(graph, load_device("nano"), "fp16") > 0
    assert memory.excess(graph, load_device("agx-orin"), "fp16") < -0.8


@pytest.mark.parametrize("device", ["nano", "nx", "agx-orin", "host"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_what_surely_fits_fits(config, device):
    graph, profile = build(config), load_device(device)
    if memory.surely_fits(graph, profile):
        assert memory.excess(graph, profile, profile.default_precision) < 0


def test_a_small_network_needs_no_counting_even_on_the_smallest_device():
    assert memory.surely_fits(build(SMALL), load_device("nano"))


def test_a_candidate_that_does_not_fit_violates_a_constraint():
    space = read_space("scaled-yolov4")
    evaluator, nano = Evaluator(space, load_predictor(space)), load_estimator("nano")
    params = space.find(P7)
    assert params is not None
    assert evaluator.scorer(nano)(params).violations[DEVICE_MEMORY] > 0
    assert evaluator.score_many([params], nano)[0].violations[DEVICE_MEMORY] > 0
    small = space.find(ScaledYoloV4Config(variant="tiny", resolution=416))
    assert small is not None
    assert evaluator.scorer(nano)(small).violations.get(DEVICE_MEMORY, 0) <= 0


def test_a_search_says_how_many_candidates_the_memory_excludes():
    found = search(SearchOptions(devices=("nano",), space="scaled-yolov4", trials=150)).result.devices[0]
    assert "candidates evaluated were left out" in found.message
    assert "4 GiB" in found.message
    assert all(candidate.params["variant"] != "p7" or candidate.parameters < 2.5e8 for candidate in found.front)
