"""The command line: one file per command, each of which parses, calls one library function and prints.

Data go to standard output, talk to standard error. Exit code 0: done; 1: cannot be done, with the reason in one
line; 2: wrong usage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from scaler import __version__
from scaler.cli import (
    accuracy,
    data,
    devices,
    doctor,
    evaluate,
    export,
    import_,
    live,
    plot,
    predict,
    profile,
    scale,
    search,
    show,
    spaces,
    tables,
    train,
    verify,
    weights,
)
from scaler.errors import UserError

app = typer.Typer(
    name="scaler",
    help="Find, for a device and a frame rate, the Pareto-optimal object detectors: "
    "`scaler search --device nano --fps 30`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("search")(search.command)
app.command("show")(show.command)
app.command("plot")(plot.command)
app.command("scale")(scale.command)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("predict")(predict.command)
app.command("export")(export.command)
app.command("import")(import_.command)
app.command("run")(live.command)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.add_typer(profile.app, name="profile")
app.command("verify")(verify.command)
app.command("devices")(devices.command)
app.command("spaces")(spaces.command)
app.add_typer(tables.app, name="tables")
app.add_typer(accuracy.app, name="accuracy")
app.command("doctor")(doctor.command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scaler {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Read the options that hold for every command."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. The user's mistakes end in one line on standard error."""
    try:
        return int(app(args=None if arguments is None else list(arguments), standalone_mode=False) or 0)
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "scaler"
        message = str(error.format_message()) if hasattr(error, "format_message") else str(error)
        return _fail(f"{' '.join(message.split())} Try '{command} --help'.", 2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _fail(message: str, code: int) -> int:
    print(f"scaler: {message}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the command `scaler`."""
    sys.exit(run())
