"""Studies on disk: resumption, interruption, and storages that are broken or about something else."""

import errno
import json
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_study import TINY, Toy, completed, run

from scaler.errors import MissingExtraError, UserError
from scaler.search import storage as storage_module
from scaler.search import stored as stored_module
from scaler.search.study import SAMPLERS, StudyPlan, run_study
from scaler.space import Space
from scaler.space_file import read_space


@pytest.fixture(scope="module")
def shipped() -> Space:
    return read_space("yolo-ret")


@pytest.fixture
def tiny(tmp_path: Path) -> Space:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return read_space(path)


def test_what_others_read_in_the_study(shipped: Space, tmp_path: Path) -> None:
    path = tmp_path / "new" / "study.journal"
    for sampler in ("auto", "tpe"):
        outcome = run(shipped, Toy(fps=30), path, sampler=sampler, trials=4, name=sampler, metadata={"device": "nano"})
        assert outcome.storage == f"{path}, study {sampler!r}"
        params, scored = outcome.evaluated[0]
        trial = completed(path, sampler)[0]
        assert trial.values == [scored.ap, scored.frame_ms]
        assert trial.constraints == scored.violations
        assert trial.user_attrs["params"] == params
        assert trial.user_attrs["id"] == shipped.candidate_id(params)
        assert trial.user_attrs["fps"] == round(1000 / scored.frame_ms, 2)
        assert trial.params["backbone"] == params["backbone"]
        assert trial.params[next(name for name in trial.params if name.startswith("drop["))] is not None


@pytest.mark.parametrize("sampler", ["auto", "random"])
def test_a_resumed_study_equals_one_that_was_not_interrupted(shipped: Space, tmp_path: Path, sampler: str) -> None:
    whole = run(shipped, Toy(), tmp_path / "whole", sampler=sampler, trials=120)
    toy = Toy()
    for trials in (50, 51, 120):
        parts = run(shipped, toy, tmp_path / "parts", sampler=sampler, trials=trials)
    assert parts.evaluated == whole.evaluated
    assert toy.calls.total() == 120


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
@pytest.mark.parametrize("sampler", ["auto", "nsga2"])
def test_a_study_is_resumed_up_to_the_wanted_trials(tiny: Space, tmp_path: Path, kind: str, sampler: str) -> None:
    where = f"sqlite:///{tmp_path}/study.db" if kind == "sqlite" else tmp_path / "study.journal"
    toy, seen = Toy(), []
    assert run(tiny, toy, where, sampler=sampler, trials=6).trials == 6
    outcome = run_study(
        tiny, toy, plan=StudyPlan(sampler=sampler, trials=10), storage=where, progress=lambda *done: seen.append(done)
    )
    assert outcome.trials == outcome.distinct == toy.calls.total() == 10
    assert seen == [(7, 10), (8, 10), (9, 10), (10, 10)]
    assert run(tiny, toy, where, sampler=sampler, trials=8).trials == 10
    assert toy.calls.total() == 10


def test_a_study_can_go_on_with_another_sampler(tiny: Space, tmp_path: Path) -> None:
    toy = Toy()
    for trials, sampler in enumerate(("random", "nsga2", "auto", "tpe", "nsga3", "auto"), start=1):
        outcome = run(tiny, toy, tmp_path / "study", sampler=sampler, trials=5 * trials)
    assert outcome.trials == outcome.distinct == toy.calls.total() == 30


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])
def test_ctrl_c_keeps_what_was_done_and_the_study_goes_on(tiny: Space, tmp_path: Path, sampler: str) -> None:
    def interrupt(calls: int) -> None:
        if calls == 4:
            raise KeyboardInterrupt

    path = tmp_path / "study"
    outcome = run(tiny, Toy(then=interrupt), path, sampler=sampler, trials=9)
    assert outcome.interrupted
    assert len(outcome.evaluated) == (0 if sampler == "exhaustive" else 3)
    assert {trial.state.name for trial in completed(path)} <= {"COMPLETE", "FAIL"}
    outcome = run(tiny, Toy(), path, sampler=sampler, trials=9)
    assert not outcome.interrupted
    assert outcome.trials == (tiny.size if sampler == "exhaustive" else 9)


def test_a_bug_in_the_evaluation_keeps_its_traceback_and_fails_its_trial(tiny: Space, tmp_path: Path) -> None:
    def bug(calls: int) -> None:
        if calls == 3:
            raise ZeroDivisionError

    for sampler in ("auto", "nsga2"):
        with pytest.raises(ZeroDivisionError):
            run(tiny, Toy(then=bug), tmp_path / sampler, sampler=sampler, trials=9)
        states = Counter(trial.state.name for trial in completed(tmp_path / sampler))
        assert states == {"COMPLETE": 2, **({"FAIL": 1} if sampler == "nsga2" else {})}


def test_a_trial_that_a_dead_worker_left_running_is_failed(
    tiny: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study"
    run(tiny, Toy(), path, trials=2)
    backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    optuna.load_study(study_name="scaler", storage=backend).ask()
    run(tiny, Toy(), path, sampler="nsga2", trials=4)
    assert Counter(trial.state.name for trial in completed(path)) == {"COMPLETE": 4, "RUNNING": 1}
    monkeypatch.setattr(stored_module, "STALE_S", 0.0)
    time.sleep(0.01)
    run(tiny, Toy(), path, sampler="nsga2", trials=6)
    assert Counter(trial.state.name for trial in completed(path)) == {"COMPLETE": 6, "FAIL": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metadata": {"device": "nx", "dataset": "voc"}}, "was made for device 'nano', not 'nx'; name another study"),
        ({"metadata": {"device": "nano", "dataset": "coco"}}, "was made for dataset 'voc', not 'coco'"),
        ({"metadata": {"device": "nano", "dataset": "voc", "precision": "int8"}}, "precision 'none', not 'int8'"),
    ],
)
def test_a_study_of_something_else_is_refused(
    tiny: Space, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    plan: dict[str, object] = {"trials": 2, "metadata": {"device": "nano", "dataset": "voc"}}
    run(tiny, Toy(), tmp_path / "study", **plan)
    with pytest.raises(UserError, match=f"study: study 'scaler' {said}|{said}"):
        run(tiny, Toy(), tmp_path / "study", **{**plan, **change})
    assert len(completed(tmp_path / "study")) == 2


def test_a_study_of_another_space_or_schema_is_refused(
    tiny: Space, shipped: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny, Toy(), tmp_path / "study", trials=2)
    with pytest.raises(UserError, match="was made for space 'tiny', not 'yolo-ret'"):
        run(shipped, Toy(), tmp_path / "study", trials=3)
    (tmp_path / "tiny.toml").write_text(TINY.replace("512", "480"))
    with pytest.raises(UserError, match="was made for another version of the search space"):
        run(read_space(tmp_path / "tiny.toml"), Toy(), tmp_path / "study", trials=3)
    monkeypatch.setattr(stored_module, "STUDY_SCHEMA_VERSION", 2)
    with pytest.raises(UserError, match="was made for schema_version 1, not 2"):
        run(tiny, Toy(), tmp_path / "study", trials=3)


def test_a_study_that_is_not_ours_is_refused(tiny: Space, tmp_path: Path) -> None:
    backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "study")))
    optuna.create_study(storage=backend, study_name="one")
    theirs = optuna.create_study(storage=backend, study_name="two", directions=["maximize", "minimize"])
    theirs.add_trial(optuna.trial.create_trial(values=[1, 2]))
    with pytest.raises(UserError, match="'one' has other objectives than AP up and frame_ms down"):
        run(tiny, Toy(), tmp_path / "study", name="one")
    with pytest.raises(UserError, match="'two' was not made by scaler"):
        run(tiny, Toy(), tmp_path / "study", name="two")


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_journal_whose_last_line_is_half_written_goes_on(tiny: Space, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "study"
    before = run(tiny, Toy(), path, trials=8)
    path.write_bytes(path.read_bytes()[:-cut])
    after = run(tiny, Toy(), path, trials=8)
    assert after.evaluated == before.evaluated  # the last one anew
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_journal_cut_off_anywhere_is_resumed(tiny: Space, tmp_path: Path) -> None:
    path = tmp_path / "study"
    run(tiny, Toy(), path, trials=4)
    content = path.read_bytes()
    for size in [*range(12), *range(12, len(content), 97)]:
        path.write_bytes(content[:size])
        assert run(tiny, Toy(), path, trials=5).trials == 5, size


@pytest.mark.parametrize("text", ["hello\n", "{}\n", "\0\0\0\0", '{"op_code"}\n', "[" * 5000, " "])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tiny: Space, tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=r"notes\.txt: is no study of scaler; name another file"):
        run(tiny, Toy(), path)
    assert path.read_text() == text


@pytest.mark.parametrize("line", ["{\n", "null\n", "[]\n", '{"op_code":4}\n', '{"op_code":99,"worker_id":"a"}\n'])
def test_a_damaged_journal_is_refused_and_left_alone(tiny: Space, tmp_path: Path, line: str) -> None:
    path = tmp_path / "study"
    run(tiny, Toy(), path, trials=3)
    lines = path.read_text().splitlines(keepends=True)
    damaged = "".join([*lines[:-1], line, lines[-1]])
    path.write_text(damaged)
    with pytest.raises(UserError, match="study: is damaged or no study") as refused:
        run(tiny, Toy(), path, trials=4)
    assert "\n" not in str(refused.value)
    assert path.read_text() == damaged


@settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the one file of a test is overwritten
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 6000),
            st.integers(0, 30),
            st.sampled_from([b"", b"\n", b"{", b'"', b"null", b"-1", b"NaN", b"\xff", b"[]", b"9" * 5000, b"[" * 2000]),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_stands_in_a_journal_it_is_resumed_or_refused(
    tiny: Space, tmp_path: Path, edits: list[tuple[int, int, bytes]]
) -> None:
    path, original = tmp_path / "study", tmp_path / "original"
    if not original.exists():
        run(tiny, Toy(), original, trials=4)
    content = original.read_bytes()
    for start, length, token in edits:
        content = content[:start] + token + content[start + length :]
    path.write_bytes(content)
    try:
        run(tiny, Toy(), path, trials=5)
    except UserError as error:
        assert "\n" not in str(error)


def test_a_full_disk_loses_nothing(tiny: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Counter[str]()

    def full(stream: object, content: bytes) -> None:
        written["lines"] += 1
        if written["lines"] == 9:
            stream.write(content[:40])  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, "No space left on device")
        stream.write(content)  # type: ignore[attr-defined]

    path = tmp_path / "study"
    with monkeypatch.context() as patched:
        patched.setattr(storage_module, "_write_all", full)
        with pytest.raises(UserError, match="study: No space left on device; what was stored before is safe"):
            run(tiny, Toy(), path, trials=30)
    assert path.read_text().endswith("\n")
    stored = len(completed(path))
    assert stored > 0
    toy = Toy()
    assert run(tiny, toy, path, trials=30).trials == 30
    assert toy.calls.total() == 30 - stored


def test_a_journal_in_a_folder_that_cannot_be_written_is_refused(
    tiny: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        run(tiny, Toy(), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"study: (Not a directory|File exists)"):
        run(tiny, Toy(), tmp_path / "file" / "study")

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="study: Permission denied"):
        run(tiny, Toy(), tmp_path / "study")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:secret@127.0.0.1:1/db", "127.0.0.1:1/db: .*connection"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/db", "127.0.0.1:1/db: .*connection"),
        ("sqlite:////no/such/folder/study.db", "unable to open database file"),
        ("sqlite3:///study.db", "no storage of this kind; did you mean 'sqlite'"),
        ("mongodb://me:secret@host/db", "no storage of this kind"),
        ("postgresql://me:secret@[", "failed to resolve host"),
        ("postgresql://me:secret@host:port/db", "port"),
        ("mysql+nodriver://me:secret@host/db", "nodriver"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_one_line_without_its_password(
    tiny: Space, url: str, said: str
) -> None:
    with pytest.raises(UserError, match=said) as refused:
        run(tiny, Toy(), url)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_missing_driver_is_told(tiny: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"PostgreSQL needs psycopg.*'scaler-nas\[postgresql\]'"):
        run(tiny, Toy(), "postgresql://me@127.0.0.1:1/db")
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(UserError, match="redis, which is not installed"):
        run(tiny, Toy(), "redis://127.0.0.1:1/0")


def test_a_file_that_is_no_database_is_refused(tiny: Space, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("hello " * 2000)
    with pytest.raises(UserError, match="file is not a database"):
        run(tiny, Toy(), f"sqlite:///{tmp_path}/study.db")
