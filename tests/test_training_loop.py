"""The training loop: what it does with a plan, what it tells, and what stops it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from training_runs import (  # noqa: E402
    CLASSES,
    SPEC,
    Listener,
    MemorySource,
    dataset,
    image_of,
    metrics_of,
    plan,
    recipe,
    run,
    same,
    unused,
    with_toy_family,  # noqa: F401  (a fixture)
)

from scaler.data.dataset import Dataset  # noqa: E402
from scaler.errors import UserError  # noqa: E402
from scaler.evaluation.detections import Detector, Selection  # noqa: E402
from scaler.evaluation.metrics import Metrics, score  # noqa: E402
from scaler.training.loop.batches import Batch  # noqa: E402
from scaler.training.loop.health import DivergedError  # noqa: E402
from scaler.training.loop.plan import TrainingPlan  # noqa: E402
from scaler.training.loop.steps import Stepper  # noqa: E402
from scaler.training.network.checkpoint import load_into, read_checkpoint  # noqa: E402
from scaler.training.network.detector import TorchDetector  # noqa: E402
from scaler.training.network.heads import initialise_heads  # noqa: E402
from scaler.training.network.module import to_torch  # noqa: E402
from scaler.training.recipe import Stage  # noqa: E402

ONE_EPOCH = Stage(epochs=1, lr=1e-3)


def on_memory(detector: Detector, data: Dataset, selection: Selection) -> Metrics:
    """Judge a detector by pictures in memory."""
    images = [image_of(int(picture.path.stem)) for picture in data.pictures]
    truth = [picture.boxes for picture in data.pictures]
    return score(truth, detector.detect(images, selection), data.classes, dataset=data.name, split=data.split)


class TestTheWholeRun:
    @pytest.mark.slow
    def test_a_network_learns_pictures_by_heart(self, tmp_path: Path):
        own = plan(tmp_path, recipe(Stage(epochs=40, lr=5e-3, final=0.05), ema=0.98), pictures=8, val=dataset(8, "val"))
        own = replace(
            own, recipe=replace(own.recipe, evaluate_every=20), spec=replace(SPEC, parameters={"channels": 24})
        )
        listener = Listener()
        outcome = run(own, listener, evaluate=on_memory)
        losses = [epoch.losses["total"] for epoch in listener.epochs]
        assert losses[-1] < 0.4 * losses[0]
        assert outcome.metrics is not None
        assert outcome.metrics.ap50 is not None
        assert outcome.metrics.ap50 > 0.5
        assert outcome.best_ap == outcome.metrics.ap

    def test_it_tells_every_step_and_epoch(self, tmp_path: Path):
        listener = Listener()
        outcome = run(plan(tmp_path), listener)
        assert [(event.epoch, event.step, event.of) for event in listener.steps] == [
            (epoch, step, 3) for epoch in (0, 1) for step in (1, 2, 3)
        ]
        start, first, last = listener.starts[0], listener.steps[0], listener.epochs[-1]
        assert (start.steps_per_epoch, start.epoch, start.step, start.world) == (3, 0, 0, 1)
        assert start.parameters == sum(value.numel() for value in to_torch(SPEC.graph()).parameters())
        assert list(first.losses) == ["box", "objectness", "classes", "total"]
        assert first.losses["total"] == pytest.approx(sum(list(first.losses.values())[:3]))
        assert first.gradient > 0 and first.pictures_per_s > 0 and first.memory_mib > 10 and first.eta_s > 0
        assert first.lr == pytest.approx(1e-3 / 3)
        epoch_steps = [step.losses["box"] for step in listener.steps[3:]]
        assert last.losses["box"] == pytest.approx(sum(epoch_steps) / 3, rel=1e-5)
        assert (last.of, last.stage, last.eta_s, last.metrics) == (2, 0, 0.0, None)
        assert listener.ends == [outcome]
        assert outcome.finished and outcome.seconds > 0

    def test_the_weights_of_equal_plans_are_equal_and_of_other_seeds_others(self, tmp_path: Path):
        once, twice, other = (plan(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
        states = [read_checkpoint(own.last).state for own in (once, twice, other) if run(own).finished]
        assert same(states[0], states[1])
        assert not same(states[0], states[2])

    def test_the_best_evaluation_is_kept(self, tmp_path: Path):
        own = plan(tmp_path, recipe(Stage(epochs=3, lr=1e-3)), val=dataset(4, "val"))
        found: Iterator[bool] = iter([False, True, False])
        states: list[dict[str, torch.Tensor]] = []

        def judge(detector: Detector, data: Dataset, selection: Selection) -> Metrics:
            assert selection == own.selection
            checkpoint = read_checkpoint(own.last)
            assert checkpoint.progress is not None
            states.append(dict(checkpoint.state))
            return metrics_of(data, next(found))

        listener = Listener()
        outcome = run(own, listener, evaluate=judge)
        best = read_checkpoint(own.best)
        assert [epoch.best for epoch in listener.epochs] == [True, True, False]
        assert (outcome.best_epoch, outcome.best_ap, outcome.best) == (1, 1.0, own.best)
        assert (best.facts.epoch, best.facts.step, best.facts.ap, best.progress) == (2, 6, 1.0, None)
        assert same(best.state, states[1])
        assert not same(best.state, states[2])

    def test_evaluations_come_as_often_as_the_recipe_says_and_after_every_stage(self, tmp_path: Path):
        stages = (Stage(epochs=2, lr=1e-3), Stage(epochs=3, lr=1e-4))
        own = plan(tmp_path, replace(recipe(*stages), evaluate_every=4), pictures=4, val=dataset(2, "val"))
        listener = Listener()
        run(own, listener, evaluate=lambda _, data, __: metrics_of(data))
        assert [epoch.metrics is not None for epoch in listener.epochs] == [False, True, False, True, True]
        assert [epoch.stage for epoch in listener.epochs] == [0, 0, 1, 1, 1]

    def test_the_moving_average_is_evaluated_and_kept(self, tmp_path: Path):
        own = plan(tmp_path, recipe(ONE_EPOCH, ema=0.9), val=dataset(4, "val"))
        outputs: list[torch.Tensor] = []
        images = torch.zeros(1, 64, 64, 3, dtype=torch.uint8).numpy()

        def judge(detector: Detector, data: Dataset, _: Selection) -> Metrics:
            outputs.append(torch.from_numpy(detector.raw(images)[0]))
            return metrics_of(data)

        run(own, evaluate=judge)
        last = read_checkpoint(own.last)
        assert last.progress is not None
        assert not same(last.state, last.progress["raw"])
        assert same(last.state, last.progress["average"]["weights"])
        assert same(last.state, read_checkpoint(own.best).state)
        module = to_torch(SPEC.graph())
        load_into(module, last, own.last)
        torch.testing.assert_close(torch.from_numpy(TorchDetector(SPEC, module).raw(images)[0]), outputs[0])

    def test_without_a_validation_set_the_last_weights_are_the_best(self, tmp_path: Path):
        listener = Listener()
        outcome = run(plan(tmp_path), listener, evaluate=unused)
        assert listener.messages == ["no validation set: no AP; best.pt will hold the last weights"]
        best, last = read_checkpoint(tmp_path / "best.pt"), read_checkpoint(tmp_path / "last.pt")
        assert same(best.state, last.state)
        assert (best.facts.ap, outcome.best_ap, outcome.best_epoch) == (None, None, 1)

    def test_fewer_pictures_than_a_batch_are_one_step(self, tmp_path: Path):
        listener = Listener()
        outcome = run(plan(tmp_path, pictures=3), listener)
        assert outcome.steps == 2
        assert "3 pictures, fewer than a batch of 4: one step an epoch" in listener.messages
        assert [epoch.pictures_per_s * epoch.seconds for epoch in listener.epochs] == pytest.approx([3, 3])

    @pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": True}])
    def test_other_settings_train_to_nearly_the_same(self, tmp_path: Path, options: dict[str, object]):
        usual, other = Listener(), Listener()
        run(plan(tmp_path / "usual"), usual)
        run(plan(tmp_path / "other", **options), other)
        for one, two in zip(usual.epochs, other.epochs, strict=True):
            assert two.losses["total"] == pytest.approx(one.losses["total"], rel=0.02)

    def test_multi_scale_and_adversarial_training(self, tmp_path: Path):
        listener = Listener()
        own = recipe(Stage(epochs=8, lr=1e-3), multi_scale=0.5, adversarial=0.2)
        run(plan(tmp_path, own), listener)
        assert {step.size for step in listener.steps} > {64} or len({step.size for step in listener.steps}) > 1
        assert all(step.size % 32 == 0 for step in listener.steps)
        for step in listener.steps:
            usual = sum(step.losses[name] for name in ("box", "objectness", "classes"))
            assert step.losses["adversarial"] > 0.2 * 0.9 * usual
            assert step.losses["total"] == pytest.approx(usual + step.losses["adversarial"])


class TestStages:
    def run_with(self, folder: Path, freeze: str, names: tuple[str, ...]) -> tuple[Listener, TrainingPlan]:
        stage = Stage(epochs=1, lr=1e-2, freeze=freeze)  # type: ignore[arg-type]
        own, listener = plan(folder, recipe(stage), initial=lambda *_: names), Listener()
        run(own, listener)
        return listener, own

    def changed(self, own: TrainingPlan) -> set[str]:
        before, after = to_torch(SPEC.graph(), seed=own.seed).state_dict(), read_checkpoint(own.last).state
        return {key for key in before if not torch.equal(before[key], after[key])}

    def test_the_frozen_backbone_and_its_statistics_stay(self, tmp_path: Path):
        listener, own = self.run_with(tmp_path, "backbone", ("backbone.stage2.unit.conv.weight",))
        assert self.changed(own) == {f"head.stride{stride}.conv.weight" for stride in (8, 16, 32)}
        assert any("stage 1: 2,600 parameters stay as they are" in line for line in listener.messages)

    def test_transferred_weights_alone_stay(self, tmp_path: Path):
        parts = ("backbone.stage2.unit.conv", "backbone.stage2.unit.bn")  # names of layers are as good as keys
        _, own = self.run_with(tmp_path, "transferred", parts)
        still = set(to_torch(SPEC.graph()).state_dict()) - self.changed(own)
        assert still == {key for key in to_torch(SPEC.graph()).state_dict() if key.startswith("backbone.stage2.")}

    @pytest.mark.parametrize("freeze", ["backbone", "transferred"])
    def test_random_weights_are_not_frozen(self, tmp_path: Path, freeze: str):
        listener, own = self.run_with(tmp_path, freeze, ())
        assert self.changed(own) == set(to_torch(SPEC.graph()).state_dict())
        assert any("there are none: all weights learn" in line for line in listener.messages)

    def test_a_later_stage_trains_everything(self, tmp_path: Path):
        stages = (Stage(epochs=1, lr=1e-2, freeze="backbone"), ONE_EPOCH)
        own = plan(tmp_path, recipe(*stages), initial=lambda *_: ("backbone.stage2.unit.conv.weight",))
        run(own)
        assert self.changed(own) == set(to_torch(SPEC.graph()).state_dict())

    def test_training_begins_with_the_initial_weights(self, tmp_path: Path):
        def fill(module: torch.nn.Module, graph: object) -> tuple[str, ...]:
            torch.nn.init.constant_(module.get_parameter("head.stride8.conv.weight"), 0.25)
            return ()

        own = plan(tmp_path, recipe(Stage(epochs=1, lr=1e-9)), initial=fill)
        run(own)
        weight = read_checkpoint(own.last).state["head.stride8.conv.weight"]
        torch.testing.assert_close(weight, torch.full_like(weight, 0.25))


def poisoned(batch: Batch) -> Batch:
    """Boxes that are no numbers."""
    return batch._replace(targets=batch.targets._replace(boxes=batch.targets.boxes * math.nan))


class TestTrouble:
    def test_a_loss_that_is_no_number_stops_before_the_weights_move(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        own = plan(tmp_path, recipe(Stage(epochs=3, lr=1e-3)))
        calls: list[int] = []
        usual = Stepper.gradients

        def broken(self: Stepper, *arguments: object) -> torch.Tensor:
            losses = usual(self, *arguments)  # type: ignore[arg-type]
            calls.append(1)
            if len(calls) == 5:
                losses[0] = math.nan
                self._learning[0].grad.fill_(math.nan)
            return losses

        monkeypatch.setattr(Stepper, "gradients", broken)
        with pytest.raises(DivergedError) as stopped:
            run(own)
        assert str(stopped.value) == (
            "training stopped: the box loss is nan (epoch 2, step 2 of 3, learning rate 0.000587); try a lower "
            f"learning rate, a longer warm-up or a smaller clip in the recipe; the last good checkpoint is {own.last}"
        )
        assert stopped.value.last_good == own.last
        assert all(value.isfinite().all() for value in read_checkpoint(own.last).state.values())

    def test_before_the_first_checkpoint_there_is_none_to_name(self, tmp_path: Path):
        def wild(batch: Batch) -> Batch:
            return batch._replace(images=torch.full_like(batch.images, 255))

        own = plan(tmp_path, recipe(Stage(epochs=1, lr=1e-3)))
        spec = replace(SPEC, preprocessing=replace(SPEC.preprocessing, std=(1e-38, 1e-38, 1e-38)))
        with pytest.raises(DivergedError, match=r"loss is (nan|inf).*there is no checkpoint yet") as stopped:
            run(replace(own, spec=spec), source=MemorySource(12, 4, wild))
        assert stopped.value.last_good is None

    def test_gradients_that_are_not_finite_move_nothing_and_end_the_run_if_they_stay(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        usual = Stepper.gradients

        def broken(self: Stepper, *arguments: object) -> torch.Tensor:
            losses = usual(self, *arguments)  # type: ignore[arg-type]
            self._learning[0].grad.fill_(math.inf)
            return losses

        monkeypatch.setattr(Stepper, "gradients", broken)
        listener = Listener()
        with pytest.raises(DivergedError, match="gradients have not been finite for 5 steps"):
            run(plan(tmp_path), listener)
        assert len(listener.steps) == 4
        fresh = to_torch(SPEC.graph())
        initialise_heads(fresh, SPEC.graph(), len(SPEC.classes))
        before, after = fresh.state_dict(), read_checkpoint(tmp_path / "last.pt").state
        assert all(torch.equal(before[key], after[key]) for key in before if key.endswith("weight"))

    def test_a_full_memory_halves_the_parts_of_a_batch_not_the_batch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        usual = Stepper._backward

        def small(self: Stepper, pictures: torch.Tensor, *arguments: object) -> torch.Tensor:
            if len(pictures) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return usual(self, pictures, *arguments)  # type: ignore[arg-type]

        reference = plan(tmp_path / "reference", micro_batch=1)
        run(reference)
        monkeypatch.setattr(Stepper, "_backward", small)
        own, listener = plan(tmp_path / "small"), Listener()
        assert run(own, listener).finished
        assert listener.messages[1:] == [
            f"out of memory: going on with {left} pictures at a time, added up to the same batch" for left in (2, 1)
        ]
        assert same(read_checkpoint(own.last).state, read_checkpoint(reference.last).state)
        progress = read_checkpoint(own.last).progress
        assert progress is not None and progress["counts"]["micro_batch"] == 1

    @pytest.mark.parametrize(
        "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
    )
    def test_a_memory_too_small_for_one_picture_ends_the_run_with_advice(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ):
        def full(*_: object) -> None:
            raise error

        monkeypatch.setattr(Stepper, "_backward", full)
        with pytest.raises(UserError, match="out of memory with one picture of 64 px at a time; train a smaller"):
            run(plan(tmp_path))

    def test_a_memory_too_small_for_the_optimiser_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def full(*_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

        monkeypatch.setattr(Stepper, "update", full)
        with pytest.raises(UserError, match=r"^out of memory: cpu has no room for .* or on a larger device$"):
            run(plan(tmp_path))

    def test_an_evaluation_takes_no_more_pictures_at_a_time_than_the_training(self, tmp_path: Path):
        seen: list[int | None] = []

        def judge(detector: Detector, data: Dataset, _: Selection) -> Metrics:
            assert isinstance(detector, TorchDetector)
            seen.append(detector._most)
            return metrics_of(data)

        for name, micro_batch in (("two", 2), ("all", None)):
            own = plan(tmp_path / name, recipe(ONE_EPOCH), val=dataset(4, "val"), micro_batch=micro_batch)
            run(own, evaluate=judge)
        assert seen == [2, None]

    def test_weights_that_are_no_numbers_are_never_saved(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        usual, steps = Stepper.update, []

        def broken(self: Stepper, lr: float) -> torch.Tensor:
            norm = usual(self, lr)
            steps.append(lr)
            if len(steps) == 6:  # the last of the second epoch: its losses are in order
                self._learning[0].data[0] = math.nan
            return norm

        monkeypatch.setattr(Stepper, "update", broken)
        own = plan(tmp_path, recipe(Stage(epochs=3, lr=1e-3)))
        with pytest.raises(
            DivergedError, match=r"training stopped: weights are not finite \(after 6 steps\); .*last\.pt"
        ):
            run(own)
        assert [read_checkpoint(path).facts.step for path in (own.last, own.best)] == [3, 3]
        assert all(value.isfinite().all() for value in read_checkpoint(own.last).state.values())

    def test_another_error_is_not_taken_for_a_full_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def bug(*_: object) -> None:
            raise RuntimeError("shapes do not fit")

        monkeypatch.setattr(Stepper, "_backward", bug)
        source = MemorySource(12, 4)
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            run(plan(tmp_path), source=source)
        assert source.closed

    def test_a_folder_that_cannot_be_written_is_found_before_the_training(self, tmp_path: Path):
        (tmp_path / "file").write_text("in the way")
        listener = Listener()
        with pytest.raises(UserError, match="cannot make the folder"):
            run(plan(tmp_path / "file" / "run"), listener)
        assert listener.starts == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"train": dataset(0)}, "no pictures in 'train'"),
            ({"val": dataset(0, "val")}, "no pictures in 'val'"),
            ({"train": Dataset("d", "train", ("a", "b", "c"), dataset(2).pictures)}, "3 classes, the network 2"),
            (
                {"train": Dataset("d", "train", ("blue", "rot"), dataset(2).pictures)},
                "'rot' where the network has 'red'",
            ),
            ({"precision": "fp16"}, "fp16 needs a CUDA GPU, the device is cpu; take bf16 or fp32"),
            ({"micro_batch": 0}, "a micro-batch of 0"),
        ],
    )
    def test_what_cannot_be_trained_is_refused(self, tmp_path: Path, change: dict[str, object], message: str):
        with pytest.raises(UserError, match=message):
            run(replace(plan(tmp_path), **change))  # type: ignore[arg-type]
        assert not (tmp_path / "last.pt").exists()

    def test_a_set_without_boxes_teaches_nothing(self, tmp_path: Path):
        from scaler.data.dataset import Boxes, Picture

        empty = Dataset("d", "train", CLASSES, (Picture(Path("a.png"), Boxes.of([], [])),))
        with pytest.raises(UserError, match="no boxes in 'train', so there is nothing to learn"):
            run(replace(plan(tmp_path), train=empty))
