"""Spaces that join others: what a candidate is, how they are searched, what a file is refused for."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from scaler.errors import FileError, UsageError
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.search.samplers import FlatSpace
from scaler.space import MEMBER, Space, key, states
from scaler.space_file import read_space

MOBILE = """
schema_version = 1
name = "mobile"
family = "yolo-ret"
description = "for tests"
[parameters.backbone]
choices = ["mobilenetv2", "efficientnet-b0"]
[parameters.width]
when = { backbone = "mobilenetv2" }
choices = [0.5, 1.0]
[parameters.resolution]
choices = [224, 320]
"""
YOLOV4 = """
schema_version = 1
name = "yolov4"
family = "scaled-yolov4"
description = "for tests"
[parameters.variant]
choices = ["tiny", "csp"]
[parameters.rfcr]
when = { variant = "tiny" }
choices = [0, 5]
[parameters.width]
choices = [0.5, 1.0]
[parameters.resolution]
choices = [320, 416, 640]
"""
BOTH = """
schema_version = 1
name = "both"
members = ["mobile", "yolov4"]
description = "for tests"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path))
    spaces = tmp_path / "search_spaces"
    spaces.mkdir()
    for name, text in (("mobile", MOBILE), ("yolov4", YOLOV4), ("both", BOTH)):
        (spaces / f"{name}.toml").write_text(text)
    return spaces


@pytest.fixture
def both() -> Space:
    return read_space("both")


def test_the_candidates_are_those_of_the_members(both):
    candidates = list(both.candidates())
    assert len(candidates) == len({key(params) for params in candidates}) == both.size == 6 + 18
    assert Counter(params[MEMBER] for params in candidates) == {"mobile": 6, "yolov4": 18}
    assert both.families == ("yolo-ret", "scaled-yolov4")
    *_, (_, ways) = states(both.parameters)
    assert sum(ways.values()) == both.size


def test_a_network_has_the_same_id_alone_and_joined(both):
    for member in both.members:
        for params in member.candidates():
            assert both.candidate_id({MEMBER: member.name, **params}) == member.candidate_id(params)


def test_every_candidate_is_canonical_and_configures_its_own_family(both):
    for params in both.candidates():
        assert both.canonical(params) == params
        assert both.contains(params)
        config = both.configure(params, 80)
        assert isinstance(config, YoloRetConfig if params[MEMBER] == "mobile" else ScaledYoloV4Config)
        assert both.find(config) == params


def test_a_configuration_that_no_member_has_is_not_found(both):
    assert both.find(YoloRetConfig(backbone="mobilenetv2", width=0.75)) is None
    assert both.find(ScaledYoloV4Config(variant="p6", resolution=1280)) is None


def test_a_candidate_must_say_of_which_member_it_is(both):
    with pytest.raises(UsageError, match="space = 'missing': the space 'both' allows mobile, yolov4"):
        both.canonical({"variant": "tiny", "resolution": 320, "width": 1.0})
    assert not both.contains({MEMBER: "neither", "variant": "tiny"})


def test_neighbours_stay_in_their_member_and_are_those_it_has_alone(both):
    for params in both.candidates():
        alone = {name: value for name, value in params.items() if name != MEMBER}
        member = next(member for member in both.members if member.name == params[MEMBER])
        expected = [{MEMBER: member.name, **other} for other in member.neighbours(alone)]
        assert both.neighbours(params) == expected


def test_members_are_drawn_with_equal_chances(both):
    rng = np.random.default_rng(0)
    drawn = Counter(both.sample(rng)[MEMBER] for _ in range(400))
    assert 150 < drawn["mobile"] < 250
    assert all(both.contains(both.sample(rng)) for _ in range(100))


def test_optuna_sees_every_members_parameters_apart_and_reads_them_back(both):
    flat = FlatSpace(both)
    names = list(flat.distributions)
    assert len(names) == len(set(names))
    assert {"resolution[mobile]", "resolution[yolov4]", MEMBER} <= set(names)
    for params in both.candidates():
        assert flat.read(flat.active(params)) == params


def test_the_digest_is_of_the_members(both, folder):
    before = both.digest
    (folder / "mobile.toml").write_text(MOBILE.replace("[224, 320]", "[224, 256]"))
    assert read_space("both").digest != before


def test_the_digest_of_a_simple_space_is_what_it_was_before_there_were_joined_ones():
    assert read_space("yolo-ret").digest == "36ab2847ed2117c6"


def test_the_shipped_join_has_every_shipped_space():
    space = read_space("all")
    assert {member.name for member in space.members} == {"yolo-ret", "scaled-yolov4", "vovnet-ret", "lw-retinanet"}
    assert space.families == ("yolo-ret", "scaled-yolov4", "retinanet")
    assert space.size == sum(member.size for member in space.members)
    assert len(list(islice(space.candidates(), 5))) == 5


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ('["mobile"]', "members"),
        ('["mobile", "mobile"]', r"members\[1\].*'mobile' stands twice.*remove one"),
        ('["mobile", "both"]', r"members\[1\].*is this space itself.*remove it"),
        ('["mobile", "yolov5"]', r"members\[1\].*unknown search space 'yolov5'.*yolov4"),
        ('["mobile", "limited"]', r"members\[1\].*'limited' has limits.*a simple space.*name another"),
        ('["mobile", "two"]', r"members\[1\].*'two' joins others"),
        ("3", "members"),
    ],
)
def test_a_file_that_joins_what_cannot_be_joined_is_refused(folder, members, what):
    limited = MOBILE.replace('"mobile"', '"limited"', 1) + "[limits]\nparams = 1e6\n"
    (folder / "limited.toml").write_text(limited)
    (folder / "two.toml").write_text(BOTH.replace('"both"', '"two"'))
    (folder / "both.toml").write_text(BOTH.replace('["mobile", "yolov4"]', members))
    with pytest.raises(FileError, match=what):
        read_space("both")
    (folder / "both.toml").write_text(BOTH)


def test_a_join_has_no_parameters_of_its_own(folder):
    (folder / "both.toml").write_text(BOTH + '[parameters.neck]\nchoices = ["fpn"]\n')
    with pytest.raises(FileError, match="parameters"):
        read_space("both")
