"""The command table: names and help as strings, so that only the chosen command is imported."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, Final

import click
import typer
from click.shell_completion import CompletionItem
from typer.core import TyperGroup

from machine import __version__
from machine.cli import complete, context, output

COMMANDS: Final = {
    "active": ("machine.cli.look:active", "Print which machine the environment points at."),
    "apply": ("machine.cli.fleet:apply", "Bring a fleet to what its file says."),
    "bundle": ("machine.cli.bundle:app", "Engine bundles: build, ls, show, verify, rm, unpack."),
    "check": ("machine.cli.check:check", "Show that containers on a machine are what they claim."),
    "completion": ("machine.cli.completion:completion", "Print a shell's completion script."),
    "compose": ("machine.cli.compose:compose", "Run docker compose against a machine."),
    "config": ("machine.cli.look:config", "Print the docker client's options for a machine."),
    "console": ("machine.cli.look:console", "Print a machine's serial log."),
    "create": ("machine.cli.create:create", "Make a machine."),
    "destroy": ("machine.cli.fleet:destroy", "Remove all machines of a fleet."),
    "doctor": ("machine.cli.doctor:doctor", "Check this computer and the store."),
    "drift": ("machine.cli.fleet:drift", "Print what differs from a fleet's file."),
    "drivers": ("machine.cli.drivers:drivers", "List what machines can be made with."),
    "env": ("machine.cli.env:env", "Print the commands that point a shell at a machine."),
    "forward": ("machine.cli.forward:forward", "Ports of this computer that lead to a machine's."),
    "help": ("machine.cli.help:help_", "Print the help of a command."),
    "image": ("machine.cli.image:app", "Guest images: build, pull, import, ls, show, verify, rm."),
    "inspect": ("machine.cli.look:inspect", "Print a machine's record as JSON."),
    "ip": ("machine.cli.look:ip", "Print the addresses of machines."),
    "kill": ("machine.cli.power:kill", "Power machines off at once."),
    "layer": ("machine.cli.layer:app", "What creates begin with: ls, show, build, verify, prune."),
    "ls": ("machine.cli.ls:ls", "List the machines."),
    "plan": ("machine.cli.fleet:plan", "Print what apply would do to a fleet."),
    "provision": ("machine.cli.power:provision", "Bring machines back to what was configured."),
    "push": ("machine.cli.push:push", "Bring a container image onto machines' engines."),
    "regenerate-certs": ("machine.cli.power:regenerate_certs", "Renew the TLS certificates."),
    "resize": ("machine.cli.resize:resize", "Change a machine's processors, memory, disk or type."),
    "restart": ("machine.cli.power:restart", "Restart machines."),
    "rm": ("machine.cli.remove:rm", "Remove machines and everything made for them."),
    "run": ("machine.cli.run:run", "Run a program on machines."),
    "scp": ("machine.cli.scp:scp", "Copy files to, from and between machines."),
    "snapshot": ("machine.cli.snapshot:app", "Kept states of a machine: take, ls, restore, rm."),
    "ssh": ("machine.cli.ssh:ssh", "Log in to a machine, or run a command on it."),
    "start": ("machine.cli.power:start", "Start machines."),
    "status": ("machine.cli.look:status", "Print a machine's state."),
    "stop": ("machine.cli.power:stop", "Shut machines down."),
    "swarm": ("machine.cli.swarm:app", "Machines that act as one: init, join, status, leave..."),
    "template": ("machine.cli.template:app", "Host templates: ls, show, validate."),
    "top": ("machine.cli.top.command:top", "Watch all machines on one screen."),
    "upgrade": ("machine.cli.upgrade:upgrade", "Install newer engines, or go back."),
    "url": ("machine.cli.look:url", "Print the URL of a machine's engine."),
    "version": ("machine.cli.look:version", "Print the version of this tool or of an engine."),
}
RAW: Final = frozenset({"help", "run", "ssh"})
"""Commands whose words belong to another program, or another command."""


class Commands(TyperGroup):
    """Finds a command in the table and imports its module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        target, text = COMMANDS[name]
        module, _, attribute = target.partition(":")
        found: Any = getattr(import_module(module), attribute)
        if isinstance(found, click.Command):
            return found
        if isinstance(found, typer.Typer):
            group = typer.main.get_command(found)
            group.name, group.help = name, text
            return group
        raw = {"ignore_unknown_options": True, "allow_interspersed_args": False}
        one = typer.Typer(add_completion=False, rich_markup_mode=None)
        one.command(name, help=text, context_settings=raw if name in RAW else None)(found)
        return typer.main.get_command(one)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """From the table: click would import every command to ask for its help."""
        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            meant = f" Did you mean {close[0]}?" if close else ""
            raise click.UsageError(f'There is no command "{args[0]}".{meant}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


app = typer.Typer(
    cls=Commands,
    name="machine",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _ignored(flag: str) -> Any:
    """An option of docker-machine's that means nothing here; its variable likewise."""
    variable = f"MACHINE_{flag.upper().replace('-', '_')}"
    return typer.Option(f"--{flag}", hidden=True, envvar=variable, help="ignored")


@app.callback()
def main(
    storage_path: Annotated[
        str | None,
        typer.Option(
            "--storage-path", "-s", help="folder of the store", autocompletion=complete.files
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", "-D", help="show where an error comes from; anywhere")
    ] = False,  # taken out of the line in machine/__main__.py, before it is parsed
    tls_ca_cert: Annotated[str, _ignored("tls-ca-cert")] = "",
    tls_ca_key: Annotated[str, _ignored("tls-ca-key")] = "",
    tls_client_cert: Annotated[str, _ignored("tls-client-cert")] = "",
    tls_client_key: Annotated[str, _ignored("tls-client-key")] = "",
    github_api_token: Annotated[str, _ignored("github-api-token")] = "",
    bugsnag_api_token: Annotated[str, _ignored("bugsnag-api-token")] = "",
    native_ssh: Annotated[bool, _ignored("native-ssh")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", "-v", help="print the version")
    ] = False,
) -> None:
    """Make hosts that run a container engine, and keep track of how to reach them."""
    context.use_storage(storage_path)
    if tls_ca_cert or tls_ca_key or tls_client_cert or tls_client_key:
        certs = context.store().folders.certs
        output.say(f"Warning: --tls-* is ignored: certificates and their keys are in {certs}")
    if show_version:
        raise click.exceptions.Exit(_print_version())


def _print_version() -> int:
    output.value(f"machine version {__version__}")
    return 0
