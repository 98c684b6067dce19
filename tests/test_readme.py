"""The README's commands and figures are true."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [block for language, block in re.findall(r"```(\w+)\n(.*?)```", README, re.S) if language == "bash"]
COMMANDS = [
    part.strip()
    for block in BLOCKS
    for line in block.splitlines()
    for part in line.partition(" #")[0].rstrip(" &").split("&&")
    if part.strip().startswith("scaler ")
]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "scaler", *words[1:]],
        cwd=folder,
        env={**os.environ, "SCALER_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_readme_has_the_main_job_among_its_commands():
    assert "scaler search --device nano --fps 30" in COMMANDS


def test_no_command_keeps_the_comment_behind_it():
    assert not [command for command in COMMANDS if "#" in command]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands run, one after the other: some read what others wrote."""
    return tmp_path_factory.mktemp("readme")


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_works(command, folder):
    done = run(command, folder)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def example(word: str) -> str:
    """The TOML file of the README that has this word."""
    (found,) = [text for text in re.findall(r"```toml\n(.*?)```", README, re.S) if word in text]
    return found


def test_the_example_data_set_of_the_readme_is_valid(tmp_path):
    from scaler.data.data_file import read_splits

    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
    for name in ("one", "two"):
        (tmp_path / "images" / f"{name}.jpg").write_bytes(b"is read when it is needed")
        (tmp_path / "annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>64</width><height>48</height></size>"
            "<object><name>nut</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
            "</object></annotation>"
        )
    (tmp_path / "train.txt").write_text("one\n")
    (tmp_path / "val.txt").write_text("two\n")
    (tmp_path / "data.toml").write_text(example("annotations"))
    splits = read_splits(tmp_path / "data.toml")

    assert splits.classes == ("bolt", "nut")
    assert [picture.name for picture in splits.splits["val"].pictures] == ["two"]
    assert splits.splits["train"].pictures[0].boxes.corners.tolist() == [[10, 5, 30, 40]]


def test_the_example_space_of_the_readme_is_valid(tmp_path):
    from scaler.space_file import read_space

    path = tmp_path / "my.toml"
    path.write_text(example("family"))

    assert read_space(path).size == 3 * 5 * 7


def test_the_measured_example_took_what_the_readme_says():
    from scaler.latency.table import read_table

    info = read_table("xeon-vm/onnxruntime-fp32-1-thread").info
    assert f"{info.networks} networks measured in {info.seconds:.0f} s" in README
    assert f"ONNX Runtime {info.runtime_version}, {info.precision.upper()}" in README


@pytest.mark.slow
def test_the_comparison_with_the_paper_is_what_the_benchmark_prints():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from paper_comparison import table
    finally:
        sys.path.pop(0)
    shown = re.search(r"paper_comparison.py` -->\n(.*?)\n<!-- end", README, re.S)

    assert shown is not None
    assert shown[1].strip() == table()
