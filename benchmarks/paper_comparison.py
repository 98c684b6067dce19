"""Prints the README's comparison: the nine published YOLO-ReT models, each predicted by fits that have not seen it."""

from __future__ import annotations

from scaler.accuracy.validation import validate
from scaler.latency.calibration import calibrate
from scaler.latency.measurements import PAPER_DEVICES
from scaler.latency.validation import cross_validate
from scaler.published import yolo_ret_rows
from scaler.search.published_models import published_models


def table() -> str:
    """The comparison as Markdown."""
    ap = {row.config: row.predicted for row in validate().voc[0].rows}
    names = {model.config: model.name for model in published_models().values()}
    problems = [calibrate(device)[0] for device in PAPER_DEVICES]
    left_out = [cross_validate(data, "network", data.mask("reported")) for data in problems]
    fps = [{row.row.group: 1000 / row.predicted_ms for row in part.rows} for part in left_out]
    lines = [
        "| model | AP50 published | predicted | Nano FPS published | predicted | NX | predicted | AGX | predicted |",
        "|---|" + "---:|" * 8,
    ]
    for row in yolo_ret_rows():
        config = row.detector() if row.table == "5" else None
        if config is not None:
            published = (row.fps_nano, row.fps_nx, row.fps_agx)
            cells = [names[config], f"{row.ap50_voc:.2f}", f"{ap[config]:.1f}"]
            for figure, predicted in zip(published, fps, strict=True):
                cells += [f"{figure:.1f}", f"{predicted[config.name]:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
