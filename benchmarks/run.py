"""Runs all benchmarks: speed, then the quality of the default search; `--quick` repeats less."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run each benchmark as its own process; the exit code is the worst of theirs."""
    quick = "--quick" in sys.argv[1:]
    commands = (
        ["speed.py", "--runs", "3" if quick else "7"],
        ["search_quality.py", "--seeds", "3" if quick else "20"],
    )
    return max(subprocess.run([sys.executable, HERE / name, *rest], check=False).returncode for name, *rest in commands)


if __name__ == "__main__":
    sys.exit(main())
