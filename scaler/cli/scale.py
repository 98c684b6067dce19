"""`scaler scale`: compound scaling of a published network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaler.cli.options import Json, Metric, OverheadMs, PowerMode, Precision, console, print_json, say
from scaler.errors import UsageError

Model = Annotated[
    str,
    typer.Argument(help="yolov4-tiny, yolov4-tiny-3l, yolov4-csp, yolov4-p5, yolov4-p6 or yolov4-p7."),
]
Factor = Annotated[
    float | None,
    typer.Option("--factor", help="Budget as a multiple of the network's MACs: 0.5 is half the computation."),
]
Resolution = Annotated[
    int | None, typer.Option("--resolution", help="Input size to start from; the published one otherwise.")
]
Recipe = Annotated[
    str | None, typer.Option("--recipe", help="Training recipe of the predicted accuracy; the paper's otherwise.")
]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="Draw AP against frame time for each factor: a PNG, SVG or PDF file.")
]


def command(
    model: Model,
    device: Annotated[str | None, typer.Option("--device", "-d", help="Device to predict the latency for.")] = None,
    factor: Factor = None,
    fps: Annotated[float | None, typer.Option("--fps", help="Frame rate to reach, in place of a factor.")] = None,
    resolution: Resolution = None,
    metric: Metric = None,
    recipe: Recipe = None,
    precision: Precision = None,
    power_mode: PowerMode = None,
    overhead_ms: OverheadMs = None,
    plot: Plot = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write every step of every factor as a CSV file.")] = None,
    json_output: Json = False,
) -> None:
    """Scale a published network to a budget or a frame rate, by the rules of Scaled-YOLOv4.

    Up: input size and stages together, then depth, width last. Down: the same backwards, then depth and width together
    to the released s, then YOLOv4-tiny's structure. Beside it stands what each factor alone would give.

    Example: scaler scale yolov4-csp --factor 0.5 --device nx
    """
    if device is None:
        raise UsageError("which device? give for instance --device nano")
    from scaler.report.picture import check_suffix  # noqa: PLC0415
    from scaler.scaling.plan import Question, scale  # noqa: PLC0415  (the help needs no numpy)

    check_suffix(*filter(None, (plot,)))
    plan = scale(
        Question(
            model=model,
            device=device,
            factor=factor,
            fps=fps,
            resolution=resolution,
            metric=metric,
            recipe=recipe,
            precision=precision,
            power_mode=power_mode,
            overhead_ms=overhead_ms,
        )
    )
    if json_output:
        from scaler.scaling.files import as_plain  # noqa: PLC0415

        print_json(as_plain(plan))
    else:
        from scaler.scaling.table import print_plan  # noqa: PLC0415

        print_plan(plan, console())
    if plot is not None:
        from scaler.scaling.plot import write_plot  # noqa: PLC0415

        write_plot(plan, plot)
        say(f"plot: {plot}")
    if csv is not None:
        from scaler.scaling.files import write_csv  # noqa: PLC0415

        write_csv(plan, csv)
        say(f"table: {csv}")
