"""The user's own runs: their files, what flows back into a search's result, and the law that they correct."""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_result import nano, sample_result
from sample_runs import CLASSES, metrics, networks, sample_run, true_runs

from scaler.accuracy import load
from scaler.accuracy.runs import Run, read_run, read_runs, write_run
from scaler.accuracy.runs_fit import Recipe, fit_runs, read_fit, write_fit
from scaler.accuracy.runs_model import CorrectedAccuracy
from scaler.accuracy.runs_regression import Network, Regression
from scaler.cli import run as scaler
from scaler.errors import FileError, UsageError, UserError
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.report.files import write_json
from scaler.report.recording import keep_measured, record, run_name
from scaler.report.view import page_view
from scaler.search.evaluation import Evaluator
from scaler.search.predictors import classes_of, load_predictor
from scaler.search.result import SearchResult
from scaler.search.result_file import read_result
from scaler.search.run import SearchOptions, search
from scaler.search.trained import with_run
from scaler.space_file import read_space

PICK = nano().pick or ""

# the file of a run


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"candidate": "", "pretrained": "", "predicted": None, "class_ap50": {}, "split_sizes": {}},
        {"metrics": None, "finished": False, "checkpoint": "last.pt"},
        {"family": "retinanet", "parameters": {"backbone": "resnet-50", "resolution": 512}, "classes": ("Größe", "b")},
        {"parameters": {"a": True, "b": 3, "c": 0.5, "d": "text"}},
    ],
)
def test_a_run_comes_back_from_its_file_as_it_was(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = sample_run(**changes)
    path = write_run(tmp_path / "run", run)
    assert path.name == "result.json"
    assert read_run(path) == read_run(tmp_path / "run") == run
    assert [type(v) for v in read_run(path).parameters.values()] == [type(v) for v in run.parameters.values()]


def test_runs_are_found_below_a_folder_in_order(tmp_path: Path) -> None:
    for name in ("b/one", "a", "b/another"):
        write_run(tmp_path / name, sample_run(candidate=name.replace("/", "-")))
    (tmp_path / "b" / "metrics.csv").write_text("epoch\n")
    assert [path.relative_to(tmp_path).as_posix() for path in read_runs(tmp_path)] == ["a", "b/another", "b/one"]
    with pytest.raises(FileError, match="no such folder"):
        read_runs(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(kind="scaler-plan"), "kind: found 'scaler-plan'; expected one of scaler-run"),
        (lambda data: data.update(family="yolo-rat"), "did you mean 'yolo-ret'"),
        (lambda data: data.update(epochs=-1), "epochs: found -1; expected a whole number >= 0"),
        (lambda data: data["metrics"].update(ap50=101), "metrics.ap50: found 101; expected a number from 0 to 100"),
        (lambda data: data.update(metrics=None), "metrics: a finished run without metrics"),
        (lambda data: data["predicted"].update(low=80), "predicted: found 80, 69, 69.8; expected low <= mean <= high"),
        (lambda data: data["parameters"].update(width=[1]), "parameters.width: found no parameter value"),
        (lambda data: data["class_ap50"].update(circle="high"), "class_ap50.circle: found 'high'"),
        (lambda data: data["split_sizes"].update(vel=3), "split_sizes.vel: unknown key; known: train, val"),
        (lambda data: data.pop("seed"), "seed: missing"),
        (lambda data: data.update(speed=3), "speed: unknown key"),
        (lambda data: data.update(schema_version=2), "schema_version"),
    ],
)
def test_a_malformed_run_is_one_clear_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = write_run(tmp_path / "run", sample_run())
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(FileError) as caught:
        read_runs(tmp_path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# what flows back


def searched(folder: Path, **changes: Any) -> Path:
    write_json(replace(sample_result(), **changes), folder / "pareto.json")
    return folder / "pareto.json"


def test_a_run_is_recorded_beside_the_prediction_on_every_device_and_in_every_report(tmp_path: Path) -> None:
    path = searched(tmp_path, metric="shapes AP50", dataset="shapes")
    record(path, sample_run(candidate=PICK), tmp_path / "runs" / PICK)
    again = record(path, sample_run(candidate=PICK, metrics=metrics(86.0)), tmp_path / "runs" / PICK)
    result = read_result(path)
    assert result == again
    for device in result.devices:
        (trained,) = next(c for c in device.front if c.id == PICK).trained
        assert (trained.value, trained.ap50, trained.ap) == (86.0, 86.0, pytest.approx(51.6))
        assert (trained.metric, trained.dataset, trained.recipe) == ("shapes AP50", "shapes", "quick")
        assert trained.run == f"runs/{PICK}"
        assert sum(len(candidate.trained) for candidate in device.front) == 1
    with (tmp_path / "pareto.csv").open(newline="") as stream:
        rows = {(row["device"], row["id"]): row for row in csv.DictReader(stream)}
    assert rows["nano", PICK]["trained_ap50"] == "86.0"
    assert rows["nano", PICK]["trained_on"] == "shapes"
    assert [row["trained_run"] for row in rows.values()].count("") == len(rows) - 2
    assert "trained on shapes" in (tmp_path / "pareto.svg").read_text()
    assert "trained on shapes" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "pareto.png").stat().st_size > 10_000


def test_a_measured_marker_is_only_drawn_for_the_predicted_data_set_and_metric() -> None:
    other = with_run(sample_result(), sample_run(candidate=PICK), "run")
    same = with_run(sample_result(), sample_run(candidate=PICK, dataset="voc"), "run")
    shown = [one(page_view(result)) for result in (other, same)]
    assert [view["trained"]["comparable"] for view in shown] == [False, True]
    assert [view["trained"]["on"] for view in shown] == ["trained on shapes", "trained on voc"]
    assert [view["trained"]["text"] for view in shown] == ["85.5", "85.6"], "VOC's own convention beside VOC AP50"
    assert shown[0]["facts"][1]["label"] == "shapes AP50, measured"
    assert [fact["label"] for fact in shown[0]["facts"]].index("Reaches 30 FPS") == 5


def one(view: dict[str, Any]) -> dict[str, Any]:
    return next(candidate for candidate in view["devices"][0]["candidates"] if candidate["id"] == PICK)


def test_files_from_before_training_existed_still_read(tmp_path: Path) -> None:
    path = searched(tmp_path)
    data = json.loads(path.read_text())
    for key in ("classes", "accuracy_file"):
        del data[key]
    for device in data["devices"]:
        for candidate in (*device["front"], *filter(None, [device["nearest"]])):
            del candidate["trained"]
    path.write_text(json.dumps(data))
    assert read_result(path) == sample_result()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (sample_run(candidate=""), "of no candidate of a search"),
        (sample_run(candidate="strange"), "of the candidate 'strange', which this result does not have"),
        (sample_run(candidate=PICK, finished=False), "is not finished"),
    ],
)
def test_a_run_that_cannot_be_recorded_leaves_the_file_alone(tmp_path: Path, run: Run, message: str) -> None:
    path = searched(tmp_path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        record(path, run, tmp_path / "run")
    assert path.read_bytes() == before
    assert not (tmp_path / "report.html").exists()


def record_several(path: Path, ids: list[str]) -> None:
    from scaler.report import recording

    recording.write_reports = lambda *_: None  # drawing takes a second each
    for number, candidate in enumerate(ids):
        run = sample_run(candidate=candidate, created=f"2026-11-22T10:00:{number:02d}+00:00")
        record(path, run, path.parent / candidate)


def test_processes_that_record_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = searched(tmp_path)
    ids = [candidate.id for candidate in nano().front]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=record_several, args=(path, ids[i::2])) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert [len(candidate.trained) for candidate in read_result(path).devices[0].front] == [1] * len(ids)


def test_a_new_search_keeps_what_the_old_one_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaler.report.recording.write_reports", lambda *_: None)
    path = searched(tmp_path)
    record(path, sample_run(candidate=PICK), tmp_path / "runs" / PICK)
    kept = keep_measured(sample_result(), path)
    assert kept == read_result(path)
    assert keep_measured(kept, path) == kept, "the same run under two names stands there once"
    path.write_text("{")
    assert keep_measured(sample_result(), path) == keep_measured(sample_result(), tmp_path / "none") == sample_result()


def test_runs_are_named_relative_to_the_result(tmp_path: Path) -> None:
    path = tmp_path / "results" / "pareto.json"
    assert run_name(path, tmp_path / "results" / "runs" / "a") == "runs/a"
    assert run_name(path, tmp_path / "runs" / "a") == "../runs/a"


@pytest.mark.parametrize(
    ("folder", "changes"),
    [
        ("front-trees", {"dataset": "trees"}),
        ("front-trees", {}),
        ("front-shapes", {"dataset": "trees"}),
        ("front-shapes", {"recipe": "quick+3f2a"}),
        ("front-shapes", {"epochs": 7}),
    ],
)
def test_runs_whose_folders_have_the_same_name_are_all_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr("scaler.report.recording.write_reports", lambda *_: None)
    (tmp_path / "results").mkdir()
    path = searched(tmp_path / "results")
    later = sample_run(candidate=PICK, created="2026-11-22T11:00:00+00:00", metrics=metrics(80.0), **changes)
    record(path, sample_run(candidate=PICK), tmp_path / "runs" / "front-shapes" / PICK)
    result = record(path, later, tmp_path / "runs" / folder / PICK)
    for device in result.devices:
        trained = next(candidate for candidate in device.front if candidate.id == PICK).trained
        assert [one.ap50 for one in trained] == [85.5, 80.0]


def test_a_run_that_is_trained_anew_in_its_folder_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaler.report.recording.write_reports", lambda *_: None)
    path = searched(tmp_path)
    later = sample_run(candidate=PICK, created="2026-11-22T11:00:00+00:00", seed=4, metrics=metrics(80.0))
    record(path, sample_run(candidate=PICK), tmp_path / "runs" / PICK)
    (one,) = next(c for c in record(path, later, tmp_path / "runs" / PICK).devices[0].front if c.id == PICK).trained
    assert (one.ap50, one.created) == (80.0, later.created)


# the law corrected


def named(runs: list[Run]) -> dict[str, Run]:
    return {run.candidate: run for run in runs}


def split(seed: int, train: int, **truth: Any) -> tuple[dict[str, Run], list[Run]]:
    """Some runs to fit to, and the rest to predict."""
    runs = true_runs(seed, networks(), **truth)
    order = np.random.default_rng(100 + seed).permutation(len(runs))
    return named([runs[i] for i in order[:train]]), [runs[i] for i in order[train:]]


@pytest.mark.parametrize(
    "truth",
    [
        {"gain": 0.8, "level": 46.0},
        {"gain": 1.5, "level": -8.0},
        {"gain": 1.0, "level": 2.0, "effect": 2.0},
    ],
)
def test_eight_runs_predict_the_others_better_than_the_law_alone_and_than_a_constant(truth: dict[str, float]) -> None:
    law = load("yolo-ret", "coco", "ap50")
    errors = np.zeros(3)
    covered: list[bool] = []
    for seed in range(4):
        seen, rest = split(seed, 8, **truth)
        model = CorrectedAccuracy(fit_runs(seen), "yolo-ret")
        configs, truths = [run.config for run in rest], np.array([run.figure("ap50") for run in rest])
        found, alone = model.predict_many(configs), law.predict_many(configs).mean
        constant = float(np.mean([run.figure("ap50") - law.predict(run.config).mean for run in seen.values()]))
        errors += [np.abs(mean - truths).mean() for mean in (found.mean, alone, alone + constant)]
        covered += list((found.low <= truths) & (truths <= found.high))
    assert errors[0] < 0.8 * errors[1]
    assert errors[0] < errors[2]
    assert np.mean(covered) >= 0.85


def test_the_interval_narrows_with_the_runs_and_one_run_gives_the_offset() -> None:
    widths, errors = [], []
    for count in (1, 3, 8, 24):
        seen, rest = split(0, count)
        found = CorrectedAccuracy(fit_runs(seen), "yolo-ret").predict_many([run.config for run in rest])
        widths.append(float(np.mean(found.high - found.low)))
        errors.append(float(np.abs(found.mean - [run.figure("ap50") for run in rest]).mean()))
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 10
    assert errors[0] < 4, "the law alone misses by 39 points"
    assert errors[-1] < 1


def test_an_untouched_regression_answers_with_the_law_and_hardly_any_certainty() -> None:
    network = Network(60.0, 0.5, 320, "yolo-ret", "b", "n", "r")
    mean, low, high = Regression.of([], []).predict([network])
    assert mean[0] == pytest.approx(60.0)
    assert low[0] < 10
    assert high[0] > 95


def test_a_trained_network_is_predicted_near_what_it_reached() -> None:
    seen, _ = split(1, 8)
    name, run = next(iter(seen.items()))
    seen[name] = replace(run, metrics=metrics(run.figure("ap50") + 6.0))  # no backbone explains it
    model = CorrectedAccuracy(fit_runs(seen), "yolo-ret")
    without = CorrectedAccuracy(fit_runs({key: one for key, one in seen.items() if key != name}), "yolo-ret")
    reached, found = seen[name].figure("ap50"), model.predict(run.config)
    assert abs(found.mean - reached) < abs(without.predict(run.config).mean - reached)
    assert (found.provenance, found.inside_support) == ("measured", True)
    other = YoloRetConfig(backbone="mobilenetv2", width=1.0, neck="panet", resolution=320, classes=3)
    assert model.predict(other).provenance == "calibrated"


def test_recipes_have_levels_of_their_own() -> None:
    long = true_runs(2, networks()[::9], epochs=250)
    short = true_runs(2, networks()[4::9], level=26.0, epochs=20)
    runs = {**named(long), **{f"short-{run.candidate}": run for run in short}}
    fit = fit_runs(runs)
    assert fit.recipes == {Recipe("quick", 250, True): 8, Recipe("quick", 20, True): 8}
    assert fit.recipe.epochs in (20, 250)
    wanted = {one: replace(fit, recipe=one) for one in fit.recipes}
    held = networks()[2]
    law = load("yolo-ret", "coco", "ap50").predict(YoloRetConfig(**held, classes=3)).mean
    for recipe, level in ((Recipe("quick", 250, True), 46.0), (Recipe("quick", 20, True), 26.0)):
        found = CorrectedAccuracy(wanted[recipe], "yolo-ret").predict(YoloRetConfig(**held, classes=3))
        assert found.mean == pytest.approx(0.8 * law + level, abs=3.0)


def test_the_errors_are_those_of_runs_that_the_fit_has_not_seen() -> None:
    seen, _ = split(3, 8)
    fit = fit_runs(seen)
    assert fit.corrected is not None
    assert fit.law is not None
    errors = []
    for name, run in seen.items():
        rest = fit_runs({key: one for key, one in seen.items() if key != name})
        errors.append(abs(CorrectedAccuracy(rest, "yolo-ret").predict(run.config).mean - run.figure("ap50")))
    assert fit.corrected.mean_absolute_error_ap == pytest.approx(np.mean(errors))
    law = load("yolo-ret", "coco", "ap50")
    alone = [abs(law.predict(run.config).mean - run.figure("ap50")) for run in seen.values()]
    assert fit.law.mean_absolute_error_ap == pytest.approx(np.mean(alone))
    assert fit.corrected.n == fit.law.n == 8


def test_repeats_of_a_run_do_not_vouch_for_each_other() -> None:
    seen, _ = split(3, 4)
    twins = {f"{name}-{seed}": replace(run, seed=seed) for name, run in seen.items() for seed in (1, 2)}
    alone, together = fit_runs(seen).corrected, fit_runs(twins).corrected
    assert alone is not None
    assert together is not None
    assert together.mean_absolute_error_ap > 0.7 * alone.mean_absolute_error_ap


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_fit_comes_back_from_its_file_with_the_same_predictions(tmp_path: Path, count: int) -> None:
    seen, rest = split(4, count)
    fit = fit_runs(seen, "ap")
    write_fit(fit, tmp_path / "accuracy.json")
    back = read_fit(tmp_path / "accuracy.json")
    assert (back.dataset, back.classes, back.metric, back.recipe) == ("shapes", CLASSES, "ap", fit.recipe)
    assert (back.corrected, back.law, back.runs) == (fit.corrected, fit.law, fit.runs)
    assert back.fingerprint == fit.fingerprint != fit_runs(seen, "ap50").fingerprint
    configs = [run.config for run in rest]
    for one, other in zip(
        CorrectedAccuracy(fit, "yolo-ret").predict_many(configs),
        CorrectedAccuracy(back, "yolo-ret").predict_many(configs),
        strict=True,
    ):
        np.testing.assert_allclose(one, other)
    single = CorrectedAccuracy(back, "yolo-ret").predict(configs[0])
    assert single.mean == pytest.approx(CorrectedAccuracy(fit, "yolo-ret").predict_many(configs).mean[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(dataset="cats"), "runs: a run that is not a measured one of 'cats'"),
        (lambda data: data["recipe"].update(epochs=7), "recipe: no run by quick, 7 epochs, pretrained"),
        (lambda data: data.update(runs=[]), "runs: found 0 of them"),
        (lambda data: data["runs"][0]["run"].update(seconds="long"), "runs[0].run.seconds: found 'long'"),
        (lambda data: data["posterior"]["slope"].update(sd=-1), "posterior.slope.sd"),
        (lambda data: data["scores"].pop("law"), "scores.law: missing"),
        (lambda data: data.update(law_dataset="voc"), "law_dataset: found 'voc'"),
    ],
)
def test_a_malformed_fit_is_one_clear_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = tmp_path / "accuracy.json"
    write_fit(fit_runs(split(0, 3)[0]), path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(FileError) as caught:
        read_fit(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([], {}, "no finished run"),
        ([sample_run(finished=False)], {}, "no finished run"),
        ([sample_run(), sample_run(candidate="b", dataset="cats")], {}, "shapes (1), cats (1): choose one"),
        ([sample_run()], {"dataset": "shape"}, "did you mean 'shapes'?"),
        ([sample_run()], {"recipe": "slow"}, "unknown recipe among the finished runs 'slow'"),
        ([sample_run(), sample_run(candidate="b", classes=("a", "b"))], {}, "but of other classes (3 and 2)"),
    ],
)
def test_runs_that_cannot_be_fitted_are_one_clear_line(runs: list[Run], options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        fit_runs(named(runs), **options)  # type: ignore[arg-type]
    assert message in str(caught.value)


# the command line and the search


def written(folder: Path, runs: list[Run]) -> Path:
    for run in runs:
        write_run(folder / run.candidate, run)
    return folder


def test_the_command_prints_the_errors_beside_those_of_the_law(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = written(tmp_path / "runs", [*split(5, 8)[0].values(), sample_run(candidate="open", finished=False)])
    out = tmp_path / "accuracy.json"
    assert scaler(["accuracy", "fit", "--runs", str(runs), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    for piece in (
        "shapes AP50, 8 finished runs",
        "1 unfinished left out",
        "law and runs",
        "published law alone",
        "tau",
    ):
        assert piece in text
    assert "that a correction needs" not in text
    assert scaler(["accuracy", "fit", "--runs", str(runs), "--out", str(out), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["corrected"]["mean_absolute_error_ap"] < 0.2 * data["law"]["mean_absolute_error_ap"]
    assert read_fit(out).dataset == "shapes"


def test_too_few_runs_are_fitted_all_the_same_and_it_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = written(tmp_path / "runs", list(split(5, 1)[0].values()))
    assert scaler(["accuracy", "fit", "--runs", str(runs), "--out", str(tmp_path / "a.json")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "1 of the 3 runs" in text
    assert "train 2 more" in text
    assert "the error is unknown" in text
    assert scaler(["accuracy", "fit", "--runs", str(runs), "--metric", "ap75"]) == 2
    assert "unknown metric 'ap75'; did you mean 'ap50'? known: ap50, ap" in capsys.readouterr().err


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    """A search by a fit of which one run is of the space's most accurate candidate."""
    folder = tmp_path_factory.mktemp("search")
    space = read_space("yolo-ret")
    runs = []
    for number, run in enumerate(split(6, 8)[0].values()):
        params = space.find(replace(run.config, classes=20))
        runs.append(run if params is None else replace(run, candidate=space.candidate_id(params), seed=number))
    write_fit(fit_runs(named(runs)), folder / "accuracy.json")
    options = SearchOptions(devices=("nano",), target_fps=10, trials=60, accuracy=folder / "accuracy.json")
    return search(options).result, folder


def test_a_search_by_own_runs_is_of_the_users_data_set(found: tuple[SearchResult, Path]) -> None:
    result, folder = found
    assert (result.dataset, result.metric, result.classes) == ("shapes", "shapes AP50", 3)
    assert result.accuracy_file == str(folder / "accuracy.json")
    card = result.accuracy_model
    assert card.provenance == "calibrated"
    assert card.name == "shapes AP50 by 8 own runs over the published law"
    assert {"leave-one-run-out mean error", "the published law alone"} <= set(card.errors)
    assert any("differ from the published law's since data set, classes and recipe differ" in n for n in card.notes)
    (device,) = result.devices
    assert device.references == (), "published models are of other data sets"
    assert all(candidate.ap.mean > 60 for candidate in device.front), "the law alone says 20 to 45"
    write_json(result, folder / "pareto.json")
    assert read_result(folder / "pareto.json") == result


def test_show_explains_a_candidate_of_such_a_search_and_says_when_the_fit_is_gone(
    found: tuple[SearchResult, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result, folder = found
    write_json(result, folder / "pareto.json")
    assert scaler(["show", str(folder / "pareto.json")]) == 0
    assert "shapes AP50" in capsys.readouterr().out
    write_json(replace(result, accuracy_file="gone.json"), tmp_path / "pareto.json")
    assert scaler(["show", str(tmp_path / "pareto.json")]) == 2
    assert "gone.json, which is not there: say where with --accuracy" in capsys.readouterr().err
    again = ["show", str(tmp_path / "pareto.json"), "--accuracy", str(folder / "accuracy.json")]
    assert scaler(again) == 0


def test_a_candidate_that_was_trained_shows_what_it_reached(tmp_path: Path) -> None:
    space = read_space("yolo-ret")
    params = space.canonical(space.sample(np.random.default_rng(0)))
    identity, config = space.candidate_id(params), space.configure(params, 3)
    from scaler.models.detectors.families import parameters_of

    runs = [*split(7, 4)[0].values(), sample_run(candidate=identity, parameters=parameters_of(config))]
    write_fit(fit_runs(named(runs)), tmp_path / "accuracy.json")
    evaluator = Evaluator(space, load_predictor(space, accuracy=tmp_path / "accuracy.json"))
    (trained,) = evaluator.accuracy.trained(identity)
    assert (trained.value, trained.run, trained.of("shapes AP50")) == (85.5, identity, True)
    assert evaluator.ap(params).provenance == "measured"
    assert evaluator.network(params).config.classes == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "voc"}, "--dataset voc"),
        ({"metric": "ap"}, "--metric ap"),
    ],
)
def test_a_fit_of_another_data_set_or_metric_is_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    write_fit(fit_runs(split(0, 3)[0]), tmp_path / "accuracy.json")
    with pytest.raises(UsageError, match=message):
        load_predictor(read_space("yolo-ret"), **options, accuracy=tmp_path / "accuracy.json")


def test_a_data_set_is_a_name_or_a_number_of_classes() -> None:
    assert [classes_of(name) for name in ("voc", "coco", "3")] == [20, 80, 3]
    for name in ("vox", "0", "-3", "³"):
        with pytest.raises(UsageError, match="unknown data set"):
            classes_of(name)
