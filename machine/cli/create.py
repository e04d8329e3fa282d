"""`machine create`: the chosen driver's own options are added to the command when it is parsed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from machine import flags, registry
from machine.cli import complete, context, output, progress
from machine.errors import PreflightError, UsageError
from machine.events import Emit
from machine.host import Host
from machine.model import EngineOptions

if TYPE_CHECKING:
    from machine.workflows.create import CreateRequest

T = TypeVar("T")

DEFAULT_DRIVER: Final = "libvirt"
_BUNDLED: Final = "the engine comes from a bundle and nothing is downloaded by the machine"
_SWARM: Final = "standalone Swarm is gone; Swarm mode is part of the engine: docker swarm init"
_IGNORED: Final = {
    "--engine-install-url URL": _BUNDLED,
    "--swarm": _SWARM,
    "--swarm-master": _SWARM,
    "--swarm-image IMAGE": _SWARM,
    "--swarm-discovery URL": _SWARM,
    "--swarm-strategy NAME": _SWARM,
    "--swarm-opt OPTION": _SWARM,
    "--swarm-join-opt OPTION": _SWARM,
    "--swarm-host URL": _SWARM,
    "--swarm-addr ADDRESS": _SWARM,
    "--swarm-experimental": _SWARM,
}
"""docker-machine's flags that do nothing here, and why; as ``Driver.ignored``."""


class CreateCommand(click.Command):
    """Looks for the driver in the words, then parses them with that driver's options added."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        driver = chosen_driver(args)
        cls = registry.driver(driver)
        options = flags.options(driver, cls.config_type)
        self.params += map(_click_option, options)
        self.params += map(_ignored, cls.ignored)
        rest = super().parse_args(ctx, args)
        if any(option.secret for option in options):
            from machine.workflows import secrets

            given = {each.key: ctx.params[_key(each)] for each in options}
            secrets.notice(options, {key: value for key, value in given.items() if value})
        return rest


def chosen_driver(words: Sequence[str]) -> str:
    """From -d or --driver in any of their spellings, else MACHINE_DRIVER, else our default."""
    for word, following in pairwise([*words, ""]):
        if word in ("-d", "--driver") and following:
            return following
        if word.startswith("--driver="):
            return word.partition("=")[2]
        if word.startswith("-d") and not word.startswith("--") and len(word) > 2:
            return word[2:].removeprefix("=")
    return os.environ.get("MACHINE_DRIVER") or DEFAULT_DRIVER


def _click_option(option: flags.Option) -> click.Option:
    """Without a default: what the user did not say comes from variables and the template."""
    text = f"{option.help} [{', '.join(option.env)}]"
    if option.type is bool:
        return click.Option(
            [f"{option.flag}/--no-{option.flag[2:]}", _key(option)], help=text, default=None
        )
    return click.Option(
        [option.flag, _key(option)],
        help=text,
        metavar=option.metavar or None,
        multiple=option.type is tuple,
        default=None,
    )


def _key(option: flags.Option) -> str:
    return f"driver_{option.key}"


def _many(name: str, text: str, env: str | None = None) -> click.Option:
    return click.Option([name], multiple=True, help=text, envvar=env)


def _ignored(spelling: str) -> click.Option:
    flag, _, value = spelling.partition(" ")
    names = [flag, _ignored_key(flag)]
    if not value:
        return click.Option(names, is_flag=True, hidden=True)
    return click.Option(names, multiple=True, hidden=True)


def _ignored_key(flag: str) -> str:
    return "ignored_" + flag[2:].replace("-", "_")


def _run(names: tuple[str, ...], **given: Any) -> None:
    as_json = context.is_json(given["output"])
    _say_ignored(given)
    if given["warm"] and not given["layers"]:
        raise UsageError("--warm is a start from a layer: leave --no-layers out")
    if not names:
        raise UsageError(
            "Error: No machine name specified", hint="For example: machine create worker1"
        )
    names = tuple(context.expanded(names))
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise UsageError(f'The name "{doubled[0]}" is given twice')
    emit = progress.sink(as_json=as_json, prefix=len(names) > 1)
    jobs = _resumes(names, emit) if given["resume"] else _creates(names, emit, given)
    progress.run(jobs, parallel=given["parallel"], done=_ready, left=_left)


def _ready(name: str, host: Host) -> None:
    output.say(f'{name} is ready. To point your shell at it: eval "$(machine env {name})"')
    if host.block.context:
        output.say(f"Or without a shell's variables: docker --context {name} version")
    if host.block.ssh_config:
        include = host.store.folders.machines / "*" / host.folder.ssh_config.name
        output.say(f'For "ssh {name}", put at the top of ~/.ssh/config: Include {include}')


def _resumes(names: Sequence[str], emit: Emit) -> dict[str, Callable[[], Host]]:
    from machine.workflows import create

    store = context.store()
    for name in names:
        store.load(name)
    return {name: partial(_told, partial(create.resume, store, name, emit)) for name in names}


def _creates(
    names: Sequence[str], emit: Emit, given: dict[str, Any]
) -> dict[str, Callable[[], Host]]:
    """Raises what can be told of any of them before one is begun."""
    from machine.workflows import create, room

    store = context.store()
    requests = {name: _request(name, given) for name in names}
    hosts = [create.check(store, request) for request in requests.values()]
    if not given["overcommit"]:
        _told(partial(room.check_memory, hosts))
    return {
        name: partial(_told, partial(create.create, store, request, emit))
        for name, request in requests.items()
    }


def _request(name: str, given: dict[str, Any]) -> CreateRequest:
    from machine import template
    from machine.workflows.create import CreateRequest

    return CreateRequest(
        name=name,
        driver=_driver(given),
        template=template.find(given["template"]),
        given={
            key.removeprefix("driver_"): value
            for key, value in given.items()
            if key.startswith("driver_") and value not in (None, ())
        },
        engine=EngineOptions(
            labels=given["engine_label"],
            insecure_registries=given["engine_insecure_registry"],
            registry_mirrors=given["engine_registry_mirror"],
            storage_driver=given["engine_storage_driver"],
            env=given["engine_env"],
            opts=given["engine_opt"],
            tls_sans=given["tls_san"],
        ),
        keep_on_failure=given["keep_on_failure"],
        context=given["context"],
        ssh_config=given["ssh_config"],
        layers=given["layers"],
        warm=given["warm"],
    )


def _told(work: Callable[[], T]) -> T:
    """The first words of docker-machine for a check that failed before anything was made."""
    try:
        return work()
    except PreflightError as exc:
        exc.brief = f"Error with pre-create check: {exc.brief}"
        raise


def _left(name: str) -> str:
    if not context.store().exists(name):
        return f"Nothing of {name} was made."
    return (
        f"{name} is unfinished. Go on with: machine create --resume {name}\n"
        f"or remove it with: machine rm {name}"
    )


def _say_ignored(given: dict[str, Any]) -> None:
    driver = registry.driver(_driver(given))
    for spelling, why in {**_IGNORED, **driver.ignored}.items():
        flag = spelling.split()[0]
        if given.get(_ignored_key(flag)):
            output.say(f"Warning: {flag} is ignored: {why}")


def _driver(given: dict[str, Any]) -> str:
    return given["driver"] or os.environ.get("MACHINE_DRIVER") or DEFAULT_DRIVER


create = CreateCommand(
    "create",
    callback=_run,
    help="Make a machine: a host whose container engine answers over mutual TLS.",
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        click.Argument(
            ["names"],
            nargs=-1,
            metavar="NAME...",
            shell_complete=complete.for_click(complete.unfinished),
        ),
        click.Option(
            ["-d", "--driver"],
            help=f"driver [MACHINE_DRIVER] (default: {DEFAULT_DRIVER})",
            shell_complete=complete.for_click(complete.drivers),
        ),
        click.Option(
            ["-t", "--template"],
            default="default",
            help="host template, by name or file",
            shell_complete=complete.for_click(complete.templates),
        ),
        click.Option(["--resume"], is_flag=True, help="go on with a create that was cut off"),
        click.Option(
            ["--parallel"],
            type=click.IntRange(min=1),
            envvar="MACHINE_PARALLEL",
            show_envvar=True,
            metavar="N",
            help="machines made at a time; default: the processors",
        ),
        click.Option(
            ["--overcommit"], is_flag=True, help="make them even if memory is short for all of them"
        ),
        click.Option(["--keep-on-failure"], is_flag=True, help="do not undo a create that fails"),
        click.Option(["--context"], is_flag=True, help="make a docker context of its name too"),
        click.Option(["--ssh-config"], is_flag=True, help="write an entry for your own ssh too"),
        click.Option(
            ["--layers/--no-layers"],
            default=True,
            help="begin with what earlier creates have kept (default), or with the image alone",
        ),
        click.Option(
            ["--warm"],
            is_flag=True,
            envvar="MACHINE_WARM",
            help="start from saved memory, which is made first if there is none [MACHINE_WARM]",
        ),
        _many("--engine-opt", "dockerd option, KEY=VALUE"),
        _many("--engine-label", "label of the engine, KEY=VALUE"),
        _many("--engine-env", "variable of the daemon, KEY=VALUE"),
        _many("--engine-insecure-registry", "registry to use without TLS"),
        _many("--engine-registry-mirror", "registry mirror", "ENGINE_REGISTRY_MIRROR"),
        click.Option(["--engine-storage-driver"], default="", help="storage driver of the engine"),
        _many("--tls-san", "further name or address in the engine's certificate"),
        click.Option(
            ["--output"],
            default="text",
            help="text or json",
            shell_complete=complete.for_click(complete.outputs),
        ),
        *map(_ignored, _IGNORED),
    ],
)
