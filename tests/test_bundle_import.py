"""Results from a device: read as they are, or refused, whole or network by network; never taken for something else."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_device import NANO_FILES, FakeDevice, tiny_plan, unpacked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaler.devices import load_device
from scaler.errors import FileError, UsageError, UserError
from scaler.profiling import bundle_archive
from scaler.profiling.bundle import write_bundle
from scaler.profiling.bundle_import import Imported, Refused, read_results
from scaler.profiling.measurement import read_measurement, write_measurement
from scaler.profiling.plan_file import Plan, Planned

fuzz = settings(
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the one file of a test is overwritten
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return tiny_plan(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def packed(plan, tmp_path_factory) -> Path:
    """The results of a Nano."""
    home = tmp_path_factory.mktemp("home")
    device = FakeDevice(home / "device", home / "memory")
    device.unpack(write_bundle(plan, home / "bundle.tar.gz").path)
    device.files(NANO_FILES)
    device.tool("nvpmodel", "echo 'NV Power Mode: MAXN'; echo 0")
    assert device.measure().code == 0
    return device.archive


@pytest.fixture(scope="module")
def whole(packed) -> Imported:
    return read_results(packed)


@pytest.fixture
def archive(packed, tmp_path) -> Path:
    """A copy of the archive, without the checksum beside it."""
    return Path(shutil.copy(packed, tmp_path / "results.tar.gz"))


@pytest.fixture
def results(packed, tmp_path) -> Path:
    """A copy of the unpacked results."""
    return unpacked(packed, tmp_path) / "scaler-results"


def summed(folder: Path) -> None:
    """Write checksums that fit, as somebody who changes files on purpose would."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def change(path: Path, content: str | Callable[[str], str]) -> None:
    """Change a file and its checksum."""
    path.write_text(content if isinstance(content, str) else content(path.read_text()))
    summed(path.parent)


# --- whole ---


def test_an_archive_its_folder_and_the_bundle_give_the_same(packed, whole, results):
    assert whole.refused == ()
    assert len(whole.measurements) == 2
    for place in (results, results.parent, packed.parent, packed.parent / "results"):
        assert read_results(place) == whole


def test_a_measurement_is_complete_and_can_be_stored(whole, plan, tmp_path):
    for measurement, planned in zip(whole.measurements, plan.networks, strict=True):
        assert (measurement.network, measurement.params) == (planned.network, planned.params)
        assert (measurement.tries, measurement.warnings, measurement.error) == (1, (), "")
        assert measurement.seconds > 0
        conditions = measurement.conditions
        assert (conditions.runtime, conditions.runtime_version, conditions.precision) == ("tensorrt", "8.2.1", "fp16")
        assert (conditions.processor, conditions.power_mode) == ("NVIDIA Tegra X1", "MAXN")
        assert conditions.clocks_pinned is True
        write_measurement(measurement, tmp_path / "m.json")
        assert read_measurement(tmp_path / "m.json") == measurement


def test_the_times_are_those_of_trtexec_without_the_warm_up(whole, results):
    measurement = whole.measurements[0]
    file = results / "networks" / measurement.network / "times-network-0.json"
    rows = json.loads(file.read_text())

    expected = [row["computeMs"] for row in rows if row["startComputeMs"] >= 100]

    assert list(measurement.rounds[0].network_ms) == expected
    assert 0 < len(expected) < len(rows)


# --- asked for something else ---


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"device": "xavier-nx"}, "results of another device: nano; asked for nx"),
        ({"precision": "fp32"}, "results of another precision: fp16; asked for fp32"),
        ({"power_mode": "5W"}, "results of another power mode: MAXN; asked for 5W"),
        ({"tensorrt": "8.0"}, "results of another TensorRT: 8.2.1; asked for 8.0"),
        ({"tensorrt": "8.2.10"}, "results of another TensorRT: 8.2.1; asked for 8.2.10"),
    ],
)
def test_results_of_something_else_are_refused(packed, wanted, message):
    with pytest.raises(FileError) as caught:
        read_results(packed, **wanted)

    assert message in str(caught.value)


@pytest.mark.parametrize("version", ["8", "8.2", "8.2.1"])
def test_other_names_of_the_same_are_taken(packed, whole, plan, version):
    wanted = {"device": "jetson-nano", "precision": "fp16", "power_mode": "10W", "tensorrt": version}

    assert read_results(packed, plan=plan, **wanted) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "nx"}, "results of another device: nano; asked for nx"),
        ({"precision": "fp32"}, "results of another precision: fp16; asked for fp32"),
        ({"batch": 8}, "results of another batch: 1; asked for 8"),
        ({"digest": "0" * 16}, "results of another digest"),
        ({"networks": (Planned(network="a", params={}),)}, "results of another plan: its networks differ"),
    ],
)
def test_results_of_another_plan_are_refused(packed, plan, changes, message):
    with pytest.raises(FileError) as caught:
        read_results(packed, plan=replace(plan, **changes))

    assert message in str(caught.value)


def test_an_unknown_device_or_mode_is_a_wrong_use(packed):
    with pytest.raises(UsageError, match="unknown device"):
        read_results(packed, device="nanoo")
    with pytest.raises(UsageError, match="unknown power mode"):
        read_results(packed, power_mode="99W")


def test_results_from_another_power_mode_than_planned_are_refused(results, whole):
    folders = [results / "networks" / m.network for m in whole.measurements]
    change(folders[0] / "after-nvpmodel.txt", "NV Power Mode: 5W\n1\n")

    some = read_results(results)

    assert some.measurements == whole.measurements[1:]
    assert some.refused == (Refused(folders[0].name, "measured in power mode 5W, planned for MAXN"),)
    change(folders[1] / "before-nvpmodel.txt", "NV Power Mode: MODE_TURBO\n7\n")
    with pytest.raises(FileError, match="measured in power mode 5W, planned for MAXN"):
        read_results(results)
    change(folders[0] / "after-nvpmodel.txt", "NV Power Mode: MAXN\n0\n")
    (refused,) = read_results(results).refused
    assert refused.reason == "measured in power mode TURBO (which the profile of nano lacks), planned for MAXN"


def test_results_from_another_board_are_refused(results):
    change(
        results / "system.txt",
        "== proc/device-tree/model\nNVIDIA Jetson Xavier NX Developer Kit\n"
        "== proc/device-tree/compatible\nnvidia,p3509-0000+p3668-0000 nvidia,tegra194\n",
    )

    with pytest.raises(FileError, match=r"measured on nx \(NVIDIA Jetson Xavier NX Developer Kit\), planned for nano"):
        read_results(results)


def test_results_from_another_gpu_are_refused(results, whole):
    for measurement in whole.measurements:
        log = results / "networks" / measurement.network / "build.log"
        change(log, lambda text: text.replace("Compute Capability: 5.3", "Compute Capability: 8.7"))

    assert load_device("nano").gpu.compute_capability == "5.3"
    with pytest.raises(FileError, match=r"measured on a GPU of compute capability 8\.7; that of nano has 5\.3"):
        read_results(results)


def test_a_device_that_was_throttled_is_flagged(results, whole):
    network = whole.measurements[0].network
    file = results / "networks" / network / "after-files.txt"
    change(file, lambda text: text.replace("gpu/cur_freq\n921600000", "gpu/cur_freq\n614400000"))

    assert read_results(results).measurements[0].warnings == ("the device reports that it was throttled",)


def test_a_device_that_slowed_down_for_the_profile_is_flagged(results, whole):
    network = whole.measurements[0].network
    file = results / "networks" / network / "times-reference-profile.json"
    rows = [{**row, "computeMs": 1.5 * row["computeMs"]} for row in json.loads(file.read_text())]
    change(file, json.dumps(rows))

    assert read_results(results).measurements[0].warnings == ("the device was 50 % slower at the profile",)


# --- damaged networks ---


def damage(folder: Path, kind: str) -> None:
    times = folder / "times-network-0.json"
    match kind:
        case "changed":
            times.write_text(times.read_text().replace("1", "2", 1))
        case "truncated":
            times.write_bytes(times.read_bytes()[:-10])
        case "missing":
            times.unlink()
        case "link":
            times.rename(folder.parent.parent / "elsewhere.json")
            times.symlink_to(folder.parent.parent / "elsewhere.json")
        case "no sums":
            (folder / "SHA256SUMS").unlink()
        case "empty sums":
            (folder / "SHA256SUMS").write_text("")
        case "strange sums":
            (folder / "SHA256SUMS").write_text(f"{'0' * 64}  ../../plan.json\n")
        case "unlisted":
            times.unlink()
            summed(folder)
        case "nan":
            change(times, lambda text: text.replace('"computeMs" : ', '"computeMs" : nan, "was" : '))
        case "NaN":
            change(times, lambda text: text.replace('"computeMs" : ', '"computeMs" : NaN, "was" : '))
        case "negative":
            change(times, lambda text: text.replace('"computeMs" : ', '"computeMs" : -'))
        case "no rows":
            change(times, "[]")
        case "no JSON":
            change(times, "computeMs")
        case "profile":
            change(folder / "profile.json", '[{ "count" : 3 }]')
        case "result":
            change(folder / "result.json", lambda text: text.replace('"tries": 1', '"tries": "one"'))
        case "other network":
            change(folder / "result.json", lambda text: text.replace(folder.name, "0123abcd"))
        case "gone":
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("changed", "times-network-0.json: differs from its checksum"),
        ("truncated", "times-network-0.json: differs from its checksum"),
        ("missing", "times-network-0.json: missing"),
        ("link", "times-network-0.json: a link"),
        ("no sums", "SHA256SUMS: missing"),
        ("empty sums", "SHA256SUMS: empty"),
        ("strange sums", "SHA256SUMS: damaged"),
        ("unlisted", "times-network-0.json: missing"),
        ("nan", "times-network-0.json: line 2, column "),
        ("NaN", "times-network-0.json: [0].computeMs: found nan"),
        ("negative", "times-network-0.json: [0].computeMs: found -"),
        ("no rows", "times-network-0.json: no list of objects"),
        ("no JSON", "times-network-0.json: line 1, column 1"),
        ("profile", "profile.json: no layer"),
        ("result", "result.json: tries: found 'one'"),
        ("other network", "result.json: network: found '0123abcd'"),
        ("gone", "not measured"),
    ],
)
def test_a_damaged_network_is_left_out_with_the_reason_and_the_others_stay(results, whole, kind, reason):
    first = whole.measurements[0].network
    damage(results / "networks" / first, kind)

    found = read_results(results)

    assert found.measurements == whole.measurements[1:]
    (refused,) = found.refused
    assert refused.network == first
    assert refused.reason.startswith(reason)


def test_layers_that_tensorrt_describes_in_broken_json_are_known_by_their_names(results, whole):
    network = whole.measurements[0].network
    change(results / "networks" / network / "layers.json", '{"Layers": [{"Name": "a\\')

    (first, _) = read_results(results).measurements

    assert [layer.ms for layer in first.layers] == [layer.ms for layer in whole.measurements[0].layers]
    assert [layer.nodes for layer in first.layers] == [layer.nodes for layer in whole.measurements[0].layers]


def test_a_network_that_nobody_planned_is_left_out(results, whole):
    shutil.copytree(results / "networks" / whole.measurements[0].network, results / "networks" / "0123abcd")

    found = read_results(results)

    assert found.measurements == whole.measurements
    assert found.refused == (Refused("0123abcd", "not in the plan"),)


@given(which=st.floats(0, 1, exclude_max=True), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 8))
@fuzz
def test_a_folder_with_any_bit_flipped_or_file_cut_gives_what_was_measured_or_less(results, whole, which, where, bit):
    files = sorted(path for path in results.rglob("*") if path.is_file() and path.stat().st_size)
    path = files[int(which * len(files))]
    content = path.read_bytes()
    at = int(where * len(content))
    path.write_bytes(content[:at] if bit == 8 else content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
    try:
        check(results, whole)
    finally:
        path.write_bytes(content)


def check(path: Path, whole: Imported) -> None:
    """Whatever is read is what was measured, and what is not is listed."""
    try:
        found = read_results(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return
    known = {measurement.network: measurement for measurement in whole.measurements}
    assert all(known[measurement.network] == measurement for measurement in found.measurements)
    assert {m.network for m in found.measurements} | {r.network for r in found.refused} >= known.keys()
    assert {m.network for m in found.measurements}.isdisjoint(r.network for r in found.refused)


# --- damaged and dangerous archives ---


EDITS = st.tuples(st.floats(0, 1), st.sampled_from(["flip", "cut", "insert", "drop"]), st.integers(0, 255))


@given(edits=st.lists(EDITS, min_size=1, max_size=3))
@fuzz
def test_a_damaged_archive_is_refused_or_gives_what_was_measured(archive, packed, whole, edits):
    content = packed.read_bytes()
    for share, kind, value in edits:
        at = int(share * len(content))
        match kind:
            case "flip":
                content = content[:at] + bytes([value]) + content[at + 1 :]
            case "cut":
                content = content[:at]
            case "insert":
                content = content[:at] + bytes([value]) * (1 + value % 7) + content[at:]
            case "drop":
                content = content[:at] + content[at + 1 + value % 7 :]
    archive.write_bytes(content)

    check(archive, whole)


@given(edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=3))
@fuzz
def test_an_archive_packed_from_damage_is_refused_or_gives_what_was_measured(archive, packed, whole, edits):
    content = bytearray(gzip.decompress(packed.read_bytes()))
    for share, value in edits:
        content[int(share * (len(content) - 1)) // 512 * 512 + value] = value  # mostly in a header or near one
    archive.write_bytes(gzip.compress(bytes(content), 1))

    check(archive, whole)


def repacked(archive: Path, edit: Callable[[tarfile.TarFile], None]) -> None:
    """Write an archive again with something added."""
    with tarfile.open(archive) as old:
        members = [(member, old.extractfile(member).read()) for member in old if member.isreg()]
    with tarfile.open(archive, "w:gz") as new:
        for member, content in members:
            new.addfile(member, io.BytesIO(content))
        edit(new)


def added(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Callable[[tarfile.TarFile], None]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return lambda archive: archive.addfile(member, io.BytesIO(b""))


DANGERS = [
    ("../evil", tarfile.REGTYPE, ""),
    ("/tmp/evil", tarfile.REGTYPE, ""),
    ("scaler-results/../../evil", tarfile.REGTYPE, ""),
    ("scaler-results/networks/../run.json", tarfile.REGTYPE, ""),
    ("scaler-results/networks/a/b/c", tarfile.REGTYPE, ""),
    ("scaler-results/.hidden", tarfile.REGTYPE, ""),
    ("elsewhere/run.json", tarfile.REGTYPE, ""),
    ("scaler-results/link", tarfile.SYMTYPE, "/etc/passwd"),
    ("scaler-results/link", tarfile.LNKTYPE, "scaler-results/run.json"),
    ("scaler-results/networks/link", tarfile.SYMTYPE, ".."),
    ("scaler-results/device", tarfile.CHRTYPE, ""),
    ("scaler-results/pipe", tarfile.FIFOTYPE, ""),
    ("scaler-results/a\nb", tarfile.REGTYPE, ""),
]


@pytest.mark.parametrize(("name", "kind", "target"), DANGERS)
def test_an_archive_that_reaches_out_is_refused(archive, tmp_path, name, kind, target):
    repacked(archive, added(name, kind, target))
    before = sorted(tmp_path.parent.rglob("*"))

    with pytest.raises(FileError, match=r"holds (a file|a link, device or folder) that results do not have"):
        read_results(archive)

    assert sorted(tmp_path.parent.rglob("*")) == before
    assert not Path("/tmp/evil").exists()


def test_an_archive_with_a_file_twice_is_refused(archive):
    repacked(archive, added("scaler-results/run.json"))

    with pytest.raises(FileError, match=r"holds 'scaler-results/run\.json' twice"):
        read_results(archive)


def test_an_archive_that_unpacks_to_too_much_is_refused(archive, monkeypatch):
    monkeypatch.setattr(bundle_archive, "_LARGEST_ALL", 100_000)

    with pytest.raises(FileError, match=r"unpacks to more than results can be|too large"):
        read_results(archive)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_member_that_claims_to_be_huge_is_refused(archive, kind):
    member = tarfile.TarInfo("scaler-results/big")
    member.type, member.size = kind, 2**40
    archive.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + b"0" * 2**16))

    with pytest.raises(FileError, match=r"unpacks to more than results can be|no whole archive of results: too large"):
        read_results(archive)


def test_headers_nested_without_end_are_refused(archive):
    header = tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)
    member = tarfile.TarInfo("scaler-results/x")
    member.type, member.size = tarfile.XHDTYPE, 0
    archive.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) * 5000 + header))

    with pytest.raises(FileError, match="no whole archive of results"):
        read_results(archive)


CONTENTS = {"nothing": b"", "text": b"hello", "zeros": b"\0" * 10240}
NO_ARCHIVES = {name: content for name, content in CONTENTS.items() if name != "zeros"}
NO_ARCHIVES |= {f"gzip of {name}": gzip.compress(content) for name, content in CONTENTS.items()}


@pytest.mark.parametrize("content", NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_what_is_no_archive_of_results_is_refused(tmp_path, content):
    path = tmp_path / "results.tar.gz"
    path.write_bytes(content)

    with pytest.raises(FileError, match=r"results\.tar\.gz: no (whole )?archive of results"):
        read_results(path)


def test_the_bundle_itself_is_no_archive_of_results(plan, tmp_path):
    bundle = write_bundle(plan, tmp_path / "bundle.tar.gz").path

    with pytest.raises(FileError, match="holds a file that results do not have"):
        read_results(bundle)


def test_a_place_without_results_is_refused(tmp_path):
    with pytest.raises(FileError, match="no results of a bundle"):
        read_results(tmp_path)
    with pytest.raises(FileError, match="no such file"):
        read_results(tmp_path / "results.tar.gz")


def test_an_archive_that_differs_from_the_checksum_beside_it_is_refused(archive, packed, whole):
    beside = archive.with_name("results.tar.gz.sha256")
    shutil.copy(packed.with_name("results.tar.gz.sha256"), beside)
    assert read_results(archive) == whole
    repacked(archive, lambda _: None)

    with pytest.raises(FileError, match=r"differs from its checksum in results\.tar\.gz\.sha256; copy both"):
        read_results(archive)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("plan.json", None, "plan.json: missing"),
        ("run.json", None, "no results of a bundle"),
        ("SHA256SUMS", None, "SHA256SUMS: missing"),
        ("plan.json", "{}", "plan.json: differs from its checksum"),
        ("run.json", "{}", "run.json: differs from its checksum"),
    ],
)
def test_results_whose_header_is_damaged_are_refused(results, name, content, message):
    if content is None:
        (results / name).unlink()
    else:
        (results / name).write_text(content)

    with pytest.raises(FileError, match=message):
        read_results(results)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("plan.json", '"kind": "scaler-plan"', '"kind": "other"', "plan.json: kind"),
        ("plan.json", '"batch": 1', '"batch": 0', "plan.json: batch"),
        ("plan.json", '"dataset": "voc"', '"dataset": "vox"', "unknown data set 'vox'"),
        ("plan.json", '"device": "nano"', '"device": "none"', "unknown device 'none'"),
        ("plan.json", '"resolution": 160', '"resolution": 161', "resolution = 161"),
        ("plan.json", '"drop": 4', '"os": "system"', "unknown parameter of yolo-ret 'os'"),
        ("run.json", '"rounds": 1', '"rounds": 0', "run.json: rounds"),
        ("run.json", '"rounds": 1', '"rounds": 1, "more": 2', "run.json: more: unknown key"),
    ],
)
def test_results_with_a_senseless_header_are_refused_in_one_line(results, name, old, new, message):
    change(results / name, lambda text: text.replace(old, new, 1))

    with pytest.raises(UserError, match=message) as caught:
        read_results(results)

    assert len(str(caught.value).splitlines()) == 1
