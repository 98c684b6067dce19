"""Does training work? Detectors trained from scratch and from ImageNet weights on two cores, by the command line.

    python benchmarks/detectors.py shapes            # three networks, 12 minutes each: AP50 on generated shapes
    python benchmarks/detectors.py overfit           # eight real pictures, to AP50 0.99
    python benchmarks/detectors.py transfer WEIGHTS  # tree crowns: ImageNet's MobileNetV2 against random weights

Prints what was reached beside the limit. `shapes` is run on a data set whose seed nothing was tuned on.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

LEAST_AP50 = 85.0
MOST_MINUTES = 12.0
LEAST_OVERFIT = 99.0


class Network(NamedTuple):
    """What is trained, and for how many epochs so that it ends within the limit."""

    parameters: str
    epochs: int


RET = "backbone=mobilenetv2,width=0.5,drop=2,neck=panet"
SHAPES = {
    "YOLO-ReT MobileNetV2 x0.5, no RFCR": Network(f"{RET},rfcr=0", 19),
    "YOLO-ReT MobileNetV2 x0.5, RFCR 5": Network(f"{RET},rfcr=5,shortcut=true", 16),
    "YOLOv4-tiny x0.5": Network("variant=tiny,width=0.5", 28),
}


def scaler(*arguments: str) -> None:
    """Run the command as a user does."""
    subprocess.run([sys.executable, "-m", "scaler", *arguments], check=True)


def result(folder: Path) -> dict[str, float]:
    """What a run reached, in percentage points."""
    metrics: dict[str, float] = json.loads((folder / "result.json").read_text())["metrics"]
    return metrics


def processor_seconds() -> float:
    """What the commands so far have computed, all cores together; on a shared machine more time passes than this."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shapes(folder: Path, seed: int) -> bool:
    """Train each network on the generated shapes; returns whether all reached the limit in time."""
    data = folder / f"shapes{seed}"
    if not (data / "data.toml").exists():
        scaler("data", "make-shapes", str(data), "--seed", str(seed))
    rows = []
    for name, network in SHAPES.items():
        out = folder / "runs" / name.replace(" ", "-").replace(",", "")
        shutil.rmtree(out, ignore_errors=True)
        started, before = time.monotonic(), processor_seconds()
        size = ["--resolution", "160"]
        scaler("train", network.parameters, *size, "--data", str(data / "data.toml"), "--recipe", "quick", "--epochs",
               str(network.epochs), "--cache", "--workers", "0", "--out", str(out))  # fmt: skip
        minutes, busy = (time.monotonic() - started) / 60, (processor_seconds() - before) / 60
        rows.append((name, result(out)["ap50"], result(out)["ap"], minutes, busy))
    print(f"\n{'generated shapes, 1000 / 200 pictures':42} {'AP50':>6} {'AP':>6} {'minutes':>8} {'of a core':>10}")
    for name, ap50, ap, minutes, busy in rows:
        good = ap50 >= LEAST_AP50 and minutes <= MOST_MINUTES
        print(f"{name:42} {ap50:6.1f} {ap:6.1f} {minutes:8.1f} {busy:10.1f}  {'ok' if good else 'MISSED'}")
    print(f"limits: AP50 {LEAST_AP50:g} or more, {MOST_MINUTES:g} minutes or less, the last evaluation included")
    return all(ap50 >= LEAST_AP50 and minutes <= MOST_MINUTES for _, ap50, _, minutes, _ in rows)


def trees(folder: Path) -> Path:
    """The tree crowns, fetched once."""
    data = folder / "trees"
    if not (data / "data.toml").exists():
        scaler("data", "fetch", "trees", str(data))
    return data


def overfit(folder: Path) -> bool:
    """Learn eight real pictures by heart; returns whether AP50 on them reached the limit."""
    data, eight = trees(folder), folder / "eight"
    labels = json.loads((data / "train.json").read_text())
    crowded = sorted(
        labels["images"], key=lambda image: -sum(a["image_id"] == image["id"] for a in labels["annotations"])
    )
    eight.mkdir(parents=True, exist_ok=True)
    (eight / "eight.txt").write_text("\n".join(Path(image["file_name"]).stem for image in crowded[:8]) + "\n")
    split = f'pictures = "{data / "train"}"\nlabels = "{data / "train.json"}"\nlist = "eight.txt"\n'
    (eight / "data.toml").write_text(
        f'schema_version = 1\nname = "eight-trees"\nformat = "coco"\nclasses = ["tree"]\n[train]\n{split}[val]\n{split}'
    )
    (eight / "recipe.toml").write_text(_plain_recipe())
    out = folder / "runs" / "overfit"
    shutil.rmtree(out, ignore_errors=True)
    scaler("train", "backbone=mobilenetv2,width=0.5,drop=2,neck=panet,rfcr=5,shortcut=true,resolution=320", "--data",
           str(eight / "data.toml"), "--recipe", str(eight / "recipe.toml"), "--cache", "--out", str(out))  # fmt: skip
    reached = result(out)["ap50"]
    verdict = "ok" if reached >= LEAST_OVERFIT else "MISSED"
    print(f"\neight real pictures by heart: AP50 {reached:.1f}, limit {LEAST_OVERFIT:g}  {verdict}")
    return reached >= LEAST_OVERFIT


def _plain_recipe() -> str:
    """The quick recipe without augmentation, for a few pictures."""
    shown = subprocess.run(
        [sys.executable, "-m", "scaler", "train", "--show-recipe", "quick"], check=True, capture_output=True, text=True
    ).stdout
    lines, table = [], ""
    for line in shown.splitlines():
        table = line.strip() if line.startswith("[") else table
        if table == "[augmentation]" and "=" in line:
            continue
        key = line.partition("=")[0].strip()
        changed = {"batch": "batch = 8", "epochs": "epochs = 150", "every": "every = 25", "name": 'name = "by-heart"'}
        lines.append(changed.get(key, line))
    return "\n".join(lines) + "\n"


def transfer(folder: Path, weights: str, epochs: int) -> bool:
    """Tree crowns from ImageNet weights and from random ones; returns whether the former learn faster."""
    data = trees(folder) / "data.toml"
    curves = {}
    for name, options in {"ImageNet": ["--pretrained", weights], "random": []}.items():
        out = folder / "runs" / f"trees-{name}"
        shutil.rmtree(out, ignore_errors=True)
        scaler("train", "backbone=mobilenetv2,width=1.0,drop=2,neck=panet,rfcr=5,shortcut=true,resolution=224",
               "--data", str(data), "--recipe", "quick", "--epochs", str(epochs), "--cache", "--out", str(out),
               *options)  # fmt: skip
        with (out / "metrics.csv").open() as file:
            curves[name] = {int(row["epoch"]): float(row["ap50"]) for row in csv.DictReader(file) if row["ap50"]}
    print(f"\n{'tree crowns, AP50 by epoch':28}" + "".join(f"{epoch:>7}" for epoch in curves["random"]))
    for name, curve in curves.items():
        print(f"{name:28}" + "".join(f"{ap50:7.1f}" for ap50 in curve.values()))
    return max(curves["ImageNet"].values()) > max(curves["random"].values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["shapes", "overfit", "transfer"])
    parser.add_argument("weights", nargs="?", help="for transfer: name or file of ImageNet weights of MobileNetV2 x1.0")
    parser.add_argument("--folder", type=Path, default=Path("proof"))
    parser.add_argument("--seed", type=int, default=0, help="of the shapes")
    parser.add_argument("--epochs", type=int, default=20, help="of transfer")
    given = parser.parse_args()
    folder = given.folder.resolve()
    match given.what:
        case "shapes":
            good = shapes(folder, given.seed)
        case "overfit":
            good = overfit(folder)
        case _:
            if given.weights is None:
                parser.error("transfer needs weights")
            good = transfer(folder, given.weights, given.epochs)
    sys.exit(not good)


if __name__ == "__main__":
    main()
