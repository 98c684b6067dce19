"""The networks of a plan: the reference network is known to whoever reads the table."""

import pytest

from scaler.errors import UserError
from scaler.latency.table import read_table
from scaler.profiling.networks import graph_of, reference_graph, reference_of
from scaler.profiling.plan import make_plan
from scaler.space_file import read_space

SETTING = ("yolo-ret", "coco", "host", "1-thread", "onnxruntime", "fp32", 1, 13)


@pytest.mark.slow
def test_the_recorded_reference_is_the_network_of_the_plan():
    plan = make_plan(*SETTING, networks=4)
    space = read_space("yolo-ret")

    recorded = reference_of(plan, space)
    again, planned = reference_graph(recorded), graph_of(space, plan.reference, plan.dataset)

    assert recorded["classes"] == 80
    assert again.name == planned.name
    assert [p.block for p in again.placements] == [p.block for p in planned.placements]


def test_the_shipped_table_knows_its_reference():
    model = read_table("xeon-vm/onnxruntime-fp32-1-thread").info.model

    assert reference_graph(model.reference).name == "mobilenetv2-0.75-d2-rfcr5s-panet-160"
    assert 1 < model.reference_ms < 20


@pytest.mark.parametrize(
    ("reference", "word"),
    [
        ({}, "unknown family"),
        ({"family": "yolo-rett"}, "did you mean 'yolo-ret'"),
        ({"family": "yolo-ret", "depth": 3}, "does not know"),
        ({"family": "yolo-ret", "backbone": "vgg"}, "unknown backbone"),
        ({"family": "yolo-ret", "backbone": "mobilenetv2", "width": 9.0}, "width = 9.0"),
    ],
)
def test_a_strange_reference_is_told_in_one_line(reference, word):
    with pytest.raises(UserError, match=word):
        reference_graph(reference)
