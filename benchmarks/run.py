"""Runs all benchmarks; `--quick` takes fewer repetitions."""

from __future__ import annotations

import sys

import search_quality
import speed


def main() -> None:
    """Speed first, then the quality of the default search."""
    quick = "--quick" in sys.argv[1:]
    speed.main(runs=2 if quick else 5)
    search_quality.main(seeds=3 if quick else 20)


if __name__ == "__main__":
    main()
