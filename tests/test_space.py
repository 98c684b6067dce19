"""Search spaces: the shipped one, what a candidate is, and what a file is refused for."""

from pathlib import Path

import numpy as np
import pytest

from scaler.errors import FileError, UsageError
from scaler.models.detectors.yolo_ret import BACKBONES, max_drop, published_drop
from scaler.space import Params, Space, key
from scaler.space_file import list_spaces, read_space

SMALL = """
schema_version = 1
name = "small"
family = "yolo-ret"
description = "for tests"
[fixed]
neck = "fpn"
[parameters.backbone]
choices = ["mobilenetv2", "efficientnet-b0"]
[parameters.width]
when = { backbone = "mobilenetv2" }
choices = [1, 0.5]
[[parameters.drop]]
when = { backbone = "mobilenetv2" }
range = [0, 4, 2]
named = { published = 2 }
[[parameters.drop]]
when = { backbone = "efficientnet-b0" }
range = [1, 5, 2]
[parameters.rfcr]
choices = [0, 5]
[parameters.shortcut]
when = { rfcr = 5 }
choices = [false, true]
[limits]
params = 5e6
"""


@pytest.fixture(scope="module")
def shipped() -> Space:
    return read_space("yolo-ret")


@pytest.fixture
def small(tmp_path: Path) -> Space:
    return read(tmp_path, SMALL)


def read(folder: Path, text: str) -> Space:
    path = folder / "space.toml"
    path.write_text(text)
    return read_space(path)


# the shipped space


def test_the_shipped_space_has_every_candidate_that_the_issue_names(shipped: Space) -> None:
    candidates = list(shipped.candidates())
    assert shipped.size == len(candidates) == 40_992
    assert len({key(params) for params in candidates}) == 40_992
    truncated = 6 * (max_drop("mobilenetv2") + 1) + sum(max_drop(name) + 1 for name in BACKBONES[1:])
    assert shipped.size == truncated * (1 + 3 * 2) * (3 + 3) * 16


def test_no_two_candidates_of_the_shipped_space_share_an_id(shipped: Space) -> None:
    assert len({shipped.candidate_id(params) for params in shipped.candidates()}) == shipped.size


def test_the_family_takes_every_candidate_of_the_shipped_space(shipped: Space) -> None:
    for params in shipped.candidates():
        shipped.configure(params, classes=20)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_shipped_space_names_the_published_cuts(shipped: Space, backbone: str) -> None:
    params = shipped.canonical({"backbone": backbone, "drop": published_drop(backbone), "rfcr": 5})
    options = {parameter.name: parameter.active(params) for parameter in shipped.parameters}
    for name in ("drop", "rfcr"):
        option = options[name]
        assert option is not None
        assert option.named["published"] == params[name]


def test_the_number_in_the_file_is_right(shipped: Space) -> None:
    text = (Path(__file__).parent.parent / "search_spaces" / "yolo-ret.toml").read_text()
    assert f"{shipped.size:,} candidates" in text


def test_spaces_are_listed() -> None:
    assert "yolo-ret" in [space.name for space in list_spaces()]


# candidates


def test_candidates_come_in_the_order_of_the_file(small: Space) -> None:
    candidates = list(small.candidates())
    assert small.size == len(candidates) == 2 * 3 * 3 + 3 * 3
    assert candidates[0] == {"neck": "fpn", "backbone": "mobilenetv2", "width": 0.5, "drop": 0, "rfcr": 0}
    assert list(candidates[-1].items()) == [
        ("neck", "fpn"), ("backbone", "efficientnet-b0"), ("drop", 5), ("rfcr", 5), ("shortcut", True)
    ]  # fmt: skip
    assert small.limits == {"params": 5e6}


def test_canonical_orders_drops_and_fills(small: Space) -> None:
    mixed: Params = {"shortcut": True, "drop": 1, "backbone": "efficientnet-b0", "width": 0.5, "neck": "fpn"}
    assert list(small.canonical(mixed).items()) == [
        ("neck", "fpn"), ("backbone", "efficientnet-b0"), ("drop", 1), ("rfcr", 0)
    ]  # fmt: skip


def test_canonical_takes_the_types_of_the_space(small: Space) -> None:
    params = small.canonical({"backbone": "mobilenetv2", "width": 1, "neck": "fpn", "rfcr": 5.0})
    assert type(params["width"]) is float
    assert type(params["rfcr"]) is int


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"backbone": "mobilenetv2", "wdith": 1}, "unknown parameter of yolo-ret 'wdith'; did you mean 'width'"),
        ({"backbone": "mobilenetv2", "neck": "fpn", "drop": 3}, "drop = 3: the space 'small' allows 0, 2, 4"),
        ({"backbone": "mobilenetv2", "neck": "fpn", "drop": False}, "drop = False"),
        ({"neck": "fpn"}, "backbone = 'missing': the space 'small' allows mobilenetv2"),
        ({"backbone": "mobilenetv2"}, "neck = 'panet': the space 'small' allows fpn"),
        ({"backbone": "mobilenetv2", "neck": "fpn", "resolution": 64}, "resolution = 64: the space 'small' allows 320"),
        ({"backbone": ["mobilenetv2"], "neck": "fpn"}, "backbone ="),
    ],
)  # fmt: skip
def test_what_is_no_candidate_is_refused(small: Space, params: Params, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("[", r"\[")):
        small.canonical(params)
    assert not small.contains(params)


def test_a_network_with_other_values_is_not_in_the_space_even_where_they_do_not_apply(small: Space) -> None:
    inside: Params = {"backbone": "mobilenetv2", "neck": "fpn", "repeats": 1, "shortcut": False, "resolution": 320}
    assert small.contains(inside)
    assert not small.contains({**inside, "repeats": 2})
    assert not small.contains({**inside, "shortcut": True})


def test_the_same_network_has_the_same_id_in_every_space(small: Space, shipped: Space) -> None:
    params: Params = {"neck": "fpn", "backbone": "mobilenetv2", "width": 0.5, "drop": 2, "rfcr": 0}
    assert small.candidate_id(params) == shipped.candidate_id(shipped.canonical(params))
    assert small.candidate_id(params) == "089ffb13"  # ids in files that users keep must not change


def test_every_candidate_of_the_small_space_is_reached_from_every_other(small: Space) -> None:
    for start in small.candidates():
        reached, todo = {key(start)}, [start]
        while todo:
            new = [other for other in small.neighbours(todo.pop()) if key(other) not in reached]
            reached.update(map(key, new))
            todo += new
        assert len(reached) == small.size


def test_neighbours_are_candidates_and_differ_in_one_step(shipped: Space) -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        params = shipped.sample(rng)
        neighbours = shipped.neighbours(params)
        assert len({key(other) for other in neighbours}) == len(neighbours)
        assert key(params) not in {key(other) for other in neighbours}
        for other in neighbours:
            assert shipped.contains(other)
            assert list(shipped.canonical(other).items()) == list(other.items())


def test_neighbours_repair_what_hangs_on_the_changed_value(shipped: Space) -> None:
    start: Params = {"backbone": "efficientnet-b3", "drop": 8, "rfcr": 0, "neck": "fpn", "resolution": 160}
    neighbours = shipped.neighbours(start)
    assert {**start, "backbone": "efficientnet-b0", "drop": 5} in neighbours  # nearest drop that is left
    widths = [p["width"] for p in neighbours if p["backbone"] == "mobilenetv2"]
    assert widths == [0.35, 0.5, 0.75, 1.0, 1.3, 1.4]
    assert [p["resolution"] for p in neighbours if p["resolution"] != 160] == [192]
    assert [p["rfcr"] for p in neighbours if p["rfcr"]] == [3, 3]  # adjacent, with and without the shortcut
    assert [p.get("repeats") for p in neighbours if p["neck"] == "bifpn"] == [1, 2, 3]


def test_samples_are_candidates_and_the_same_for_a_seed(shipped: Space) -> None:
    first, second = ([shipped.sample(rng) for _ in range(300)] for rng in map(np.random.default_rng, (7, 7)))
    assert first == second
    assert all(shipped.contains(params) for params in first)
    assert {params["backbone"] for params in first} == set(BACKBONES)


def test_the_digest_stands_for_the_set_of_candidates(tmp_path: Path, small: Space) -> None:
    assert read(tmp_path, SMALL.replace("for tests", "other words")).digest == small.digest
    assert read(tmp_path, SMALL.replace("range = [0, 4, 2]", "choices = [4, 2, 0]")).digest == small.digest
    assert read(tmp_path, SMALL.replace("range = [0, 4, 2]", "range = [0, 2, 2]")).digest != small.digest


# what a file is refused for

# ruff: noqa: E501
WRONG = [
    ('family = "yolo-ret"', 'family = "yolo-rt"', "family: found 'yolo-rt'; expected one of yolo-ret, scaled-yolov4, retinanet; did you mean"),
    ("[parameters.rfcr]", "[parameters.rfrc]", "parameters.rfrc: unknown parameter of yolo-ret; known: backbone.*did you mean 'rfcr'"),
    ("[fixed]\nneck", "[fixed]\nnek", "fixed.nek: unknown parameter of yolo-ret.*did you mean 'neck'"),
    ('"efficientnet-b0"]', '"efficientnet-b9"]', "parameters.backbone.choices.1.: .*unknown backbone 'efficientnet-b9'; did you mean"),
    ("[1, 0.5]", "[1, 2.5]", "parameters.width.choices.1.: .*width = 2.5: allowed is 0.35 to 1.4"),
    ("[1, 0.5]", "[]", "parameters.width.choices: found 0 of them; expected a list of at least 1, each a number"),
    ("[1, 0.5]", "[1, 1.0]", r"parameters.width.choices\[1\]: 1.0 stands twice; remove one"),
    ("[1, 0.5]", '["1"]', r"parameters.width.choices\[0\]: found '1'; expected a number"),
    ("[0, 5]", "[0, 5.5]", r"parameters.rfcr.choices\[1\]: found 5.5; expected a whole number"),
    ("[0, 5]", "[0, 5, 4]", r"parameters.rfcr.choices\[2\]: .*rfcr = 4: allowed is"),
    ("[false, true]", "[0, 1]", "parameters.shortcut.choices: not a list of true and false; expected .false, true."),
    ("[0, 4, 2]", "[0, 6, 2]", r"parameters.drop\[0\].range: .*drop = 6: mobilenetv2 allows 0 to 4"),
    ("[0, 4, 2]", "[0, 3, 2]", r"parameters.drop\[0\].range: steps of 2 from 0 miss 3; .*for instance 2"),
    ("[0, 4, 2]", "[0, 4, 0]", r"parameters.drop\[0\].range: the step is not above 0"),
    ("[0, 4, 2]", "[4, 0, 2]", r"parameters.drop\[0\].range: first 4 is above last 0"),
    ("[0, 4, 2]", "[0, 4]", r"parameters.drop\[0\].range: 2 numbers; expected \[first, last, step\]"),
    ("[0, 4, 2]", "[0, 4_000_000_000, 1]", r"parameters.drop\[0\].range: too many values; expected at most 1000"),
    ("range = [0, 4, 2]", "range = [0, 4, 2]\nchoices = [0]", r"parameters.drop\[0\]: 2 of `choices` and `range`"),
    ("range = [0, 4, 2]\n", "", r"parameters.drop\[0\]: 0 of `choices` and `range`"),
    ("choices = [1, 0.5]", 'chioces = [1, 0.5]', "parameters.width: 0 of `choices` and `range`"),
    ("published = 2", "published = 3", r"parameters.drop\[0\].named.published: 3 is not a value here; expected one of 0, 2, 4"),
    ("when = { rfcr = 5 }", "when = { rfcrr = 5 }", "parameters.shortcut.when.rfcrr: unknown parameter; .*did you mean 'rfcr'"),
    ("when = { rfcr = 5 }", "when = { resolution = 320 }", "parameters.shortcut.when.resolution: does not stand further up"),
    ("when = { rfcr = 5 }", "when = { shortcut = true }", "parameters.shortcut.when.shortcut: is the parameter itself"),
    ("when = { rfcr = 5 }", "when = { rfcr = 3 }", "parameters.shortcut.when.rfcr: not a value of rfcr; expected one of 0, 5"),
    ("when = { rfcr = 5 }", "when = { rfcr = [5, 5] }", r"parameters.shortcut.when.rfcr\[1\]: stands twice"),
    ("when = { rfcr = 5 }", "when = { rfcr = [] }", "parameters.shortcut.when.rfcr: an empty list; expected values of rfcr"),
    ("when = { rfcr = 5 }", "when = { rfcr = [false] }", r"parameters.shortcut.when.rfcr\[0\]: not a value"),
    ("when = { rfcr = 5 }", 'when = "rfcr = 5"', "parameters.shortcut.when: found 'rfcr = 5'; expected a table"),
    ("when = { rfcr = 5 }", "", "parameters.shortcut.choices.1.: .*shortcut = True: allowed is false where rfcr is 0"),
    ("when = { rfcr = 5 }", 'when = { width = 0.5, backbone = "efficientnet-b0" }', "parameters.shortcut.when: can never hold"),
    ('when = { backbone = "efficientnet-b0" }', "", r"parameters.drop\[1\].when: holds together with that of parameters.drop\[0\] with backbone = mobilenetv2"),
    ('[parameters.backbone]\nchoices', '[parameters.backbone]\nwhen = { neck = "none" }\nchoices', "parameters.backbone.when.neck: not a value of neck"),
    ("[limits]\nparams", "[limits]\nparms", "limits.parms: unknown key; known: .*params.*did you mean 'params'"),
    ("params = 5e6", "params = -1", "limits.params: found -1; expected a number >= 0"),
    ("[fixed]", '[fixed]\nbackbone = "mobilenetv2"', r"parameters.backbone: is fixed above; .*remove it here or from \[fixed\]"),
    ("[fixed]", "[fixxed]", "fixxed: unknown key; .*did you mean 'fixed'"),
    ("schema_version = 1", "schema_version = 2", "schema_version"),
    ("[0, 4, 2]", "[0, 4, 2", "expected TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "said"), WRONG, ids=[wrong.replace("\n", " ") for _, wrong, _ in WRONG])
def test_a_wrong_file_is_refused_by_file_place_and_way_out(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    assert right in SMALL
    with pytest.raises(FileError, match=rf"space\.toml: .*{said}") as refused:
        read(tmp_path, SMALL.replace(right, wrong, 1))
    assert "\n" not in str(refused.value)


def test_a_space_without_a_backbone_is_refused(tmp_path: Path) -> None:
    text = 'schema_version = 1\nname = "a"\nfamily = "yolo-ret"\ndescription = "b"\n[parameters.rfcr]\nchoices = [5]\n'
    with pytest.raises(FileError, match=r"parameters\.backbone: missing; yolo-ret has no default; add it"):
        read(tmp_path, text)


def test_a_backbone_that_does_not_always_apply_is_refused(tmp_path: Path) -> None:
    text = SMALL.replace(
        "[parameters.backbone]", "[parameters.resolution]\nchoices = [320, 640]\n[parameters.backbone]"
    )
    text = text.replace('choices = ["mobilenetv2"', 'when = { resolution = 320 }\nchoices = ["mobilenetv2"')
    with pytest.raises(FileError, match=r"parameters\.backbone: has no value with resolution = 640"):
        read(tmp_path, text)


def test_values_that_do_not_fit_together_are_found_wherever_they_stand(tmp_path: Path) -> None:
    text = SMALL.replace('when = { backbone = "mobilenetv2" }\nchoices = [1, 0.5]', "choices = [1, 0.5]")
    with pytest.raises(FileError, match=r"parameters\.width\.choices\[1\]: .*width = 0.5: allowed is .* 1.0 for eff"):
        read(tmp_path, text)


def test_an_unknown_space_is_told_by_its_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown search space 'yolo-rett'; did you mean 'yolo-ret'"):
        read_space("yolo-rett")
