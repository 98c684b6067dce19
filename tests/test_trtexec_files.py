"""The files of trtexec: real ones, hand-made ones of every version, and garbage."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.errors import FileError
from scaler.runtimes.protocol import LayerTime
from scaler.runtimes.trtexec_files import (
    LayerInfo,
    Profile,
    ProfiledLayer,
    join,
    parse_layer_info,
    parse_profile,
    parse_times,
    read_layer_info,
    read_profile,
    read_times,
)

GOLDEN = Path(__file__).parent / "golden" / "trtexec"
EXAMPLES = {
    "pytorch-a100-fp16": (36, 1.016832),
    "pytorch-a100-fp32": (32, 2.123776),
    "pytorch-a100-qat": (37, 1.09568),
    "tensorflow-rtx3090-fp16": (86, 4.272736),
    "tensorflow-rtx3090-fp32": (103, 12.399744),
    "tensorflow-rtx3090-qat": (63, 2.380608),
}
"""Number of layers, and the sum of their times in ms."""


def joined(example: str) -> tuple[LayerTime, ...]:
    return join(read_profile(GOLDEN / f"{example}.profile.json"), read_layer_info(GOLDEN / f"{example}.graph.json"))


# --- real files ---


@pytest.mark.parametrize(("example", "expected"), EXAMPLES.items())
def test_a_real_profile_and_its_layers_fit_together(example: str, expected: tuple[int, float]):
    layers = joined(example)
    assert (len(layers), sum(layer.ms for layer in layers)) == (expected[0], pytest.approx(expected[1]))
    assert all(layer.kind for layer in layers)


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_real_profile_reads_the_same_by_line_and_as_json(example: str):
    text = (GOLDEN / f"{example}.profile.json").read_text(encoding="utf-8")
    rewritten = json.dumps(json.loads(text), indent=1)
    assert parse_profile(text, "a") == parse_profile(rewritten, "b")


def test_real_fused_names_lead_to_their_nodes():
    nodes = {layer.name: layer.nodes for layer in joined("pytorch-a100-fp16")}
    assert nodes["Conv_5 + Add_6 + Relu_7"] == ("Conv_5", "Add_6", "Relu_7")
    assert nodes["Reformatting CopyNode for Input Tensor 1 to Conv_5 + Add_6 + Relu_7"] == ("Conv_5", "Add_6", "Relu_7")
    assert nodes["MaxPool_2"] == ("MaxPool_2",)


def test_real_reformats_are_told_apart():
    kinds = {layer.name: layer.kind for layer in joined("tensorflow-rtx3090-fp16")}
    assert kinds["Reformatting CopyNode for Input Tensor 0 to Conv__435 + resnet50/conv1_relu/Relu"] == "Reformat"
    assert kinds["Conv__435 + resnet50/conv1_relu/Relu"] == "CaskConvolution"


def test_real_times_give_trtexecs_own_summary():
    times = read_times(GOLDEN / "tensorflow-rtx3090-fp32.timing.json", warm_up_ms=200)
    assert np.median(times) == pytest.approx(12.1682)
    assert (times.min(), times.max()) == (12.0986, 12.7928)
    assert times.mean() == pytest.approx(12.1952, abs=1e-4)


def test_the_warm_up_of_real_times_was_slower_and_is_dropped():
    file = GOLDEN / "tensorflow-rtx3090-fp32.timing.json"
    everything = read_times(file, warm_up_ms=0)
    assert len(everything) > len(read_times(file, warm_up_ms=200)) > 0
    assert everything[0] == 13.0181


# --- times of every version ---


def times_file(rows: list[tuple[float, float]], version: str) -> str:
    """What `--exportTimes` writes: start and compute time of each query."""
    objects = []
    for start, ms in rows:
        values = {"startEnqMs": start, "endEnqMs": start, "startH2dMs": start, "endH2dMs": start}
        values |= {"startComputeMs": start, "endComputeMs": start + ms, "startD2hMs": start, "endD2hMs": start}
        values |= {"h2dMs": 0, "computeMs": ms, "d2hMs": 0, "latencyMs": ms}
        if version in ("8.0", "8.2"):
            values["endToEndMs"] = 2 * ms
        objects.append("{ " + ", ".join(f'"{key}" : {value:g}' for key, value in values.items()) + " }")
    return "[\n  " + "\n, ".join(objects) + "\n]\n"


@pytest.mark.parametrize("version", ["8.0", "8.2", "8.4"])
def test_old_versions_write_the_warm_up_and_it_is_dropped(version: str):
    text = times_file([(0.3, 9.0), (99.9, 8.0), (100.0, 2.0), (102.0, 3.0)], version)
    assert parse_times(text, "t.json", warm_up_ms=100).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("version", ["8.5", "8.6", "10.3", "10.13", "11.1"])
def test_new_versions_write_no_warm_up_and_nothing_is_dropped(version: str):
    text = times_file([(100.2, 2.0), (102.4, 3.0), (1234.57, 2.5)], version)
    assert parse_times(text, "t.json", warm_up_ms=100).tolist() == [2.0, 3.0, 2.5]


def test_keys_are_read_by_name_whatever_else_there_is():
    text = '[{"new": "x", "computeMs": 1.5, "other": [1], "startComputeMs": 300}]'
    assert parse_times(text, "t.json", warm_up_ms=200).tolist() == [1.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no list of objects"),
        ("{}", "no list of objects"),
        ("[1]", "no list of objects"),
        ('[{"startComputeMs": 1}]', r"\[0\]\.computeMs: missing"),
        ('[{"startComputeMs": 1, "computeMs": -0.1}]', r"\[0\]\.computeMs: found -0\.1; expected a number >= 0"),
        ('[{"startComputeMs": 1, "computeMs": 0}]', r"\[0\]\.computeMs: found 0"),
        ('[{"startComputeMs": 1, "computeMs": NaN}]', r"\[0\]\.computeMs: found nan"),
        ('[{"startComputeMs": 1, "computeMs": 1e999}]', r"\[0\]\.computeMs: found inf"),
        ('[{"startComputeMs": 1, "computeMs": true}]', r"\[0\]\.computeMs: found True"),
        ('[{"startComputeMs": 1, "computeMs": nan}]', "line 1, column"),
        ('[{"startComputeMs": 1, "computeMs": 1},', "the file ends"),
        ("[" * 100_000, "nested too deep"),
        ('[{"startComputeMs": 1, "computeMs": ' + "1" * 5000 + "}]", "digits"),
    ],
)
def test_unusable_times_are_refused_with_file_and_place(text: str, message: str):
    with pytest.raises(FileError, match=message) as refused:
        parse_times(text, "t.json", warm_up_ms=0)
    assert str(refused.value).startswith("t.json")
    assert "\n" not in str(refused.value)


def test_a_run_that_ended_in_the_warm_up_is_refused():
    with pytest.raises(FileError, match="none of the 2 queries started after the warm-up of 200 ms"):
        parse_times(times_file([(0.3, 9.0), (99.9, 8.0)], "8.2"), "t.json", warm_up_ms=200)


# --- layer times of every version ---


def profile_file(layers: list[tuple[str, float]], version: str, count: int = 10) -> str:
    """What `--exportProfile` writes: names raw, nothing escaped."""
    total = sum(ms for _, ms in layers)
    lines = [f'  {{ "count" : {count} }}']
    for name, ms in layers:
        percent = f"{100 * ms / total:g}" if total else "-nan"
        median = "" if version in ("8.0", "8.2") else f', "medianMs" : {0.9 * ms:g}'
        times = f'"timeMs" : {count * ms:g}, "averageMs" : {ms:g}{median}, "percentage" : {percent}'
        lines.append(f', {{ "name" : "{name}", {times} }}')
    return "[\n" + "\n".join(lines) + "\n]\n"


@pytest.mark.parametrize("version", ["8.0", "8.2"])
def test_without_a_median_the_mean_is_taken(version: str):
    profile = parse_profile(profile_file([("a", 0.5), ("b", 0.25)], version), "p.json")
    assert profile == Profile(10, (ProfiledLayer("a", 0.5), ProfiledLayer("b", 0.25)))


@pytest.mark.parametrize("version", ["8.4", "8.5", "8.6", "10.3", "10.13", "11.1"])
def test_the_median_is_taken_where_there_is_one(version: str):
    profile = parse_profile(profile_file([("a", 0.5), ("b", 0.25)], version), "p.json")
    assert [layer.ms for layer in profile.layers] == pytest.approx([0.45, 0.225])


@pytest.mark.parametrize(
    "name",
    [
        'a "quoted" name',
        r"a\b\nc",
        "a\x1eb\x1fc",
        "a\x85b\u2028c",
        'a", "timeMs" : 3, "x',
        "{ForeignNode[a...b]}",
        "Ünïcode",
        "]",
        "a }",
    ],
)
@pytest.mark.parametrize("version", ["8.2", "10.3"])
def test_names_are_raw(name: str, version: str):
    profile = parse_profile(profile_file([("first", 1.0), (name, 0.5)], version), "p.json")
    assert [layer.name for layer in profile.layers] == ["first", name]


def test_names_may_repeat():
    profile = parse_profile(profile_file([("a", 1.0), ("a", 0.5)], "8.2"), "p.json")
    assert [layer.ms for layer in profile.layers] == [1.0, 0.5]


def test_percentages_that_are_no_numbers_do_not_matter():
    text = profile_file([("a", 0.0), ("b", 0.0)], "8.4")
    assert "-nan" in text
    assert [layer.ms for layer in parse_profile(text, "p.json").layers] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no list of objects"),
        ('[\n  { "count" : 3 }\n]\n', "no layer"),
        (
            '[\n  { "count" : 3 }\n, { "name" : "a", "timeMs" : 1, "averageMs" : nan }\n]\n',
            "line 3.averageMs: found nan",
        ),
        ('[\n, { "name" : "a", "timeMs" : 1, "averageMs" : -1 }\n]\n', "line 2.averageMs: found -1"),
        ('[\n, { "name" : "a", "timeMs" : 1, "averageMs" : inf }\n]\n', "line 2.averageMs: found inf"),
        ('[\n, { "name" : "a", "timeMs" : 1 }\n]\n', "line 2.averageMs: missing"),
        ('[\n, { "name" : "a", "timeMs" : 1, "averageMs" : 1 }\n', "the file ends within the list"),
        (
            '[\n, { "name" : "a", "timeMs" : 1, "averageMs" : 1 }\n, { "name" : "b", "ti',
            "line 3: a layer that is cut off",
        ),
        ('[\n, { "name" : "a", "timeMs" : 1, "averageMs" : 1 }\n, { "na', "line 3: found"),
        ('[\n, { "name" : "a", "timeMs" : 1, "averageMs" : 1 }\nhello\n]\n', "line 3: found 'hello'"),
        ('[{"name": "a", "averageMs": "x"}]', r"\[0\]\.averageMs: found x"),
        ('[{"name": "a", "averageMs": -1}]', r"\[0\]\.averageMs: found -1"),
    ],
)
def test_unusable_profiles_are_refused_with_file_and_place(text: str, message: str):
    with pytest.raises(FileError, match=message) as refused:
        parse_profile(text, "p.json")
    assert str(refused.value).startswith("p.json")
    assert "\n" not in str(refused.value)


@settings(deadline=None)
@given(cut=st.integers(1, 10_000))
def test_a_profile_that_is_cut_off_is_refused_wherever(cut: int):
    text = profile_file([("a", 0.5), ("b + c", 0.25), ("d", 0.125)], "8.4").rstrip()
    with pytest.raises(FileError):
        parse_profile(text[: cut % (len(text) - 1)], "p.json")


@settings(deadline=None)
@given(cut=st.integers(1, 10_000))
def test_times_that_are_cut_off_are_refused_wherever(cut: int):
    text = times_file([(0.0, 1.0), (1.0, 2.0)], "8.2").rstrip()
    with pytest.raises(FileError):
        parse_times(text[: cut % (len(text) - 1)], "t.json", warm_up_ms=0)


RAW_NAME = st.text(st.characters(exclude_characters="\n\r", exclude_categories=("Cs",)), max_size=20)
MS = st.floats(0, 1e4)


@settings(deadline=None)
@given(layers=st.lists(st.tuples(RAW_NAME, MS), min_size=1, max_size=6), version=st.sampled_from(["8.2", "8.4"]))
def test_whatever_the_names_are_the_profile_reads_back(layers: list[tuple[str, float]], version: str):
    read = parse_profile(profile_file(layers, version), "p.json")
    assert [layer.name for layer in read.layers] == [name for name, _ in layers]
    factor = 1 if version == "8.2" else 0.9
    assert [layer.ms for layer in read.layers] == pytest.approx([factor * ms for _, ms in layers], rel=1e-5)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "count", "timeMs", "averageMs", "medianMs", "computeMs", "startComputeMs"])
            | st.sampled_from(["Layers", "Name", "LayerType", "Metadata"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=60) | JSON.map(json.dumps) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_garbage_is_read_or_refused_but_never_anything_else(text: str):
    for parse in (parse_profile, parse_layer_info, lambda t, f: parse_times(t, f, warm_up_ms=0)):
        try:
            parsed = parse(text, "x.json")
        except FileError as refused:
            assert "\n" not in str(refused)
        else:
            assert len(parsed) > 0


@settings(deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(['"', "}", "\n", "nan", "-", "\\", "\x1e", ""])), max_size=4
    )
)
def test_a_real_profile_with_damage_is_read_or_refused(edits: list[tuple[float, str]]):
    text = (GOLDEN / "pytorch-a100-fp32.profile.json").read_text(encoding="utf-8")
    for place, change in edits:
        at = math.floor(place * len(text))
        text = text[:at] + change + text[at + 1 :]
    try:
        profile = parse_profile(text, "p.json")
    except FileError:
        return
    assert all(layer.ms >= 0 for layer in profile.layers)


@settings(deadline=None)
@given(content=st.binary(max_size=80))
def test_binary_files_are_refused_as_files(content: bytes, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "garbage.json"
    path.write_bytes(content)
    for read in (read_profile, read_layer_info, lambda p: read_times(p, warm_up_ms=0)):
        try:
            read(path)
        except FileError as refused:
            assert str(path) in str(refused)


# --- layer information ---


def test_layer_names_alone_are_layer_information():
    text = '{"Layers": ["a + b", "PWN(c)"], "Bindings": ["image"]}'
    assert parse_layer_info(text, "l.json") == (LayerInfo("a + b"), LayerInfo("PWN(c)"))


def test_detailed_layers_have_kind_and_metadata():
    text = json.dumps(
        {"Layers": [{"Name": "k", "LayerType": "kgen", "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: b]"}]}
    )
    (info,) = parse_layer_info(text, "l.json")
    assert (info.name, info.kind, info.nodes) == ("k", "kgen", ("a", "b"))


def test_layers_without_metadata_have_the_nodes_of_their_names():
    text = '{"Layers": [{"Name": "a + b", "LayerType": "CaskConvolution"}]}'
    assert parse_layer_info(text, "l.json")[0].nodes == ("a", "b")


def test_control_characters_may_stand_raw_in_layer_information():
    text = '{"Layers": [{"Name": "k", "Metadata": "[ONNX Layer: a]\x1f[ONNX Layer: b]"}]}'
    assert parse_layer_info(text, "l.json")[0].nodes == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "Layers: missing or empty"),
        ("[]", "Layers: missing or empty"),
        ('{"Layers": []}', "Layers: missing or empty"),
        ('{"Layers": [1]}', r"Layers\[0\]: no name"),
        ('{"Layers": ["a", {"LayerType": "x"}]}', r"Layers\[1\]: no name"),
        ('{"Layers": ["a"', "the file ends"),
    ],
)
def test_unusable_layer_information_is_refused_with_file_and_place(text: str, message: str):
    with pytest.raises(FileError, match=message):
        parse_layer_info(text, "l.json")


def times(*layers: tuple[str, float]) -> Profile:
    return Profile(1, tuple(ProfiledLayer(*layer) for layer in layers))


def test_layers_are_joined_by_name_not_by_place():
    infos = (LayerInfo("b", "Pool"), LayerInfo("a", "Conv"))
    assert [layer.kind for layer in join(times(("a", 1), ("b", 2)), infos)] == ["Conv", "Pool"]


def test_equal_names_are_joined_in_their_order():
    infos = (LayerInfo("a", "first"), LayerInfo("x", "other"), LayerInfo("a", "second"))
    assert [layer.kind for layer in join(times(("a", 1), ("a", 2)), infos)] == ["first", "second"]


def test_unknown_names_are_joined_by_place_if_there_are_as_many():
    infos = (LayerInfo("a", "Conv"), LayerInfo("renamed", "kgen", "[ONNX Layer: n]"))
    layers = join(times(("a", 1), ("__myl_x", 2)), infos)
    assert layers[1] == LayerTime("__myl_x", 2, ("n",), "kgen")


def test_layers_that_only_one_side_knows_stand_alone():
    infos = (LayerInfo("a", "Conv"), LayerInfo("signal", "signal"), LayerInfo("b", "Pool"))
    assert [layer.kind for layer in join(times(("a", 1), ("new", 2)), infos)] == ["Conv", ""]


def test_the_number_of_an_optimisation_profile_does_not_matter():
    assert join(times(("a [profile 1]", 1)), (LayerInfo("a", "Conv"), LayerInfo("b"))) == (
        LayerTime("a [profile 1]", 1, ("a",), "Conv"),
    )


def test_without_information_names_tell_what_there_is():
    layers = join(times(("a + b", 1), ("Reformatting CopyNode for Input Tensor 0 to a + b", 0.5)))
    assert [(layer.nodes, layer.kind) for layer in layers] == [(("a", "b"), ""), (("a", "b"), "Reformat")]


def test_with_a_model_only_its_nodes_are_named():
    profile = times(("a.weight + a + relu", 1), ("x copy", 2))
    layers = join(profile, nodes=("a", "relu", "cat"), makers={"x": "relu"})
    assert [layer.nodes for layer in layers] == [("a", "relu"), ("relu",)]
