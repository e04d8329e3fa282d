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
from machine.model import EngineOptions, Setup

if TYPE_CHECKING:
    from machine.driver import Driver
    from machine.workflows.create import CreateRequest
    from machine.workflows.plan import Plan

T = TypeVar("T")

DEFAULT_DRIVER: Final = "libvirt"
_OWN: Final = "driver_"
"""Before the names of a driver's own options."""
_BUNDLED: Final = "the engine comes from a bundle and nothing is downloaded by the machine"
_SWARM: Final = "standalone Swarm is gone; Swarm mode is part of the engine: machine swarm init"
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

    driver: type[Driver[Any, Any]]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        driver = chosen_driver(args)
        self.driver = registry.driver(driver)
        options = flags.options(driver, self.driver.config_type)
        self.params += map(_click_option, options)
        self.params += map(_ignored, self.driver.ignored)
        rest = super().parse_args(ctx, args)
        if any(option.secret for option in options):
            from machine.workflows import secrets

            given = {each.key: ctx.params[_key(each)] for each in options}
            secrets.notice(options, {key: value for key, value in given.items() if value})
        return rest

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if self.driver.experimental:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(
                    f"The {self.driver.name} driver is experimental: {self.driver.experimental}"
                )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The driver's own under a heading of their own."""
        general: list[tuple[str, str]] = []
        own: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (own if (param.name or "").startswith(_OWN) else general).append(record)
        for title, records in (("Options", general), (f"Options of {self.driver.name}", own)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def chosen_driver(words: Sequence[str]) -> str:
    """From -d or --driver in any of their spellings, else MACHINE_DRIVER, else our default."""
    for word, following in pairwise([*words, ""]):
        if word in ("-d", "--driver") and following:
            return following
        if word.startswith("--driver="):
            return word.partition("=")[2]
        if word.startswith("-d") and not word.startswith("--") and len(word) > 2:
            return word[2:].removeprefix("=")
    return default_driver()


def default_driver() -> str:
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
    return f"{_OWN}{option.key}"


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
    if given["adopt"] and given["register"]:
        raise UsageError("--adopt changes an engine, --register changes nothing: give one of them")
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
    if given["dry_run"]:
        progress.run(_rehearsals(names, emit, given), parallel=given["parallel"], done=_planned)
        return
    if given["swarm_join"]:
        context.several([given["swarm_join"]])
    jobs = _resumes(names, emit) if given["resume"] else _creates(names, emit, given)
    progress.run(jobs, parallel=given["parallel"], done=_ready, left=_left)
    _into_swarm(names, given)


def _ready(name: str, host: Host) -> None:
    if not host.is_asked:
        output.say(f"{name} is known now; nothing on it was changed")
        return
    output.say(f'{name} is ready. To point your shell at it: eval "$(machine env {name})"')
    if host.block.context:
        output.say(f"Or without a shell's variables: docker --context {name} version")
    if host.block.ssh_config:
        include = host.store.folders.machines / "*" / host.folder.ssh_config.name
        output.say(f'For "ssh {name}", put at the top of ~/.ssh/config: Include {include}')


def _into_swarm(names: Sequence[str], given: dict[str, Any]) -> None:
    """Machines that are ready begin a Swarm, or join one."""
    from machine.swarm import Role
    from machine.workflows import swarm

    to, manager = given["swarm_join"], given["swarm_manager"]
    as_json = context.is_json(given["output"])
    store, rest = context.store(), list(names)
    if manager and not to:
        to = rest.pop(0)
        progress.each(store, [to], swarm.init, as_json=as_json, left=_left_outside)
        output.say(f"{to} is the manager of a new Swarm")
    if to and rest:
        role = Role.MANAGER if manager else Role.WORKER
        progress.each(
            store,
            rest,
            partial(swarm.join, to=to, role=role),
            as_json=as_json,
            parallel=given["parallel"],
            done=lambda name, _: output.say(f"{name} is a {role} of the Swarm of {to}"),
            left=_left_outside,
        )


def _left_outside(name: str) -> str:
    return f"{name} is made. Bring it into a Swarm with: machine swarm join {name} --to MANAGER"


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
            key.removeprefix(_OWN): value
            for key, value in given.items()
            if key.startswith(_OWN) and value not in (None, ())
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
        setup=_setup(given),
        open_firewall=given["open_firewall"],
    )


def _setup(given: dict[str, Any]) -> Setup:
    if given["register"]:
        return Setup.REGISTER
    return Setup.ADOPT if given["adopt"] else Setup.INSTALL


def _rehearsals(
    names: Sequence[str], emit: Emit, given: dict[str, Any]
) -> dict[str, Callable[[], Plan]]:
    from machine.workflows import create

    store = context.store()
    requests = {name: _request(name, given) for name in names}
    for request in requests.values():
        create.check(store, request)
    return {
        name: partial(_told, partial(create.rehearse, store, request, emit))
        for name, request in requests.items()
    }


def _planned(name: str, plan: Plan) -> None:
    from machine.workflows.plan import diff

    if plan.is_empty:
        output.value(f"{name}: nothing would be changed on the host")
        return
    output.value(f"{name}: this would be changed on the host")
    for title, lines in (
        ("Packages", plan.packages),
        ("Services", plan.services),
        ("Firewall", plan.firewall),
        ("Files", [line for change in plan.files for line in diff(change)]),
        ("", plan.notes),
    ):
        if lines:
            output.value(
                "\n".join([f"\n{title}:" if title else "", *(f"  {each}" for each in lines)])
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
    return given["driver"] or default_driver()


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
        click.Option(
            ["--adopt"],
            is_flag=True,
            help="a host that is there: its own engine stays, and gets certificates and a listener",
        ),
        click.Option(
            ["--register"], is_flag=True, help="a host that is there: change nothing on it"
        ),
        click.Option(
            ["--dry-run"],
            is_flag=True,
            help="a host that is there: say what would be changed on it, and change nothing",
        ),
        click.Option(
            ["--open-firewall/--keep-firewall"],
            default=None,
            help="a host that is there: let the engine's port through its firewall; default: ask",
        ),
        click.Option(
            ["--swarm-manager"],
            is_flag=True,
            help="begin a Swarm on it, or with --swarm-join be a manager of that one",
        ),
        click.Option(
            ["--swarm-join"],
            default="",
            metavar="NAME",
            help="join the Swarm of this machine",
            shell_complete=complete.for_click(complete.machine),
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
