"""Several workers on one study: a journal file and a real PostgreSQL server, one worker killed in the middle."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest

from scaler.space import key
from scaler.space_file import read_space

pytestmark = pytest.mark.slow

TRIALS = 150
SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
WORKER = """
import json, os, sys
from scaler.search.evaluation import Evaluated
from scaler.search.study import StudyPlan, run_study
from scaler.space_file import read_space

where, sampler, trials = sys.argv[1], sys.argv[2], int(sys.argv[3])
own = 0

def evaluate(params):
    global own
    own += 1
    if own == 5:
        print("working", flush=True)
        sys.stdin.readline()
    ms = params["resolution"] ** 2 / 9000 * (1 + params.get("width", 1.5)) + params["rfcr"]
    return Evaluated(60 - 900 / ms + params["rfcr"] / 5 - params["drop"], ms, {"fps": ms / 33.3 - 1})

seed = os.getpid()  # workers of one seed that start in step would have the same ideas
plan = StudyPlan(sampler=sampler, trials=trials, seed=seed, metadata={"device": "nano"})
outcome = run_study(read_space("yolo-ret"), evaluate, plan=plan, storage=where)
print(json.dumps({"trials": outcome.trials, "distinct": outcome.distinct, "own": own}), flush=True)
"""


def start(where: str, sampler: str, trials: int = TRIALS) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, where, sampler, str(trials)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(worker: subprocess.Popen[str]) -> dict[str, int]:
    out, err = worker.communicate(timeout=600)
    assert worker.returncode == 0, err
    assert err == ""
    return dict(json.loads(out.splitlines()[-1]))


def wait_until_working(worker: subprocess.Popen[str]) -> None:
    """Until it is in the middle of its fifth trial, where it waits to be told to go on."""
    assert worker.stdout is not None
    assert worker.stdout.readline() == "working\n"


def go_on(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()


Trials = Callable[[], list[optuna.trial.FrozenTrial]]


def check_study(trials: list[optuna.trial.FrozenTrial], workers: int, wanted: int = TRIALS) -> None:
    space = read_space("yolo-ret")
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert wanted <= len(done) < wanted + workers
    assert [trial.number for trial in trials] == list(range(len(trials)))  # none is lost
    candidates = Counter(key(space.canonical(trial.user_attrs["params"])) for trial in done)
    assert len(candidates) >= len(done) - 10  # two workers may now and then have the same idea at the same time
    assert Counter(trial.state.name for trial in trials).keys() <= {"COMPLETE", "RUNNING"}


def share_a_study(where: str, sampler: str, read: Trials) -> None:
    """Two workers do the trials together."""
    workers = [start(where, sampler), start(where, sampler)]
    for worker in workers:
        wait_until_working(worker)
    for worker in workers:
        go_on(worker)
    results = [finished(worker) for worker in workers]
    assert min(result["own"] for result in results) > 5  # both went on
    assert sum(result["own"] for result in results) <= TRIALS + 2
    check_study(read(), workers=2)


def survive_a_kill(where: str, sampler: str, read: Trials) -> None:
    """One of two workers is killed in the middle of a trial; the other does what is left, and nothing is lost."""
    survivor, victim = start(where, sampler), start(where, sampler)
    for worker in (survivor, victim):
        wait_until_working(worker)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    before = {trial.number: trial.values for trial in read() if trial.state.name == "COMPLETE"}
    assert len(before) == 8  # four of each
    go_on(survivor)
    result = finished(survivor)
    assert result["trials"] >= TRIALS
    after = {trial.number: trial.values for trial in read()}
    assert {number: after[number] for number in before} == before
    check_study(read(), workers=2)


def killed_while_writing(where: str, read: Trials) -> None:
    """Workers are killed at many moments; the study grows all the same and ends whole."""
    for attempt in range(12):
        worker = start(where, "auto", 100_000)  # it does not end by itself
        wait_until_working(worker)
        go_on(worker)
        time.sleep(0.0037 * attempt)
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
    wanted = sum(trial.state.name == "COMPLETE" for trial in read()) + 50
    last = start(where, "auto", wanted)
    wait_until_working(last)
    go_on(last)
    assert finished(last)["trials"] == wanted
    check_study(read(), 1, wanted)


# on a journal file


@pytest.fixture
def journal(tmp_path: Path) -> tuple[str, Trials]:
    path = tmp_path / "study.journal"

    def read() -> list[optuna.trial.FrozenTrial]:
        backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        return optuna.load_study(study_name="scaler", storage=backend).trials

    return str(path), read


@pytest.mark.parametrize("sampler", ["auto", "random", "nsga2"])
def test_two_workers_share_a_journal(journal: tuple[str, Trials], sampler: str) -> None:
    share_a_study(journal[0], sampler, journal[1])


@pytest.mark.parametrize("sampler", ["auto", "nsga2"])
def test_a_journal_survives_a_killed_worker(journal: tuple[str, Trials], sampler: str) -> None:
    survive_a_kill(journal[0], sampler, journal[1])


def test_a_journal_survives_kills_at_any_moment(journal: tuple[str, Trials]) -> None:
    killed_while_writing(*journal)


# on a PostgreSQL server


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A cluster of our own on the loopback; PostgreSQL refuses to run as root, so it runs as `postgres` then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    if become:
        shutil.chown(folder, "postgres", "postgres")
    data, tools = folder / "data", SERVERS[-1]
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}"

    def control(*command: str) -> None:
        subprocess.run([*become, *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    control(f"{tools}/initdb", "--pgdata", str(data), "--username=scaler", "--auth=trust", "--encoding=UTF8")
    control(f"{tools}/pg_ctl", "start", "-w", "-D", str(data), "-l", str(folder / "log"), "-o", options)
    try:
        yield f"postgresql://scaler:unused@127.0.0.1:{port}/postgres"
    finally:
        control(f"{tools}/pg_ctl", "stop", "-w", "-m", "fast", "-D", str(data))


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    if not SERVERS:
        pytest.skip("PostgreSQL is not installed (Debian package postgresql)")
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL does not run as root, and setpriv (util-linux) is not installed")
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:  # pytest's are closed to other users
        yield url


@pytest.fixture
def database(postgresql: str) -> Iterator[tuple[str, Trials]]:
    backend = optuna.storages.RDBStorage(postgresql.replace("postgresql:", "postgresql+psycopg:"))

    def read() -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="scaler", storage=backend).trials

    yield postgresql, read
    optuna.delete_study(study_name="scaler", storage=backend)
    backend.remove_session()
    backend.engine.dispose()


@pytest.mark.parametrize("sampler", ["auto", "nsga2"])
def test_two_workers_share_a_database(database: tuple[str, Trials], sampler: str) -> None:
    share_a_study(database[0], sampler, database[1])


@pytest.mark.parametrize("sampler", ["auto", "nsga2"])
def test_a_database_survives_a_killed_worker(database: tuple[str, Trials], sampler: str) -> None:
    survive_a_kill(database[0], sampler, database[1])
