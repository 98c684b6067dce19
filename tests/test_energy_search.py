"""Energy as an objective of a search, and limits on measured memory: on a shipped table that is given the laws."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console
from sample_result import sample_result
from test_report_browser import browser, click, column, opened, text  # noqa: F401
from toy_study import TINY

from scaler.cli import run
from scaler.errors import UnsupportedError, UsageError, UserError
from scaler.latency.energy import EnergyLaw, energy_lines
from scaler.latency.estimator import load_estimator
from scaler.latency.running_memory import MemoryLaw, memory_lines
from scaler.report.console import print_result
from scaler.report.files import write_csv, write_json
from scaler.report.html import write_html
from scaler.report.plot import write_plot
from scaler.report.view import page_view
from scaler.report.wording import number
from scaler.search.evaluation import Evaluator, Limits
from scaler.search.front import pareto_front
from scaler.search.predictors import load_predictor
from scaler.search.result import SearchResult
from scaler.search.result_file import read_result
from scaler.search.run import SearchOptions, search
from scaler.space_file import read_space

ENERGY = EnergyLaw(
    source="fake", scope="module", idle_w=2.0, static_w=1.0, mac_pj=5.0, element_pj=4000.0, log_sd=0.05, networks=24,
    error=3.0, coverage=92.0,
)  # fmt: skip
"""Memory access costs so much that thrift and speed are not the same."""
MEMORY = MemoryLaw(
    constant_mib=10.0, weights=1.5, activations=2.0, log_sd=0.05, networks=24, error=4.0, coverage=91.0
)  # fmt: skip
TABLE = "latency_tables/xeon-vm/onnxruntime-fp32-1-thread"


@pytest.fixture(scope="module")
def with_laws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's own table of a device whose power and memory were measured; the path of a tiny space."""
    shipped, folder = Path(__file__).parent.parent / TABLE, tmp_path_factory.mktemp("energy")
    own = folder / "user" / TABLE
    own.parent.mkdir(parents=True)
    own.with_suffix(".csv").write_bytes(shipped.with_suffix(".csv").read_bytes())
    laws = "\n".join([*energy_lines(ENERGY), *memory_lines(MEMORY)])
    own.with_suffix(".toml").write_text(shipped.with_suffix(".toml").read_text() + laws + "\n")
    (folder / "tiny.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALER_DATA_DIR", str(folder / "user"))
        patch.setattr("scaler.search.precision.load_estimator", cache(load_estimator))  # a quarter of a second each
        yield folder / "tiny.toml"


@pytest.fixture(scope="module")
def thrifty(with_laws: Path) -> SearchResult:
    return search(asked(with_laws)).result


def asked(space: Path, **changes: object) -> SearchOptions:
    options = SearchOptions(devices=("xeon-vm",), space=str(space), minimize="energy", trials=72)
    return replace(options, **changes)  # type: ignore[arg-type]


def test_the_front_trades_accuracy_for_energy(thrifty: SearchResult, with_laws: Path) -> None:
    front = thrifty.devices[0].front
    assert thrifty.minimize == "energy"
    space = read_space(with_laws)
    evaluator, estimator = Evaluator(space, load_predictor(space)), load_estimator("xeon-vm")
    rows = []
    for params in space.candidates():
        energy = estimator.energy_mj([estimator.sums(evaluator.network(params).graph)])
        assert energy is not None
        rows.append((space.candidate_id(params), evaluator.ap(params).mean, float(energy.mean[0])))
    best = pareto_front([row[1] for row in rows], [row[2] for row in rows])
    assert [one.id for one in front] == [rows[place][0] for place in best]
    assert [one.energy_mj.mean for one in front if one.energy_mj] == pytest.approx([rows[place][2] for place in best])
    assert all(one.energy_mj and one.energy_mj.low < one.energy_mj.mean < one.energy_mj.high for one in front)
    fastest = search(asked(with_laws, minimize="latency")).result.devices[0].front
    assert {one.id for one in fastest} != {one.id for one in front}, "thrift is not speed"
    assert all(one.energy_mj is not None for one in fastest), "shown wherever the table tells it"


@pytest.mark.slow
def test_an_exhaustive_search_finds_the_same(thrifty: SearchResult, with_laws: Path) -> None:
    every = search(asked(with_laws, sampler="exhaustive")).result.devices[0].front
    assert [one.id for one in thrifty.devices[0].front] == [one.id for one in every]


def test_the_frame_rate_stays_a_demand(with_laws: Path) -> None:
    device = search(asked(with_laws, target_fps=40)).result.devices[0]
    assert all(one.fps.mean >= 40 for one in device.front)
    assert device.pick == device.front[-1].id
    assert "mJ a frame" in device.message


def test_the_study_holds_energy_and_frame_time_and_goes_on(with_laws: Path, tmp_path: Path) -> None:
    own = asked(with_laws, storage=tmp_path / "journal", target_fps=40)
    search(replace(own, trials=15))
    resumed = search(replace(own, trials=30)).result
    at_once = search(replace(own, storage=None, trials=30)).result
    assert resumed.devices[0].explored == at_once.devices[0].explored
    assert [one.id for one in resumed.devices[0].front] == [one.id for one in at_once.devices[0].front]
    backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal")))
    study = optuna.load_study(study_name=resumed.study.split("'")[1], storage=backend)
    assert study.metric_names == ["AP", "energy_mj"]
    assert study.user_attrs["scaler"]["minimize"] == "energy"
    assert all(trial.user_attrs["frame_ms"] > 0 for trial in study.trials)


def test_a_study_of_the_other_objective_is_refused_both_ways(with_laws: Path, tmp_path: Path) -> None:
    for first, then, said in (("energy", "latency", "'energy', not 'none'"), ("latency", "energy", "'none', not")):
        own = asked(with_laws, storage=tmp_path / first, study="mine", trials=3)
        search(replace(own, minimize=first))
        with pytest.raises(UserError, match=f"made for minimize {said}"):
            search(replace(own, minimize=then))


def test_a_table_without_energy_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("scaler.search.precision.load_estimator", load_estimator)
    for device in ("xeon-vm", "orin-nx"):
        with pytest.raises(UnsupportedError, match=f"the table of {device} has no energy: profile on the device") as no:
            search(SearchOptions(devices=(device,), minimize="energy", trials=1))
        assert "\n" not in str(no.value)
    with pytest.raises(UsageError, match="unknown objective 'enrgy'; did you mean 'energy'"):
        search(SearchOptions(devices=("nano",), minimize="enrgy", trials=1))


def test_every_report_tells_the_energy(thrifty: SearchResult, tmp_path: Path) -> None:
    write_csv(thrifty, tmp_path / "pareto.csv")
    with (tmp_path / "pareto.csv").open(newline="") as stream:
        energies = [float(row["energy_mj"]) for row in csv.DictReader(stream)]
    assert energies == sorted(energies)
    write_plot([thrifty], tmp_path / "pareto.svg")
    picture = (tmp_path / "pareto.svg").read_text()
    assert "energy of a frame in mJ" in picture
    assert "frames per joule" in picture
    view = page_view(thrifty)
    assert view["minimize"] == "energy"
    shown = view["devices"][0]["candidates"]  # type: ignore[index]
    assert all(row["energy"]["text"] for row in shown)
    assert any(fact["label"] == "Energy of a frame" for fact in shown[0]["facts"])
    with pytest.raises(UserError, match="minimise latency and energy"):
        write_plot([sample_result(), thrifty], tmp_path / "both.svg")


def test_the_terminal_tells_the_energy(thrifty: SearchResult, tmp_path: Path, capsys) -> None:
    write_json(thrifty, tmp_path / "pareto.json")
    assert run(["show", str(tmp_path / "pareto.json"), "--pick", thrifty.devices[0].front[-1].id]) == 0
    assert "mJ a frame" in capsys.readouterr().out
    print_result(thrifty, Console(width=100, legacy_windows=False))
    assert " mJ " in capsys.readouterr().out


def test_a_result_keeps_its_objective_and_an_old_one_has_latency(tmp_path: Path) -> None:
    changed = replace(sample_result(), minimize="energy")
    write_json(changed, tmp_path / "pareto.json")
    assert read_result(tmp_path / "pareto.json") == changed
    tree = json.loads((tmp_path / "pareto.json").read_text())
    del tree["minimize"]
    (tmp_path / "pareto.json").write_text(json.dumps(tree))
    assert read_result(tmp_path / "pareto.json") == sample_result()


def test_a_csv_without_energy_has_empty_columns(tmp_path: Path) -> None:
    write_csv(sample_result(), tmp_path / "pareto.csv")
    with (tmp_path / "pareto.csv").open(newline="") as stream:
        assert {(row["energy_mj"], row["ap_loss_high"]) for row in csv.DictReader(stream)} == {("", "")}


# memory


def test_a_limit_on_memory_is_on_what_was_measured(with_laws: Path) -> None:
    device = search(asked(with_laws, minimize="latency", limits=Limits(memory_mib=40.0))).result.devices[0]
    assert "on running engines, as the table's measurements predict them" in device.message
    running = [MEMORY.predict(one.weights_mib, one.peak_activation_mib).mean for one in device.front]
    assert max(running) <= 40 < 1.5 * max(running), "the limit binds"


def test_a_limit_on_memory_without_measurements_is_on_a_rule_of_thumb_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    limited = asked(tmp_path / "tiny.toml", limits=Limits(memory_mib=12.0), minimize="latency", devices=("nano",))
    device = search(limited).result.devices[0]
    assert "the least that an engine takes: the table has no measured memory" in device.message
    assert all(one.weights_mib + one.peak_activation_mib <= 12 for one in device.front)


def test_the_laws_of_a_table_are_not_carried_to_another_device(with_laws: Path) -> None:
    estimator = load_estimator("nano")
    space = read_space(with_laws)
    network = Evaluator(space, load_predictor(space)).network(next(space.candidates()))
    assert estimator.energy_mj([estimator.sums(network.graph)]) is None


# the page


@pytest.mark.slow
def test_the_page_has_an_axis_of_energy_that_is_shown_first(
    browser: Any,  # noqa: F811
    thrifty: SearchResult,
    tmp_path: Path,
) -> None:
    write_html(thrifty, tmp_path / "report.html")
    opened(browser, tmp_path / "report.html", 1600)
    front = thrifty.devices[0].front

    def plotted() -> list[float]:
        script = "return document.getElementById('plot').data.find((trace) => trace.name === 'Pareto front').x"
        return list(browser.execute_script(script))

    assert plotted() == pytest.approx([one.energy_mj.mean for one in front if one.energy_mj])
    assert "Energy of a frame" in text(browser, "#verdict")
    title = browser.execute_script("return document.getElementById('plot').layout.xaxis.title.text")
    assert title == "energy of a frame in mJ"
    click(browser, "#axis-switch button:nth-child(1)")
    assert plotted() == pytest.approx([1000 / one.fps.mean for one in front])
    assert column(browser, "energy")[0] == number(front[0].energy_mj.mean if front[0].energy_mj else 0)
    assert browser.get_log("browser") == []
