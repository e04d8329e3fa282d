"""The program's start: errors become exit codes here, and no traceback reaches a user."""

from __future__ import annotations

import itertools
import os
import sys

from machine import __version__
from machine.errors import MachineError


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """One command line to its exit code."""
    if words in (["--version"], ["-v"]):  # before Typer is imported
        sys.stdout.write(f"machine version {__version__}\n")
        return 0
    if "_MACHINE_COMPLETE" in os.environ:
        return _complete(os.environ["_MACHINE_COMPLETE"])
    debug = bool({"-D", "--debug", "-debug"} & set(words[:1])) or bool(
        os.environ.get("MACHINE_DEBUG")
    )
    words = words[1:] if words[:1] in (["-D"], ["--debug"], ["-debug"]) else words
    import click

    from machine.cli import output
    from machine.cli.app import app

    as_json = "--output=json" in words or ("--output", "json") in itertools.pairwise(words)
    import typer

    try:
        code = typer.main.get_command(app).main(words, prog_name="machine", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except MachineError as exc:
        if debug:
            raise
        output.error(exc, as_json=as_json)
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (KeyboardInterrupt, click.Abort):
        output.say("Interrupted.")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as exc:
        if debug:
            raise
        output.say(f"Error: this is a bug in machine: {exc!r}")
        output.say(f"  The details are in {_log(words)}; please report them.")
        return 1


def _complete(instruction: str) -> int:
    """A shell asks what may follow; where that fails it is told nothing in the middle of a line."""
    from machine.cli import completion

    try:
        return completion.answer(instruction)
    except Exception:
        return 1


def _log(words: list[str]) -> str:
    import traceback

    from machine.paths import cache_root

    path = cache_root() / "crash.log"
    text = f"machine {__version__}, Python {sys.version}\n{words}\n{traceback.format_exc()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError:
        return f"no file ({path} cannot be written)"
    return str(path)


if __name__ == "__main__":
    main()
