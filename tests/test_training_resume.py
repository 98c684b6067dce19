"""A run that is interrupted anywhere and resumed ends with the weights of one that was not, bit for bit."""

import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from training_runs import (  # noqa: E402
    SPEC,
    Listener,
    dataset,
    metrics_of,
    plan,
    recipe,
    run,
    same,
    with_toy_family,  # noqa: F401  (a fixture)
)

from scaler.errors import FileError, UserError  # noqa: E402
from scaler.training.loop.events import Outcome, Step  # noqa: E402
from scaler.training.loop.plan import TrainingPlan  # noqa: E402
from scaler.training.loop.steps import Stepper  # noqa: E402
from scaler.training.network.checkpoint import read_checkpoint  # noqa: E402
from scaler.training.recipe import Stage  # noqa: E402

STAGES = (
    Stage(epochs=1, lr=2e-3, freeze="transferred", warmup_epochs=0.5),
    Stage(epochs=2, lr=1e-3, final=0.1),
)
FROZEN = ("backbone.stage2.unit.conv.weight", "backbone.stage2.unit.bn.weight", "backbone.stage2.unit.bn.bias")


def transferred(module: torch.nn.Module, graph: object) -> tuple[str, ...]:
    return FROZEN


def interrupter(at: int) -> Listener:
    """Sends Ctrl-C after so many steps."""
    done: list[Step] = []

    def press(step: Step) -> None:
        done.append(step)
        if len(done) == at:
            signal.raise_signal(signal.SIGINT)

    return Listener(press)


def trained(own: TrainingPlan) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, object]]:
    """Weights for inference, raw weights and optimiser of the last checkpoint."""
    checkpoint = read_checkpoint(own.last)
    assert checkpoint.progress is not None
    optimiser = {
        f"{index}.{name}": value
        for index, state in checkpoint.progress["optimiser"]["state"].items()
        for name, value in state.items()
    }
    return dict(checkpoint.state), checkpoint.progress["raw"], optimiser


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainingPlan:
    """Three epochs of three steps in two stages, with everything that has a state, uninterrupted."""
    own = plan(tmp_path_factory.mktemp("whole"), recipe(*STAGES, ema=0.9), micro_batch=2, initial=transferred)
    outcome = run(own)
    assert outcome.finished and outcome.steps == 9
    return own


@pytest.mark.parametrize("at", [1, 3, 5, 9])  # within stage 1, at its end, within stage 2, after the last step
def test_weights_after_an_interruption_are_those_without_one(whole: TrainingPlan, tmp_path: Path, at: int):
    own = replace(whole, folder=tmp_path)
    first = run(own, interrupter(at))
    assert (first.finished, first.reason, first.steps, first.last) == (False, "Ctrl-C", at, own.last)
    listener = Listener()
    second = run(replace(own, resume=True), listener)
    assert (second.finished, second.steps) == (True, 9)
    assert [step.step for step in listener.steps] == [(at + i) % 3 + 1 for i in range(9 - at)]
    for ours, theirs in zip(trained(own), trained(whole), strict=True):
        assert same(ours, theirs)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_fresh_process_resumes_to_the_same_weights(whole: TrainingPlan, tmp_path: Path):
    own = replace(whole, folder=tmp_path)
    run(own, interrupter(4))
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dataclasses import replace
from pathlib import Path
from test_training_resume import STAGES, plan, recipe, run, transferred
from training_runs import toy_family
with toy_family():
    own = plan(Path({str(tmp_path)!r}), recipe(*STAGES, ema=0.9), micro_batch=2, initial=transferred, resume=True)
    assert run(own).finished
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=Path(__file__).parent.parent)
    for ours, theirs in zip(trained(own), trained(whole), strict=True):
        assert same(ours, theirs)  # type: ignore[arg-type]


def test_sigterm_and_the_time_limit_stop_a_run_too(tmp_path: Path):
    by_signal = run(plan(tmp_path / "signal"), Listener(lambda _: signal.raise_signal(signal.SIGTERM)))
    by_limit = run(plan(tmp_path / "limit", minutes=1e-9))
    assert (by_signal.finished, by_signal.reason, by_signal.steps) == (False, "SIGTERM", 1)
    assert (by_limit.finished, by_limit.reason, by_limit.steps) == (False, "time limit", 1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_outside_the_main_thread_a_run_takes_no_signals(tmp_path: Path):
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(run(plan(tmp_path))))
    thread.start()
    thread.join()
    assert found[0].finished


def test_whoever_stops_an_evaluation_resumes_with_it(tmp_path: Path):
    own = plan(tmp_path, val=dataset(4, "val"))

    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    first = run(own, evaluate=stop)
    assert (first.finished, first.reason, first.epochs, first.steps) == (False, "Ctrl-C", 0, 3)
    listener = Listener()
    second = run(replace(own, resume=True), listener, evaluate=lambda _, data, __: metrics_of(data))
    assert second.finished
    assert second.best_epoch == 0
    assert [(event.epoch, event.step) for event in listener.starts] == [(0, 3)]
    assert len(listener.steps) == 3
    assert [epoch.metrics is not None for epoch in listener.epochs] == [True, True]


def test_a_resumed_run_takes_parts_of_its_own_size_and_counts_its_own_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own, listener, seen = plan(tmp_path, micro_batch=1), Listener(), set()
    run(own, interrupter(1))
    usual = Stepper._backward

    def counted(self: Stepper, pictures: torch.Tensor, *arguments: object) -> torch.Tensor:
        seen.add(len(pictures))
        return usual(self, pictures, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Stepper, "_backward", counted)
    assert run(replace(own, resume=True, micro_batch=None), listener).finished
    assert seen == {4}
    assert [epoch.pictures_per_s * epoch.seconds for epoch in listener.epochs] == pytest.approx([8, 12])


def test_a_second_ctrl_c_leaves_the_last_checkpoint_as_it_was(tmp_path: Path):
    done: list[int] = []

    def press(step: Step) -> None:
        done.append(step.step)
        if len(done) == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    outcome = run(plan(tmp_path), Listener(press))
    assert (outcome.finished, outcome.reason) == (False, "Ctrl-C")
    assert read_checkpoint(tmp_path / "last.pt").facts.step == 3


def test_a_finished_run_is_resumed_to_nothing(tmp_path: Path):
    own = plan(tmp_path)
    first = run(own)
    listener = Listener()
    second = run(replace(own, resume=True), listener)
    assert (second.finished, second.steps, second.best_epoch) == (True, first.steps, 1)
    assert listener.steps == []


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> TrainingPlan:
    own = plan(tmp_path_factory.mktemp("begun"))
    run(own, interrupter(1))
    return own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": replace(SPEC, parameters={"channels": 4})}, "spec.parameters.channels: was None, is 4 now"),
        ({"recipe": recipe(batch=3)}, "recipe.batch: was 4, is 3 now"),
        ({"recipe": recipe(Stage(epochs=2, lr=2e-3))}, "recipe.stages[0].lr: was 0.001, is 0.002 now"),
        ({"train": dataset(13)}, "dataset.pictures: was 12, is 13 now"),
        ({"seed": 1}, "seed: was 0, is 1 now"),
        ({"precision": "bf16"}, "precision: was 'fp32', is 'bf16' now"),
    ],
)
def test_another_runs_checkpoint_is_refused_by_what_differs(
    begun: TrainingPlan, change: dict[str, object], message: str
):
    before = begun.last.read_bytes()
    with pytest.raises(FileError) as refused:
        run(replace(begun, resume=True, **change))  # type: ignore[arg-type]
    assert str(refused.value).startswith(f"{begun.last}: {message}; resume with what the run was started with")
    assert begun.last.read_bytes() == before


def test_other_classes_are_refused(begun: TrainingPlan):
    names = ("blue", "green")
    train = dataset(12)
    other = type(train)(train.name, train.split, names, train.pictures)
    with pytest.raises(FileError, match=r"spec\.classes\[1\]: was 'red', is 'green' now"):
        run(replace(begun, resume=True, spec=replace(SPEC, classes=names), train=other))


def test_a_run_that_is_there_is_not_overwritten(begun: TrainingPlan):
    with pytest.raises(UserError, match="is there already: resume that run, or name another folder"):
        run(begun)


def test_weights_alone_and_nothing_at_all_cannot_be_resumed(begun: TrainingPlan, tmp_path: Path):
    finished = plan(tmp_path)
    run(finished)
    finished.best.replace(finished.last)
    with pytest.raises(
        FileError, match=r"last\.pt: progress: missing: these are weights alone; resume from a last\.pt"
    ):
        run(replace(finished, resume=True))
    with pytest.raises(FileError, match="no such file"):
        run(replace(finished, folder=tmp_path / "nothing", resume=True))


def test_a_damaged_progress_is_one_line(begun: TrainingPlan, tmp_path: Path):
    content = torch.load(begun.last, weights_only=True)
    del content["progress"]["counts"]["micro_batch"], content["progress"]["optimiser"]["param_groups"]
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(FileError, match=r"last\.pt: progress: damaged \(.*\); train anew"):
        run(replace(begun, folder=tmp_path, resume=True))
