from __future__ import annotations

import json

import pytest

from scaler.cli import run


def test_validation_of_a_family_tells_schemes_recipes_and_worst_rows(capsys):
    assert run(["accuracy", "validate", "--family", "retinanet"]) == 0

    out = capsys.readouterr().out
    assert "one run" in out
    assert "one network" in out
    assert "0.21 AP" in out
    assert "by recipe: focal-loss" in out
    assert "worst: resnet-50 800" in out
    assert "0.3 AP are noise" in out


def test_validation_as_json_has_every_scheme(capsys):
    assert run(["accuracy", "validate", "--family", "retinanet", "--json"]) == 0

    parts = json.loads(capsys.readouterr().out)
    assert [(part["figure"], part["scheme"]) for part in parts] == [
        ("COCO AP", "leave-one-run-out"),
        ("COCO AP", "leave-one-network-out"),
        ("COCO AP50", "leave-one-run-out"),
        ("COCO AP50", "leave-one-network-out"),
    ]
    assert sum(recipe["n"] for recipe in parts[0]["by_recipe"].values()) == parts[0]["n"] == 28
    assert len(parts[0]["worst"]) == 5


def test_backbones_are_validated_too(capsys):
    assert run(["accuracy", "validate", "--family", "vovnet", "--json"]) == 0

    (part,) = json.loads(capsys.readouterr().out)
    assert part["mean_absolute_error_ap"] == pytest.approx(0.42, abs=0.02)
    assert "vovnet2-39" in part["by_group"]


def test_an_unknown_family_is_one_clear_line(capsys):
    assert run(["accuracy", "validate", "--family", "vovnett"]) == 2

    assert "did you mean 'vovnet'" in capsys.readouterr().err
