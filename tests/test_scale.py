"""`scaler scale`: the published order, each factor alone, what is refused, and what is printed and written."""

import csv
import io
import json
from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise

import pytest
from rich.console import Console

from scaler.cli import run
from scaler.cost import graph_cost
from scaler.errors import UsageError
from scaler.latency.estimator import load_estimator
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config, build, is_tiny
from scaler.scaling.ladder import BASES, CSP_DEPTH, FACTORS, Factor, alone, common_depth, compound, stages_of, units
from scaler.scaling.order import moves
from scaler.scaling.plan import Plan, Question, scale
from scaler.scaling.rules import SCALE_ORDER, darknet_receptive_field, depth_for, stages_for
from scaler.scaling.table import print_plan

Config = ScaledYoloV4Config
CSP_BASES = [name for name, base in BASES.items() if not is_tiny(base.variant)]


@cache
def macs(config: Config) -> int:
    return graph_cost(build(config)).macs


def order_of(base: str) -> list[Config]:
    return [step.config for step in compound(BASES[base])]


# --- the published order ---


@pytest.mark.parametrize("base", BASES)
def test_the_published_order_rises_in_macs_and_holds_its_base(base: str):
    order = order_of(base)
    assert all(smaller < larger for smaller, larger in pairwise(map(macs, order)))
    assert BASES[base] in order


@pytest.mark.parametrize("base", BASES)
def test_the_published_order_passes_through_p5_p6_and_p7(base: str):
    order = order_of(base)
    places = [order.index(BASES[name]) for name in ("yolov4-p5", "yolov4-p6", "yolov4-p7")]
    assert places == sorted(places)


def test_p5_times_the_published_ratio_of_macs_is_p6_and_p7():
    for name in ("yolov4-p6", "yolov4-p7"):
        factor = macs(BASES[name]) / macs(BASES["yolov4-p5"])
        plan = scale(Question(model="yolov4-p5", device="agx-orin", factor=factor))
        assert plan.chosen.config == BASES[name]


def test_the_order_of_csp_passes_through_the_released_s_m_and_l():
    order = order_of("yolov4-csp")
    for width, depth in ((0.5, 0.33), (0.75, 0.67), (1.0, 1.0)):
        assert Config(variant="csp", width=width, depth=depth, resolution=640) in order


@pytest.mark.parametrize("base", BASES)
def test_phases_come_in_the_order_of_the_rules(base: str):
    phases = [phase for phase, _ in groupby(step.phase for step in compound(BASES[base]))]
    tiny, rest = phases[:2], phases[2:]
    assert tiny == ["width of tiny", "size of tiny"]
    assert rest == [phase for phase in SCALE_ORDER if phase in rest]
    assert set(SCALE_ORDER) - set(rest) <= {"size and depth"}


@pytest.mark.parametrize("base", BASES)
def test_only_what_a_phase_names_moves_in_it(base: str):
    factors = {"size": lambda c: c.resolution, "stages": stages_of, "depth": common_depth, "width": lambda c: c.width}
    for before, after in pairwise(compound(BASES[base])):
        if after.phase != "structure":
            moved = {name for name, value in factors.items() if value(before.config) != value(after.config)}
            assert moved
            assert all(name in after.phase for name in moved)


def test_the_backbone_never_sees_less_of_the_picture_than_yolov4_csp_does():
    seen = [
        darknet_receptive_field(units(step.config)[:-1]) / step.config.resolution
        for step in compound(BASES["yolov4-csp"])
        if step.phase in ("size and depth", "size and stages", "width")
    ]
    csp = BASES["yolov4-csp"]
    assert min(seen) >= darknet_receptive_field(units(csp)[:-1]) / csp.resolution


@pytest.mark.parametrize("base", CSP_BASES)
def test_a_size_has_as_many_stages_as_the_published_network_of_that_size(base: str):
    for step in compound(BASES[base]):
        if step.phase in ("size and depth", "size and stages"):
            assert stages_of(step.config) == stages_for(step.config.resolution)


def test_depth_and_width_move_together_as_in_the_released_files():
    for step in compound(BASES["yolov4-csp"]):
        if step.phase in ("depth and width", "structure"):
            assert step.config.depth == depth_for(step.config.width)


def test_p5_at_csps_depth_has_the_units_of_csp():
    assert units(Config(variant="p5", depth=CSP_DEPTH, resolution=640)) == units(BASES["yolov4-csp"])


def test_tiny_keeps_its_growth_rates_multiples_of_eight():
    for step in compound(BASES["yolov4-tiny"]):
        if is_tiny(step.config.variant):
            assert 32 * step.config.width % 8 == 0


@pytest.mark.parametrize("device", ["nano", "nx", "agx", "agx-orin"])
@pytest.mark.parametrize("base", ["yolov4-tiny-3l", "yolov4-csp", "yolov4-p5"])
def test_predicted_frame_times_rise_along_the_order_so_that_bisection_finds_the_rate(base: str, device: str):
    estimator = load_estimator(device)
    times = [float(estimator.estimate(build(config)).frame[0]) for config in order_of(base)]
    assert all(faster < slower for faster, slower in pairwise(times))


# --- each factor alone ---


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("factor", FACTORS)
def test_a_factor_alone_rises_in_macs_from_below_the_base_to_above(base: str, factor: Factor):
    line = alone(BASES[base], factor)
    assert BASES[base] in line
    assert all(smaller < larger for smaller, larger in pairwise(map(macs, line)))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("factor", "field"), [("size", "resolution"), ("depth", "depth"), ("width", "width")])
def test_a_factor_alone_leaves_the_others_as_they_are(base: str, factor: Factor, field: str):
    start = BASES[base]
    back = {replace(config, **{field: getattr(start, field)}) for config in alone(start, factor)}  # type: ignore[arg-type]
    assert back == {start}


@pytest.mark.parametrize("base", CSP_BASES)
def test_stages_alone_leave_the_units_of_the_others_and_all_widths(base: str):
    start = BASES[base]
    line = alone(start, "stages")
    assert [stages_of(config) for config in line] == [5, 6, 7]
    assert {units(config)[:5] for config in line} == {units(start)[:5]}
    assert {(config.width, config.resolution) for config in line} == {(start.width, start.resolution)}


def test_size_alone_costs_its_square_exactly():
    line = alone(BASES["yolov4-csp"], "size")
    per_pixel = {macs(config) / config.resolution**2 for config in line}
    assert max(per_pixel) == pytest.approx(min(per_pixel), rel=1e-12)


@pytest.mark.parametrize("size", [160, 608, 2048])
def test_stages_alone_take_the_nearest_size_of_their_stride(size: int):
    line = alone(replace(BASES["yolov4-csp"], resolution=size), "stages")
    assert [config.resolution for config in line] == {160: [160, 192, 256], 608: [608, 640, 640]}.get(size, [size] * 3)


def test_tiny_has_neither_depth_nor_stages_to_move():
    assert alone(BASES["yolov4-tiny"], "depth") == (BASES["yolov4-tiny"],)
    assert alone(BASES["yolov4-tiny"], "stages") == (BASES["yolov4-tiny"],)


@pytest.mark.parametrize("base", CSP_BASES)
def test_steps_of_the_depth_differ_in_their_units(base: str):
    line = alone(BASES[base], "depth")
    assert len({units(config) for config in line}) == len(line) > 10


# --- plans ---


@cache
def plan(model: str, device: str = "nx", **wish: float) -> Plan:
    return scale(Question(model=model, device=device, **wish))  # type: ignore[arg-type]


def test_half_of_csp_is_the_released_m():
    chosen = plan("yolov4-csp", factor=0.5).chosen
    assert (chosen.config.width, chosen.config.depth) == (0.75, 0.67)
    assert chosen.cost.flops == pytest.approx(53.886e9, rel=1e-4)


@pytest.mark.parametrize("model", BASES)
@pytest.mark.parametrize("factor", [0.25, 1.5])
def test_the_chosen_network_is_the_nearest_of_the_order(model: str, factor: float):
    found = plan(model, "agx-orin", factor=factor)
    wanted = factor * macs(BASES[model])
    ratios = [macs(step.config) / wanted for step in found.order]
    best = min(max(ratio, 1 / ratio) for ratio in ratios)
    assert max(found.chosen.cost.macs / wanted, wanted / found.chosen.cost.macs) == best


def test_factor_one_changes_nothing():
    found = plan("yolov4-csp", factor=1.0)
    assert found.chosen.config == found.base.config == BASES["yolov4-csp"]
    assert found.moves() == ()


def test_below_the_smallest_csp_the_structure_changes_and_says_why():
    found = plan("yolov4-csp", factor=0.057)
    assert found.chosen.config == BASES["yolov4-tiny"]
    assert [move.phase for move in found.moves()] == ["depth and width", "structure", "size of tiny"]
    structure = found.moves()[1]
    assert structure.change == "YOLOv4-CSP → YOLOv4-tiny, width ×0.5 → ×1"
    assert "memory access" in structure.reason
    assert "9.25 g² against 16.5 g²" in structure.reason


def test_scaling_up_moves_size_with_depth_then_stages_then_width():
    found = plan("yolov4-csp", "agx-orin", factor=13.0)
    assert [move.phase for move in found.moves()] == ["size and depth", "size and stages", "width"]
    assert "5 → 7 stages" in found.moves()[1].change


def test_scaling_down_takes_back_first_what_came_last():
    found = plan("yolov4-p7", "agx-orin", factor=0.05)
    assert [move.phase for move in found.moves()] == ["width", "size and stages", "depth and width"]


def test_moves_lead_from_every_base_to_every_network_of_its_order():
    for base in BASES.values():
        steps = compound(base)
        for step in steps:
            found = moves(steps, base, step.config)
            assert bool(found) == (step.config != base)
            assert all(move.change and move.reason for move in found)


@pytest.mark.parametrize(("model", "device", "fps"), [("yolov4-csp", "nx", 30), ("yolov4-p6", "agx", 20)])
def test_a_frame_rate_is_reached_by_the_largest_network_that_does(model: str, device: str, fps: float):
    found = plan(model, device, fps=fps)
    assert found.chosen.fps.mean >= fps
    place = [step.config for step in found.order].index(found.chosen.config)
    assert found.judge.fps(found.order[place + 1].config) < fps
    for row in found.alone:
        if row.scaled is not None:
            assert row.scaled.fps.mean >= fps


def test_each_factor_alone_comes_as_near_as_its_steps_allow():
    found = plan("yolov4-csp", factor=0.5)
    by_factor = {row.how: row for row in found.alone}
    assert by_factor["size"].scaled is not None
    assert by_factor["size"].scaled.config.resolution == 448
    assert by_factor["depth"].remark == "nothing nearer than ×0.651"
    assert by_factor["stages"].scaled is None
    assert by_factor["stages"].remark.startswith("5 are the fewest")


def test_a_factor_that_is_predicted_to_do_better_is_said():
    for found in (plan("yolov4-csp", factor=0.5), plan("yolov4-csp", "agx-orin", factor=4.0)):
        better = [
            row.how
            for row in found.alone
            if row.scaled is not None
            and row.scaled.frame_ms.mean <= found.chosen.frame_ms.mean
            and row.scaled.ap.mean > found.chosen.ap.mean + found.judge.accuracy.noise_ap
        ]
        said = [remark for remark in found.remarks if "do better" in remark]
        assert bool(said) == bool(better)
        assert all(remark.split()[0] in better for remark in said)


def test_curves_run_through_base_and_chosen_network():
    found = plan("yolov4-csp", factor=0.5)
    curves = found.curves()
    assert set(curves) == {"compound", *FACTORS}
    assert found.chosen.config in {scaled.config for scaled in curves["compound"]}
    for line in curves.values():
        assert found.base.config in {scaled.config for scaled in line}
        assert all(before.cost.macs < after.cost.macs for before, after in pairwise(line))


@pytest.mark.parametrize("resolution", [512, 1024])
def test_a_base_at_a_size_of_its_own_stands_in_the_order(resolution: int):
    found = scale(Question(model="yolov4-csp", device="nx", factor=0.5, resolution=resolution))
    assert found.base.config.resolution == resolution
    assert found.base.config in {step.config for step in found.order}
    assert found.moves()


def test_networks_have_intervals_around_their_figures():
    found = plan("yolov4-csp", factor=0.5)
    for scaled in (found.base, found.chosen):
        for interval in (scaled.frame_ms, scaled.engine_ms, scaled.fps, scaled.ap):
            assert interval.low < interval.mean < interval.high
        assert scaled.frame_ms.mean == pytest.approx(scaled.engine_ms.mean + scaled.overhead_ms)


# --- the command ---


def fails(capsys, *arguments: str, code: int) -> str:
    assert run(["scale", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.strip().splitlines()) == 1, shown.err
    return shown.err.strip()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["yolov4-cps", "--factor", "2", "-d", "nx"], 2, "did you mean 'yolov4-csp'?"),
        (["yolov4-csp", "--factor", "0", "-d", "nx"], 2, "factor = 0: allowed is a finite number above 0"),
        (["yolov4-csp", "--factor", "-1", "-d", "nx"], 2, "above 0"),
        (["yolov4-csp", "--factor", "nan", "-d", "nx"], 2, "finite"),
        (["yolov4-csp", "--factor", "inf", "-d", "nx"], 2, "finite"),
        (["yolov4-csp", "--fps", "0", "-d", "nx"], 2, "fps = 0"),
        (["yolov4-csp", "--factor", "1000", "-d", "nx"], 2, "to 34.6 times the MACs of yolov4-csp-640"),
        (["yolov4-csp", "--factor", "1e-9", "-d", "nx"], 2, "yolov4-tiny-w0.25-256"),
        (["yolov4-csp", "-d", "nx"], 2, "either --factor or --fps"),
        (["yolov4-csp", "--factor", "1", "--fps", "30", "-d", "nx"], 2, "either --factor or --fps"),
        (["yolov4-csp", "--factor", "1"], 2, "which device?"),
        (["yolov4-csp", "--factor", "1", "-d", "nxx"], 2, "unknown device"),
        (["yolov4-csp", "--factor", "1", "-d", "nx", "--resolution", "650"], 2, "a multiple of 32"),
        (["yolov4-p7", "--factor", "1", "-d", "nx", "--resolution", "1472"], 2, "a multiple of 128"),
        (["yolov4-p7", "--factor", "1", "-d", "nano"], 1, "Jetson Nano has 4"),
        (["yolov4-csp", "--fps", "100000", "-d", "nano"], 1, "the nearest is yolov4-tiny-w0.25-256 with"),
        (["yolov4-csp", "--factor", "1", "-d", "nx", "--plot", "x.bmp"], 2, "unknown kind of picture"),
        (["yolov4-csp", "--factor", "1", "-d", "nx", "--precision", "fp8"], 2, "fp8"),
        (["yolov4-csp", "--factor", "1", "-d", "nx", "--recipe", "papre"], 2, "papre"),
        (["yolov4-csp", "--factor", "1", "-d", "nx", "--metric", "map"], 2, "map"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(capsys, tmp_path, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    assert says in fails(capsys, *arguments, code=code)
    assert list(tmp_path.iterdir()) == []


def test_the_allowed_factors_of_the_message_are_allowed():
    with pytest.raises(UsageError) as refusal:
        plan("yolov4-csp", "agx-orin", factor=1000)
    low, high = str(refusal.value).split("allowed is ")[1].split(" times")[0].split(" to ")
    for factor in (low, high):
        assert plan("yolov4-csp", "agx-orin", factor=float(factor)).chosen


def test_json_on_standard_output_is_the_whole_plan(capsys):
    assert run(["scale", "yolov4-csp", "--factor", "0.5", "-d", "nx", "--json"]) == 0

    shown = capsys.readouterr()
    data = json.loads(shown.out)
    assert shown.err == ""
    assert (data["kind"], data["metric"]) == ("scaler-scaling", "COCO AP")
    assert data["compound"]["name"] == "yolov4-csp-w0.75-d0.67-640"
    assert set(data["alone"]) == set(FACTORS)
    assert data["moves"][0]["phase"] == "depth and width"
    assert data["latency_model"]["provenance"] == "calibrated"
    assert data["base"]["flops"] == pytest.approx(120.240e9, rel=1e-4)


def test_another_recipe_and_metric_give_another_accuracy(capsys):
    found = []
    for more in ([], ["--recipe", "pytorch-2021-10"], ["--metric", "ap50"]):
        assert run(["scale", "yolov4-csp", "--factor", "0.5", "-d", "nx", "--json", *more]) == 0
        data = json.loads(capsys.readouterr().out)
        found.append((data["metric"], data["recipe"], round(data["base"]["ap"]["mean"], 3)))
    assert [metric for metric, _, _ in found] == ["COCO AP", "COCO AP", "COCO AP50"]
    assert found[0][2] < found[1][2] < found[2][2]


def test_csv_has_a_row_for_every_step_of_every_factor(capsys, tmp_path):
    path = tmp_path / "steps.csv"
    assert run(["scale", "yolov4-csp", "--factor", "0.5", "-d", "nx", "--csv", str(path)]) == 0

    assert str(path) in capsys.readouterr().err
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert {row["factor_moved"] for row in rows} == {"compound", *FACTORS}
    bases = [row for row in rows if row["base"] == "True"]
    assert len(bases) == 5
    assert len({(row["ap"], row["frame_ms"]) for row in bases}) == 1
    assert all(float(row["frame_ms_low"]) < float(row["frame_ms"]) < float(row["frame_ms_high"]) for row in rows)


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_plot_is_a_picture_with_a_line_for_each_factor(capsys, tmp_path, suffix, magic):
    path = tmp_path / f"scale{suffix}"
    assert run(["scale", "yolov4-csp", "--fps", "30", "-d", "nx", "--plot", str(path)]) == 0

    picture = path.read_bytes()
    assert picture.startswith(magic)
    if suffix == ".svg":
        text = picture.decode()
        for said in ("size alone", "depth alone", "width alone", "stages alone", "30 FPS or more", "COCO AP"):
            assert said in text


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("model", ["yolov4-tiny-3l", "yolov4-csp", "yolov4-p7"])
def test_the_table_fits_the_terminal_and_cuts_nothing_off(model: str, width: int):
    text = io.StringIO()
    print_plan(plan(model, "agx-orin", factor=0.5), Console(file=text, width=width, highlight=False))

    lines = text.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert "…" not in text.getvalue()
    for said in ("GFLOPs", "params M", "access M", "CIO M", "frame ms", "FPS", "AP", "size alone", "stages alone"):
        assert said in text.getvalue()


def test_the_table_says_provenance_and_order(capsys):
    assert run(["scale", "yolov4-csp", "--factor", "2", "-d", "orin-nx"]) == 0

    shown = capsys.readouterr().out
    assert "latency" in shown.splitlines()[0]
    assert "1. size and depth: size 640 → " in shown
    assert "the backbone sees" in shown
