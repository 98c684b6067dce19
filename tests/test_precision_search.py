"""Precision as a dimension of a search: candidates are networks at a precision, ids, losses, reports, and training."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import optuna
import pytest
from rich.console import Console
from sample_runs import sample_run
from toy_study import TINY

from scaler.cli import run
from scaler.errors import UnsupportedError, UsageError, UserError
from scaler.latency.estimator import load_estimator
from scaler.report.console import print_result
from scaler.report.files import write_csv, write_json
from scaler.report.view import page_view
from scaler.search.candidates import named_candidates
from scaler.search.evaluation import UNMEASURED, Evaluator
from scaler.search.front import pareto_front
from scaler.search.precision import PRECISION, Engines, as_network, load_engines, with_precisions
from scaler.search.predictors import load_predictor
from scaler.search.result import Interval, SearchResult
from scaler.search.result_file import read_result
from scaler.search.run import Search, SearchOptions, default_folder, search
from scaler.search.trained import with_run
from scaler.space import Space, key
from scaler.space_file import read_space
from scaler.training.runs.candidates import of_search, one, picks
from scaler.training.runs.winners import winners

BOTH = SearchOptions(devices=("orin-nx",), precision="fp16,int8", trials=100, target_fps=60)


@pytest.fixture(scope="module", autouse=True)
def estimators_are_loaded_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scaler.search.precision.load_estimator", cache(load_estimator))
        yield


@pytest.fixture(scope="module")
def found() -> SearchResult:
    return search(BOTH).result


@pytest.fixture
def saved(found: SearchResult, tmp_path: Path) -> Path:
    write_json(found, tmp_path / "pareto.json")
    return tmp_path / "pareto.json"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(TINY)
    yield path


def trials_of(path: Path, study: str) -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.load_study(study_name=study.split("'")[1], storage=backend).trials


# the space


def test_a_space_with_precisions_has_every_network_once_at_each(tiny: Path) -> None:
    networks = read_space(tiny)
    space = with_precisions(networks, ("fp16", "int8"), "fp16")
    candidates = list(space.candidates())
    assert len(candidates) == space.size == 2 * networks.size
    assert Counter(params[PRECISION] for params in candidates) == {"fp16": networks.size, "int8": networks.size}
    ids = {space.candidate_id(params) for params in candidates}
    plain = {networks.candidate_id(params) for params in networks.candidates()}
    assert ids == plain | {f"{identity}-int8" for identity in plain}
    assert space.digest != networks.digest
    assert (space.name, space.families) == (networks.name, networks.families)


def test_parameters_without_a_precision_are_of_the_usual_one(tiny: Path) -> None:
    networks = read_space(tiny)
    space = with_precisions(networks, ("int8", "fp16"), "fp16")
    params = next(networks.candidates())
    assert space.canonical(params) == {**params, PRECISION: "fp16"}
    assert space.contains({**params, PRECISION: "int8"})
    assert not space.contains({**params, PRECISION: "fp32"})
    assert space.find(space.configure({**params, PRECISION: "int8"}, classes=20)) == {**params, PRECISION: "fp16"}
    with pytest.raises(UsageError, match=r"unknown precision 'fp23'.*known: int8, fp16"):
        space.canonical({**params, PRECISION: "fp23"})


def test_the_same_network_at_another_precision_is_one_step_away(tiny: Path) -> None:
    space = with_precisions(read_space(tiny), ("fp16", "int8"), "fp16")
    params = next(space.candidates())
    assert key({**params, PRECISION: "int8"}) in {key(other) for other in space.neighbours(params)}


def test_a_joined_space_keeps_its_members() -> None:
    networks = read_space("all")
    space = with_precisions(networks, ("fp16", "int8"), "fp16")
    params = {**next(networks.candidates()), PRECISION: "int8"}
    assert space.family_of(params) == networks.family_of(params)
    assert space.canonical(params) == params
    assert space.candidate_id(params).endswith("-int8")


# the search


def test_one_front_holds_candidates_of_both_precisions(found: SearchResult) -> None:
    device = found.devices[0]
    assert Counter(candidate.precision for candidate in device.front).keys() == {"fp16", "int8"}
    assert device.title == "Jetson Orin NX (MAXN, TensorRT FP16, INT8)"
    assert device.precision == "fp16"
    assert all(candidate.id.endswith("-int8") == (candidate.precision == "int8") for candidate in device.front)
    assert all((candidate.ap_loss is None) == (candidate.precision == "fp16") for candidate in device.front)
    assert all(PRECISION not in candidate.params for candidate in device.front)
    gains = [candidate.ap.mean for candidate in device.front]
    assert gains == sorted(gains), "one front over both"
    assert "Latencies in INT8 are estimated, in FP16 calibrated" in device.message
    assert {candidate.provenance for candidate in device.front if candidate.precision == "int8"} == {"estimated"}
    assert found.space_size == 2 * read_space("yolo-ret").size
    assert any("what INT8 costs is predicted" in note for note in found.accuracy_model.notes)
    assert {name.partition(":")[0] for name in device.latency_model.errors} == {"FP16", "INT8"}


def test_the_accuracy_of_int8_is_that_of_the_network_less_the_predicted_loss(found: SearchResult) -> None:
    accuracy, space = load_predictor(read_space("yolo-ret")), read_space("yolo-ret")
    for candidate in found.devices[0].front:
        alone = accuracy.predict(space.configure(candidate.params, classes=20))
        if candidate.ap_loss is None:
            assert (candidate.ap.mean, candidate.ap.low) == (alone.mean, alone.low), "16 bits lose nothing"
            continue
        loss = candidate.ap_loss
        assert candidate.ap.mean == pytest.approx(max(alone.mean - loss.mean, 0))
        if candidate.ap.low > 0:
            half = math.hypot(alone.mean - alone.low, loss.high - loss.mean)
            assert candidate.ap.mean - candidate.ap.low == pytest.approx(half)
        assert candidate.ap.high - candidate.ap.low > alone.high - alone.low or alone.low == 0


def test_the_front_over_both_is_that_of_the_two_searches_together(tiny: Path) -> None:
    def front(precision: str) -> list[tuple[str, float, float]]:
        asked = SearchOptions(devices=("orin-nx",), precision=precision, space=str(tiny), sampler="exhaustive")
        device = search(asked).result.devices[0]
        return [(one.network, 1000 / one.fps.mean, one.ap.mean) for one in device.front]

    apart = front("fp16") + front("int8")
    together = [apart[place] for place in pareto_front([row[2] for row in apart], [row[1] for row in apart])]
    both = front("fp16,int8")
    assert [row[0] for row in both] == [row[0] for row in together]
    assert [row[1:] for row in both] == [pytest.approx(row[1:]) for row in together]


@pytest.mark.parametrize(
    "sampler", ["auto", "random", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nsga2", "tpe"))]
)
def test_every_sampler_searches_precisions(tiny: Path, sampler: str) -> None:
    asked = SearchOptions(devices=("orin-nx",), precision="fp16,int8", space=str(tiny), sampler=sampler, trials=30)
    result = search(asked).result
    assert result.distinct == 30
    assert {candidate.precision for candidate in result.devices[0].front} == {"fp16", "int8"}


def test_a_search_of_precisions_goes_on_where_it_stopped(tiny: Path, tmp_path: Path) -> None:
    asked = SearchOptions(devices=("orin-nx",), precision="fp16,int8", space=str(tiny), storage=tmp_path / "journal")
    search(replace(asked, trials=15))
    resumed = search(replace(asked, trials=30)).result
    assert resumed.devices[0].front == search(replace(asked, storage=None, trials=30)).result.devices[0].front
    trials = trials_of(tmp_path / "journal", resumed.study)
    assert len(trials) == 30
    assert {trial.params["precision"] for trial in trials} == {"fp16", "int8"}
    assert {trial.user_attrs["id"][8:] for trial in trials} == {"", "-int8"}


def test_the_study_of_one_precision_is_what_it_was(tmp_path: Path) -> None:
    result = search(SearchOptions(devices=("nano",), target_fps=30, storage=tmp_path / "journal", trials=20)).result
    backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal")))
    study = optuna.load_study(study_name=result.study.split("'")[1], storage=backend)
    about = {key: value for key, value in study.user_attrs["scaler"].items() if key not in ("digest", "latency")}
    assert about == {
        "schema_version": 1, "space": "yolo-ret", "device": "nano", "power_mode": "MAXN", "precision": "fp16",
        "dataset": "voc", "target_fps": "30", "overhead_ms": "published", "limits": "none",
    }  # fmt: skip
    assert study.metric_names == ["AP", "frame_ms"]
    assert all("precision" not in trial.params for trial in study.trials)
    assert all(set(trial.user_attrs) == {"id", "params", "fps"} for trial in study.trials)
    for candidate in result.devices[0].front:
        assert (candidate.precision, candidate.ap_loss, candidate.network) == ("", None, candidate.id)


def test_a_named_study_of_other_precisions_is_refused(tiny: Path, tmp_path: Path) -> None:
    asked = SearchOptions(devices=("orin-nx",), space=str(tiny), trials=5, study="mine", storage=tmp_path / "journal")
    search(replace(asked, precision="fp16"))
    with pytest.raises(UserError, match="another version of the search space"):
        search(replace(asked, precision="fp16,int8"))
    with pytest.raises(UserError, match="made for precision 'fp16', not 'int8'"):
        search(replace(asked, precision="int8"))


def test_int8_alone_loses_too_and_keeps_plain_ids(found: SearchResult) -> None:
    result = search(replace(BOTH, precision="int8", trials=60)).result
    device = result.devices[0]
    assert device.precision == "int8"
    assert all(candidate.ap_loss is not None and not candidate.precision for candidate in device.front)
    assert all("-" not in candidate.id for candidate in device.front)
    assert "INT8 takes" in device.message


def test_a_measured_precision_beside_an_estimated_one_gives_every_candidate_the_same_constraints() -> None:
    networks = read_space("yolo-ret")
    evaluator = Evaluator(networks, load_predictor(networks))
    engines = Engines((load_estimator("xeon-vm"), load_estimator("nano", precision="fp16")))
    params = next(engines.space(networks).candidates())
    both = [{**params, PRECISION: precision} for precision in ("fp32", "fp16")]
    score = evaluator.over(engines.space(networks)).scorer(engines)
    names = [set(score(one).violations) for one in both]
    assert names[0] == names[1] >= {UNMEASURED}
    many = evaluator.over(engines.space(networks)).score_many(both, engines)
    assert [scored.frame_ms for scored in many] == [pytest.approx(score(one).frame_ms) for one in both]


# what the user may ask for


def test_all_is_what_the_device_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_engines("nano", "all").precisions == ("fp16", "fp32")
    assert load_engines("orin-nx", "ALL").precisions == ("fp16", "fp32", "int8")
    assert load_engines("xeon-vm", "all").precisions == ("fp32",)
    assert load_engines("orin-nx", None).precisions == ("fp16",)
    assert load_engines("orin-nx", "int8, FP32").precisions == ("int8", "fp32"), "as named, but the usual one first"
    assert load_engines("orin-nx", "int8,fp16").usual.precision == "fp16"
    monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path))
    with pytest.raises(UnsupportedError, match=r"no latency table of host .*measure one"):
        load_engines("host", "all")


@pytest.mark.parametrize(
    ("device", "precision", "error", "said"),
    [
        ("nano", "fp16,int8", UnsupportedError, "Jetson Nano has no INT8 in TensorRT; it supports fp32, fp16"),
        ("orin-nx", "fp16,fp8", UsageError, "unknown precision 'fp8'"),
        ("orin-nx", "fp16,fp16", UsageError, "fp16 is given twice"),
        ("orin-nx", "fp16,,int8", UsageError, "a name is missing"),
        ("orin-nx", "fp16,all", UsageError, "all stands alone"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(
    device: str, precision: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        load_engines(device, precision)
    assert "\n" not in str(caught.value)


def test_the_command_takes_a_list_or_the_option_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SearchOptions] = []

    def noted(options: SearchOptions, *_: object) -> Search:
        asked.append(options)
        raise UserError("enough is known")

    monkeypatch.setattr("scaler.search.run.search", noted)
    for precisions in (["--precision", "fp16,int8"], ["--precision", "fp16", "--precision", "int8"], []):
        assert run(["search", "-d", "orin-nx", *precisions, "--minimize", "Energy"]) == 1
    assert [options.precision for options in asked] == ["fp16,int8", "fp16,int8", None]
    assert {options.minimize for options in asked} == {"energy"}


def test_folders_of_other_questions_are_others() -> None:
    assert default_folder(BOTH).name == "yolo-ret-voc-orin-nx-60fps-fp16-int8"
    assert default_folder(replace(BOTH, precision="all")).name == "yolo-ret-voc-orin-nx-60fps-all"
    assert default_folder(replace(BOTH, precision="fp16")).name == "yolo-ret-voc-orin-nx-60fps"
    assert default_folder(replace(BOTH, precision=None, minimize="energy")).name == "yolo-ret-voc-orin-nx-60fps-energy"


# what becomes of a candidate


def test_the_result_is_read_back_whole(found: SearchResult, saved: Path) -> None:
    assert read_result(saved) == found


def test_show_explains_a_candidate_at_its_own_precision(found: SearchResult, saved: Path, capsys) -> None:
    candidate = next(one for one in found.devices[0].front if one.precision == "int8")
    assert run(["show", str(saved), "--pick", candidate.id, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)["candidate"]
    assert (plain["id"], plain["precision"]) == (candidate.id, "int8")
    assert plain["engine_ms"]["mean"] == pytest.approx(candidate.engine_ms.mean)
    assert plain["ap"]["mean"] == pytest.approx(candidate.ap.mean)
    assert run(["show", str(saved), "--pick", candidate.id]) == 0
    assert "8-bit integers take" in capsys.readouterr().out


def test_what_is_trained_is_the_network(found: SearchResult, saved: Path) -> None:
    candidate = next(one for one in found.devices[0].front if one.precision == "int8" and one.ap.low > 10)
    network = as_network(candidate)
    alone = load_predictor(read_space("yolo-ret")).predict(read_space("yolo-ret").configure(candidate.params, 20))
    assert (network.id, network.ap_loss) == (candidate.id.removesuffix("-int8"), None)
    assert (network.ap.mean, network.ap.low, network.ap.high) == pytest.approx((alone.mean, alone.low, alone.high))
    named = one(str(saved), pick=candidate.id)
    assert (named.name, named.candidate) == (network.id, network.id)
    assert named.predicted is not None
    assert named.predicted.mean == pytest.approx(alone.mean)
    result, _, chosen = picks(saved, candidate.id, None)
    assert of_search(result, chosen[0]) == named


def test_a_candidate_is_found_by_the_id_of_its_network_too(found: SearchResult, saved: Path, capsys) -> None:
    device = both_of_one_network(found).devices[0]
    fast, slow = device.front[:2]
    names = named_candidates(device)
    assert (names[fast.id], names[slow.id], fast.network) == (fast, slow, slow.id)
    alone = next(one for one in found.devices[0].front if one.id == fast.id)
    assert picks(saved, fast.network, None)[2] == (alone,)
    assert run(["show", str(saved), "--pick", fast.network]) == 0
    assert alone.id in capsys.readouterr().out


def test_an_interval_that_was_cut_off_at_zero_stays_there(found: SearchResult) -> None:
    candidate = next(one for one in found.devices[0].front if one.precision == "int8")
    small = replace(candidate, ap=Interval(2.0, 0.0, 6.0), ap_loss=Interval(1.0, 0.0, 4.0))
    assert as_network(small).ap == Interval(3.0, 0.0, 3.0 + math.sqrt(4.0**2 - 1.0**2))


def both_of_one_network(result: SearchResult) -> SearchResult:
    """The result with a network on the front at both precisions."""
    device = result.devices[0]
    fast = next(one for one in device.front if one.precision == "int8")
    slow = replace(as_network(fast), precision="fp16")
    front = tuple(one for one in device.front if one.network != fast.network)
    return replace(result, devices=(replace(device, front=(fast, slow, *front)),))


def test_a_network_on_the_front_twice_is_trained_once(found: SearchResult) -> None:
    device = both_of_one_network(found).devices[0]
    chosen = winners(device)
    assert len(chosen) == len({one.network for one in device.front}) < len(device.front)
    assert all(one.ap_loss is None and "-" not in one.id for one in chosen)
    assert len(winners(device, 3)) == 3


def test_a_run_is_recorded_beside_its_network_at_every_precision(found: SearchResult, tmp_path: Path) -> None:
    result = both_of_one_network(found)
    identity = result.devices[0].front[0].network
    trained = with_run(result, sample_run(candidate=identity, dataset="voc"), "runs/x")
    front = trained.devices[0].front
    assert [one.id for one in front if one.trained] == [f"{identity}-int8", identity]
    view = page_view(trained)["devices"][0]["candidates"]  # type: ignore[index]
    shown = {row["id"]: row["trained"] for row in view if row["trained"]}
    assert (shown[identity]["comparable"], shown[f"{identity}-int8"]["comparable"]) == (True, False)
    assert shown[f"{identity}-int8"]["on"] == "trained on voc in float"


# reports


@pytest.mark.parametrize("width", [80, 120, 180])
def test_the_console_tells_precisions_and_losses(found: SearchResult, width: int) -> None:
    console = Console(record=True, width=width, file=io.StringIO(), legacy_windows=False)
    print_result(found, console)
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "INT8 loss" in text or "loss" in text
    assert "FP16" in text
    assert "-int8" in text


def test_csv_and_page_tell_precision_and_loss_of_each_candidate(found: SearchResult, tmp_path: Path) -> None:
    write_csv(found, tmp_path / "pareto.csv")
    with (tmp_path / "pareto.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["precision"] for row in rows} == {"fp16", "int8"}
    assert all((row["ap_loss"] == "") == (row["precision"] == "fp16") for row in rows)
    assert all(row["energy_mj"] == "" for row in rows), "the table tells none"
    device = page_view(found)["devices"][0]  # type: ignore[index]
    assert device["facts"] == "MAXN, tensorrt, fp16, int8"
    assert [column["title"] for column in device["columns"]][-1] == "precision"
    for row in device["candidates"]:
        assert (row["loss"] is not None) == row["id"].endswith("-int8")
        assert row["tail"].endswith("INT8" if row["loss"] else "FP16")
        assert row["provenance"] == ("estimated" if row["loss"] else "calibrated")


def test_spaces_are_not_changed_by_being_searched_at_precisions(tiny: Path) -> None:
    before: Space = read_space(tiny)
    load_engines("orin-nx", "fp16,int8").space(before)
    assert before == read_space(tiny)
