"""From a bundle to its device and back: the engine is built, timed, judged and recorded, or one line says why not."""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from bundle_device import NANO_FILES, end_agent, python_3_6, tiny_plan, unpacked
from deploy_device import DeployDevice
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_result import sample_result
from toy_detector import CLASSES, PREPROCESSING, write_quarters, write_toy
from typer.testing import CliRunner

from scaler.cli import app
from scaler.data.data_file import read_splits
from scaler.deploy import bundle, bundle_import
from scaler.deploy.bundle import write_bundle
from scaler.deploy.bundle_import import Imported, ImportOrder, import_results
from scaler.errors import FileError, UsageError, UserError
from scaler.evaluation.evaluate import evaluate
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.observed import observed_path, read_observed
from scaler.profiling.bundle import write_bundle as write_profiling_bundle
from scaler.report.files import write_json
from scaler.runtimes.engine_facts import read_engine
from scaler.search.result_file import read_result

CANDIDATE = sample_result().devices[0].front[0]
PARAMETERS = dict(CANDIDATE.params)
PICTURES = 5
RAILS = "while :; do echo 'RAM 1/3964MB POM_5V_IN 4200/4100 POM_5V_GPU 900/900'; sleep 0.05; done"

fuzz = settings(
    derandomize=True,
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the one file of a test is overwritten
)


class Home(NamedTuple):
    """What lies at home; nothing changes it."""

    folder: Path
    model: Path
    data: Path
    result: Path
    bundle: Path

    @property
    def pictures(self) -> list[Path]:
        return [picture.path for picture in read_splits(self.data, ["val"]).splits["val"].pictures]

    def order(self, device: DeployDevice, /, **changes: Any) -> ImportOrder:
        return ImportOrder(**{"results": device.archive, "data": self.data, "record": False, **changes})


@pytest.fixture(scope="module", autouse=True)
def own_folder(tmp_path_factory) -> Iterator[Path]:
    """Nothing of the user's own is read or changed."""
    folder: Path = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SCALER_DATA_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def home(tmp_path_factory, own_folder) -> Home:
    folder = tmp_path_factory.mktemp("home")
    found = Home(
        folder,
        write_toy(folder / "best.onnx", PARAMETERS),
        write_quarters(folder / "data", PICTURES),
        folder / "pareto.json",
        folder / "bundle.tar.gz",
    )
    write_json(sample_result(), found.result)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bundle, "PICTURES_A_PART", 2)
        write_bundle(found.model, found.bundle, data=found.data, result=found.result, candidate=CANDIDATE.id)
    return found


@pytest.fixture(scope="module")
def memory(tmp_path_factory) -> Path:
    """What the fake trtexec answers, kept for all tests."""
    return tmp_path_factory.mktemp("memory")


@pytest.fixture(scope="module")
def make(home, memory) -> Callable[..., DeployDevice]:
    """Makes a Nano with the unpacked bundle."""

    def made(place: Path, version: str = "8.2.1", packed: Path | None = None) -> DeployDevice:
        device = DeployDevice(place, memory, version)
        device.unpack(packed or home.bundle)
        device.files(NANO_FILES)
        device.tool("nvpmodel", "echo 'NV Power Mode: MAXN'; echo 0")
        device.answers(home.model, home.pictures)
        return device

    return made


@pytest.fixture(scope="module")
def done(make, tmp_path_factory) -> DeployDevice:
    """A device that has done everything; nothing changes it."""
    device = make(tmp_path_factory.mktemp("done") / "device")
    outcome = device.deploy()
    assert (outcome.code, outcome.err) == (0, "")
    return device


@pytest.fixture(scope="module")
def plain(home, done) -> Imported:
    return import_results(home.order(done, result=home.result))


@pytest.fixture
def results(done, tmp_path) -> Path:
    """A copy of the unpacked results."""
    return unpacked(done.archive, tmp_path) / "scaler-results"


def summed(folder: Path) -> None:
    """Write checksums that fit, as somebody who changes files on purpose would."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def points(value: float | None) -> float:
    assert value is not None
    return 100 * value


# --- the whole way ---


def test_accuracy_is_that_of_the_same_file_here(home, plain):
    dataset = read_splits(home.data, ["val"]).splits["val"]
    here = evaluate(OnnxDetector(home.model, "cpu"), dataset)

    assert 30 < points(here.ap) < 100
    assert plain.measured.ap == pytest.approx(points(here.ap), abs=1e-6)
    assert plain.measured.ap50 == pytest.approx(points(here.ap50), abs=1e-6)
    assert plain.measured.dataset == "quarters"
    assert plain.judged.metrics.pictures == plain.judged.total == PICTURES


def test_times_are_those_that_trtexec_wrote(plain, done):
    files = (done.bundle / "results" / "networks" / "engine").glob("times-network-*.json")
    times = [row["computeMs"] for path in files for row in json.loads(path.read_text()) if row["startComputeMs"] >= 100]
    measured = plain.measured
    assert len(times) > 10
    assert measured.engine_ms == pytest.approx(np.median(times))
    assert measured.engine_p99_ms == pytest.approx(np.percentile(times, 99))
    assert measured.level_ms == pytest.approx(measured.engine_ms)  # the Nano has no measured table
    assert (measured.runtime, measured.runtime_version, measured.precision) == ("tensorrt", "8.2.1", "fp16")
    assert (measured.power_mode, measured.model) == ("MAXN", "best.onnx")
    assert measured.promise == pytest.approx(1000 / 30)
    assert measured.memory_mib == 266  # CPU 1, GPU 265 in the fake's message
    assert measured.frame_ms is None
    assert {name for layer in plain.measurement.layers for name in layer.nodes} >= {"conv"}


def test_the_engine_stays_on_the_device_with_what_is_to_be_known_of_it(home, done, plain):
    content, facts = read_engine(done.engine)
    assert content == done.engine.read_bytes()
    assert (facts.model, facts.tensorrt, facts.gpu) == ("best.onnx", "8.2.1", "NVIDIA Tegra X1")
    assert facts.model_sha256 == hashlib.sha256(home.model.read_bytes()).hexdigest()
    assert facts.engine_sha256 == plain.facts.engine_sha256
    assert json.loads(facts.metadata)["classes"] == list(CLASSES)


def test_measurements_are_recorded_beside_predictions(home, done, tmp_path, own_folder):
    result = Path(shutil.copy(home.result, tmp_path / "pareto.json"))

    imported = import_results(home.order(done, result=result, model=home.model, record=True))

    nano = read_result(result).devices[0]
    (kept,) = nano.front[0].verified
    assert asdict(kept) == asdict(imported.measured)
    assert [one.verified for one in nano.front[1:]] == [()] * (len(nano.front) - 1)
    assert points(imported.here.ap) == pytest.approx(kept.ap, abs=1e-6)
    path = observed_path("nano", "tensorrt", "fp16", "MAXN")
    (learned,) = read_observed(path)
    assert path.is_relative_to(own_folder)
    assert imported.recorded == (result, path)
    assert (learned.family, learned.classes, learned.how) == ("yolo-ret", 2, "import")
    assert learned.params == PARAMETERS
    assert learned.engine_ms == pytest.approx(kept.level_ms)
    assert (learned.reference_ms, 0 < learned.log_sd < 0.1) == (None, True)


def without_python(device: DeployDevice) -> DeployDevice:
    (device.bin / "od").symlink_to(shutil.which("od") or "/missing/od")
    device.python = None
    return device


@pytest.mark.slow
def test_without_python_the_same_comes_out_but_layers_and_power(home, make, tmp_path, plain):
    device = without_python(make(tmp_path / "device"))
    outcome = device.deploy()
    assert (outcome.code, outcome.err) == (0, "")
    assert "measuring without it" in outcome.out

    found = import_results(home.order(device, result=home.result))

    assert found.problems == ()
    assert (found.measured.ap, found.measured.ap50) == (plain.measured.ap, plain.measured.ap50)
    assert found.measured.engine_ms == pytest.approx(plain.measured.engine_ms, rel=0.02)
    assert (found.measured.power_mode, found.measured.memory_mib) == ("MAXN", plain.measured.memory_mib)
    assert "there are no layer times" in found.measured.warnings
    _, facts = read_engine(device.engine)
    assert facts.gpu == plain.facts.gpu
    assert facts.tensorrt == plain.facts.tensorrt


@pytest.mark.slow
def test_killed_without_python_it_goes_on_with_the_same_engine(home, make, tmp_path, plain):
    device = without_python(make(tmp_path / "device"))
    device.environment["FAKE_DIE_AT"] = "4"
    assert device.deploy().code in (-9, 137)
    assert device.finished == {"engine", "pictures-000"}
    assert device.deploy().code == 0
    assert device.builds["network"] == 1
    assert import_results(home.order(device)).measured.ap == plain.measured.ap
    device.engine.unlink()
    assert "beginning again" in device.deploy().out


@pytest.mark.slow
def test_failures_are_written_down_without_python_too(home, make, tmp_path):
    device = without_python(make(tmp_path / "device"))
    device.environment.update(FAKE_TRTEXEC_FAIL="parse", FAKE_TRTEXEC_ONLY="network.onnx")
    assert "engine: building the engine of network: trtexec failed (code 1)" in device.deploy().out
    assert device.inferred == []
    with pytest.raises(FileError, match=r"failed on the device: building the engine of network failed.*NonMaxSupp"):
        import_results(home.order(device))
    device.environment.clear()
    device.answers(home.model, home.pictures)
    assert device.deploy("--retry-failed").code == 0
    assert import_results(home.order(device)).problems == ()


@pytest.mark.slow
@pytest.mark.parametrize("version", ["8.0.1", "8.5.2", "8.6.2", "10.3.0"])
def test_other_versions_of_tensorrt_take_the_options(home, make, tmp_path, plain, version):
    device = make(tmp_path / "device", version)
    assert device.deploy().code == 0
    found = import_results(home.order(device))
    assert (found.problems, found.measured.runtime_version) == ((), version)
    assert found.measured.ap == pytest.approx(plain.measured.ap)
    assert not [call for call in device.inferred if "DataTransfers" in call]


@pytest.mark.slow
def test_tensorrt_11_copies_inputs_only_when_told(home, make, tmp_path):
    write_toy(tmp_path / "best.onnx", PARAMETERS, precision="fp16")
    packed = write_bundle(tmp_path / "best.onnx", tmp_path / "b.tar.gz", data=home.data, pictures=1, tensorrt="11.0")
    device = make(tmp_path / "device", "11.1.0", packed.path)
    outcome = device.deploy()
    assert (outcome.code, len(device.inferred)) == (0, 1)
    assert "--includeDataTransfers" in device.inferred[0]
    assert import_results(home.order(device)).measured.precision == "fp16"


# --- killed, failed, done again ---


def test_killed_at_a_picture_it_goes_on_with_the_same_engine(home, make, tmp_path, plain):
    device = make(tmp_path / "device")
    device.environment["FAKE_DIE_AT"] = "4"
    assert device.deploy().code in (-9, 137)
    assert device.finished == {"engine", "pictures-000"}
    engine = device.engine.read_bytes()

    assert device.deploy().code == 0

    assert device.builds["network"] == 1
    assert device.engine.read_bytes() == engine
    assert len(device.inferred) == 4 + 3  # the second part begins again
    found = import_results(home.order(device))
    assert (found.measured.ap, found.problems) == (plain.measured.ap, ())


@pytest.mark.slow
def test_killed_while_it_builds_it_begins_again(home, make, tmp_path):
    device = make(tmp_path / "device")
    device.wrapper = f"if [ $call = 4 ]; then {end_agent(device)}; exit 0; fi\n{device.wrapper}"
    assert device.deploy().code in (-9, 137)
    assert device.finished == set()
    assert device.deploy().code == 0
    assert import_results(home.order(device)).problems == ()


@pytest.mark.slow
@pytest.mark.parametrize("python", [True, False])
def test_an_engine_that_is_gone_begins_everything_again(make, tmp_path, python):
    device = make(tmp_path / "device")
    if not python:
        without_python(device)
    assert device.deploy().code == 0
    before = len(device.inferred)
    assert "TensorRT 8.2.1: 0 parts to do" in device.deploy().out
    assert len(device.inferred) == before
    device.engine.unlink()
    assert "beginning again" in device.deploy().out
    assert (device.builds["network"], len(device.inferred)) == (2, 2 * before)
    (device.bundle / "results" / "networks" / "engine" / "network.engine.json").write_text("{}")  # damaged
    assert "beginning again" in device.deploy().out
    assert (device.builds["network"], len(device.inferred)) == (3, 3 * before)


def test_a_network_that_tensorrt_refuses_says_why(home, make, tmp_path):
    device = make(tmp_path / "device")
    device.environment.update(FAKE_TRTEXEC_FAIL="parse", FAKE_TRTEXEC_ONLY="network.onnx")
    outcome = device.deploy()
    assert outcome.code == 0
    assert "engine failed: building the engine of network" in outcome.out
    assert device.inferred == []
    with pytest.raises(
        FileError, match=r"failed on the device: building the engine of network failed.*NonMaxSuppression"
    ):
        import_results(home.order(device))


@pytest.mark.slow
def test_a_picture_that_fails_leaves_its_part_out(home, make, tmp_path):
    device = make(tmp_path / "device")
    picture = read_splits(home.data, ["val"]).splits["val"].pictures[3].path
    lost = hashlib.sha256(input_of(picture)).hexdigest()
    (Path(device.environment["FAKE_OUTPUTS"]) / f"{lost}.json").unlink()
    assert "pictures-001 failed: picture 3.png: trtexec failed" in device.deploy().out

    found = import_results(home.order(device, result=home.result))

    assert found.problems == ("pictures-001: failed on the device: picture 3.png: trtexec failed (code 1)",)
    assert found.judged.metrics.pictures == 3
    assert "accuracy on 3 of 5 pictures of val" in found.measured.warnings


def input_of(picture: Path) -> bytes:
    from scaler.data.images import read_image
    from scaler.data.preprocessing import letterbox, normalised

    fitted, _ = letterbox(read_image(picture), PREPROCESSING)
    return normalised(fitted[None], PREPROCESSING).astype("<f4").tobytes()


@pytest.mark.slow
def test_what_there_is_can_be_packed_at_any_time(home, make, tmp_path):
    device = make(tmp_path / "device")
    device.environment["FAKE_DIE_AT"] = "4"
    device.deploy()
    before = len(device.inferred)
    assert "2 parts done, 0 failed, 2 to do" in device.deploy("--pack").out
    assert len(device.inferred) == before
    found = import_results(home.order(device))
    assert found.problems == ("pictures-001: not done on the device", "pictures-002: not done on the device")
    assert found.judged.metrics.pictures == 2


@pytest.mark.slow
def test_it_runs_on_a_real_python_3_6(home, make, tmp_path, plain):
    old = python_3_6()
    if not old:
        pytest.skip("no Python 3.6: name one with SCALER_PYTHON36")
    device = make(tmp_path / "device")
    device.python = old
    device.tool("tegrastats", RAILS)
    device.environment["FAKE_DIE_AT"] = "4"
    assert device.deploy().code in (-9, 137)
    outcome = device.deploy()
    assert (outcome.code, outcome.err) == (0, "")
    assert import_results(home.order(device)).measured.ap == plain.measured.ap


# --- the level of the table, placement, power ---


def table_model(reference: Mapping[str, Any]) -> MeasuredModel:
    """What stands beside the rows of a measured table whose reference network took 10 ms."""
    return MeasuredModel(
        hypers={},
        factor=1.0,
        constant_ms=0.0,
        residual_log_sd=0.05,
        kernel_share=1.0,
        reference=dict(reference),
        reference_ms=10.0,
    )


def test_the_time_is_brought_to_the_speed_of_the_devices_table(home, done, plain, monkeypatch):
    known = table_model(bundle.STANDARD)
    estimator = SimpleNamespace(info=SimpleNamespace(model=known))
    monkeypatch.setattr(bundle_import, "load_uncorrected", lambda *_, **__: estimator)
    found = import_results(home.order(done, result=home.result))
    (once,) = found.measurement.rounds
    assert found.measured.engine_ms == plain.measured.engine_ms
    assert found.measured.level_ms == pytest.approx(10 * once.ratio)
    assert found.observed.engine_ms == found.measured.level_ms
    assert found.observed.reference_ms == 10.0

    other = replace(known, reference={**bundle.STANDARD, "resolution": 256})
    estimator.info.model = other  # the bundle's reference is not that of the table
    assert import_results(home.order(done, result=home.result)).observed.reference_ms is None


def test_the_reference_is_that_of_the_devices_table(home, tmp_path, monkeypatch):
    reference = {**bundle.STANDARD, "resolution": 160}
    known = table_model(reference)
    estimator = SimpleNamespace(info=SimpleNamespace(model=known))
    monkeypatch.setattr(bundle, "load_estimator", lambda *_, **__: estimator)
    write_bundle(home.model, tmp_path / "b.tar.gz", result=home.result, candidate=CANDIDATE.id)
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        plan = json.load(archive.extractfile("scaler-bundle/plan.json"))
        model = onnx.load_model_from_string(archive.extractfile("scaler-bundle/models/reference.onnx").read())
    assert plan["reference"] == reference
    assert [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 160, 160]


def test_the_network_goes_to_the_dla_and_what_falls_back_is_counted(home, make, tmp_path):
    packed = write_bundle(home.model, tmp_path / "b.tar.gz", data=home.data, pictures=1, dla=0)
    device = make(tmp_path / "device", packed=packed.path)
    device.environment["FAKE_TRTEXEC_DLA"] = "1"
    assert device.deploy().code == 0

    placed = {any(option.startswith("--useDLACore") for option in call): call for call in device.calls}
    assert set(placed) == {True, False}
    for call in device.calls:
        on_dla = "--useDLACore=0" in call
        assert on_dla == ("--allowGPUFallback" in call)
        assert on_dla == (not any("reference" in option for option in call if "=" in option))
    assert all("--useDLACore=0" in call for call in device.inferred)
    facts = import_results(home.order(device, result=home.result, candidate=CANDIDATE.id)).facts
    assert (facts.dla, facts.dla_layers) == (0, 1)
    assert facts.gpu_layers == len(facts.fallback)
    assert set(facts.fallback) == {"flatten", "turn", "mean", "shift"}


@pytest.mark.slow
def test_a_device_without_that_dla_says_so(home, make, tmp_path):
    packed = write_bundle(home.model, tmp_path / "b.tar.gz", dla=1)
    device = make(tmp_path / "device", packed=packed.path)
    assert device.deploy().code == 0
    with pytest.raises(FileError, match="Cannot create DLA engine, 1 not available"):
        import_results(home.order(device, data=None))


@pytest.mark.slow
def test_power_is_read_beside_a_run_of_its_own(home, make, tmp_path):
    device = make(tmp_path / "device")
    device.tool("tegrastats", RAILS)
    device.wrapper = f'case "$*" in */times-power.json*) sleep 1.2 ;; esac\n{device.wrapper}'
    assert device.deploy("--power-seconds", "2").code == 0
    found = import_results(home.order(device))
    energy = found.measurement.energy
    assert (energy.source, energy.scope, energy.idle_w) == ("tegrastats", "module", 4.2)
    assert energy.frame_ms == pytest.approx(found.measured.engine_ms, rel=0.02)
    assert found.measured.energy_mj == pytest.approx(4.2 * energy.frame_ms)


# --- what is refused at home ---


@pytest.mark.slow
def test_results_of_another_kind_of_bundle_are_refused(home, done, tmp_path, memory):
    plan = tiny_plan(tmp_path, count=1)
    device = DeployDevice(tmp_path / "other", memory)
    device.unpack(write_profiling_bundle(plan, tmp_path / "profiling.tar.gz").path)
    assert device.measure().code == 0
    with pytest.raises(FileError, match=r"of another kind of bundle.*scaler profile import"):
        import_results(home.order(device))


@fuzz
@given(place=st.integers(min_value=0, max_value=10**9), cut=st.booleans(), data=st.data())
def test_a_damaged_archive_is_refused_in_one_line(home, done, tmp_path_factory, place, cut, data):
    content = bytearray(done.archive.read_bytes())
    place %= len(content)
    if cut:
        content = content[:place]
    else:
        content[place] ^= data.draw(st.integers(min_value=1, max_value=255))
    archive = tmp_path_factory.mktemp("damaged") / "results.tar.gz"
    archive.write_bytes(content)
    try:
        found = import_results(home.order(done, results=archive, data=None))
    except UserError as error:
        assert "\n" not in str(error)
    else:  # a byte of the header of gzip that says nothing of the content
        assert found.measured.runtime_version == "8.2.1"


def test_outputs_of_another_engine_are_left_out(home, results):
    part = results / "networks" / "pictures-001"
    (part / "engine.txt").write_text("0" * 64 + "\n")
    summed(part)
    found = import_results(ImportOrder(results=results, data=home.data, record=False))
    assert found.problems == ("pictures-001: engine.txt: of another engine",)
    assert found.judged.metrics.pictures == 3


@pytest.mark.parametrize("part", ["engine", "pictures-002"])
def test_a_changed_file_is_told_from_its_checksum(home, results, part):
    (path,) = (results / "networks" / part).glob("commands.txt")
    path.write_text("something else")
    order = ImportOrder(results=results, data=home.data, record=False)
    if part == "engine":
        with pytest.raises(FileError, match=r"commands\.txt: differs from its checksum"):
            import_results(order)
    else:
        assert import_results(order).problems == ("pictures-002: commands.txt: differs from its checksum",)


def test_an_engine_of_another_network_than_was_measured_is_refused(results):
    path = results / "networks" / "engine" / "result.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "model_sha256": "0" * 64}))
    summed(path.parent)
    with pytest.raises(FileError, match="the engine is of another network than was measured"):
        import_results(ImportOrder(results=results, record=False))


def test_no_outputs_at_all_are_told(home, results):
    for path in (results / "networks").glob("pictures-*"):
        shutil.rmtree(path)
    with pytest.raises(UserError, match="no outputs of pictures came back: pictures-000: not done on the device"):
        import_results(ImportOrder(results=results, data=home.data, record=False))


def test_other_pictures_than_the_devices_are_refused(home, done, tmp_path):
    other = write_quarters(tmp_path / "other", PICTURES, seed=1)
    with pytest.raises(FileError, match=r"the picture 0\.png of the bundle is another one"):
        import_results(home.order(done, data=other))
    fewer = write_quarters(tmp_path / "fewer", PICTURES - 1)
    with pytest.raises(FileError, match=r"the picture 4\.png of the bundle is not in the split"):
        import_results(home.order(done, data=fewer))


def test_another_model_to_compare_with_is_refused(home, done, tmp_path):
    other = write_toy(tmp_path / "best.onnx", {**PARAMETERS, "drop": 2})
    with pytest.raises(FileError, match="is not the file that was deployed"):
        import_results(home.order(done, model=other))
    with pytest.raises(UsageError, match="give --data too"):
        import_results(home.order(done, model=home.model, data=None))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "tx2"}, "measured on nano, asked for tx2"),
        ({"candidate": "00000000"}, "no candidate '00000000' for nano"),
        ({"candidate": sample_result().devices[0].front[1].id}, "is another network than"),
    ],
)
def test_results_are_not_recorded_for_something_else(home, done, changes, said):
    with pytest.raises(UserError, match=said):
        import_results(home.order(done, result=home.result, **changes))


def test_a_candidate_of_a_search_of_several_precisions_is_its_network(home, done, tmp_path):
    searched = sample_result()
    nano = searched.devices[0]
    one = replace(CANDIDATE, precision="fp16", params={**CANDIDATE.params, "precision": "fp16"})
    found = replace(searched, devices=(replace(nano, front=(one, *nano.front[1:])), *searched.devices[1:]))
    write_json(found, tmp_path / "pareto.json")
    imported = import_results(home.order(done, result=tmp_path / "pareto.json", data=None))
    assert imported.place.candidate == one
    assert (imported.observed.network, imported.observed.params) == (CANDIDATE.id, PARAMETERS)


def test_results_of_another_gpu_are_refused(home, results):
    part = results / "networks" / "engine"
    said = (part / "said.txt").read_text()
    (part / "said.txt").write_text(said.replace("Compute Capability: 5.3", "Compute Capability: 8.6"))
    summed(part)
    with pytest.raises(UsageError, match=r"capability 8\.6; that of nano has 5\.3"):
        import_results(ImportOrder(results=results, result=home.result, record=False))


@pytest.mark.slow
def test_another_power_mode_is_refused(home, make, tmp_path):
    device = make(tmp_path / "device")
    device.tool("nvpmodel", "echo 'NV Power Mode: 5W'; echo 1")
    assert device.deploy().code == 0
    with pytest.raises(UsageError, match=r"measured in power mode 5W, .*pareto\.json is for MAXN"):
        import_results(home.order(device, result=home.result))


# --- the command ---


def test_the_command_shows_measured_beside_predicted(home, done):
    arguments = ["import", str(done.archive), "--result", str(home.result), "--data", str(home.data), "--no-record"]
    shown = CliRunner().invoke(app, [*arguments, "--model", str(home.model)])
    assert shown.exit_code == 0
    text = " ".join(shown.stdout.split())
    assert "best.onnx on NVIDIA Tegra X1: TensorRT 8.2.1, fp16, mode MAXN" in text
    assert "7.40 ms 6.99 to 7.81" in text  # predicted
    assert "the engine loses +0.00 points" in text
    assert "the promise of 30 FPS, 33.3 ms a frame, holds for the engine alone" in text
    told = json.loads(CliRunner().invoke(app, [*arguments[:4], "--no-record", "--json"]).stdout)
    assert (told["device"], told["candidate"], told["measured"]["holds"]) == ("nano", CANDIDATE.id, True)
    assert told["engine"]["tensorrt"] == "8.2.1"


def test_the_command_says_what_would_tell_more(done):
    shown = " ".join(CliRunner().invoke(app, ["import", str(done.archive)]).stdout.split())
    assert "the bundle held 5 pictures: --data data.toml tells the accuracy" in shown
    assert "--result pareto.json puts it beside the prediction" in shown


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        import_results(ImportOrder(results=tmp_path / "results.tar.gz"))
