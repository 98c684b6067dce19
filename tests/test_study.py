"""Studies: every sampler, seeds, warm starts and the exhaustive search."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from toy_study import TINY, Toy, completed, front, run

from scaler.errors import MissingExtraError, UsageError
from scaler.search.evaluation import Evaluated
from scaler.search.front import hypervolume, reference_point
from scaler.search.study import StudyPlan, run_study
from scaler.space import Space
from scaler.space_file import read_space

OPTUNA_SAMPLERS = ["nsga2", "nsga3", "tpe", *(["gp"] if find_spec("torch") else [])]


@pytest.fixture(scope="module")
def shipped() -> Space:
    return read_space("yolo-ret")


@pytest.fixture
def tiny(tmp_path: Path) -> Space:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return read_space(path)


# samplers


@pytest.mark.parametrize(
    "sampler",
    ["auto", "random", *(s if s != "gp" else pytest.param(s, marks=pytest.mark.slow) for s in OPTUNA_SAMPLERS)],
)
def test_every_sampler_spends_each_trial_on_a_new_candidate(shipped: Space, sampler: str) -> None:
    toy, trials = Toy(fps=60), 16 if sampler == "gp" else 70
    outcome = run(shipped, toy, sampler=sampler, trials=trials)
    assert outcome.trials == outcome.distinct == len(toy.calls) == toy.calls.total() == trials
    assert all(shipped.contains(params) for params, _ in outcome.evaluated)
    assert not outcome.interrupted


@pytest.mark.parametrize("sampler", ["auto", "random", "nsga2", "tpe"])
def test_every_sampler_exhausts_a_small_space_and_stops(tiny: Space, sampler: str) -> None:
    toy = Toy()
    outcome = run(tiny, toy, sampler=sampler, trials=500)
    assert outcome.distinct == outcome.trials == toy.calls.total() == tiny.size == 72


@pytest.mark.parametrize("sampler", ["auto", "random", "nsga2", "nsga3", "tpe"])
def test_the_same_seed_gives_the_same_study(shipped: Space, sampler: str) -> None:
    first, second, other = (run(shipped, Toy(), sampler=sampler, trials=60, seed=seed) for seed in (1, 1, 2))
    assert first.evaluated == second.evaluated
    assert first.evaluated != other.evaluated


def test_auto_reaches_the_front_that_an_exhaustive_search_finds(shipped: Space) -> None:
    toy = Toy(fps=40)
    exact = front(run(shipped, toy, sampler="exhaustive"))
    ap, ms = [s.ap for _, s in exact], [s.frame_ms for _, s in exact]
    reference = reference_point(ap, ms)
    found = front(run(shipped, toy, seed=5))
    share = hypervolume([s.ap for _, s in found], [s.frame_ms for _, s in found], reference)
    assert share >= 0.995 * hypervolume(ap, ms, reference)


def test_auto_finds_what_is_feasible_where_next_to_nothing_is(shipped: Space) -> None:
    everything = [Toy()(params).frame_ms for params in shipped.candidates()]
    fps = 1000 / np.partition(everything, 20)[20]
    outcome = run(shipped, Toy(fps=fps), trials=400)
    assert len(front(outcome)) >= 3


def test_auto_goes_for_the_nearest_where_nothing_is_feasible(shipped: Space) -> None:
    fastest = min(Toy()(params).frame_ms for params in shipped.candidates())
    outcome = run(shipped, Toy(fps=1000 / fastest * 1.1), trials=300)
    assert front(outcome) == []
    assert min(scored.frame_ms for _, scored in outcome.evaluated) == fastest


def test_warm_starts_come_first_and_once(shipped: Space, tmp_path: Path) -> None:
    starts = [shipped.canonical({"backbone": "mobilenetv2", "width": width, "rfcr": 5}) for width in (0.75, 1.4)]
    for sampler in ("auto", "random", "nsga2"):
        path = tmp_path / sampler
        run(shipped, Toy(), path, sampler=sampler, trials=5, warm_starts=starts)
        outcome = run(shipped, Toy(), path, sampler=sampler, trials=9, warm_starts=starts)
        assert [params for params, _ in outcome.evaluated[:2]] == starts
        assert outcome.trials == outcome.distinct == 9


def test_exhaustive_evaluates_all_and_stores_the_front(tiny: Space, tmp_path: Path) -> None:
    sizes: list[int] = []

    def many(candidates: object) -> list[Evaluated]:
        sizes.append(len(list(candidates)))  # type: ignore[call-overload]
        return [Toy()(params) for params in candidates]  # type: ignore[attr-defined]

    seen: list[tuple[int, int]] = []
    path = tmp_path / "study.journal"
    plan = StudyPlan(sampler="exhaustive")
    for _ in range(2):  # the second time nothing is stored anew
        outcome = run_study(
            tiny, Toy(), plan=plan, storage=path, evaluate_many=many, progress=lambda *done: seen.append(done)
        )
        assert outcome.trials == outcome.distinct == tiny.size
        assert len(completed(path)) == len(front(outcome)) < tiny.size
    assert sum(sizes) == 2 * tiny.size
    assert seen[-1] == (tiny.size, tiny.size)


def test_the_gp_sampler_without_torch_says_what_to_install(tiny: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaler.search.samplers.find_spec", {}.get)
    with pytest.raises(MissingExtraError, match=r"sampler gp needs torch.*pip install 'scaler-nas\[train\]'"):
        run(tiny, Toy(), sampler="gp")


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"sampler": "nsga"}, "unknown sampler 'nsga'; did you mean 'nsga"),
        ({"trials": 0}, "number of trials must be 1 or more, not 0"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"name": " "}, "name of the study is blank"),
        ({"warm_starts": [{"backbone": "efficientnet-b3"}]}, "warm start backbone = efficientnet-b3 is not in the"),
    ],
)
def test_a_wrong_plan_is_refused(tiny: Space, plan: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(tiny, Toy(), **plan)


def test_optuna_is_imported_by_a_run_only() -> None:
    code = "import sys, scaler.search.study; sys.exit('optuna' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_says_nothing(tiny: Space, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for sampler in ("auto", *OPTUNA_SAMPLERS):
        run(tiny, Toy(), tmp_path / sampler, sampler=sampler, trials=12)
    assert capfd.readouterr() == ("", "")
