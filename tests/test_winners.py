"""Several winners at once: which of a front, one after the other, and shared by workers that may be killed."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sample_result import nano, nano_5w, sample_result
from sample_runs import sample_run

from scaler.accuracy.runs import RESULT, Run, read_run, write_run
from scaler.errors import UsageError, UserError
from scaler.report.files import write_json
from scaler.search.claims import Jobs, open_jobs
from scaler.search.result import Candidate
from scaler.search.result_file import read_result
from scaler.search.storage import with_storage
from scaler.training.runs.winners import FrontOutcome, TrainOne, spread, train_front, winners

FRONT = nano().front
IDS = [candidate.id for candidate in FRONT]


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaler.report.recording.write_reports", lambda *_: None)


@pytest.fixture
def result(tmp_path: Path) -> Path:
    write_json(sample_result(), tmp_path / "pareto.json")
    return tmp_path / "pareto.json"


# which


def test_winners_are_spread_over_the_front_and_have_the_pick_and_the_knee() -> None:
    device = nano()
    for count in range(2, len(FRONT) + 1):
        chosen = winners(device, count)
        ids = [candidate.id for candidate in chosen]
        assert len(set(ids)) == count
        assert {device.pick, device.knee} <= set(ids)
        assert ids == [identity for identity in IDS if identity in ids], "in the order of the front"
        assert chosen == winners(device, count)
    assert [candidate.id for candidate in winners(device, 1)] == [device.pick]
    assert winners(device) == winners(device, 99) == FRONT
    four = [candidate.id for candidate in winners(device, 4)]
    assert {IDS[0], IDS[-1]} <= set(four), "after the marks come the ends"


def test_without_a_pick_the_most_accurate_is_the_best() -> None:
    device = nano_5w()
    assert winners(device, 1) == (device.front[-1],)
    with pytest.raises(UsageError, match="the front of nano is empty"):
        winners(replace(nano(), front=()), 2)
    with pytest.raises(UsageError, match="--count must be 1 or more, not 0"):
        winners(device, 0)


def test_spread_leaves_no_gap_much_larger_than_another() -> None:
    def at(place: int) -> Candidate:
        fps = replace(FRONT[0].fps, mean=100 * math.exp(-place / 10))
        return replace(FRONT[0], id=f"n{place}", fps=fps, ap=replace(FRONT[0].ap, mean=50 + place / 10))

    front = [at(place) for place in range(101)]
    chosen = [int(candidate.id[1:]) for candidate in spread(front, 9, ("n0", "n100"))]
    gaps = [after - before for before, after in itertools.pairwise(chosen)]
    assert max(gaps) <= 2 * min(gaps)
    assert spread([at(5), replace(at(5), id="same")], 1)[0].id == "same"


# one after the other


def trainer(log: list[str], troubles: dict[str, Callable[[], Run]] | None = None) -> TrainOne:
    """A stand-in of training: writes the run of a candidate, or has the trouble that was asked for."""

    def train_one(candidate: Candidate, folder: Path) -> Run:
        log.append(candidate.id)
        if troubles and candidate.id in troubles:
            return troubles[candidate.id]()
        run = sample_run(candidate=candidate.id)
        write_run(folder, run)
        return run

    return train_one


def failing(error: BaseException) -> Callable[[], Run]:
    def fail() -> Run:
        raise error

    return fail


def states(outcome: FrontOutcome) -> list[str]:
    return [row.state for row in outcome.rows]


def recorded(path: Path) -> dict[str, int]:
    return {candidate.id: len(candidate.trained) for candidate in read_result(path).devices[0].front}


def test_winners_are_trained_in_turn_recorded_and_not_trained_again(result: Path, tmp_path: Path) -> None:
    log: list[str] = []
    told: list[str] = []
    outcome = train_front(result, FRONT[:3], trainer(log), tmp_path / "runs", report=told.append)
    assert log == IDS[:3]
    assert states(outcome) == ["trained"] * 3
    assert not outcome.interrupted
    assert recorded(result) == {identity: int(identity in IDS[:3]) for identity in IDS}
    assert read_result(result).devices[0].front[0].trained[0].run == f"runs/{IDS[0]}"
    assert told[0] == f"{IDS[0]}: trained, AP 51.3, AP50 85.5 on shapes"
    again = train_front(result, FRONT[:4], trainer(log), tmp_path / "runs")
    assert log == IDS[:4], "only the new one"
    assert states(again) == ["there", "there", "there", "trained"]
    assert again.rows[0].run == outcome.rows[0].run


def test_what_fails_is_reported_and_the_others_go_on(result: Path, tmp_path: Path) -> None:
    class OutOfMemoryError(RuntimeError):
        """Named like torch's."""

    log: list[str] = []
    told: list[str] = []
    troubles = {
        IDS[0]: failing(UserError("the loss is NaN at step 12")),
        IDS[2]: failing(OutOfMemoryError("CUDA out of memory\nand much more")),
    }
    outcome = train_front(result, FRONT[:4], trainer(log, troubles), tmp_path / "runs", report=told.append)
    assert states(outcome) == ["failed", "trained", "failed", "trained"]
    assert outcome.rows[0].reason == "the loss is NaN at step 12"
    assert outcome.rows[2].reason == "out of memory: CUDA out of memory; give a smaller --batch"
    assert f"{IDS[0]}: failed: the loss is NaN at step 12" in told
    assert sum(recorded(result).values()) == 2
    assert states(train_front(result, FRONT[:4], trainer(log), tmp_path / "runs")) == [
        "trained", "there", "trained", "there",
    ]  # fmt: skip


def test_a_bug_is_not_swallowed(result: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        train_front(result, FRONT[:2], trainer([], {IDS[0]: failing(ZeroDivisionError())}), tmp_path / "runs")


@pytest.mark.parametrize("raises", [True, False])
def test_an_interrupted_run_is_gone_on_with(result: Path, tmp_path: Path, raises: bool) -> None:
    log: list[str] = []
    stopped = sample_run(candidate=IDS[1], finished=False)
    trouble = failing(KeyboardInterrupt()) if raises else lambda: stopped
    journal = tmp_path / "study.journal"
    outcome = train_front(
        result, FRONT[:3], trainer(log, {IDS[1]: trouble}), tmp_path / "runs", storage=journal, worker="one"
    )
    assert outcome.interrupted
    assert states(outcome) == ["trained", "interrupted", "open"]
    assert log == IDS[:2]
    after = train_front(result, FRONT[:3], trainer(log), tmp_path / "runs", storage=journal, worker="two")
    assert log == [*IDS[:2], *IDS[1:3]], "at once: an interrupted worker gives its job back"
    assert states(after) == ["elsewhere", "trained", "trained"]
    assert recorded(result)[IDS[0]] == 1


def test_a_folder_with_the_run_of_another_candidate_is_not_taken_for_it(result: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / IDS[0], sample_run(candidate=IDS[5]))
    outcome = train_front(result, FRONT[:1], trainer([]), tmp_path / "runs")
    assert states(outcome) == ["failed"]
    assert f"a run of the candidate '{IDS[5]}'" in outcome.rows[0].reason


def test_a_finished_run_of_another_configuration_is_refused_for_its_candidate_alone(
    result: Path, tmp_path: Path
) -> None:
    log: list[str] = []
    asked: list[tuple[str, Path]] = []
    train_front(result, FRONT[:2], trainer(log), tmp_path / "runs")

    def check_same(candidate: Candidate, folder: Path) -> None:
        asked.append((candidate.id, folder))
        if candidate.id == IDS[0]:
            raise UserError("another configuration: seed is 0 there, 1 here")

    outcome = train_front(result, FRONT[:3], trainer(log), tmp_path / "runs", check_same=check_same)
    assert states(outcome) == ["failed", "there", "trained"]
    assert outcome.rows[0].reason == "another configuration: seed is 0 there, 1 here"
    assert asked == [(identity, tmp_path / "runs" / identity) for identity in IDS[:2]], "the third holds no run"
    assert log == IDS[:3]


def test_a_run_that_cannot_be_recorded_is_kept_and_told(result: Path, tmp_path: Path) -> None:
    told: list[str] = []
    stranger = replace(FRONT[0], id="stranger")
    outcome = train_front(result, [stranger], trainer([]), tmp_path / "runs", report=told.append)
    assert states(outcome) == ["trained"]
    assert any("not recorded" in line for line in told)
    assert read_run(tmp_path / "runs" / "stranger").candidate == "stranger"


# workers that share


WORKER = """
import json, sys, time
from pathlib import Path
import scaler.report.recording as recording
recording.write_reports = lambda *_: None
from sample_runs import sample_run
from scaler.accuracy.runs import write_run
from scaler.search.result_file import read_result
from scaler.training.runs.winners import train_front

result, storage, folder, name, count, seconds, lease = sys.argv[1:]
log = []

def train_one(candidate, folder):
    print(candidate.id, flush=True)
    log.append(candidate.id)
    time.sleep(float(seconds))
    write_run(folder, sample_run(candidate=candidate.id))
    return sample_run(candidate=candidate.id)

picks = read_result(Path(result)).devices[0].front[: int(count)]
outcome = train_front(
    Path(result), picks, train_one, Path(folder), storage=storage, worker=name, lease_s=float(lease),
    report=lambda line: print(line, file=sys.stderr),
)
print(json.dumps({"trained": log, "states": [row.state for row in outcome.rows]}), flush=True)
"""


def start(result: Path, storage: str, name: str, *, count: int, seconds: float, lease: float) -> subprocess.Popen[str]:
    arguments = (result, storage, result.parent / "runs", name, count, seconds, lease)
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )


def finished(worker: subprocess.Popen[str]) -> tuple[dict[str, list[str]], str]:
    out, err = worker.communicate(timeout=600)
    assert worker.returncode == 0, err
    return dict(json.loads(out.splitlines()[-1])), err


@pytest.fixture(params=["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "study.journal") if request.param == "journal" else f"sqlite:///{tmp_path / 'study.db'}"


def test_two_workers_share_the_jobs_and_each_is_done_once(result: Path, storage: str) -> None:
    with open_jobs(storage, "training", "first"):
        pass  # two that make a database at the same moment are Optuna's trouble
    workers = [start(result, storage, name, count=4, seconds=0.3, lease=60) for name in ("a", "b")]
    ends = [finished(worker)[0] for worker in workers]
    assert Counter(identity for end in ends for identity in end["trained"]) == Counter(IDS[:4])
    for end in ends:
        assert Counter(end["states"]) == Counter(trained=len(end["trained"]), elsewhere=4 - len(end["trained"]))
    assert recorded(result) == {identity: int(identity in IDS[:4]) for identity in IDS}


def test_the_job_of_a_killed_worker_is_taken_over(result: Path, storage: str) -> None:
    doomed = start(result, storage, "doomed", count=2, seconds=600, lease=1.0)
    assert doomed.stdout is not None
    assert doomed.stdout.readline().strip() == IDS[0]
    doomed.send_signal(signal.SIGKILL)
    doomed.communicate()
    end, talk = finished(start(result, storage, "heir", count=2, seconds=0.0, lease=1.0))
    assert end == {"trained": [IDS[1], IDS[0]], "states": ["trained", "trained"]}
    assert "waiting for doomed" in talk
    assert f"{IDS[0]}: doomed has not finished it" in talk
    assert recorded(result)[IDS[0]] == 1


@pytest.mark.slow
def test_a_worker_that_beats_keeps_its_job(tmp_path: Path) -> None:
    import time

    storage = tmp_path / "study.journal"
    with open_jobs(storage, "training", "slow", 10.0) as mine, open_jobs(storage, "training", "other", 10.0) as other:
        mine.add(["a"])
        claim = mine.claim(["a"])
        assert claim is not None
        with mine.beating(claim):
            for _ in range(150):  # one and a half times the lease
                assert other.claim(["a"]) is None
                time.sleep(0.1)
        assert mine.complete(claim, {"n": 1})
        assert other.settled(["a"])["a"].result == {"n": 1}


def test_a_worker_that_was_taken_for_dead_learns_it(tmp_path: Path) -> None:
    import time

    storage = tmp_path / "study.journal"
    with open_jobs(storage, "training", "slow", 0.1) as mine, open_jobs(storage, "training", "other", 0.1) as other:
        mine.add(["a"])
        claim = mine.claim(["a"])
        assert claim is not None
        assert other.claim(["a"]) is None  # a lease counts from when it was first seen
        time.sleep(0.2)
        taken = other.claim(["a"])
        assert taken is not None
        assert (taken.job, taken.taken_from) == ("a", "slow")
        assert not mine.complete(claim, {"late": True})
        assert other.complete(taken, {"in time": True})
        assert mine.settled(["a"])["a"].result == {"in time": True}


def test_jobs_that_two_workers_add_at_once_are_one_job(tmp_path: Path) -> None:
    with with_storage(tmp_path / "study.journal") as opened:
        one, two = Jobs(opened, "training", "one"), Jobs(opened, "training", "two")
        one.add(["a"])
        for jobs in (one, two):  # as if neither had seen the other's
            jobs._backend.create_new_trial(jobs._study, waiting("a"))
        claim = one.claim(["a"])
        assert claim is not None
        assert two.claim(["a"]) is None
        assert two.holders(["a"]) == {"a": "one"}
        assert one.give_up(claim, "no luck")
        assert two.claim(["a"]) is not None, "a copy remains to be tried"


def waiting(job: str) -> object:
    from optuna.trial import TrialState, create_trial

    return create_trial(state=TrialState.WAITING, user_attrs={"job": job})


def test_what_others_gave_up_is_tried_again_only_when_asked(result: Path, tmp_path: Path) -> None:
    log: list[str] = []
    journal = tmp_path / "study.journal"
    trouble = {IDS[0]: failing(UserError("diverged"))}
    folder = tmp_path / "runs"
    train_front(result, FRONT[:1], trainer(log, trouble), folder, storage=journal, worker="one")
    second = train_front(result, FRONT[:1], trainer(log), folder, storage=journal, worker="two")
    assert states(second) == ["failed"]
    assert second.rows[0].reason == "diverged (worker one)"
    third = train_front(result, FRONT[:1], trainer(log), folder, storage=journal, worker="three", retry=True)
    assert states(third) == ["trained"]
    assert log == [IDS[0]] * 2
    other = train_front(result, FRONT[:1], trainer(log), tmp_path / "b", storage=journal, study="another recipe")
    assert states(other) == ["trained"]


def test_a_study_of_something_else_is_refused(result: Path, tmp_path: Path) -> None:
    from scaler.search.evaluation import Evaluated
    from scaler.search.study import StudyPlan, run_study
    from scaler.space_file import read_space

    journal = tmp_path / "study.journal"
    plan = StudyPlan(sampler="random", trials=1, name="training")
    run_study(read_space("yolo-ret"), lambda _: Evaluated(50.0, 30.0, {}), plan=plan, storage=journal)
    with pytest.raises(UserError, match="holds no jobs of scaler"):
        train_front(result, FRONT[:1], trainer([]), tmp_path / "runs", storage=journal)
    assert not (tmp_path / "runs" / IDS[0] / RESULT).exists()
