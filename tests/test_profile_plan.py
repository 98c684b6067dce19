"""Which networks of a space are measured: what they cover, that they are few, and that they are the same every time."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from scaler.devices import load_device
from scaler.errors import UsageError
from scaler.latency.fusion import RULES, graph_kernels
from scaler.models.detectors.families import build
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.profiling import plan as planning
from scaler.profiling.networks import fitting
from scaler.profiling.plan import choose, cover, draw, held_out, make_plan, reference_network, take_census
from scaler.profiling.plan_file import read_plan, write_plan
from scaler.space import Space, key
from scaler.space_file import read_space

ONNX_RUNTIME = RULES["onnxruntime"]

SMALL = """
schema_version = 1
name = "small"
family = "yolo-ret"
description = "For tests"
[parameters.backbone]
choices = ["mobilenetv2", "efficientnet-b0"]
[parameters.width]
when = { backbone = "mobilenetv2" }
choices = [0.5, 0.75]
[parameters.drop]
range = [1, 3, 1]
[parameters.rfcr]
choices = [0, 5]
[parameters.shortcut]
when = { rfcr = 5 }
choices = [false, true]
[parameters.neck]
choices = ["none", "panet"]
[parameters.resolution]
choices = [192, 320, 512]
"""


def space_of(text: str, folder: Path) -> Space:
    path = folder / "space.toml"
    path.write_text(text, encoding="utf-8")
    return read_space(str(path))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Space:
    return space_of(SMALL, tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def shipped() -> Space:
    return read_space("yolo-ret")


@pytest.fixture(scope="module")
def census(small):
    return take_census(small, "voc", ONNX_RUNTIME, list(small.candidates()))


def kernels_of(space: Space, params, rules=ONNX_RUNTIME):
    return graph_kernels(build(space.configure(params, 20)), rules)


class TestCensus:
    @pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
    def test_it_counts_the_kernels_of_the_graphs(self, small, rules):
        pool = draw(small, 12, np.random.default_rng(3))
        census = take_census(small, "voc", rules, pool)
        for index, params in enumerate(pool):
            found = [census.kernels[number] for number in census.occurrences[census.owner == index]]
            assert found == kernels_of(small, params, rules)
        assert len(census.kernels) == len({kernel for params in pool for kernel in kernels_of(small, params, rules)})

    def test_kernels_of_one_shape_differ_in_their_map_alone(self, census):
        shapes = {}
        for kernel, number in zip(census.kernels, census.shape, strict=True):
            window = 0 if kernel.op == "reduce" else kernel.kernel
            rest = (kernel.op, window, *kernel[2:6], kernel.activation, kernel.inputs)
            assert shapes.setdefault(int(number), rest) == rest
        assert len(set(shapes.values())) == len(shapes)

    def test_bands_ascend_with_the_map_and_reach_from_the_smallest_to_the_largest(self, census):
        """A shape that stands at three map sizes or more has its ends in different bands."""
        for shape in range(int(census.shape.max()) + 1):
            members = np.flatnonzero(census.shape == shape)
            areas = np.array([census.kernels[i].h_in * census.kernels[i].w_in for i in members])
            bands = census.pair[members][np.argsort(areas)]
            assert np.all(np.diff(bands) >= 0)
            assert len(set(bands)) == min(len(set(areas)), 2) or len(set(bands)) == planning.BANDS

    def test_shares_are_the_mean_share_of_the_work(self, small, census):
        assert census.share.sum() == pytest.approx(1)
        pool = list(small.candidates())
        expected = np.zeros(len(census.share))
        number = dict(zip(census.kernels, census.pair, strict=True))
        for params in pool:
            kernels = kernels_of(small, params)
            work = np.array([k.macs + planning.MACS_PER_ELEMENT * k.moved for k in kernels])
            np.add.at(expected, [number[k] for k in kernels], work / work.sum() / len(pool))
        assert census.share == pytest.approx(expected)

    def test_progress_ends_with_all(self, small):
        told = []
        pool = list(small.candidates())
        take_census(small, "voc", ONNX_RUNTIME, pool, lambda *numbers: told.append(numbers))
        assert told[-1] == (len(pool), len(pool))


class TestChoice:
    def test_the_first_adds_most_and_each_next_one_adds_most_to_those_before(self, census):
        weight = np.round(1e9 * (census.share / census.share.sum() + 1 / len(census.share)))
        covered = np.zeros(len(weight), dtype=bool)
        for index in planning._greedy(census, 8):
            gains = (census.holds & ~covered) @ weight
            assert gains[index] == gains.max()
            equals = np.flatnonzero(gains == gains.max())
            assert census.work[index] == census.work[equals].min()
            covered |= census.holds[index]

    def test_everything_is_covered_in_the_end_and_the_rest_is_drawn(self, small, census):
        found = choose(small, "voc", ONNX_RUNTIME, networks=small.size)
        needed = len(planning._greedy(census, small.size))
        assert needed < small.size / 2
        assert found.coverage[needed - 1][1:3] == (1, 1)
        assert found.coverage[needed - 2].pairs < 1
        assert found.coverage[-1] == (small.size, 1, 1, 1, pytest.approx(1))
        assert {key(params) for params in found.params} == {key(params) for params in small.candidates()}

    def test_coverage_by_hand(self, small):
        found = choose(small, "voc", ONNX_RUNTIME, networks=3)
        everything = {kernel for params in small.candidates() for kernel in kernels_of(small, params)}
        assert found.kernels == len(everything)
        assert found.complete
        held = set()
        for params, coverage in zip(found.params, found.coverage, strict=True):
            held |= set(kernels_of(small, params))
            assert coverage.kernels == pytest.approx(len(held) / len(everything))
            shapes = [{planning._shape(kernel) for kernel in some} for some in (held, everything)]
            assert found.shapes == len(shapes[1])
            assert coverage.shapes == pytest.approx(len(shapes[0]) / len(shapes[1]))

    def test_coverage_never_falls_and_grows_less_and_less(self, small):
        """What is maximised is half pairs, half work; a greedy choice has diminishing gains."""
        covered = [c.pairs + c.work for c in choose(small, "voc", ONNX_RUNTIME, networks=20).coverage]
        gains = np.diff([0, *covered])
        assert np.all(gains > 0)
        assert np.all(np.diff(gains) < 1e-6)

    def test_fewer_networks_are_the_first_of_more(self, small):
        few, many = (choose(small, "voc", ONNX_RUNTIME, networks=count) for count in (5, 9))
        assert many.params[:5] == few.params
        assert many.coverage[:5] == few.coverage

    def test_the_same_seed_gives_the_same_networks_and_another_one_others(self, small):
        first, again, other = (choose(small, "voc", ONNX_RUNTIME, networks=60, seed=seed) for seed in (1, 1, 2))
        assert first == again
        assert first.params != other.params

    def test_it_is_better_than_chance(self, small, census):
        found = choose(small, "voc", ONNX_RUNTIME, networks=6).coverage[-1]
        rng = np.random.default_rng(0)
        drawn = [cover(census, rng.permutation(small.size)[:6])[-1] for _ in range(50)]
        assert found.pairs > max(c.pairs for c in drawn)
        assert found.work > max(c.work for c in drawn)

    def test_it_is_near_the_best_choice_of_three(self, small):
        """Greedy promises 63 % of the best; on a space as small as to try all, it is within 10 %."""
        pool = draw(small, 25, np.random.default_rng(0))
        census = take_census(small, "voc", ONNX_RUNTIME, pool)
        weight = census.share / census.share.sum() + 1 / len(census.share)
        best = max(census.holds[list(three)].any(axis=0) @ weight for three in itertools.combinations(range(25), 3))
        greedy = census.holds[planning._greedy(census, 3)].any(axis=0) @ weight
        assert greedy > 0.9 * best

    @pytest.mark.parametrize("networks", [0, -1, 10**6])
    def test_too_few_or_too_many_are_refused_in_one_line(self, small, networks):
        with pytest.raises(UsageError, match=rf"^{networks} networks: the space 'small' has 162; ask for 1 to 162$"):
            choose(small, "voc", ONNX_RUNTIME, networks=networks)

    def test_an_unknown_data_set_is_refused(self, small):
        with pytest.raises(UsageError, match="did you mean 'coco'"):
            choose(small, "cocoo", ONNX_RUNTIME, networks=1)

    def test_a_space_of_one_candidate_has_a_plan(self, tmp_path):
        one = space_of(
            'schema_version = 1\nname = "one"\nfamily = "yolo-ret"\ndescription = "One"\n'
            '[parameters.backbone]\nchoices = ["efficientnet-b0"]\n',
            tmp_path,
        )
        found = choose(one, "coco", ONNX_RUNTIME, networks=1)
        assert found.coverage == ((1, 1, 1, 1, pytest.approx(1)),)
        assert reference_network(one, "coco", ONNX_RUNTIME, found.params) == {"backbone": "efficientnet-b0"}


class TestDraw:
    def test_a_draw_has_no_candidate_twice_and_leaves_out_what_is_not_wanted(self, small):
        unwanted = {small.candidate_id(params) for params in itertools.islice(small.candidates(), 50)}
        found = draw(small, small.size, np.random.default_rng(0), unwanted)
        assert len(found) == small.size - 50
        ids = {small.candidate_id(params) for params in found}
        assert len(ids) == len(found)
        assert ids.isdisjoint(unwanted)

    def test_a_space_too_large_to_list_is_sampled(self, small, monkeypatch):
        monkeypatch.setattr(planning, "ENUMERABLE", 10)
        found = draw(small, 30, np.random.default_rng(0))
        assert len({key(params) for params in found}) == 30
        assert all(small.contains(params) for params in found)

    def test_of_a_large_space_a_part_is_looked_at(self, small, monkeypatch):
        monkeypatch.setattr(planning, "POOL", 40)
        found = choose(small, "voc", ONNX_RUNTIME, networks=5)
        assert (found.looked_at, found.complete) == (40, False)
        assert choose(small, "voc", ONNX_RUNTIME, networks=70).looked_at == 70


class TestPlan:
    @pytest.fixture
    def plan(self, tmp_path):
        (tmp_path / "small.toml").write_text(SMALL, encoding="utf-8")
        path = str(tmp_path / "small.toml")
        return make_plan(path, "voc", "nano", "maxn", "tensorrt", "fp16", 1, 13, 6, seed=3)

    def test_a_plan_is_the_choice_and_can_be_written_and_read(self, small, plan, tmp_path):
        chosen = choose(small, "voc", RULES["tensorrt"], networks=6, seed=3)
        assert tuple(planned.params for planned in plan.networks) == chosen.params
        assert [planned.network for planned in plan.networks] == [small.candidate_id(p) for p in chosen.params]
        assert plan.digest == small.digest
        write_plan(plan, tmp_path / "plan.json")
        assert read_plan(tmp_path / "plan.json") == plan

    def test_a_choice_made_before_is_not_made_again(self, plan, monkeypatch):
        space = read_space(plan.space)
        choice = choose(space, "voc", RULES["tensorrt"], networks=6, seed=3)
        monkeypatch.setattr(planning, "choose", None)
        options = (plan.space, "voc", "nano", "maxn", "tensorrt", "fp16", 1, 13, 6)
        assert make_plan(*options, seed=3, choice=choice) == plan

    def test_an_unknown_runtime_is_refused(self, plan):
        with pytest.raises(UsageError, match="unknown runtime 'trt'"):
            make_plan(plan.space, "voc", "nano", "maxn", "trt", "fp16", 1, 13, 6)

    def test_the_reference_is_the_published_network_at_the_smallest_resolution(self, small, plan):
        config = small.configure(plan.reference, 20)
        assert config == YoloRetConfig(
            backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True, neck="panet", resolution=192
        )

    def test_a_space_without_the_published_network_takes_its_cheapest_chosen_one(self, tmp_path):
        other = space_of(SMALL.replace("0.75", "1.0"), tmp_path)
        found = choose(other, "voc", ONNX_RUNTIME, networks=10).params
        work = [sum(k.macs + planning.MACS_PER_ELEMENT * k.moved for k in kernels_of(other, p)) for p in found]
        assert reference_network(other, "voc", ONNX_RUNTIME, found) == found[int(np.argmin(work))]

    def test_held_out_networks_are_neither_planned_nor_the_reference(self, small, plan):
        planned = {key(p.params) for p in plan.networks} | {key(plan.reference)}
        for seed in range(5):
            found = held_out(small, plan, 20, seed)
            assert len({key(params) for params in found}) == 20
            assert planned.isdisjoint(map(key, found))
        assert held_out(small, plan, 20, 1) == held_out(small, plan, 20, 1)
        assert held_out(small, plan, 20, 1) != held_out(small, plan, 20, 2)

    def test_all_that_is_not_planned_can_be_held_out_and_no_more(self, small, plan):
        beside = small.size - len({key(p.params) for p in plan.networks} | {key(plan.reference)})
        assert len(held_out(small, plan, beside)) == beside
        with pytest.raises(UsageError, match=f"^{beside + 1} networks beside the plan: .* has only {beside}$"):
            held_out(small, plan, beside + 1)

    def test_a_plan_of_the_shipped_space_covers_it_far_better_than_chance(self, shipped, monkeypatch):
        monkeypatch.setattr(planning, "POOL", 1500)
        found = choose(shipped, "voc", RULES["tensorrt"], networks=40)
        assert found.kernels > 9000
        assert found.coverage[-1].work > 0.97
        assert found.coverage[-1].pairs > 0.75
        rng = np.random.default_rng(1)
        chance = draw(shipped, 1500, rng)
        census = take_census(shipped, "voc", RULES["tensorrt"], chance)
        random = [cover(census, rng.permutation(1500)[:40])[-1] for _ in range(5)]
        assert max(c.work for c in random) < 0.95
        assert max(c.pairs for c in random) < 0.68


class TestMemory:
    @pytest.mark.slow
    def test_what_does_not_fit_is_neither_chosen_nor_held_out(self):
        space, nano = read_space("scaled-yolov4"), load_device("nano")
        fits = fitting(space, "coco", nano, "fp16")
        chosen = choose(space, "coco", RULES["tensorrt"], networks=20, fits=fits)
        assert all(fits(params) for params in chosen.params)
        assert not all(fits(params) for params in choose(space, "coco", RULES["tensorrt"], networks=20).params)
        plan = make_plan("scaled-yolov4", "coco", "nano", "MAXN", "tensorrt", "fp16", 1, 13, networks=20, choice=chosen)
        assert all(fits(params) for params in held_out(space, plan, 30, 1, fits))

    def test_a_device_with_too_little_memory_for_any_is_refused(self, small: Space):
        with pytest.raises(UsageError, match="3 networks: only 0 of 'small' fit"):
            choose(small, "voc", ONNX_RUNTIME, networks=3, fits=lambda _: False)
