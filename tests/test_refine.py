"""Refining a search on a made-up computer that is not what its table says: promises break before and hold after."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from synthetic_device import (
    NETWORK_MS,
    ONNX_RUNTIME,
    SPACE,
    TINY_EFFORT,
    TINY_SPACE,
    graphs_of,
    host_table,
    kernel_ms,
    make_plan,
    measured,
)

from scaler.cli import run
from scaler.errors import UnsupportedError, UsageError
from scaler.graph.graph import Graph
from scaler.latency.corrected import CorrectedEstimator
from scaler.latency.estimator import load_estimator, load_uncorrected
from scaler.latency.fusion import graph_kernels
from scaler.latency.observed import observed_path, read_observed
from scaler.latency.table import write_table
from scaler.models.detectors.families import build
from scaler.profiling import refine as refining
from scaler.profiling import verify
from scaler.profiling.machine import Machine
from scaler.profiling.refine import PASSES, REPEAT_LOG_SD, Refined, Watch, refine, repeat_log_sd, summary
from scaler.profiling.refine_choice import informative, movement
from scaler.runtimes.fake import FakeRuntime
from scaler.runtimes.protocol import LayerTime
from scaler.search.result import Candidate, SearchResult
from scaler.search.run import Search, SearchOptions, search
from scaler.space_file import read_space

FPS, TINY_FPS = 50.0, 360.0
NOISE = 0.01


def true_ms(graph: Graph) -> float:
    """What the computer really takes: depthwise kernels are slower than when the table was made, networks differ."""
    kernels = graph_kernels(graph, ONNX_RUNTIME)
    ms = sum(kernel_ms(kernel) * (1.25 if kernel.op == "depthwise" else 1.02) for kernel in kernels)
    digest = blake2b(repr(graph.placements).encode(), digest_size=8).digest()
    own = np.random.default_rng(int.from_bytes(digest)).standard_normal()
    return float((NETWORK_MS + ms) * np.exp(0.015 * own))


class Computer(FakeRuntime):
    """The computer; its model files hold their times."""

    def __init__(self, **options) -> None:
        super().__init__(lambda path: (LayerTime("all", float(path.read_text()), ("all",)),), noise=NOISE, **options)


def as_text(graph: Graph, plan, path: Path) -> None:
    path.write_text(str(true_ms(graph)))


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    table = host_table(folder, 10)
    model = table.info.model
    reference_ms = true_ms(verify.reference_graph(model.reference))  # what it takes is the speed of the table
    info = replace(table.info, model=replace(model, reference_ms=reference_ms))
    write_table(replace(table, info=info), folder / "latency_tables")
    (folder / "small.toml").write_text(SPACE)
    (folder / "tiny.toml").write_text(TINY_SPACE)
    return folder


@pytest.fixture
def home(tables, tmp_path, monkeypatch) -> Path:
    """A user's folder with the table, no network observed yet, and the computer in place of ONNX Runtime."""
    copy = tmp_path / "data"
    (copy / "latency_tables" / "host").mkdir(parents=True)
    for path in (tables / "latency_tables" / "host").iterdir():
        (copy / "latency_tables" / "host" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("SCALER_DATA_DIR", str(copy))
    monkeypatch.setattr(verify, "write_network", as_text)
    return copy


def question(tables: Path, space: str = "tiny", fps: float = TINY_FPS) -> SearchOptions:
    return SearchOptions(devices=("host",), target_fps=fps, space=str(tables / f"{space}.toml"), trials=60)


def refined(asked: SearchOptions, networks: int = 2, runtime: FakeRuntime | None = None, **options) -> Refined:
    machine = Machine(runtime or Computer(), TINY_EFFORT, ())
    return refine(asked, networks, machine=machine, settle_seconds=0.0, **options)


def truth_of(result: SearchResult, candidate: Candidate) -> float:
    return true_ms(build(read_space(result.space).configure(candidate.params, 20)))


def broken(result: SearchResult) -> list[str]:
    """Candidates of the front that are too slow in truth."""
    device = result.devices[0]
    return [one.id for one in device.front if truth_of(result, one) > 1000 / device.target_fps]


@pytest.mark.slow
def test_after_refinement_every_promise_holds_and_before_some_do_not(home, tables):
    asked = question(tables, "small", FPS)
    before = search(asked).result
    assert broken(before)
    found = refined(asked, 6)
    after = found.found.result
    device = after.devices[0]
    assert found.settled
    assert found.unsure == 0
    assert not found.failures
    assert len(device.front) >= 4
    assert broken(after) == []
    held = [one.ap.mean for one in before.devices[0].front if one.id not in broken(before)]
    assert device.front[-1].ap.mean > max(held) - 1  # it does not hold because little is promised
    assert found.rounds[-1].error < found.rounds[0].error

    estimator = load_estimator("host")
    assert isinstance(estimator, CorrectedEstimator)
    known = {row.network for row in estimator.observed}
    assert known >= {name for done in found.rounds for name in done.measured}
    assert device.pick in known
    assert all(one.id in known or one.reach_probability >= 0.99 for one in device.front)
    measured = {one.id: one.verified for one in device.front if one.verified}
    assert device.pick in measured
    assert all(row.holds for rows in measured.values() for row in rows)
    card = device.latency_model
    assert f"corrected by {len(known)} measured networks" in card.name
    assert any("uncorrected" in text for text in card.errors.values())


def test_promises_of_a_refined_search_hold_and_it_is_found_settled_when_it_is_asked_again(home, tables):
    assert broken(search(question(tables)).result)
    first = refined(question(tables))
    assert first.settled
    assert first.found.result.devices[0].front
    assert broken(first.found.result) == []
    again = refined(question(tables))
    assert again.settled
    assert sum(len(done.measured) for done in again.rounds) <= 6
    assert again.found.result.devices[0].pick == first.found.result.devices[0].pick


def test_it_stops_when_the_rounds_are_used_up_and_says_what_is_left(home, tables):
    told: list[str] = []
    found = refined(question(tables, fps=330.0), 1, rounds=1, watch=Watch(say=told.append))
    assert not found.settled
    assert found.unsure > 0
    assert len(found.rounds) == 1
    assert len(read_observed(path_of_host())) == 1
    assert len(told) == 1
    assert told[0].startswith("round 1: ")
    assert "not settled" in summary(found)


def path_of_host() -> Path:
    return observed_path("host", "onnxruntime", "fp32", "1-thread")


def interrupting(after: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, word: str) -> None:
        if done == after:
            raise KeyboardInterrupt

    return progress


class Measuring:
    """A context that hands out a progress."""

    def __init__(self, progress) -> None:
        self.progress = progress

    def __enter__(self):
        return self.progress

    def __exit__(self, *_) -> None:
        return None


def test_an_interruption_keeps_what_was_measured(home, tables):
    watch = Watch(measuring=lambda _: Measuring(interrupting(2)))
    found = refined(question(tables), watch=watch)
    assert found.found.interrupted
    assert not found.settled
    assert found.found.result.devices[0].front
    kept = {row.network for row in read_observed(path_of_host())}
    assert len(kept) == 2
    going_on = refined(question(tables))
    assert not kept & {name for done in going_on.rounds for name in done.measured}


def test_what_cannot_be_measured_is_told_and_not_tried_again(home, tables):
    runtime = Computer(failures={"network.onnx": "crash"})
    found = refined(question(tables), 2, runtime)
    tried = [name for done in found.rounds for name in done.measured]
    assert len(tried) == len(set(tried)) == len(found.failures) >= 2
    assert not found.settled
    assert found.unsure
    assert "crashed" in found.failures[0]
    assert math.isnan(found.rounds[0].error)
    assert not path_of_host().exists()
    assert found.failures[0] in summary(found)


def test_what_is_recorded_is_at_the_speed_of_the_table(home, tables):
    slow = Computer(slowdown=lambda _: 1.5)
    refined(question(tables), 3, slow, rounds=1)
    space, level = read_space(str(tables / "tiny.toml")), load_uncorrected("host").model.reference_ms
    for row in read_observed(path_of_host()):
        assert row.how == "refine"
        assert (row.family, row.classes) == ("yolo-ret", 20)
        assert row.reference_ms == level
        assert row.engine_ms == pytest.approx(true_ms(build(space.configure(row.params, 20))), rel=0.03)
        assert REPEAT_LOG_SD / math.sqrt(PASSES) <= row.log_sd < REPEAT_LOG_SD


@pytest.mark.parametrize(
    ("devices", "networks", "said"), [(("host", "nano"), 4, "which is one"), (("host",), 0, "1 or more")]
)
def test_nonsense_is_refused(tables, devices, networks, said):
    with pytest.raises(UsageError, match=said):
        refine(replace(question(tables), devices=devices), networks)


def test_another_computer_is_refused_before_the_search_and_the_way_there_is_named(tables, capsys):
    with pytest.raises(UnsupportedError) as caught:
        refine(replace(question(tables), devices=("nano",)), 4)
    message = str(caught.value)
    assert "no Jetson Nano" in message
    assert "scaler export --bundle" in message
    assert "scaler import" in message
    assert "\n" not in message


def test_rounds_without_refinement_are_refused(home, capsys):
    assert run(["search", "--device", "host", "--refine-rounds", "3"]) == 2
    assert "--refine 8" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_refines_and_says_how_it_went(home, tables, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(refining, "machine_for", lambda *_: Machine(Computer(), TINY_EFFORT, ()))
    monkeypatch.setattr(refining, "SETTLE_SECONDS", 0.0)
    out = tmp_path / "out"
    space = str(tables / "tiny.toml")
    asked = ["search", "--device", "host", "--fps", str(TINY_FPS), "--space", space, "--out", str(out)]
    assert run([*asked, "--refine", "3", "--refine-rounds", "1"]) == 0
    said = capsys.readouterr().err
    assert "round 1: " in said
    assert "refined in 1 rounds, 3 networks measured" in said
    saved = json.loads((out / "pareto.json").read_text())
    assert any(one["verified"] for one in saved["devices"][0]["front"])
    assert "corrected by 3 measured networks" in saved["devices"][0]["latency_model"]["name"]


def candidate(base: Candidate, name: str, ms: float, ap: float, hold: float | None = 1.0) -> Candidate:
    interval = replace(base.ap, mean=ap)
    return replace(base, id=name, ap=interval, fps=replace(base.fps, mean=1000 / ms), reach_probability=hold)


@pytest.fixture(scope="module")
def base() -> SearchResult:
    return search(SearchOptions(devices=("nano",), target_fps=30, trials=2)).result


def a_search(base: SearchResult, front, contenders=(), *, pick: str | None = None, knee: str | None = None) -> Search:
    device = replace(base.devices[0], front=tuple(front), pick=pick, knee=knee, nearest=None)
    return Search(replace(base, devices=(device,)), False, tuple(contenders))


def names(candidates) -> list[str]:
    return [one.id for one in candidates]


def test_the_pick_comes_first_then_what_may_break_the_knee_what_may_yet_hold_a_spread(base):
    like = base.devices[0].nearest or base.devices[0].front[0]
    rows = [("a", 5, 40, 1.0), ("b", 5.2, 41, 1.0), ("c", 12, 50, 1.0), ("d", 25, 58, 0.96), ("e", 28, 60, 0.97)]
    front = [candidate(like, *row) for row in rows]
    better, worse, hopeless = (
        candidate(like, "x", 31, 62, 0.8), candidate(like, "y", 31, 60.1, 0.8), candidate(like, "z", 33, 65, 0.3)
    )  # fmt: skip
    found = a_search(base, front, [*front, worse, better, hopeless], pick="e", knee="c")
    chosen, needed = informative(found, set(), 9)
    assert names(chosen)[:4] == ["e", "d", "c", "x"]
    assert needed == 2
    assert set(names(chosen)) & {"a", "b"} in ({"a"}, {"b"})  # one of two that are alike is enough
    chosen, needed = informative(found, {"e", "c", "x", "d"}, 2)
    assert (names(chosen), needed) == (["a"], 0)


def test_without_a_target_it_measures_the_knee_and_a_spread(base):
    like = base.devices[0].nearest or base.devices[0].front[0]
    front = [candidate(like, str(place), 1.3**place, 30 + place, None) for place in range(10)]
    chosen, needed = informative(a_search(base, front, knee="4"), set(), 4)
    assert needed == 0
    assert names(chosen)[0] == "4"
    assert {"0", "9"} <= set(names(chosen))


def test_an_empty_front_has_the_nearest_measured_once(base):
    like = base.devices[0].nearest or base.devices[0].front[0]
    found = a_search(base, [])
    found = replace(found, result=replace(base, devices=(replace(found.result.devices[0], nearest=like),)))
    assert names(informative(found, set(), 3)[0]) == [like.id]
    assert informative(found, {like.id}, 3) == ([], 0)


def test_movement_is_of_what_is_on_both_fronts(base):
    like = base.devices[0].nearest or base.devices[0].front[0]
    before = [candidate(like, "a", 10, 40), candidate(like, "b", 20, 50)]
    after = [candidate(like, "a", 11, 40), candidate(like, "c", 12, 44), candidate(like, "b", 20, 50)]
    assert movement(before, before) == 0
    assert movement(before, after) == pytest.approx(math.log(1.1) / 2)
    assert movement(before, after[1:2]) == math.inf
    assert movement((), after) == math.inf


def test_a_measurement_scatters_by_its_rounds_and_by_its_session(tmp_path):
    plan = make_plan(tmp_path, 1, space=TINY_SPACE)
    (calm,) = measured(plan, graphs_of(plan))
    (noisy,) = measured(plan, graphs_of(plan), noise=0.2)
    assert repeat_log_sd(calm, 5.0) == pytest.approx(REPEAT_LOG_SD)
    assert repeat_log_sd(noisy, 5.0) > 1.2 * REPEAT_LOG_SD
