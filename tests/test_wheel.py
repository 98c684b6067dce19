"""A built wheel, installed into an empty environment, does the main job from anywhere, with its own data."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def checked(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a fresh environment that has the wheel and what it requires, nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    checked(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    checked(python, "-m", "pip", "install", "-q", next(folder.glob("*.whl")), cwd=folder)
    return python


def test_the_wheel_does_the_main_job_from_another_directory(python, tmp_path):
    checked(python.with_name("scaler"), "search", "--device", "nano", "--fps", "30", "--trials", "60", cwd=tmp_path)

    result = json.loads((tmp_path / "results" / "yolo-ret-voc-nano-30fps" / "pareto.json").read_text())
    assert result["devices"][0]["pick"] is not None
    assert (tmp_path / "results" / "yolo-ret-voc-nano-30fps" / "report.html").stat().st_size > 1_000_000


def test_the_wheel_finds_its_own_copy_of_the_shipped_data(python, tmp_path):
    where = (
        "from scaler.catalog import find; "
        "print(find('profiles', 'nano')); print(find('latency_tables', 'nx/tensorrt-fp16'))"
    )

    for line in checked(python, "-c", where, cwd=tmp_path).stdout.splitlines():
        assert "shipped" in line
        assert not line.startswith(str(ROOT))


def test_the_base_install_has_no_torch(python, tmp_path):
    found = checked(python, "-c", "import importlib.util as u; print(u.find_spec('torch'))", cwd=tmp_path)

    assert found.stdout.strip() == "None"


def test_doctor_finds_nothing_wrong(python, tmp_path):
    checked(python, "-m", "scaler", "doctor", cwd=tmp_path)
