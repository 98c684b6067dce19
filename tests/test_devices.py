"""Device profiles: the numbers of the data sheets, one line for every wrong profile."""

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from scaler import devices
from scaler.devices import (
    PRECISIONS,
    Cpu,
    Device,
    Precision,
    ThreadMode,
    list_devices,
    load_device,
)
from scaler.errors import FileError, UnsupportedError, UsageError, UserError

PROFILES = Path(__file__).parent.parent / "profiles"
IDS = ("agx", "agx-orin", "nano", "nx", "orin-nano", "orin-nx", "tx2")


class Peak(NamedTuple):
    """A mode with its dense peaks in TFLOPS (int8: TOPS) and GB/s, rounded as in published tables."""

    device: str
    mode: str
    sms: int
    mhz: float
    fp32: float
    tf32: float | None
    fp16: float
    int8: float | None
    bandwidth: float


class Facts(NamedTuple):
    """What else a profile says, with the newest TensorRT of the device and the Python beside it."""

    device: str
    memory: float
    capability: str
    l2: int
    dlas: int
    mode: str
    provenance: str
    tensorrt: str
    python: str


PEAKS = [
    Peak("nano", "MAXN", 1, 921.6, 0.236, None, 0.472, None, 25.6),
    Peak("nano", "5W", 1, 640, 0.164, None, 0.328, None, 25.6),
    Peak("tx2", "MAXN", 2, 1300.5, 0.666, None, 1.33, None, 59.7),
    Peak("tx2", "MAXP", 2, 1120, 0.573, None, 1.15, None, 51.2),
    Peak("tx2", "MAXQ", 2, 850, 0.435, None, 0.87, None, 42.6),
    Peak("nx", "20W", 6, 1109.25, 0.852, None, 6.82, 13.6, 59.7),
    Peak("nx", "15W", 6, 1109.25, 0.852, None, 6.82, 13.6, 51.2),
    Peak("nx", "10W", 6, 803.25, 0.617, None, 4.94, 9.9, 51.2),
    Peak("nx", "10W_DESKTOP", 6, 510, 0.392, None, 3.13, 6.3, 51.2),
    Peak("agx", "MAXN", 8, 1377, 1.41, None, 11.3, 22.6, 136.5),
    Peak("agx", "30W", 8, 900, 0.922, None, 7.37, 14.7, 102.4),
    Peak("agx", "15W", 8, 670, 0.686, None, 5.49, 11.0, 85.2),
    Peak("agx", "10W", 4, 520, 0.266, None, 2.13, 4.3, 68.2),
    Peak("orin-nano", "MAXN_SUPER", 8, 1020, 2.09, 8.4, 16.7, 33.4, 102.4),
    Peak("orin-nano", "25W", 8, 918, 1.88, 7.5, 15.0, 30.1, 102.4),
    Peak("orin-nano", "15W", 8, 624.75, 1.28, 5.1, 10.2, 20.5, 68.3),
    Peak("orin-nano", "7W", 4, 420.75, 0.43, 1.7, 3.4, 6.9, 68.3),
    Peak("orin-nx", "MAXN_SUPER", 8, 1173, 2.40, 9.6, 19.2, 38.4, 102.4),
    Peak("orin-nx", "40W", 8, 1173, 2.40, 9.6, 19.2, 38.4, 102.4),
    Peak("orin-nx", "MAXN", 8, 918, 1.88, 7.5, 15.0, 30.1, 102.4),
    Peak("orin-nx", "25W", 8, 420.75, 0.86, 3.4, 6.9, 13.8, 102.4),
    Peak("orin-nx", "15W", 4, 624.75, 0.64, 2.6, 5.1, 10.2, 102.4),
    Peak("orin-nx", "10W", 4, 624.75, 0.64, 2.6, 5.1, 10.2, 68.3),
    Peak("agx-orin", "MAXN", 16, 1300.5, 5.33, 21.3, 42.6, 85.2, 204.8),
    Peak("agx-orin", "50W", 16, 828.75, 3.39, 13.6, 27.2, 54.3, 204.8),
    Peak("agx-orin", "30W", 8, 624.75, 1.28, 5.1, 10.2, 20.5, 204.8),
    Peak("agx-orin", "15W", 6, 420.75, 0.65, 2.6, 5.2, 10.3, 136.5),
]

FACTS = [
    Facts("nano", 4, "5.3", 256, 0, "MAXN", "calibrated", "8.2.1", "3.6"),
    Facts("tx2", 8, "6.2", 512, 0, "MAXN", "calibrated", "8.2.1", "3.6"),
    Facts("nx", 8, "7.2", 512, 2, "15W", "calibrated", "8.5.2", "3.8"),
    Facts("agx", 32, "7.2", 512, 2, "MAXN", "calibrated", "8.5.2", "3.8"),
    Facts("orin-nano", 8, "8.7", 2048, 0, "15W", "calibrated", "10.3.0", "3.10"),
    Facts("orin-nx", 16, "8.7", 2048, 2, "MAXN", "calibrated", "10.3.0", "3.10"),
    Facts("agx-orin", 64, "8.7", 4096, 2, "MAXN", "calibrated", "10.3.0", "3.10"),
]


@pytest.fixture(autouse=True)
def own_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the user's own profiles, so that the tests see ours alone."""
    folder = tmp_path / "data" / "profiles"
    folder.mkdir(parents=True)
    monkeypatch.setenv("SCALER_DATA_DIR", str(folder.parent))
    return folder


def refusal(action: Callable[[], object], error: type[UserError]) -> str:
    """Return the message of the error that the action must end with."""
    with pytest.raises(error) as raised:
        action()
    message = str(raised.value)
    assert "\n" not in message
    return message


def rounds_to(value: float, published: float) -> bool:
    """Whether the value is within half a unit of the last published digit, or a bit: tables also cut off."""
    digits = len(str(published).partition(".")[2])
    return math.isclose(value, published, abs_tol=0.6 * 10**-digits)


@pytest.mark.parametrize("peak", PEAKS, ids=lambda peak: f"{peak.device}-{peak.mode}")
def test_derived_peaks_round_to_the_published_ones(peak: Peak) -> None:
    mode = load_device(peak.device).mode(peak.mode)
    published = {"fp32": peak.fp32, "tf32": peak.tf32, "fp16": peak.fp16, "int8": peak.int8}

    assert (mode.name, mode.sms, mode.gpu_mhz) == (peak.mode, peak.sms, peak.mhz)
    assert mode.bandwidth_gb_per_s == peak.bandwidth
    assert mode.gpu.precisions == tuple(p for p in PRECISIONS if published[p] is not None)
    for precision in mode.gpu.precisions:
        assert rounds_to(mode.peak_tops(precision), published[precision] or 0), precision


@pytest.mark.parametrize("device", IDS)
def test_the_table_above_has_every_mode(device: str) -> None:
    assert {mode.name for mode in load_device(device).modes} == {row.mode for row in PEAKS if row.device == device}


@pytest.mark.parametrize("facts", FACTS, ids=lambda facts: facts.device)
def test_a_shipped_profile_holds_the_facts_of_its_device(facts: Facts) -> None:
    device = load_device(facts.device)
    newest = device.software[-1]

    assert (
        Facts(
            device=device.id,
            memory=device.memory_gib,
            capability=device.gpu.compute_capability,
            l2=device.gpu.l2_kib,
            dlas=device.dla_count,
            mode=device.mode().name,
            provenance=device.latency_provenance,
            tensorrt=newest.tensorrt,
            python=newest.python,
        )
        == facts
    )


EXAMPLE = "xeon-vm"


def test_seven_jetsons_and_an_example_of_a_measured_cpu_are_shipped() -> None:
    assert tuple(device.id for device in list_devices()) == (*IDS, EXAMPLE)
    assert load_device(EXAMPLE).cpu is not None


def test_no_two_devices_share_a_name() -> None:
    known = [name for device in list_devices() for name in (device.id, *device.aliases)]

    assert len(known) == len(set(known))


@pytest.mark.parametrize("device", IDS)
def test_every_group_of_facts_has_a_source(device: str) -> None:
    sources = load_device(device).sources

    assert all((sources.gpu, sources.modes, sources.memory, sources.precisions, sources.software))


def test_a_peak_in_macs_is_half_of_the_flops() -> None:
    mode = load_device("nano").mode("MAXN")

    assert mode.peak_macs_per_s("fp32") == 128 * 921.6e6
    assert mode.peak_tops("fp32") == 2 * 128 * 921.6e6 / 1e12


def test_bandwidth_in_bytes_is_decimal() -> None:
    assert load_device("nano").mode().bandwidth_bytes_per_s == 25.6e9


@pytest.mark.parametrize("name", ["nx", "NX", "xavier-nx", "Xavier NX", "jetson_xavier_nx", PROFILES / "nx.toml"])
def test_a_device_answers_to_its_id_aliases_and_path(name: str | Path) -> None:
    assert load_device(name).id == "nx"


def test_an_unknown_device_is_answered_with_the_nearest() -> None:
    message = refusal(lambda: load_device("nanoo"), UsageError)

    assert message == f"unknown device 'nanoo'; did you mean 'nano'? known: {', '.join((*IDS, EXAMPLE))}, host"


@pytest.mark.parametrize("name", ["15W", "15w", "15W_6CORE", "MODE_15W_2CORE"])
def test_a_mode_answers_to_what_nvpmodel_calls_it(name: str) -> None:
    assert load_device("nx").mode(name).name == "15W"


@pytest.mark.parametrize("name", ["25W", ""])
def test_an_unknown_mode_is_answered_with_the_known(name: str) -> None:
    message = refusal(lambda: load_device("nx").mode(name), UsageError)

    assert message.startswith(f"unknown power mode of Jetson Xavier NX {name!r};")
    assert message.endswith("known: 20W, 15W, 10W, 10W_DESKTOP")


def test_a_device_without_int8_says_what_it_has() -> None:
    message = refusal(lambda: load_device("nano").require_precision("int8"), UnsupportedError)

    assert message == "Jetson Nano has no INT8 in TensorRT; it supports fp32, fp16"


def test_a_peak_that_the_gpu_lacks_is_never_zero() -> None:
    mode = load_device("tx2").mode()

    assert "has no INT8" in refusal(lambda: mode.peak_macs_per_s("int8"), UnsupportedError)


@pytest.mark.parametrize(("given", "expected"), [("fp16", "fp16"), ("FP16", "fp16"), ("int8", "int8")])
def test_a_precision_of_the_device_is_returned(given: str, expected: Precision) -> None:
    assert load_device("nx").require_precision(given) == expected


def test_a_precision_that_does_not_exist_is_a_wrong_name() -> None:
    message = refusal(lambda: load_device("nx").require_precision("fp61"), UsageError)

    assert message == "unknown precision 'fp61'; did you mean 'fp16'? known: fp32, fp16, int8"


def test_a_device_can_be_sent_to_a_worker_and_used_as_a_key() -> None:
    device = load_device("nx")

    assert pickle.loads(pickle.dumps(device)) == device
    assert {device: 1, device.mode(): 2}[device] == 1


OWN = """
schema_version = 1
id = "my-board"
name = "My Board"
latency_provenance = "estimated"
memory_gib = 8
dla_count = 0
default_mode = "15W"
default_mode_reason = "the only one"
[gpu]
architecture = "Ampere"
compute_capability = "8.7"
l2_kib = 2048
fma_per_sm_clock = { fp32 = 128, fp16 = 1024 }
[[modes]]
name = "15W"
sms = 8
gpu_mhz = 624.75
bandwidth_gb_per_s = 68.3
[sources]
gpu = "data sheet"
modes = "nvpmodel -q"
memory = "data sheet"
precisions = "data sheet"
"""


def test_a_profile_of_ones_own_is_found_by_name(own_profiles: Path) -> None:
    (own_profiles / "my-board.toml").write_text(OWN)

    assert load_device("My Board").name == "My Board"
    assert "my-board" in [device.id for device in list_devices()]


def test_a_profile_of_ones_own_replaces_a_shipped_one(own_profiles: Path) -> None:
    (own_profiles / "nano.toml").write_text(OWN.replace("my-board", "nano"))

    assert load_device("nano").name == "My Board"


def test_a_broken_profile_of_ones_own_does_not_hide_the_others(own_profiles: Path) -> None:
    (own_profiles / "broken.toml").write_text("nonsense")

    assert load_device("nano").id == "nano"


def test_an_alias_of_two_devices_is_refused_with_both(own_profiles: Path) -> None:
    (own_profiles / "my-board.toml").write_text('aliases = ["xavier-nx"]' + OWN)

    assert refusal(lambda: load_device("xavier-nx"), UsageError) == (
        "device 'xavier-nx' may be my-board or nx; name one of them"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "My Board"', "", "name: missing; expected a text; add it"),
        ('name = "My Board"', 'nam = "My Board"', "name: missing"),
        ("memory_gib = 8", "memory_gib = 8\nmemory = 8", "memory: unknown key; known: "),
        ("sms = 8", "sms = 8\nsmss = 8", "modes[0].smss: unknown key; known: "),
        ("sms = 8", "sms = 0", "modes[0].sms: found 0; expected a whole number >= 1"),
        ("624.75", "nan", "modes[0].gpu_mhz: found nan; expected a number >= 1"),
        ("624.75", '"fast"', "modes[0].gpu_mhz: found 'fast'; expected a number >= 1"),
        ("fp16 = 1024", "fp61 = 1024", "gpu.fma_per_sm_clock.fp61: unknown key; known: "),
        ("fp32 = 128, ", "", "gpu.fma_per_sm_clock.fp32: missing"),
        ('"estimated"', '"guessed"', "latency_provenance: found 'guessed'; expected one of measured, "),
        ('default_mode = "15W"', 'default_mode = "MAXN"', "default_mode: found 'MAXN'; expected one of 15W"),
        ('name = "15W"', 'name = "15W"\naliases = ["15w"]', "modes: two are called 15W; rename one of them"),
        ('"my-board"', '"board"', "id: found 'board'; expected the file's name, 'my-board'"),
        ("schema_version = 1", "schema_version = 2", "schema_version: found 2; this scaler reads 1; update"),
        ("[gpu]", "[gpu", "expected TOML"),
    ],
)
def test_a_wrong_profile_is_refused_with_the_place_and_the_way_out(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    path = tmp_path / "my-board.toml"
    assert old in OWN
    path.write_text(OWN.replace(old, new, 1))

    assert expected in refusal(lambda: load_device(path), FileError)


def documented(identity: str, folder: Path) -> Path:
    """The model profile of this id in the documentation, as a file."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", devices.__doc__ or "")
    text = next(block for block in blocks if f'id = "{identity}"' in block)
    path = folder / f"{identity}.toml"
    path.write_text(text)
    return path


def test_the_model_profile_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    device: Device = load_device(documented("my-board", tmp_path))

    assert device.software[0].onnx_opset == 17


def test_the_model_profile_of_a_cpu_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    device = load_device(documented("my-cpu", tmp_path))

    assert device.cpu == Cpu(
        processor="Intel Xeon (Emerald Rapids)",
        architecture="x86_64",
        instruction_sets=("avx2", "avx512f", "amx_int8"),
        cores=4,
        l2_kib=2048,
        l3_kib=16384,
    )
    assert device.mode("1") == ThreadMode(name="1-thread", aliases=("1",), threads=1)
    assert (device.dla_count, device.software) == (0, ())


OWN_CPU = """
schema_version = 1
id = "my-cpu"
name = "My Computer"
latency_provenance = "measured"
memory_gib = 16
default_mode = "1-thread"
default_mode_reason = "others did not reproduce"
[cpu]
processor = "ARM Cortex-A76"
architecture = "aarch64"
cores = 4
[[modes]]
name = "1-thread"
threads = 1
[[modes]]
name = "4-threads"
threads = 4
[sources]
cpu = "/proc/cpuinfo"
memory = "/proc/meminfo"
"""


@pytest.fixture
def own_cpu(own_profiles: Path) -> Device:
    (own_profiles / "my-cpu.toml").write_text(OWN_CPU)
    return load_device("my-cpu")


def test_a_cpu_has_threads_for_modes_and_what_onnx_runtime_computes_in(own_cpu: Device) -> None:
    assert own_cpu.gpu is None
    assert own_cpu.processor == "ARM Cortex-A76"
    assert (own_cpu.runtimes, own_cpu.precisions, own_cpu.default_precision) == (
        ("onnxruntime",),
        ("fp32", "int8"),
        "fp32",
    )
    assert [mode.name for mode in own_cpu.modes] == ["1-thread", "4-threads"]
    assert own_cpu.mode().name == "1-thread"
    assert own_cpu.cpu is not None
    assert (own_cpu.cpu.l2_kib, own_cpu.cpu.l3_kib, own_cpu.cpu.instruction_sets) == (None, None, ())


def test_a_gpu_runs_tensorrt_and_fp16_is_meant_when_none_is_named() -> None:
    nano = load_device("nano")

    assert nano.cpu is None
    assert nano.processor == "Maxwell 5.3"
    assert (nano.runtimes, nano.default_precision) == (("tensorrt",), "fp16")
    assert nano.require_precision(None) == "fp16"


def test_a_gpu_without_fp16_means_fp32(tmp_path: Path) -> None:
    path = tmp_path / "my-board.toml"
    path.write_text(OWN.replace(", fp16 = 1024", ""))

    assert load_device(path).require_precision(None) == "fp32"


def test_an_unknown_number_of_threads_is_answered_with_the_known(own_cpu: Device) -> None:
    message = refusal(lambda: own_cpu.mode("8-threads"), UsageError)

    assert message == (
        "unknown thread mode of My Computer '8-threads'; did you mean '4-threads'? known: 1-thread, 4-threads"
    )


def test_a_cpu_without_fp16_says_what_it_has(own_cpu: Device) -> None:
    message = refusal(lambda: own_cpu.require_precision("fp16"), UnsupportedError)

    assert message == "My Computer has no FP16 in ONNX Runtime; it supports fp32, int8"


def test_what_needs_the_peaks_of_a_gpu_is_refused_a_cpu_with_the_way_out(own_cpu: Device) -> None:
    expected = (
        "My Computer is a CPU: there is no estimate from a data sheet, its latency must be measured: "
        "scaler profile run --device my-cpu"
    )

    assert refusal(own_cpu.require_gpu, UnsupportedError) == expected
    assert refusal(own_cpu.gpu_mode, UnsupportedError) == expected
    assert load_device("nano").require_gpu() == load_device("nano").gpu
    assert load_device("nano").gpu_mode("5w").name == "5W"


def test_a_cpu_can_be_sent_to_a_worker_and_used_as_a_key(own_cpu: Device) -> None:
    assert pickle.loads(pickle.dumps(own_cpu)) == own_cpu
    assert {own_cpu: 1}[own_cpu] == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[cpu]", "[gpu]\n[cpu]", "cpu: found beside [gpu]; expected one of the two; give each a profile of its own"),
        ("[cpu]", "[cpus]", "gpu: missing; expected a table [gpu] or [cpu]; add one of them"),
        ("cores = 4", "cores = 0", "cpu.cores: found 0; expected a whole number >= 1"),
        ("cores = 4", "", "cpu.cores: missing"),
        ("cores = 4", "cores = 4\nl2 = 512", "cpu.l2: unknown key; known: "),
        ("cores = 4", "cores = 4\nl2_kib = 0", "cpu.l2_kib: found 0"),
        ("threads = 1", "sms = 1", "modes[0].threads: missing"),
        ("threads = 1", "threads = 1\nsms = 1", "modes[0].sms: unknown key; known: aliases, name, threads"),
        ("threads = 4", "threads = 0", "modes[1].threads: found 0; expected a whole number >= 1"),
        ('default_mode = "1-thread"', 'default_mode = "15W"', "default_mode: found '15W'; expected one of 1-thread, 4"),
        ("memory_gib = 16", "memory_gib = 16\ndla_count = 0", "dla_count: unknown key"),
        ('cpu = "/proc/cpuinfo"', 'gpu = "/proc/cpuinfo"', "sources.cpu: missing"),
        ("[sources]", '[[software]]\njetpack = "6.2"\n[sources]', "software: unknown key"),
    ],
)
def test_a_wrong_profile_of_a_cpu_is_refused_with_the_place(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "my-cpu.toml"
    assert old in OWN_CPU
    path.write_text(OWN_CPU.replace(old, new, 1))

    assert expected in refusal(lambda: load_device(path), FileError)


@pytest.mark.parametrize("name", ["host", "Host"])
def test_a_profile_may_not_take_the_name_of_the_computer_at_hand(own_profiles: Path, name: str) -> None:
    (own_profiles / f"{name}.toml").write_text(OWN_CPU.replace("my-cpu", name))
    expected = "id: 'host' is the name of the computer at hand; choose another name"

    assert refusal(lambda: load_device("host"), FileError).endswith(f"{name}.toml: {expected}")
    assert expected in refusal(list_devices, FileError)


def test_no_alias_may_be_the_name_of_the_computer_at_hand(tmp_path: Path) -> None:
    path = tmp_path / "my-cpu.toml"
    path.write_text('aliases = ["HOST"]' + OWN_CPU)

    assert "aliases: 'host' is the name of the computer at hand" in refusal(lambda: load_device(path), FileError)
