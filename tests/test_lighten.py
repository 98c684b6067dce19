"""The heaviest block of a network and what makes it lighter; the published trade-off against a smaller input."""

import io
import json
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from scaler.cli import run
from scaler.cost import graph_cost
from scaler.latency.estimator import Estimator, load_estimator
from scaler.published.retinanet import LIGHTER_GAINS, retinanet_rows
from scaler.report.lightening import print_lightening
from scaler.report.tradeoff import write_published
from scaler.search.evaluation import Evaluator
from scaler.search.lighten import Lightening, Rewrite, change, lighten
from scaler.search.predictors import load_predictor
from scaler.search.tradeoff import fitted, published_tradeoff
from scaler.space_file import read_space

RETINANET = {"backbone": "resnet-50", "width": 256, "towers": 4, "lighten": "none", "resolution": 800}
YOLO_RET = {
    "backbone": "mobilenetv2", "width": 0.75, "drop": 2, "rfcr": 5, "shortcut": True, "neck": "panet",
    "resolution": 320,
}  # fmt: skip
CASES = [("lw-retinanet", RETINANET), ("yolo-ret", YOLO_RET)]


@cache
def evaluator(space: str) -> Evaluator:
    read = read_space(space)
    return Evaluator(read, load_predictor(read))


@cache
def nano() -> Estimator:
    return load_estimator("nano")


@cache
def lightened(space: str, **changed) -> Lightening:
    params = dict(CASES)[space] | changed
    return lighten(evaluator(space), nano(), evaluator(space).space.canonical(params))


def ceiling_of(found: Lightening, step: Rewrite, drift: float | None = None) -> float:
    """The speedup if what a step changes took no time.

    What it leaves alone drifts by one factor, since the paper's toolchain depends a little on the whole network's
    weights; without that it is the blocks' own 1 / (1 - share).
    """
    left = {block.name: block.ms for block in found.blocks if block.name not in step.changes}
    if drift is None:
        after = lightened("lw-retinanet", lighten=step.params["lighten"])
        ratios = [block.ms / left[block.name] for block in after.blocks if block.name in left]
        assert ratios == pytest.approx([ratios[0]] * len(left))
        drift = ratios[0]
    overhead = found.frame_ms - sum(block.ms for block in found.blocks)
    return found.frame_ms / (overhead + drift * sum(left.values()))


def printed(lightening: Lightening) -> str:
    console = Console(record=True, width=160, file=io.StringIO())
    print_lightening(lightening, "COCO AP", console)
    return console.export_text()


def divided(found: Lightening) -> tuple[list[Rewrite], list[Rewrite]]:
    """The rewrites that change the target alone, and those that change more."""
    assert found.target is not None
    alone = [step for step in found.rewrites if step.changes == (found.target.name,)]
    return alone, [step for step in found.rewrites if step not in alone]


class TestBlocks:
    @pytest.mark.parametrize(("space", "params"), CASES)
    def test_blocks_are_the_whole_engine(self, space, params):
        found, graph = lightened(space), evaluator(space).network(params).graph
        estimate = nano().estimate(graph)
        ms = [block.ms for block in found.blocks]
        assert sum(ms) == pytest.approx(float(estimate.engine[0]))
        assert sum(ms) + found.overhead_ms == pytest.approx(found.frame_ms) == pytest.approx(float(estimate.frame[0]))
        assert sum(block.macs for block in found.blocks) == graph_cost(graph).macs
        assert ms == sorted(ms, reverse=True)

    @pytest.mark.parametrize("space", dict(CASES))
    def test_shares_are_of_the_frame_and_the_ceiling_is_amdahls(self, space):
        for block in lightened(space).blocks:
            assert block.share == pytest.approx(block.ms / lightened(space).frame_ms)
            assert block.ceiling == pytest.approx(1 / (1 - block.share))
            assert block.engine_share == pytest.approx(block.ms / sum(b.ms for b in lightened(space).blocks))
            assert (
                block.engine_ceiling == pytest.approx(1 / (1 - block.engine_share))
                and block.engine_ceiling > block.ceiling
            )
            assert sum(block.parts.values()) in (0.0, pytest.approx(block.ms))
            assert 0 <= block.from_table <= 1

    def test_a_retinanets_blocks_are_stages_levels_of_the_pyramid_and_levels_of_the_head(self):
        blocks = {block.name: block for block in lightened("lw-retinanet").blocks}
        levels = [f"{part}.p{level}" for part in ("neck", "head") for level in (3, 4, 5, 6, 7)]
        assert blocks.keys() == {"backbone.stem", *(f"backbone.stage{n}" for n in (1, 2, 3, 4)), *levels}
        assert blocks["head.p3"].macs_share == pytest.approx(0.4418, abs=5e-5)
        assert blocks["head.p3"].parts.keys() == {"head.p3.class", "head.p3.box"}


class TestRewrites:
    @pytest.mark.parametrize(("space", "params"), CASES)
    def test_a_rewrite_is_a_faster_candidate_of_the_space_with_the_same_input(self, space, params):
        found = lightened(space)
        assert found.steps
        for step in found.steps:
            assert evaluator(space).space.contains(step.params)
            assert step.params["resolution"] == params["resolution"]
            frame = float(nano().estimate(evaluator(space).network(step.params).graph).frame[0])
            assert step.saved_ms == pytest.approx(found.frame_ms - frame) and step.saved_ms > 0
            assert step.speedup == pytest.approx(found.frame_ms / frame)
            assert step.ceiling is not None and 1 < step.speedup <= step.ceiling * (1 + 1e-9)
            assert step.macs == evaluator(space).network(step.params).cost.macs
            assert step.change == change(evaluator(space).space.canonical(params), step.params)

    @pytest.mark.parametrize(("space", "params"), CASES)
    def test_accuracy_changes_by_the_models_difference_with_the_interval_of_two_runs(self, space, params):
        here = evaluator(space).ap(evaluator(space).space.canonical(params))
        for step in lightened(space).steps:
            there = evaluator(space).ap(step.params)
            assert step.ap_change.mean == pytest.approx(there.mean - here.mean)
            half = np.hypot(here.high - here.low, there.high - there.low) / 2
            assert step.ap_change.high - step.ap_change.mean == pytest.approx(half)
            assert step.ap_change.mean - step.ap_change.low == pytest.approx(half)

    def test_no_head_of_p3_gets_beyond_the_ceiling_of_its_block(self):
        found = lightened("lw-retinanet")
        (block,) = [block for block in found.blocks if block.name == "head.p3"]
        local = [step for step in found.steps if step.blocks == ("head.p3",)]
        assert {step.params["lighten"] for step in local} == {
            "p3-one-1x1", "p3-alternate", "p3-three-1x1", "p3-depthwise", "p3-towers-1x1", "p3-three-1x1-class-1x1",
            "released", "p3-1x1",
        }  # fmt: skip
        for step in local:
            assert step.ceiling == pytest.approx(ceiling_of(found, step))
            assert ceiling_of(found, step, drift=1.0) == pytest.approx(block.ceiling)

    def test_the_heaviest_block_of_retinanet_is_the_head_of_p3_and_moves_after_the_released_rewrite(self):
        found = lightened("lw-retinanet")
        assert found.target is not None and found.target.name == "head.p3" == found.blocks[0].name
        assert found.passed_over == ()
        (released,) = [step for step in found.rewrites if step.params["lighten"] == "released"]
        assert released.change == "lighten none -> released"
        assert released.heaviest_after != "head.p3"
        after = lightened("lw-retinanet", lighten="released")
        assert after.blocks[0].name == released.heaviest_after
        assert after.frame_ms == pytest.approx(found.frame_ms - released.saved_ms)

    def test_a_rewrite_of_two_levels_has_the_ceiling_of_both(self):
        found = lightened("lw-retinanet")
        shares = {block.name: block.share for block in found.blocks}
        (both,) = [step for step in found.steps if step.params["lighten"] == "released-p3-p4"]
        assert both.blocks == ("head.p3", "head.p4")
        assert both.ceiling == pytest.approx(ceiling_of(found, both))
        untouched = 1 - shares["head.p3"] - shares["head.p4"]
        assert ceiling_of(found, both, drift=1.0) == pytest.approx(1 / untouched)

    @pytest.mark.parametrize("space", dict(CASES))
    def test_the_best_comes_first_and_lightens_the_target(self, space):
        found = lightened(space)
        assert found.target is not None
        for steps in divided(found):
            rates = [step.rate for step in steps]
            assert rates == sorted(rates, reverse=True)
        for step in found.rewrites:
            assert found.target.name in step.lightens
            assert set(step.lightens) <= set(step.blocks) <= set(step.changes)

    def test_what_changes_the_target_alone_comes_before_what_changes_more(self):
        found = lightened("lw-retinanet")
        alone, more = divided(found)
        assert found.rewrites == (*alone, *more)
        assert {step.change.split()[0] for step in alone} == {"lighten"} and len(alone) == 8
        assert {"width", "towers", "lighten"} == {step.change.split()[0] for step in more}
        assert alone[0].rate < more[0].rate  # narrower everywhere would be the best of all
        text = printed(found)
        rows = text[text.index("\nhead.p3 alone") :]
        places = [rows.index(f"\n{words} ") for words in (alone[-1].change, "head.p3 and others", more[0].change)]
        assert places == sorted(places)

    @pytest.mark.parametrize(("space", "params"), CASES)
    def test_the_changed_blocks_are_those_whose_layers_differ(self, space, params):
        def layers(of):
            graph = evaluator(space).network(of).graph
            blocks = {}
            for placement in graph.placements:
                blocks.setdefault(".".join(placement.name.split(".")[:2]), []).append(placement.block)
            return blocks

        here = layers(evaluator(space).space.canonical(params))
        for step in lightened(space).steps:
            there = layers(step.params)
            differing = {name for name in here | there if here.get(name) != there.get(name)}
            assert set(step.changes) <= differing
            assert not [name for name in differing - set(step.changes) if name not in here or name not in there]

    def test_what_changes_everything_has_no_ceiling_but_that_of_the_time_outside_the_engine(self):
        space = evaluator("scaled-yolov4").space
        params = space.canonical({"variant": "csp", "resolution": 640})
        for overhead in (None, 0.0):
            found = lighten(evaluator("scaled-yolov4"), load_estimator("nano", overhead_ms=overhead), params)
            (tiny,) = [step for step in found.steps if step.params["variant"] == "tiny" and step.params["rfcr"] == 0]
            assert {name.split(".")[0] for name in tiny.blocks} == {"backbone", "neck", "head"}
            assert (tiny.ceiling is None) == (overhead == 0.0)
            assert tiny.ceiling is None or tiny.speedup < tiny.ceiling
            assert "–" in printed(found)

    def test_a_block_whose_share_grows_is_not_lightened(self):
        """A shallower backbone leaves the head as it is: no rewrite of the head."""
        steps = {step.params["backbone"]: step for step in lightened("lw-retinanet").steps}
        assert "resnet-34" in steps
        assert not [name for name in steps["resnet-34"].lightens if name.startswith("head")]

    def test_a_smaller_input_of_the_same_time_is_read_off_the_line_of_input_sizes(self):
        found = lightened("lw-retinanet")
        assert [point.label for point in found.input_sizes] == [f"{side} px" for side in range(320, 801, 32)]
        assert found.input_sizes[-1].frame_ms == pytest.approx(found.frame_ms)
        for step in found.steps:
            frame, ap = found.frame_ms - step.saved_ms, step.ap_change_by_input_size
            slower = next(point for point in found.input_sizes if point.frame_ms >= frame)
            if ap is None:
                assert frame < found.input_sizes[0].frame_ms
            else:
                assert ap <= slower.ap - found.here.ap + 1e-9
                assert step.better_than_input_size == pytest.approx(step.ap_change.mean - ap)

    def test_where_a_smaller_input_does_better_beyond_the_noise_is_said_in_a_line(self):
        found = lightened("lw-retinanet")
        beaten = [s for s in found.rewrites if s.better_than_input_size is not None and s.better_than_input_size < -0.3]
        assert 0 < len(beaten) < len(found.rewrites) and found.better_by_input_size == tuple(beaten)
        worst = min(beaten, key=lambda step: step.better_than_input_size or 0.0)
        line = " ".join(printed(found).split())
        assert f"better than {len(beaten)} of these {len(found.rewrites)} steps, most against {worst.change}" in line
        assert f"{worst.ap_change_by_input_size:+.1f} for {worst.ap_change.mean:+.1f} AP, inside its interval" in line

    def test_where_no_smaller_input_does_better_nothing_is_said(self):
        found = lightened("lw-retinanet", resolution=320)
        assert found.better_by_input_size == () and "predicted to do better" not in printed(found)

    def test_the_papers_claim_is_said_of_a_retinanet_alone(self):
        found, other = lightened("lw-retinanet"), lightened("yolo-ret")
        assert (found.published, other.published) == (LIGHTER_GAINS, ())
        assert "as we read it, +0.1 AP at 1.15x and +0.3 AP at 1.8x fewer FLOPs, over a smaller input" in printed(found)
        assert "as we read it" not in printed(other)

    def test_below_the_smallest_input_there_is_nothing_to_compare_with(self):
        found = lightened("lw-retinanet", resolution=320)
        assert len(found.input_sizes) == 1
        assert {step.ap_change_by_input_size for step in found.steps} == {None}
        assert "beyond the space" in printed(found)

    def test_a_space_with_nothing_but_input_sizes_has_no_target_and_says_so(self, tmp_path):
        path = tmp_path / "sizes.toml"
        path.write_text(
            'schema_version = 1\nname = "sizes"\nfamily = "yolo-ret"\ndescription = "Sizes"\n'
            '[fixed]\nbackbone = "mobilenetv2"\n[parameters.resolution]\nrange = [256, 320, 32]\n'
        )
        space = read_space(path)
        found = lighten(Evaluator(space, load_predictor(space)), nano(), space.canonical({"backbone": "mobilenetv2"}))
        path = str(path)
        assert (
            run(["show", "backbone=mobilenetv2", "--space", path, "-d", "nano", "--plot", str(tmp_path / "x.png")]) == 0
        )
        assert found.target is None and found.steps == () and found.passed_over == found.blocks
        text = printed(found)
        assert f"{found.blocks[0].name} has nothing lighter one step away in this space." in text
        assert "attack" not in text


class TestShow:
    def test_blocks_ceiling_and_rewrites_are_printed(self):
        found = lightened("lw-retinanet")
        text = printed(found)
        assert found.target is not None
        share, ceiling = 100 * found.target.share, found.target.ceiling
        assert (
            f"attack head.p3: {share:.0f} % of the frame, so no rewrite of it alone gets beyond {ceiling:.2f}x; "
            f"{100 * found.target.engine_share:.0f} % of the engine, {found.target.engine_ceiling:.2f}x" in text
        )
        for step in found.rewrites[:5]:
            assert step.change in text and f"{step.speedup:.2f}x" in text and f"{step.ap_change.mean:+.1f} (" in text
        assert max(map(len, text.splitlines())) <= 160

    def test_the_command_prints_draws_and_gives_json(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        words = ",".join(f"{name}={value}" for name, value in RETINANET.items())
        common = ["show", words, "--space", "lw-retinanet", "--device", "nano"]
        assert run([*common, "--plot", "lw.svg"]) == 0
        captured = capsys.readouterr()
        assert "attack head.p3" in captured.out and captured.err.strip() == "wrote lw.svg"
        texts = svg_texts(tmp_path / "lw.svg")
        for piece in ("this candidate", "without head.p3", "+0.1 at 1.15x fewer", "released head, 1.63x fewer"):
            assert piece in texts, piece
        assert run([*common, "--lighten", "--json"]) == 0
        plain = json.loads(capsys.readouterr().out)["lightening"]
        assert plain["target"] == "head.p3"
        assert plain["blocks"][0]["engine_ceiling"] > plain["blocks"][0]["ceiling"]
        assert plain["published"] == [
            {"flops_reduction": 1.15, "gain_ap": 0.1},
            {"flops_reduction": 1.8, "gain_ap": 0.3},
        ]
        assert plain["blocks"][0]["ceiling"] == pytest.approx(lightened("lw-retinanet").blocks[0].ceiling)
        assert {"change", "saved_ms", "speedup", "ceiling", "ap_change", "better_than_input_size"} <= plain["steps"][
            0
        ].keys()

    def test_a_network_of_another_family_has_no_published_picture_beside_it(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert run(["show", "YOLO-ReT-M0.75@320", "--device", "nano", "--plot", "here.svg"]) == 0
        texts = svg_texts(tmp_path / "here.svg")
        assert "this candidate" in texts and "288 px" in texts and "Focal Loss" not in texts

    def test_an_unknown_kind_of_picture_is_refused_before_anything_is_done(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert run(["show", "YOLO-ReT-M0.75@320", "--device", "nano", "--plot", "here.bmp"]) == 2
        captured = capsys.readouterr()
        assert ".png, .svg" in captured.err and not captured.out and not list(tmp_path.iterdir())

    def test_without_the_option_nothing_is_said_of_blocks(self, capsys):
        assert run(["show", "YOLO-ReT-M0.75@320", "--device", "nano"]) == 0
        assert "heaviest blocks" not in capsys.readouterr().out


def svg_texts(path: Path) -> str:
    root = ElementTree.parse(path).getroot()
    return " ".join("".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text"))


class TestPublished:
    def test_a_smaller_input_degrades_exponentially_in_flops(self):
        """Table 1e of the Focal Loss paper; a straight line leaves 0.64 AP, the exponential 0.08."""
        first, second = published_tradeoff().curves
        assert [(p.size, p.ap) for p in first.points] == [
            (400, 30.5),
            (500, 32.5),
            (600, 34.3),
            (700, 35.1),
            (800, 35.7),
        ]
        assert [p.ap for p in second.points] == [31.9, 34.4, 36.0, 37.1, 37.8]
        fit = first.fit
        assert (fit.top, fit.drop, fit.rate, fit.rms) == pytest.approx((36.16, 13.18, 3.36, 0.082), abs=0.006)
        x, y = ([getattr(p, name) for p in first.points] for name in ("flops", "ap"))
        line = np.polyval(np.polyfit(x, y, 1), x)
        assert np.sqrt(np.mean((line - y) ** 2)) == pytest.approx(0.64, abs=0.005)

    def test_the_deeper_networks_flops_are_counted_on_its_graph(self):
        _, deeper = published_tradeoff().curves
        assert deeper.points[-1].flops == deeper.cost == pytest.approx(1.324, abs=0.001)

    def test_the_two_statements_are_gains_over_the_fit_at_equal_flops(self):
        tradeoff = published_tradeoff()
        assert [(s.reduction, s.gain) for s in tradeoff.statements] == list(LIGHTER_GAINS) == [(1.15, 0.1), (1.8, 0.3)]
        for statement in tradeoff.statements:
            assert statement.flops == 1 / statement.reduction
            assert statement.ap - float(tradeoff.curves[0].ap(statement.flops)) == pytest.approx(statement.gain)
        assert [round(s.ap, 1) for s in tradeoff.statements] == [35.5, 34.4]
        assert 1 / tradeoff.released == pytest.approx(1.633, abs=5e-4)

    def test_a_fit_finds_the_exponential_that_made_the_points(self):
        x = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
        fit = fitted(x, 40 - 10 * np.exp(-2.5 * x))
        assert (fit.top, fit.drop, fit.rate, fit.rms) == pytest.approx((40, 10, 2.5, 0), abs=1e-6)

    def test_the_picture_shows_every_point_and_is_the_same_every_time(self, tmp_path):
        write_published(tmp_path / "a.svg", tmp_path / "a.png")
        write_published(tmp_path / "b.svg", tmp_path / "b.png")
        for suffix in ("svg", "png"):
            assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
        texts = svg_texts(tmp_path / "a.svg").split()
        for size in {row.resolution for row in retinanet_rows() if row.recipe == "focal-loss"}:
            assert texts.count(str(size)) >= 2

    def test_a_command_draws_it_without_a_device(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        write_published(tmp_path / "direct.svg")
        assert run(["accuracy", "plot", "retinanet", "--out", "command.svg"]) == 0
        captured = capsys.readouterr()
        assert (captured.out, captured.err.strip()) == ("", "wrote command.svg")
        assert (tmp_path / "command.svg").read_bytes() == (tmp_path / "direct.svg").read_bytes()

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["scaled-yolov4"], "scaled-yolov4 has no published trade-off to draw; retinanet has one"),
            (["retinant"], "unknown family 'retinant'; did you mean 'retinanet'?"),
            (["retinanet", "--out", "x.bmp"], "x.bmp: unknown kind of picture"),
        ],
    )
    def test_what_cannot_be_drawn_is_one_clear_line(self, words, said, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert run(["accuracy", "plot", *words]) == 2
        captured = capsys.readouterr()
        assert said in captured.err and len(captured.err.strip().splitlines()) == 1 and not captured.out
        assert not list(tmp_path.iterdir())


def test_what_changed_names_appearing_and_vanishing_parameters():
    assert (
        change({"neck": "fpn", "a": 1}, {"neck": "bifpn", "a": 1, "repeats": 2}) == "neck fpn -> bifpn, repeats - -> 2"
    )
