"""What trtexec says: banner, outcome, summary, errors; texts of real logs, shortened."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.errors import FileError, UnsupportedError, UserError
from scaler.runtimes.protocol import ModelRejectedError, RuntimeFailedError
from scaler.runtimes.tensorrt_errors import failure
from scaler.runtimes.tensorrt_version import Version, check_version
from scaler.runtimes.trtexec_text import error_messages, parse_gpu, parse_outcome, parse_summary, parse_version

STAMP = "[09/02/2024-17:35:22]"

# --- version and outcome ---


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("[TensorRT v8001]", (8, 0, 1)),
        ("[TensorRT v8201]", (8, 2, 1)),
        ("[TensorRT v8401]", (8, 4, 1)),
        ("[TensorRT v8502]", (8, 5, 2)),
        ("[TensorRT v8602]", (8, 6, 2)),
        ("[TensorRT v9300]", (9, 3, 0)),
        ("[TensorRT v100300]", (10, 3, 0)),
        ("[TensorRT v101303]", (10, 13, 3)),
        ("[TensorRT v110100] [b49]", (11, 1, 0)),
    ],
)
def test_the_banner_has_the_version(banner: str, version: tuple[int, int, int]):
    assert parse_version(f"&&&& RUNNING TensorRT.trtexec {banner} # trtexec --onnx=m.onnx\n") == version


def test_a_banner_without_a_version_is_of_an_old_release():
    version = parse_version("&&&& RUNNING TensorRT.trtexec # trtexec --help")
    assert version == (0, 0, 0)
    assert version is not None
    with pytest.raises(UnsupportedError, match=r"older than 8\.0"):
        check_version(version)


@pytest.mark.parametrize("text", ["", "bash: trtexec: command not found", "[TensorRT v8201]", "v8201"])
def test_without_a_banner_there_is_no_version(text: str):
    assert parse_version(text) is None


def test_versions_are_shown_with_points():
    assert str(Version(10, 3, 0)) == "10.3.0"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (
            "&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # x\n&&&& PASSED TensorRT.trtexec [TensorRT v8201] # x\n",
            True,
        ),
        ("&&&& RUNNING TensorRT.trtexec # x\n&&&& FAILED TensorRT.trtexec # x", False),
        ("&&&& RUNNING TensorRT.trtexec # x\n", None),
        ("[I] &&&& PASSED TensorRT.trtexec", None),
        ("", None),
    ],
)
def test_the_outcome_is_the_last_word(text: str, outcome: bool | None):
    assert parse_outcome(text) is outcome


def test_the_gpu_is_named():
    assert parse_gpu(f"{STAMP} [I] Selected Device: NVIDIA Tegra X1\n{STAMP} [I] SMs: 1\n") == "NVIDIA Tegra X1"
    assert parse_gpu("nothing") is None


# --- summary ---

OLD_SUMMARY = f"""\
{STAMP} [I] === Performance summary ===
{STAMP} [I] Throughput: 1134.83 qps
{STAMP} [I] Latency: min = 0.9 ms, max = 0.962463 ms, mean = 0.92 ms, median = 0.92 ms, percentile(99%) = 0.93 ms
{STAMP} [I] End-to-End Host Latency: min = 1.5 ms, max = 2 ms, mean = 1.75 ms, median = 1.7 ms, percentile(99%) = 2 ms
{STAMP} [I] GPU Compute Time: min = 0.8 ms, max = 0.9 ms, mean = 0.85 ms, median = 0.84 ms, percentile(99%) = 0.89 ms
{STAMP} [I] Total GPU Compute Time: 2.99234 s
"""
NEW_SUMMARY = f"""\
{STAMP} [I] GPU Compute Time: min = 0.8 ms, max = 0.9 ms, mean = 8.5e-01 ms, median = 0.84 ms, \
percentile(90%) = 0.87 ms, percentile(95%) = 0.88 ms, percentile(99%) = 0.89 ms
"""


def test_the_summary_of_old_versions_has_one_percentile():
    summary = parse_summary(OLD_SUMMARY, "log")
    assert summary["GPU Compute Time"] == {
        "min": 0.8,
        "max": 0.9,
        "mean": 0.85,
        "median": 0.84,
        "percentile(99%)": 0.89,
    }
    assert summary["End-to-End Host Latency"]["median"] == 1.7


def test_the_summary_of_new_versions_has_three_percentiles():
    times = parse_summary(NEW_SUMMARY, "log")["GPU Compute Time"]
    assert [times[f"percentile({p}%)"] for p in (90, 95, 99)] == [0.87, 0.88, 0.89]


@pytest.mark.parametrize(
    "text", ["", "nothing", f"{STAMP} [I] Latency: min = 1 ms", f"{STAMP} [I] GPU Compute Time: ?"]
)
def test_a_log_without_a_summary_is_refused(text: str):
    with pytest.raises(FileError, match="log: no performance summary"):
        parse_summary(text, "log")


# --- errors ---

UNSUPPORTED_OPERATOR = f"""\
{STAMP} [I] Start parsing network model
{STAMP} [E] [TRT] ModelImporter.cpp:949: While parsing node number 146 [Tile -> "/Tile_output_0"]:
{STAMP} [E] [TRT] ModelImporter.cpp:950: --- Begin node ---
input: "/Unsqueeze_3_output_0"
op_type: "Tile"

{STAMP} [E] [TRT] ModelImporter.cpp:951: --- End node ---
{STAMP} [E] [TRT] ModelImporter.cpp:954: ERROR: ModelImporter.cpp:195 In function parseNode:
[6] Invalid Node - /Tile
ITensor::getDimensions: Error Code 4: Internal Error (/OneHot: cannot be used to compute a shape tensor)
{STAMP} [E] Failed to parse onnx file
{STAMP} [I] Finished parsing network model. Parse time: 0.0483808
{STAMP} [E] Parsing model failed
&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx
"""
OUT_OF_MEMORY = f"""\
{STAMP} [E] Error[1]: [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)
{STAMP} [W] [TRT] Requested amount of GPU memory (15485030400 bytes) could not be allocated.
{STAMP} [E] Error[10]: IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any \
implementation for node {{ForeignNode[/1/Constant_36_output_0.../1/Slice_4]}}.)
{STAMP} [E] Engine could not be created from network
"""
NANO_OUT_OF_MEMORY = f"""\
{STAMP} [E] [TRT] 2: [virtualMemoryBuffer.cpp::resizePhysical::160] Error Code 2: OutOfMemory (no further information)
"""
NO_KERNEL = f"""\
{STAMP} [E] Error[10]: [optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error (Could not find any \
implementation for node {{ForeignNode[a...b]}}.)
{STAMP} [E] Building engine failed
"""
NO_PLUGIN = f"""\
{STAMP} [E] [TRT] ModelImporter.cpp:779: ERROR: builtin_op_importers.cpp:4871 In function importFallbackPluginImporter:
[8] Assertion failed: creator && "Plugin not found, are the plugin name, version, and namespace correct?"
{STAMP} [E] Engine set up failed
"""
CUDA_FAILURE = f"""\
{STAMP} [E] Error[1]: [convolutionRunner.cpp::executeConv::465] Error Code 1: Cudnn (CUDNN_STATUS_EXECUTION_FAILED)
{STAMP} [E] Error occurred during inference
"""
UNKNOWN_OPTION = f"{STAMP} [E] Unknown option: --workspace 2048\n&&&& FAILED TensorRT.trtexec [TensorRT v100300] # x\n"
OTHER_VERSION = (
    f"{STAMP} [E] [TRT] 1: [stdArchiveReader.cpp::a::30] Error Code 1: Serialization (magicTagRead failed.)\n"
)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (
            UNSUPPORTED_OPERATOR,
            ModelRejectedError,
            'failed: While parsing node number 146 [Tile -> "/Tile_output_0"]; ',
        ),
        (UNSUPPORTED_OPERATOR, ModelRejectedError, "[6] Invalid Node - /Tile ITensor::getDimensions: Error Code 4"),
        (OUT_OF_MEMORY, RuntimeFailedError, "out of memory; close other programs or allow a smaller workspace: "),
        (OUT_OF_MEMORY, RuntimeFailedError, ": Error Code 1: Cuda Runtime (out of memory); "),
        (NANO_OUT_OF_MEMORY, RuntimeFailedError, ": Error Code 2: OutOfMemory"),
        (NO_KERNEL, ModelRejectedError, "TensorRT has no kernel for a layer: Error Code 10: "),
        (NO_PLUGIN, ModelRejectedError, "TensorRT lacks an operator: "),
        (CUDA_FAILURE, RuntimeFailedError, "CUDA failed: Error Code 1: Cudnn"),
        (UNKNOWN_OPTION, RuntimeFailedError, "trtexec is of another version than it says: Unknown option: --workspace"),
        (OTHER_VERSION, RuntimeFailedError, "the engine cannot be loaded: Error Code 1: Serialization"),
        (f"{STAMP} [E] Engine set up failed", ModelRejectedError, "failed: Engine set up failed"),
        ("", ModelRejectedError, "failed: without a message"),
    ],
)
def test_errors_are_told_in_one_line_and_sorted_into_kinds(text: str, error: type[UserError], said: str):
    found = failure(error_messages(text), "m.onnx: building the engine", ModelRejectedError)
    assert type(found) is error
    assert said in str(found)
    assert str(found).startswith("m.onnx: building the engine failed")
    assert "\n" not in str(found)
    assert len(str(found)) < 450


def test_warnings_and_consequences_are_not_told():
    said = str(failure(error_messages(OUT_OF_MEMORY), "x", ModelRejectedError))
    assert "15485030400" not in said
    assert "Engine could not be created" not in said


def test_the_dump_of_a_node_is_not_told():
    assert "Unsqueeze_3" not in str(failure(error_messages(UNSUPPORTED_OPERATOR), "x", ModelRejectedError))


def test_the_same_message_again_and_again_is_told_once():
    assert str(failure(["tactic failed"] * 50, "x", ModelRejectedError)) == "x failed: tactic failed"


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*UNSUPPORTED_OPERATOR.split("\n"), *NEW_SUMMARY.split(", "), "\x1e", "v9"])).map(
        "\n".join
    )
)
def test_no_output_is_too_strange(text: str):
    assert all("\n" not in message for message in error_messages(text))
    assert isinstance(failure(error_messages(text), "x", RuntimeFailedError), UserError)
    parse_version(text)
    parse_outcome(text)
    try:
        assert parse_summary(text, "log")["GPU Compute Time"]
    except FileError as refused:
        assert "\n" not in str(refused)
