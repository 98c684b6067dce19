"""One step of the optimiser and its parts: gradients, rates, decay, averages, health."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402
from torch.amp import GradScaler  # noqa: E402
from training_runs import SPEC, batch_of, with_toy_family  # noqa: E402, F401  (a fixture)

from scaler.errors import UserError  # noqa: E402
from scaler.training.loop.averaging import MovingAverage  # noqa: E402
from scaler.training.loop.freezing import freeze, training_mode  # noqa: E402
from scaler.training.loop.health import PATIENCE, Health  # noqa: E402
from scaler.training.loop.optimiser import make_optimiser, set_rates  # noqa: E402
from scaler.training.loop.optimiser import rate_of as optimiser_rate  # noqa: E402
from scaler.training.loop.rng import restore_rng, rng_state, seeded  # noqa: E402
from scaler.training.loop.schedule import Rates, rates, stage_of  # noqa: E402
from scaler.training.loop.steps import Stepper, StepSettings, drop_unless_finite, parts  # noqa: E402
from scaler.training.losses import detection_loss  # noqa: E402
from scaler.training.network.memory import halved, is_out_of_memory  # noqa: E402
from scaler.training.network.module import to_torch  # noqa: E402
from scaler.training.recipe import Loss, Optimiser, Stage, read_recipe, recipe_names  # noqa: E402

SETTINGS = StepSettings(device="cpu", preprocessing=SPEC.preprocessing)
YOLOV3 = Loss(kind="yolov3")
PLAIN = Rates(0.1, 0.1, 0.9)


def stepper(
    loss: Loss = YOLOV3, settings: StepSettings = SETTINGS, *, batch_norm_learns: bool = False, scaler: bool = False
) -> Stepper:
    module = to_torch(SPEC.graph())
    if not batch_norm_learns:
        module.eval()
    coding = SPEC.graph().coding
    assert coding is not None
    optimiser = make_optimiser(module, Optimiser(kind="sgd"), 0.1)
    criterion = detection_loss(coding, 2, loss, batch=6)
    return Stepper(module, criterion, optimiser, GradScaler("cpu", init_scale=2.0**7, enabled=scaler), settings)


def gradients(own: Stepper, micro_batch: int, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and all gradients in a row, of six pictures."""
    batch = batch_of(list(range(6)))
    losses = own.gradients(batch.images, batch.targets, micro_batch, size)
    return losses, torch.cat([weight.grad.flatten() for weight in own._learning])


class TestAccumulation:
    @pytest.mark.parametrize("micro_batch", [1, 2, 4, 5])
    def test_parts_of_a_batch_add_up_to_the_gradients_of_the_whole(self, micro_batch: int):
        whole, pieces = gradients(stepper(), 6), gradients(stepper(), micro_batch)
        torch.testing.assert_close(pieces[0], whole[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(pieces[1], whole[1], rtol=1e-4, atol=1e-5 * float(whole[1].abs().max()))

    def test_so_they_do_with_adversarial_pictures_and_other_sizes(self):
        settings = replace(SETTINGS, adversarial=0.5, adversarial_step=0.1)
        whole, pieces = (gradients(stepper(settings=settings), micro, size=96) for micro in (6, 2))
        torch.testing.assert_close(pieces[0], whole[0], rtol=1e-4, atol=1e-6)
        assert whole[0][3] > 0.5 * 0.9 * whole[0][:3].sum()
        torch.testing.assert_close(pieces[1], whole[1], rtol=1e-3, atol=1e-3 * float(whole[1].abs().max()))

    def test_a_loss_that_counts_its_anchors_is_near_but_not_equal(self):
        loss = Loss(kind="scaled-yolov4", box=0.05, classes=0.5)
        whole, pieces = gradients(stepper(loss), 6), gradients(stepper(loss), 2)
        assert not torch.equal(pieces[0], whole[0])
        assert float(nn.functional.cosine_similarity(pieces[1], whole[1], 0)) > 0.98

    def test_the_pieces_are_alike_and_keep_their_objects(self):
        batch = batch_of(list(range(7)))
        pieces = list(parts(batch.images, batch.targets, 3))
        assert [len(images) for images, _, _ in pieces] == [2, 2, 3]
        assert [last for _, _, last in pieces] == [False, False, True]
        first = 0
        for images, targets, _ in pieces:
            alone = batch_of(list(range(first, first + len(images))))
            assert torch.equal(images, alone.images)
            for ours, theirs in zip(targets, alone.targets, strict=True):
                assert torch.equal(ours, theirs)
            first += len(images)


class TestUpdate:
    def test_clipping_shortens_the_gradient_to_its_bound(self):
        own = stepper(settings=replace(SETTINGS, clip=1e-2))
        _, before = gradients(own, 6)
        norm = own.update(PLAIN)
        after = torch.cat([weight.grad.flatten() for weight in own._learning])
        torch.testing.assert_close(norm, before.norm())
        torch.testing.assert_close(after, before * (1e-2 / before.norm()), rtol=1e-3, atol=1e-9)

    def test_a_scaled_loss_gives_the_same_step(self):
        plain, scaled = stepper(), stepper(scaler=True)
        for own in (plain, scaled):
            gradients(own, 6)
            own.update(PLAIN)
        for ours, theirs in zip(plain._learning, scaled._learning, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)

    def test_an_overflow_of_the_scaled_loss_lowers_the_scale_and_is_no_divergence(self):
        own, health = stepper(scaler=True), Health()
        for _ in range(PATIENCE + 1):
            losses, _ = gradients(own, 6)
            own._learning[0].grad.fill_(math.inf)
            norm = float(own.update(PLAIN))
            named = {"box": float(losses[0]), "total": float(losses.sum())}
            assert health.check(named, norm, rescaled=own.scaler.is_enabled()) == ""
        assert own.scaler.get_scale() == 2.0 ** (7 - PATIENCE - 1)
        assert all(weight.isfinite().all() for weight in own._learning)

    @pytest.mark.parametrize("wrong", [math.inf, math.nan])
    def test_where_nobody_waits_gradients_that_are_not_finite_count_as_0(self, wrong: float):
        own = stepper(settings=replace(SETTINGS, clip=1.0))
        gradients(own, 6)
        drop_unless_finite(own._learning, nn.utils.clip_grad_norm_(own._learning, 1.0))
        assert all(weight.grad.any() for weight in own._learning)
        before = [weight.detach().clone() for weight in own._learning]
        own._learning[0].grad[0] = wrong
        drop_unless_finite(own._learning, nn.utils.clip_grad_norm_(own._learning, 1.0))
        assert not any(weight.grad.any() for weight in own._learning)
        own.optimiser.step()
        assert all(torch.equal(now, then) for now, then in zip(own._learning, before, strict=True))

    def test_the_second_beta_is_the_recipes(self):
        for kind in ("adam", "adamw"):
            settings = Optimiser(kind=kind, momentum=0.8, beta2=0.95)
            assert make_optimiser(nn.Linear(2, 2), settings, 0.1).defaults["betas"] == (0.8, 0.95)
        theirs = {name: read_recipe(name).optimiser.beta2 for name in recipe_names()}
        assert theirs == dict.fromkeys(theirs, 0.999) | {"quick": 0.99}

    def test_statistics_of_batch_norm_follow_the_pictures_where_it_learns(self):
        own = stepper(batch_norm_learns=True)
        gradients(own, 6)
        assert own.network.get_buffer("backbone.stage2.unit.bn.num_batches_tracked") == 1
        assert own.network.get_buffer("backbone.stage2.unit.bn.running_mean").any()


def rate(stage: Stage, step: int, steps_per_epoch: int) -> float:
    return rates(stage, 0.9, step, steps_per_epoch).weights


class TestSchedule:
    def test_cosine_runs_from_the_rate_to_its_end(self):
        stage = Stage(epochs=10, lr=0.01, final=0.2)
        found = [rate(stage, step, 5) for step in range(50)]
        assert found[0] == 0.01
        assert found[25] == pytest.approx(0.01 * 0.6)
        assert found == sorted(found, reverse=True)
        assert rate(stage, 50, 5) == pytest.approx(0.002)

    def test_warm_up_rises_in_equal_steps_from_above_0(self):
        stage = Stage(epochs=10, lr=1.0, curve="constant", warmup_epochs=0.8)
        assert [rate(stage, step, 5) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])

    def test_without_values_of_their_own_biases_rise_with_the_others_at_one_momentum(self):
        stage = Stage(epochs=10, lr=1.0, warmup_epochs=0.8)
        for found in (rates(stage, 0.9, step, 5) for step in range(6)):
            assert found.biases == found.weights
            assert found.momentum == pytest.approx(0.9)

    def test_biases_fall_and_momentum_rises_to_what_they_are_after_the_warm_up(self):
        stage = Stage(epochs=10, lr=0.01, curve="constant", warmup_epochs=0.8, warmup_bias_lr=0.1, warmup_momentum=0.5)
        found = [rates(stage, 0.9, step, 5) for step in range(5)]
        assert [one.biases for one in found] == pytest.approx([0.0775, 0.055, 0.0325, 0.01, 0.01])
        assert [one.momentum for one in found] == pytest.approx([0.6, 0.7, 0.8, 0.9, 0.9])

    def test_steps_fall_tenfold_at_their_shares(self):
        stage = Stage(epochs=9, lr=0.1, curve="steps", steps=(2 / 3, 8 / 9))
        assert [rate(stage, step, 1) for step in range(9)] == pytest.approx([0.1] * 6 + [0.01] * 2 + [0.001])

    @pytest.mark.parametrize("name", ["yolo-ret", "scaled-yolov4", "lw-retinanet", "quick"])
    def test_every_shipped_recipe_has_positive_rates_up_to_the_stages(self, name: str):
        for stage in read_recipe(name).stages:
            found = [rate(stage, step, 7) for step in range(7 * stage.epochs)]
            assert all(0 < lr <= stage.lr for lr in found)
            assert max(found) > 0.9 * stage.lr

    def test_every_epoch_has_its_stage(self):
        recipe = read_recipe("yolo-ret").lasting(5)
        assert [stage_of(recipe, epoch)[::2] for epoch in range(5)] == [(0, 0), (0, 0), (1, 2), (1, 2), (1, 2)]
        with pytest.raises(ValueError, match="epoch 5 of 5"):
            stage_of(recipe, 5)


class TestOptimiser:
    @pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
    def test_weights_of_convolutions_alone_decay(self, kind: str):
        module = to_torch(SPEC.graph())
        optimiser = make_optimiser(module, Optimiser(kind=kind, weight_decay=0.1), 0.1)  # type: ignore[arg-type]
        names = {id(weight): name for name, weight in module.named_parameters()}
        decayed = {
            names[id(weight)] for group in optimiser.param_groups if group["weight_decay"] for weight in group["params"]
        }
        assert decayed == {name for name in names.values() if name.endswith("conv.weight")}
        assert sum(len(group["params"]) for group in optimiser.param_groups) == len(names)

    def test_biases_and_momentum_have_rates_of_their_own(self):
        module = to_torch(SPEC.graph())
        optimiser = make_optimiser(module, Optimiser(kind="sgd"), 0.1)
        set_rates(optimiser, Rates(0.25, 0.5, 0.8))
        names = {id(weight): name for name, weight in module.named_parameters()}
        found = {names[id(weight)]: group for group in optimiser.param_groups for weight in group["params"]}
        assert len(found) == len(names)
        for name, group in found.items():
            assert (group["lr"], group["momentum"]) == (0.5 if name.endswith(".bias") else 0.25, 0.8)

    def test_transferred_weights_have_their_share_of_the_rate(self):
        module = to_torch(SPEC.graph())
        known = ("backbone.stage2.unit.conv.weight", "backbone.stage4.unit.bn")
        optimiser = make_optimiser(module, Optimiser(kind="adamw", transferred_lr=0.1), 0.1, known)
        set_rates(optimiser, PLAIN)
        rate_of = {id(weight): group["lr"] for group in optimiser.param_groups for weight in group["params"]}
        slow = {name for name, weight in module.named_parameters() if rate_of[id(weight)] == pytest.approx(0.01)}
        assert slow == {known[0], f"{known[1]}.weight", f"{known[1]}.bias"}
        assert len(rate_of) == len(list(module.parameters()))
        assert optimiser_rate(optimiser) == pytest.approx(0.1)

    def test_transferred_weights_outside_of_the_backbone_are_not_frozen(self):
        module = to_torch(SPEC.graph())
        head = next(name for name, _ in module.named_parameters() if name.startswith("head"))
        assert freeze(module, "transferred", (head,)) == 0

    def test_nesterovs_momentum_is_the_recipes_choice(self):
        module = to_torch(SPEC.graph())
        for name, expected in (("scaled-yolov4", True), ("lw-retinanet", False)):
            optimiser = make_optimiser(module, read_recipe(name).optimiser, 0.1)
            assert {group["nesterov"] for group in optimiser.param_groups} == {expected}

    def test_frozen_weights_are_none_of_its(self):
        module = to_torch(SPEC.graph())
        freeze(module, "backbone", ("backbone.stage2.unit.conv.weight",))
        training_mode(module)
        optimiser = make_optimiser(module, Optimiser(kind="adam", weight_decay=0.1), 0.1)
        assert [len(group["params"]) for group in optimiser.param_groups] == [3]
        assert not module.get_submodule("backbone.stage4.unit.bn").training
        assert freeze(module, "none", ("backbone.stage2.unit.conv.weight",)) == 0
        training_mode(module)
        assert module.get_submodule("backbone.stage4.unit.bn").training


class TestAverage:
    def test_it_follows_the_weights_by_the_decay_with_its_warm_up(self):
        module = nn.BatchNorm1d(2)
        average = MovingAverage(module, 0.9)
        expected = module.weight.detach().clone()
        for step in range(1, 6):
            with torch.no_grad():
                module.weight += 1
                module.running_mean += 2
                module.num_batches_tracked += 1
            average.update()
            decay = 0.9 * (1 - math.exp(-step / 2000))
            expected = decay * expected + (1 - decay) * module.weight.detach()
        torch.testing.assert_close(average.module.weight, expected)
        torch.testing.assert_close(average.module.running_mean - 10, 2 * (expected - 6))
        assert average.module.num_batches_tracked == 5
        assert not average.module.training

    def test_it_goes_on_from_its_state(self):
        module = nn.Linear(2, 2)
        one, two = MovingAverage(module, 0.5), MovingAverage(nn.Linear(2, 2), 0.5)
        one.update()
        two.load(one.state())
        assert two.updates == 1
        assert torch.equal(one.module.weight, two.module.weight)


class TestHealth:
    def test_the_part_that_is_no_number_is_named(self):
        losses = {"box": 1.0, "objectness": math.inf, "total": math.inf}
        assert Health().check(losses, 1.0) == "the objectness loss is inf"

    def test_a_loss_far_above_the_usual_is_named_with_its_largest_part(self):
        health = Health()
        for _ in range(20):
            assert health.check({"box": 1.0, "classes": 1.0, "total": 2.0}, 1.0) == ""
        assert health.check({"box": 1.0, "classes": 1900.0, "total": 1901.0}, 1.0) == ""
        wrong = health.check({"box": 1.0, "classes": 2100.0, "total": 2101.0}, 1.0)
        assert wrong == "the loss is 2.1e+03, 1000 times the usual 2, mostly classes"

    def test_the_first_steps_may_do_what_they_like(self):
        health = Health()
        assert [health.check({"total": 10.0**power}, 1.0) for power in range(9)] == [""] * 9

    def test_it_goes_on_from_its_state(self):
        one, two = Health(), Health()
        for _ in range(PATIENCE - 1):
            one.check({"total": 1.0}, math.nan)
        two.load(one.state())
        assert two.check({"total": 1.0}, math.nan) == f"the gradients have not been finite for {PATIENCE} steps"


def test_several_processes_do_not_halve_alone():
    with pytest.raises(UserError, match="out of memory with 8 pictures of 320 px a process; give --batch 8, or"):
        halved(8, 320, 2)
    assert halved(8, 320, 1) == 4
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_generators_go_on_where_they_were_and_are_left_as_they_were(tmp_path: Path):
    import random

    import numpy as np

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    before = rng_state()
    with seeded(5):
        torch.save(rng_state(), tmp_path / "state.pt")
        first = draw()
        restore_rng(torch.load(tmp_path / "state.pt", weights_only=True))
        assert draw() == first
    expected = draw()
    restore_rng(before)
    assert draw() == expected
