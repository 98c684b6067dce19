"""Whatever is done to a table, a result or a fit, its reader gives the content or one line: never a traceback.

Profiles and the general readers are fuzzed in test_fuzz_files.py, search spaces in test_fuzz_space.py.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_result import sample_result

from scaler.accuracy.model import SHIPPED_FILE, read_model
from scaler.catalog import find
from scaler.errors import UserError
from scaler.latency.table import read_table
from scaler.report.files import write_json
from scaler.search.result_file import read_result

SPLINTERS = [
    b"",
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"\x00",
    b"\xff",
    b'"',
    b"[",
    b"{",
    b"=",
    b",",
    b"\n",
    b"true",
    b"x" * 300,
]
EXAMPLES = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
seeds = st.integers(min_value=0, max_value=2**32)


def mutated(content: bytes, seed: int) -> bytes:
    """The content cut off, with a piece lost, doubled or replaced, or with a line gone: what the seed says."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.choice((1, 2, 5, 40)))
        match rng.randrange(5):
            case 0:
                content = content[:start]
            case 1:
                content = content[:start] + content[end:]
            case 2:
                content = content[:end] + content[start:]
            case 3:
                content = content[:start] + rng.choice(SPLINTERS) + content[end:]
            case _:
                lines = content.splitlines(keepends=True)
                if lines:
                    del lines[rng.randrange(len(lines))]
                content = b"".join(lines)
    return content


def survives(read: Callable[[], object]) -> None:
    """Reading gives something or a user error of one line."""
    try:
        read()
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        assert error.exit_code in (1, 2)


@pytest.mark.parametrize("broken", ["my.toml", "my.csv"])
@EXAMPLES
@given(seed=seeds)
def test_latency_tables(broken, seed, tmp_path):
    shipped = find("latency_tables", "nano/tensorrt-fp16")
    csv = b"".join(shipped.with_suffix(".csv").read_bytes().splitlines(keepends=True)[:40])
    for name, content in {"my.toml": shipped.read_bytes(), "my.csv": csv}.items():
        (tmp_path / name).write_bytes(mutated(content, seed) if name == broken else content)

    survives(lambda: read_table(tmp_path / "my.toml"))


@EXAMPLES
@given(seed=seeds)
def test_search_results(seed, tmp_path):
    whole: Path = tmp_path / "whole.json"
    if not whole.exists():
        write_json(sample_result(), whole)
    path = tmp_path / "pareto.json"
    path.write_bytes(mutated(whole.read_bytes(), seed))

    survives(lambda: read_result(path))


@EXAMPLES
@given(seed=seeds)
def test_accuracy_models(seed, tmp_path):
    path = tmp_path / "fit.json"
    path.write_bytes(mutated(SHIPPED_FILE.read_bytes(), seed))

    survives(lambda: read_model(path, "coco"))
