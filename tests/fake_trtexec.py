#!/usr/bin/env python3
"""A fake `trtexec` for tests: reads an ONNX model, refuses unknown options, prints and writes what the real one would.

Standard library only, Python 3.6, so that it also stands in on an old device. Make a file `trtexec` that calls it, or
copy it under that name. What it knows comes from samples/common/sample{Options,Reporting,Engines}.cpp and
samples/trtexec/trtexec.cpp of github.com/NVIDIA/TensorRT, branches release/8.0 to release/11.1. Times are a function
of the model, the precision and the environment, so that two calls agree. Nothing is computed and nothing sleeps.

Environment variables:
    FAKE_TRTEXEC_VERSION  TensorRT version to be (default 8.2.1); decides options, files and texts.
    FAKE_TRTEXEC_FAIL     How to fail: parse, build, oom, cuda, killed, segfault, silent, hang, truncated, no-file,
                          nan; `@build`, `@time` or `@profile` behind it limits it to that kind of call.
    FAKE_TRTEXEC_ONLY     Fail only if the path of the model or the engine contains this text.
    FAKE_TRTEXEC_FIRST    Fail only the first N times; counted in the file of FAKE_TRTEXEC_CALLS, which it needs.
    FAKE_TRTEXEC_CALLS    A file that gets one line of JSON a call: {"arguments": [...], "failed": "..."}.
    FAKE_TRTEXEC_FACTOR   Factor on all times (default 1).
    FAKE_TRTEXEC_DLA      Number of DLA cores (default 0).
    FAKE_TRTEXEC_NOISE    Relative amplitude of the noise (default 0.01), the same in every call.
"""

import json
import math
import os
import signal
import sys
import time
import zlib
from pathlib import Path

BASE_OPTIONS = """
allowGPUFallback avgRuns avgTiming batch best buildOnly calib deploy device dumpOutput dumpProfile dumpRefit duration
explicitBatch explicitPrecision exportOutput exportProfile exportTimes exposeDMA fp16 help inputIOFormats int8
iterations loadEngine loadInputs maxBatch maxShapes maxShapesCalib minShapes minShapesCalib minTiming model
noBuilderCache noDataTransfers noTF32 nvtxMode onnx optShapes optShapesCalib output outputIOFormats percentile plugins
refit safe saveEngine separateProfileRun shapes sleepTime sparsity streams tacticSources threads timeDeserialize
timeRefit timingCacheFile uff uffInput uffNHWC useCudaGraph useDLACore useSpinWait verbose warmUp workspace
"""
OPTION_CHANGES = (
    (
        (8, 2),
        "consistency directIO dumpLayerInfo exportLayerInfo idleTime precisionConstraints profilingVerbosity"
        " restricted useManagedMemory",
        "",
    ),
    ((8, 4), "layerOutputTypes layerPrecisions memPoolSize", ""),
    ((8, 5), "heuristic persistentCacheRatio preview", ""),
    (
        (8, 6),
        "buildDLAStandalone builderOptimizationLevel dumpRawBindingsToFile dynamicPlugins excludeLeanRuntime fp8"
        " hardwareCompatibilityLevel ignoreParsedPluginLibs infStreams layerDeviceTypes leanDLLPath maxAuxStreams"
        " setPluginsToSerialize skipInference staticPlugins tempdir tempfileControls useRuntime versionCompatible",
        "",
    ),
    (
        (10, 0),
        "allocationStrategy allowWeightStreaming bf16 calibProfile dumpOptimizationProfile errorOnTimingCacheMiss"
        " getPlanVersionOnly markDebug noCompilationCache profile saveDebugTensors stripWeights stronglyTyped"
        " useProfile weightStreamingBudget weightless",
        "batch buildOnly deploy explicitBatch explicitPrecision heuristic maxBatch minTiming model nvtxMode output"
        " uff uffInput uffNHWC workspace",
    ),
    ((10, 3), "int4 runtimePlatform stripAllWeights", ""),
    (
        (10, 13),
        "asyncFileReader distributiveIndependence l2LimitForTiling maxTactics monitorMemory remoteAutoTuningConfig"
        " safetyPlugins saveAllDebugTensors tilingOptimizationLevel",
        "",
    ),
    ((10, 16), "adjustForDLA cpuOnly decomposableAttentions enablePluginOverride refitFromOnnx", ""),
    (
        (11, 0),
        "includeDataTransfers noCudaGraph noSpinWait",
        "best bf16 calib calibProfile fp16 fp8 int4 int8 layerOutputTypes layerPrecisions maxShapesCalib"
        " minShapesCalib optShapesCalib precisionConstraints restricted weightless",
    ),
)
"""(version, options that appear, options that go)."""

FUSED_BY_CONV = frozenset(["BatchNormalization", "Clip", "LeakyRelu", "Relu", "Add"])
POINTWISE = frozenset(["Add", "Clip", "Div", "HardSigmoid", "LeakyRelu", "Mul", "Sigmoid", "Softplus", "Tanh"])
OTHER_OPERATORS = """
AveragePool BatchNormalization Cast Concat Constant Conv ConvTranspose DequantizeLinear Exp Flatten Gemm
GlobalAveragePool Identity MatMul MaxPool Min Pad QuantizeLinear ReduceMean Relu Reshape Resize Shape Slice Softmax
Split Sub Transpose Unsqueeze Upsample
"""
KNOWN_TO_PARSER = POINTWISE | frozenset(OTHER_OPERATORS.split())
ON_DLA = frozenset(["Add", "Concat", "Conv", "MaxPool", "Mul", "Relu", "Sigmoid"])
PRECISION_FACTOR = {"fp32": 1.0, "tf32": 0.8, "fp16": 0.55, "int8": 0.35}


class RejectedError(Exception):
    """A call that ends with FAILED; its lines go to standard error as errors."""


class OptionError(RejectedError):
    """An unknown option; from 11.0 on trtexec ends without a FAILED then."""


class Call:
    """The arguments of one call, checked against the options of the version."""

    def __init__(self, arguments, version):
        allowed = options_of(version)
        self.values = {}
        unknown = []
        for argument in arguments:
            name, _, value = argument.partition("=")
            self.values[name.lstrip("-")] = value
            if not name.startswith("--") or name[2:] not in allowed:
                unknown.append(f"Unknown option: {name} {value}")
        if unknown:
            raise OptionError(*unknown)

    def __contains__(self, name):
        return name in self.values

    def text(self, name, default=""):
        return self.values.get(name, default)

    def number(self, name, default):
        text = self.text(name)
        try:
            return float(text) if text else default
        except ValueError:
            raise RejectedError(f"Invalid argument: --{name}={text}") from None

    @property
    def stage(self):
        if "onnx" in self:
            return "build"
        return "profile" if "dumpProfile" in self or "exportProfile" in self else "time"


def options_of(version):
    """Names of the options that trtexec of this version knows."""
    known = set(BASE_OPTIONS.split())
    for since, appear, go in OPTION_CHANGES:
        if version >= since:
            known = (known | set(appear.split())) - set(go.split())
    return known


# --- ONNX: just enough of protobuf ---


def fields(data):
    """Yield (number, value) of a protobuf message; a value is an int or bytes."""
    place = 0

    def varint():
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("no field 0")
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            if kind != 2:
                raise ValueError("no such wire type")
            size = varint()
        if place + size > len(data):
            raise ValueError("cut off")
        yield number, data[place : place + size]
        place += size


def integers(value):
    """Integers of a repeated field, packed or not."""
    if isinstance(value, int):
        return [value]
    result, shift, current = [], 0, 0
    for byte in value:
        current |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            result.append(current)
            shift = current = 0
    return result


def read_onnx(path):
    """Return (nodes, weights): nodes as dicts, number of values by name of the constant."""
    graph = None
    for number, value in fields(Path(path).read_bytes()):
        if number == 7:
            graph = value
    if graph is None:
        raise ValueError("no graph")
    nodes, weights = [], {}
    for number, value in fields(graph):
        if number == 1:
            node = {"inputs": [], "outputs": [], "name": "", "kind": ""}
            for inner, content in fields(value):
                if inner in (1, 2):
                    node["inputs" if inner == 1 else "outputs"].append(content.decode())
                elif inner in (3, 4):
                    node["name" if inner == 3 else "kind"] = content.decode()
            nodes.append(node)
        elif number == 5:
            count, name = 1, ""
            for inner, content in fields(value):
                if inner == 1:
                    for dimension in integers(content):
                        count *= dimension
                elif inner == 8:
                    name = content.decode()
            weights[name] = count
    if not nodes:
        raise ValueError("no nodes")
    return nodes, weights


# --- the "engine" ---


def fuse(nodes):
    """Group the nodes like TensorRT: convolutions with what follows them, chains of elementwise operators."""
    groups, readers = [], {}
    for node in nodes:
        for name in node["inputs"]:
            readers[name] = readers.get(name, 0) + 1
    for node in nodes:
        if node["kind"] in ("Constant", "Identity"):
            continue
        last = groups[-1][-1] if groups else None
        follows = last is not None and last["outputs"][0] in node["inputs"]
        alone = follows and readers[last["outputs"][0]] == 1
        conv = last is not None and groups[-1][0]["kind"] in ("Conv", "Gemm", "ConvTranspose")
        if (conv and alone and node["kind"] in FUSED_BY_CONV) or (
            follows and last["kind"] in POINTWISE and node["kind"] in POINTWISE and not conv
        ):
            groups[-1].append(node)
        else:
            groups.append([node])
    return groups


def layer_name(group, index, version):
    """The name of a fused layer, in the style of the version."""
    names = [node["name"] or "(Unnamed Layer* {}) [{}]".format(index, node["kind"]) for node in group]
    if group[0]["kind"] not in POINTWISE:
        return " + ".join(names)
    if version >= (10, 0) and len(names) > 1:
        return "__myl_{}_myl0_{}".format("".join(node["kind"][:4] for node in group), index)
    name = f"PWN({names[0]})"
    for following in names[1:]:
        name = f"PWN({name}, {following})"
    return name


def build(call, version):
    """Return the engine, a JSON object, of the model that the call names."""
    path = call.text("onnx")
    try:
        nodes, weights = read_onnx(path)
    except OSError:
        raise RejectedError(
            "[TRT] ModelImporter.cpp:735: Failed to parse ONNX model from file: " + path, *PARSE_FAILED
        ) from None
    except (ValueError, IndexError, UnicodeDecodeError):
        raise RejectedError(
            "[TRT] ModelImporter.cpp:735: Failed to parse ONNX model from file: " + path, *PARSE_FAILED
        ) from None
    for node in nodes:
        if node["kind"] not in KNOWN_TO_PARSER:
            raise RejectedError(*unsupported(node["kind"], len(nodes)))
    precision = "int8" if "int8" in call else "fp16" if "fp16" in call else "fp32" if "noTF32" in call else "tf32"
    layers = []
    for index, group in enumerate(fuse(nodes)):
        stored = sum(weights.get(name, 0) for node in group for name in node["inputs"])
        ms = (0.01 + 0.002 * len(group) + stored * 2e-7) * PRECISION_FACTOR[precision]
        if index == 0 and precision == "fp16":
            layers.append(
                {
                    "name": "Reformatting CopyNode for Input Tensor 0 to " + layer_name(group, index, version),
                    "nodes": [],
                    "kind": "Reformat",
                    "ms": 0.004,
                }
            )
        layers.append(
            {
                "name": layer_name(group, index, version),
                "nodes": [node["name"] for node in group if node["name"]],
                "kind": "CaskConvolution" if group[0]["kind"] == "Conv" else "PointWiseV2",
                "ms": ms,
            }
        )
    verbosity = call.text("profilingVerbosity", "layer_names_only")
    print_placement(nodes, call, version)
    return {"version": list(version), "precision": precision, "verbosity": verbosity, "layers": layers}


def print_placement(nodes, call, version):
    """Print what TensorRT says of DLA and memory while it builds."""
    told = [node for node in nodes if node["kind"] not in ("Constant", "Identity")]
    on_dla = "useDLACore" in call
    if on_dla and int(call.number("useDLACore", 0)) >= int(os.environ.get("FAKE_TRTEXEC_DLA", "0")):
        raise RejectedError(
            "Cannot create DLA engine, {} not available".format(call.text("useDLACore")),
            "Network And Config setup failed",
            "Building engine failed",
            *PARSE_FAILED[2:],
        )
    left = [node for node in told if not on_dla or node["kind"] not in ON_DLA]
    taken = [node["name"] for node in told if node not in left]
    if on_dla:
        for node in left:
            if version < (8, 4):
                tensorrt(
                    "W",
                    f"Default DLA is enabled but layer {node['name']} is not supported on DLA, falling back to GPU.",
                )
            else:
                gone = "Unsupported on DLA. Switching this layer's device type to GPU."
                tensorrt("W", f"Layer '{node['name']}' ({node['kind'].upper()}): {gone}")
    if version < (8, 2):
        tensorrt("I", "")
        tensorrt("I", "--------------- Layers running on DLA: ")
        tensorrt("I", "{{{}}}, ".format(",".join(taken)) if taken else "")
        tensorrt("I", "--------------- Layers running on GPU: ")
        tensorrt("I", "".join(f"{node['name']}, " for node in left))
    else:
        tensorrt("I", "---------- Layers Running on DLA ----------")
        if taken:
            tensorrt("I", f"[DlaLayer] {{ForeignNode[{taken[0]}...{taken[-1]}]}}")
        tensorrt("I", "---------- Layers Running on GPU ----------")
        for node in left:
            tensorrt("I", f"[GpuLayer] {node['kind'].upper()}: {node['name']}")
        tensorrt("I", "[MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 13 MiB, GPU 112 MiB")
    tensorrt("I", "Total Activation Memory: 2097152")


def tensorrt(severity, text):
    """Print a message of TensorRT's own."""
    print(stamp() + f"[{severity}] [TRT] {text}")


PARSE_FAILED = (
    "Failed to parse onnx file",
    "Parsing model failed",
    "Failed to create engine from model or file.",
    "Engine set up failed",
)


def unsupported(kind, index):
    """Lines of the parser about an operator that it does not know."""
    importer = "builtin_op_importers.cpp:4871 In function importFallbackPluginImporter"
    return (
        f"[TRT] ModelImporter.cpp:773: While parsing node number {index} [{kind}]:",
        f"[TRT] ModelImporter.cpp:779: ERROR: {importer}:",
        f'[8] Assertion failed: creator && "Plugin not found, are the plugin name, version correct?" ({kind})',
        *PARSE_FAILED,
    )


def load(call, version):
    """Return the engine of a file."""
    path = call.text("loadEngine")
    try:
        engine = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise RejectedError("Error opening engine file: " + path, *PARSE_FAILED[2:]) from None
    except ValueError:
        raise RejectedError(
            "[TRT] 1: [stdArchiveReader.cpp::StdArchiveReader::30] Error Code 1: Serialization (Serialization assertion"
            " magicTagRead == kMAGIC_TAG failed.Magic tag does not match)",
            "Engine deserialization failed",
            *PARSE_FAILED[2:],
        ) from None
    if engine["version"] != list(version):
        raise RejectedError("[TRT] 1: Error Code 1: Serialization (Version tag does not match)", *PARSE_FAILED[2:])
    return engine


# --- running ---


def noisy(ms, name, number):
    """A time with noise that depends on nothing but name and number."""
    amplitude = float(os.environ.get("FAKE_TRTEXEC_NOISE", "0.01"))
    factor = float(os.environ.get("FAKE_TRTEXEC_FACTOR", "1"))
    spread = zlib.crc32(f"{name}#{number}".encode()) / 2**32
    return ms * factor * (1 + amplitude * (2 * spread - 1))


def shown(value):
    """A number as a C++ stream prints it."""
    return f"{value:.6g}"


def times_rows(engine, call, version):
    """Rows of --exportTimes as dicts in file order, and the number of warm-up rows among them."""
    warm_up = call.number("warmUp", 200)
    total = sum(layer["ms"] for layer in engine["layers"])
    wanted, limit = int(call.number("iterations", 10)), call.number("duration", 3) * 1000 + warm_up
    rows, start, warm = [], 0.01, 0
    while len(rows) < wanted + warm or start < limit:
        if start < warm_up:
            warm += 1
        ms = noisy(total, "run", len(rows))
        end = start + ms
        row = [("startEnqMs", start), ("endEnqMs", start + 0.01), ("startH2dMs", start), ("endH2dMs", start)]
        row += [("startComputeMs", start), ("endComputeMs", end), ("startD2hMs", end), ("endD2hMs", end)]
        row += [("h2dMs", 0), ("computeMs", ms), ("d2hMs", 0), ("latencyMs", ms)]
        if version < (8, 4):
            row.append(("endToEndMs", 2 * ms))
        rows.append(row)
        start = end + 0.002
    return rows, warm


def run(engine, call, version):
    """Time the engine; print and write what was asked for."""
    rows, warm = times_rows(engine, call, version)
    creation = "TensorRT-managed allocation in IExecutionContext creation: CPU +0, GPU +80, now: CPU 1, GPU 265 (MiB)"
    tensorrt("I", f"[MemUsageChange] {creation}")
    info("Starting inference")
    profiled = call.stage == "profile" or "exportProfile" in call
    times = call.text("exportTimes")
    separate = "separateProfileRun" in call or version >= (11, 0)
    if not profiled or separate or version < (8, 4):
        print_summary([dict(row) for row in rows[warm:]], version)
        if times:
            kept = rows if version < (8, 5) else rows[warm:]
            objects = ["{ " + ", ".join(f'"{k}" : {shown(v)}' for k, v in row) + " }" for row in kept]
            write(times, "[\n  " + "\n, ".join(objects) + "\n]\n")
    else:
        info("The e2e network timing is not reported since it is inaccurate due to the extra synchronizations when")
    if profiled:
        profile(engine, call, version, len(rows))


def profile(engine, call, version, count):
    """Write and print the layer times."""
    overhead = 0.002
    rows = []
    for layer in engine["layers"]:
        ms = noisy(layer["ms"], layer["name"], 0) + overhead
        rows.append((layer["name"], ms * count, ms))
    total = sum(row[1] for row in rows)
    objects = [f'{{ "count" : {count} }}']
    for name, time_ms, average in rows:
        values = [("timeMs", time_ms), ("averageMs", average), ("medianMs", average * 0.999)]
        values.append(("percentage", time_ms / total * 100))
        numbers = [f'"{key}" : {shown(value)}' for key, value in values if key != "medianMs" or version >= (8, 4)]
        objects.append(f'{{ "name" : "{name}", {", ".join(numbers)} }}')
    if "exportProfile" in call:
        write(call.text("exportProfile"), "[\n  " + "\n, ".join(objects) + "\n]\n")
    info("")
    info(f"=== Profile ({count} iterations ) ===")
    if version < (8, 6):
        info("{:>40}   Time (ms)   Avg. Time (ms)   Time %".format("Layer"))
        for name, time_ms, average in [*rows, ("Total", total, total / count)]:
            info(f"{name:>40}{time_ms:12.2f}{average:17.4f}{time_ms / total * 100:9.1f}")
    else:
        info("   Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer")
        for name, time_ms, average in [*rows, ("Total", total, total / count)]:
            line = "{:11.2f}{:13.4f}{:13.4f}{:10.1f}   {}"
            info(line.format(time_ms, average, average, time_ms / total * 100, name))


def layer_info(engine, version):
    """What the engine inspector writes."""
    if engine["verbosity"] != "detailed":
        return {"Layers": [layer["name"] for layer in engine["layers"]], "Bindings": ["image"]}
    layers = []
    for layer in engine["layers"]:
        detailed = {"Name": layer["name"], "LayerType": layer["kind"], "Inputs": [], "Outputs": []}
        detailed["TacticValue"] = "0x0000000000000000"
        if version >= (8, 6):
            detailed["StreamId"] = 0
            detailed["Metadata"] = "\x1e".join(f"[ONNX Layer: {name}]" for name in layer["nodes"])
        layers.append(detailed)
    return {"Layers": layers, "Bindings": ["image"]}


def print_summary(rows, version):
    """Print the performance summary."""
    percentiles = (99,) if version < (8, 5) else (90, 95, 99)

    def line(key):
        values = sorted(row[key] for row in rows)
        middle, mean = values[len(values) // 2], sum(values) / len(values)
        parts = [f"min = {shown(values[0])} ms, max = {shown(values[-1])} ms"]
        parts.append(f"mean = {shown(mean)} ms, median = {shown(middle)} ms")
        for percent in percentiles:
            place = min(len(values) - 1, math.ceil(percent / 100 * len(values)))
            parts.append(f"percentile({percent}%) = {shown(values[place])} ms")
        return ", ".join(parts)

    info("")
    info("=== Performance summary ===")
    info("Throughput: {} qps".format(shown(1000 * len(rows) / sum(row["computeMs"] for row in rows))))
    info("Latency: " + line("latencyMs"))
    if version < (8, 4):
        info("End-to-End Host Latency: " + line("endToEndMs"))
    info("H2D Latency: " + line("h2dMs"))
    info("GPU Compute Time: " + line("computeMs"))
    info("D2H Latency: " + line("d2hMs"))
    info("Total Host Walltime: {} s".format(shown(sum(row["computeMs"] for row in rows) / 1000)))


# --- the process ---


def stamp():
    return time.strftime("[%m/%d/%Y-%H:%M:%S] ")


def info(text):
    print(stamp() + "[I] " + text)


def error(text):
    sys.stdout.flush()
    print(stamp() + "[E] " + text, file=sys.stderr, flush=True)


def write(path, text):
    """Write a file, unless this call is to leave it away, cut it off or fill it with nan."""
    kind = failure_kind()
    if kind == "no-file":
        return
    if kind == "truncated":
        text = text[: len(text) * 2 // 3]
    if kind == "nan":
        text = text.replace('"computeMs" : ', '"computeMs" : nan, "was" : ')
        for key in ("averageMs", "medianMs"):
            text = text.replace(f'"{key}" : ', f'"{key}" : -')
    with Path(path).open("w", encoding="utf-8") as stream:
        stream.write(text)


STATE = {"fails": ""}


def failure_kind():
    return STATE["fails"]


def decide_failure(arguments, stage):
    """Find out whether and how this call fails, and note the call."""
    kind, _, only_stage = os.environ.get("FAKE_TRTEXEC_FAIL", "").partition("@")
    calls = os.environ.get("FAKE_TRTEXEC_CALLS", "")
    first = os.environ.get("FAKE_TRTEXEC_FIRST", "")
    paths = [a.partition("=")[2] for a in arguments if a.partition("=")[0] in ("--onnx", "--loadEngine")]
    if only_stage and only_stage != stage:
        kind = ""
    if not any(os.environ.get("FAKE_TRTEXEC_ONLY", "") in path for path in paths):
        kind = ""
    if kind and first and Path(calls).exists():
        failed = [json.loads(line)["failed"] for line in Path(calls).read_text(encoding="utf-8").splitlines()]
        if sum(bool(f) for f in failed) >= int(first):
            kind = ""
    if calls:
        with Path(calls).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"arguments": arguments, "failed": kind}) + "\n")
    STATE["fails"] = kind


FAILURE_LINES = {
    "parse": unsupported("NonMaxSuppression", 212),
    "build": (
        "[TRT] 10: [optimizer.cpp::computeCosts::3628] Error Code 10: Internal Error (Could not find any"
        " implementation for node {ForeignNode[stem.conv...head.out]}.)",
        "[TRT] 2: [builder.cpp::buildSerializedNetwork::609] Error Code 2: Internal Error (Assertion engine !="
        " nullptr failed. )",
        "Engine could not be created from network",
        "Building engine failed",
        *PARSE_FAILED[2:],
    ),
    "oom": (
        "[TRT] 1: [defaultAllocator.cpp::allocate::20] Error Code 1: Cuda Runtime (out of memory)",
        "[TRT] 2: [executionContext.cpp::ExecutionContext::409] Error Code 2: OutOfMemory (no further information)",
        *PARSE_FAILED[2:],
    ),
    "cuda": (
        "[TRT] 1: [cudaResources.cpp::operator()::52] Error Code 1: Cuda Runtime (an illegal memory access was"
        " encountered)",
        "Error occurred during inference",
    ),
}


def misbehave(kind):
    """Fail like the real one; returns for kinds that spoil only the files."""
    if kind in FAILURE_LINES:
        raise RejectedError(*FAILURE_LINES[kind])
    sys.stdout.flush()
    if kind in ("killed", "segfault"):
        os.kill(os.getpid(), signal.SIGKILL if kind == "killed" else signal.SIGSEGV)
    if kind == "hang":
        time.sleep(600)
    if kind == "silent":
        os._exit(3)


def banner(version):
    """The version as the banner has it."""
    major, minor, patch = (*version, 0, 0)[:3]
    number = f"{major * (1000 if major < 10 else 10000) + minor * 100 + patch}"
    return "TensorRT.trtexec [TensorRT v{}]{}".format(number, " [b49]" if major >= 11 else "")


def work(arguments, version):
    """Do what one call asks for."""
    call = Call(arguments, version)
    decide_failure(arguments, call.stage)
    if not arguments or "help" in call:
        print("=== Model Options ===\n  --onnx=<file>               ONNX model")
        return
    if "onnx" not in call and "loadEngine" not in call:
        raise RejectedError("Model missing or format not recognized")
    info("=== Device Information ===")
    info("Selected Device: NVIDIA Tegra X1")
    info("Compute Capability: 5.3")
    info("TensorRT version: " + ".".join(map(str, version)))
    misbehave(failure_kind())
    engine = load(call, version) if "loadEngine" in call else build(call, version)
    if "timingCacheFile" in call and "onnx" in call:
        Path(call.text("timingCacheFile")).write_bytes(b"timing cache")
    if "saveEngine" in call:
        write(call.text("saveEngine"), json.dumps(engine))
    if "exportLayerInfo" in call:
        write(call.text("exportLayerInfo"), json.dumps(layer_info(engine, version), indent=1))
    if "buildOnly" in call or "skipInference" in call:
        info("Skipped inference phase since --buildOnly is added.")
        return
    run(engine, call, version)


def main(arguments):
    version = tuple(int(part) for part in os.environ.get("FAKE_TRTEXEC_VERSION", "8.2.1").split("."))
    title = banner(version)
    command = " ".join(["trtexec", *arguments])
    print(f"&&&& RUNNING {title} # {command}", flush=True)
    try:
        work(arguments, version)
    except RejectedError as refused:
        for line in refused.args:
            error(line)
        if version < (11, 0) or not isinstance(refused, OptionError):
            print(f"&&&& FAILED {title} # {command}")
        return 1
    if "--help" not in arguments:
        print(f"&&&& PASSED {title} # {command}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
