"""The program itself: its name, ``--version``, and what happens to errors.

Exit codes: 0 for success, 2 for wrong usage (the input has to change), 1 for any other
failure, 130 after Ctrl-C, 143 after SIGTERM. An error is one message on stderr, continuation
lines indented by two spaces; the traceback comes with ``--debug`` only.
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import lorafit
from lorafit.errors import LorafitError
from lorafit.machine import signals
from lorafit.settings.spoken import typed

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Click's error of wrong usage. Typer carries its own copy of click since 0.20 or so; the
base class of its public error is the right one in every version."""


_STOPPED = 128 + 2
_told: list[int] = []
"""Exit codes of interruptions that were said."""


class _Group(TyperGroup):
    """Shows wrong usage as one line, like every other error."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the program; ends the process unless ``standalone_mode`` is false."""
        run = functools.partial(
            super().main,
            args,
            prog_name,
            complete_var,
            standalone_mode=False,
            windows_expand_args=windows_expand_args,
            **extra,
        )
        if not standalone_mode:
            return run()
        try:
            code = run()
        except UsageError as error:
            show_error("UsageError", _usage(error))
            sys.exit(2)
        except (typer.Abort, KeyboardInterrupt) as error:
            sys.exit(_interrupted(signals.stopped(error) or signals.Stopped(number=signals.last())))
        if code == _STOPPED and not _told:  # typer's word for an interruption outside of a command
            sys.exit(_interrupted(signals.Stopped(number=signals.last())))
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    name="lorafit",
    cls=_Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The program, to the end of its process."""
    try:
        signals.of_program()
        app(prog_name="lorafit")
    except KeyboardInterrupt as stop:  # while the commands are put together, or a second one
        signals.ignore()
        sys.exit(_interrupted(signals.stopped(stop) or signals.Stopped()))
    finally:
        signals.ignore()  # one that comes while Python ends would be a traceback


def version() -> str:
    """What is installed, as one line; of a folder that is not, what its source says."""
    from importlib import metadata

    try:
        return f"lorafit {metadata.version('lorafit')}"
    except metadata.PackageNotFoundError:
        return f"lorafit {lorafit.__version__} (run from a folder, not installed)"


def _show_version(wanted: bool) -> None:
    if wanted:
        echo(version())
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Fine-tune Hugging Face models with LoRA, and see the evidence.

    The shortest way in: lorafit train MODEL DATA
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function a command of the program: its errors become messages and exit codes.

    The function takes ``debug``; with it, the traceback comes before the message.

    Args:
        name: As typed after ``lorafit``.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name)(_guarded(function))
        return function

    return register


def _guarded(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        debug = kwargs.get("debug", False)
        try:
            with typed():
                function(*args, **kwargs)
            sys.stdout.flush()  # a closed pipe shows here, not while the process ends
        except (typer.Exit, typer.Abort, UsageError):
            raise
        except BrokenPipeError:
            # Whoever read our output has gone, e.g. `| head`: nobody is left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except KeyboardInterrupt as error:
            raise typer.Exit(_interrupted(signals.stopped(error) or signals.Stopped())) from None
        except LorafitError as error:
            if (stop := signals.stopped(error)) is not None:
                raise typer.Exit(_interrupted(stop)) from None
            if debug:
                _show_traceback()
            show_error(type(error).__name__, error.typed)
            raise typer.Exit(error.exit_code) from error
        except Exception as error:
            if (stop := signals.stopped(error)) is not None:
                raise typer.Exit(_interrupted(stop)) from None
            if debug:
                _show_traceback()
            first = str(error).strip().partition("\n")[0]
            hint = "" if debug else "\nRun the command again with --debug for the traceback."
            show_error(type(error).__name__, f"{first or 'no further message'}{hint}")
            raise typer.Exit(1) from error

    return run


def echo(text: str, *, err: bool = False) -> None:
    """Writes a line for people and for other programs.

    Args:
        text: The line.
        err: To standard error: it is no result.
    """
    from lorafit.console.visible import visible

    typer.echo(visible(text), err=err)


def echo_json(value: Any, indent: int | None = None) -> None:
    """Writes JSON to standard output, in ASCII: a terminal has nothing to obey in it."""
    from lorafit.run.atomic import plain_json

    typer.echo(plain_json(value, indent, escaped=True).replace("\x7f", r"\u007f"))


def _show_traceback() -> None:
    from lorafit.console.visible import visible

    sys.stderr.write(visible(traceback.format_exc()))


def _interrupted(stop: signals.Stopped) -> int:
    """Says how to go on, which the message has, if there is anything; returns the exit code."""
    _told.append(stop.exit_code)
    show_error("Interrupted", str(stop) or f"stopped by {signals.name(stop.number)}.")
    return stop.exit_code


def show_error(kind: str, message: str) -> None:
    """Writes ``Kind: message`` to stderr, continuation lines indented by two spaces."""
    from lorafit.console.output import err, write

    write(err(), f"{kind}: " + message.strip().replace("\n", "\n  "), indent=2)


def _usage(error: Any) -> str:
    """Click's message, with the command whose help has more."""
    context = error.ctx
    path = context.command_path if context is not None else "lorafit"
    # Click 8.4 and later has a hint for commands, and typer has put its own into the message.
    hinted = hasattr(error, "possibilities")
    said = " ".join((error.message if hinted else error.format_message()).split())
    option = getattr(error, "option_name", None)
    if context is not None and option is not None and hinted:
        # Click's own hint goes by letters alone, and takes --r for --lr.
        said = f"No such option: {option}.{_meant(option, context.command)}"
    return f"{said}\nSee {path} --help."


def _meant(option: str, command: Any) -> str:
    """What an option that a command does not have may stand for, with a space before it."""
    from lorafit.cli.table import FLAGS
    from lorafit.settings.keys import SHORT, sections, top_level
    from lorafit.settings.synonyms import instead, meant, normal

    typed = [name for one in command.params for name in one.opts if name.startswith("--")]
    name = normal(option)
    if "--set" in typed:
        flags = {flag.key: flag.shown for flag in FLAGS}
        keys = [
            f"{group}.{field}"
            for group, stage in sections().items()
            for field in stage.model_fields
        ]
        same = [key for key in (*top_level(), *keys) if key.rpartition(".")[2] == name]
        key = meant(name) or SHORT.get(name) or (same[0] if len(same) == 1 else None)
        if key in ("model.name_or_path", "data.path"):
            return f" It has no flag: lorafit {command.name} MODEL DATA."
        if key is not None:
            return f" Did you mean {flags.get(key, f'--set {key}=VALUE')}?"
        if sentence := instead(name):
            return f" {sentence}"
    bare = {one.removeprefix("--").replace("-", "_"): one for one in typed if len(one) > 3}
    close = difflib.get_close_matches(name, bare, n=2)
    return f" Did you mean {' or '.join(bare[one] for one in close)}?" if close else ""
