"""The program's start: errors become exit codes here, and no traceback reaches a user."""

from __future__ import annotations

import gc
import itertools
import os
import sys

from machine import __version__
from machine.errors import MachineError


def main() -> None:
    """The console script."""
    code = run(sys.argv[1:])
    gc.freeze()  # or the interpreter's last collections look at every module: a tenth of an `ls`
    sys.exit(code)


def run(words: list[str]) -> int:
    """One command line to its exit code."""
    if words in (["--version"], ["-v"]):  # before Typer is imported
        sys.stdout.write(f"machine version {__version__}\n")
        return 0
    if "_MACHINE_COMPLETE" in os.environ:
        return _complete(os.environ["_MACHINE_COMPLETE"])
    import click
    import typer

    from machine.cli import output
    from machine.cli.app import app

    words, debug = _debug(words)
    ours = words[: _own(words)]
    as_json = "--output=json" in ours or ("--output", "json") in itertools.pairwise(ours)
    try:
        debug = debug or _debug_variable()
        code = typer.main.get_command(app).main(words, prog_name="machine", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except MachineError as exc:
        if debug:
            output.say(_traceback())
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


def _debug(words: list[str]) -> tuple[list[str], bool]:
    """The words without -D, which docker-machine takes anywhere on the line, and whether it was
    there."""
    own = _own(words)
    kept = [word for word in words[:own] if word not in ("-D", "--debug", "-debug")]
    return [*kept, *words[own:]], len(kept) < own


def _own(words: list[str]) -> int:
    """How many are ours: what follows ssh or -- belongs to another program."""
    return next((at for at, word in enumerate(words) if word in ("ssh", "--")), len(words))


def _debug_variable() -> bool:
    """MACHINE_DEBUG in the words of Go's strconv.ParseBool."""
    word = os.environ.get("MACHINE_DEBUG", "")
    if word in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if word in ("", "0", "f", "F", "FALSE", "false", "False"):
        return False
    raise MachineError(f"MACHINE_DEBUG is {word!r}, and must be true or false")


def _complete(instruction: str) -> int:
    """A shell asks what may follow; where that fails it is told nothing in the middle of a line."""
    from machine.cli import completion

    try:
        return completion.answer(instruction)
    except Exception:
        return 1


def _log(words: list[str]) -> str:
    from machine.paths import cache_root
    from machine.redaction import redact

    path = cache_root() / "crash.log"
    text = f"machine {__version__}, Python {sys.version}\n{words}\n{_traceback()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(redact(text))
    except OSError:
        return f"no file ({path} cannot be written)"
    return str(path)


def _traceback() -> str:
    import traceback

    return traceback.format_exc()


if __name__ == "__main__":
    main()
