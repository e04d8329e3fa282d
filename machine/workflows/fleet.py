"""A fleet's file beside the store and what providers and engines say: what would have to be done."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from machine import flags, planner
from machine.errors import FleetError, MachineError, UsageError
from machine.fleet import Fleet, FleetMachine
from machine.host import Host
from machine.model import Can, EngineOptions, Source, State
from machine.planner import Condition, Plan, Role, Seen, Traits, Wanted
from machine.store import Store
from machine.workflows import create, fleet_images, managers
from machine.workflows.create import CreateRequest
from machine.workflows.survey import Row, survey

ASK_TIMEOUT: Final = 20
"""Seconds for all providers and engines together."""
REACHED_BY: Final = ("boot_timeout",)
"""Options of drivers, besides where secrets are, that say nothing of the host itself."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan, with what is needed to carry it out."""

    fleet: Fleet
    plan: Plan
    requests: Mapping[str, CreateRequest] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    running: tuple[str, ...] = ()  # wanted machines whose hosts can be looked at
    unsure: bool = False  # a role was not known: what it asks for shows when the machine is up

    @property
    def asks(self) -> bool:
        """Whether a user has to say yes: something is lost, or is known no more."""
        removes = (planner.Kind.REMOVE, planner.Kind.REPLACE)
        return self.plan.loses or any(each.kind in removes for each in self.plan.verdicts)


@contextmanager
def held(store: Store, fleet: Fleet) -> Iterator[None]:
    """Nobody else applies or destroys it meanwhile. Raises HostBusy."""
    with store.fleet_lock(fleet.name):
        yield


def request(fleet: Fleet, machine: FleetMachine) -> CreateRequest:
    return CreateRequest(
        name=machine.name,
        driver=machine.driver,
        template=machine.template,
        given=machine.options,
        engine=machine.engine,
        context=machine.context,
        ssh_config=machine.ssh_config,
        layers=machine.layers,
        warm=machine.warm,
        setup=machine.setup,
        open_firewall=machine.open_firewall,
        fleet=fleet.name,
    )


def plan(store: Store, fleet: Fleet, *, only: Sequence[str] = (), adopt: bool = False) -> Draft:
    """Looks, and changes nothing. ``only`` are names of machines or of tables. ``adopt``: machines
    that were made by hand become the fleet's. Raises FleetError."""
    requests = {each.name: request(fleet, each) for each in fleet.machines}
    drafted = {name: _drafted(store, fleet, each) for name, each in requests.items()}
    hosts = _hosts(store, fleet, adopt=adopt)
    rows = {row.name: row for row in survey(store, hosts, timeout=ASK_TIMEOUT)}
    wanted = [_wanted(each, drafted[each.name]) for each in fleet.machines]
    managed = any(each.swarm for each in fleet.machines)
    members = _members(store, rows) if managed else {}
    seen = [
        _seen(host, rows[name], drafted.get(name), members.get(name, (None, {})))
        for name, host in hosts.items()
    ]
    seen = _with_images(store, fleet, seen)
    found = planner.plan(wanted, [_comparable(each, wanted) for each in seen])
    roles = {each.name: each.traits.role for each in wanted}
    return Draft(
        fleet,
        _restricted(found, fleet, only),
        requests,
        tuple(_notes(rows.values())),
        tuple(
            each.name
            for each in seen
            if each.name in requests
            and rows[each.name].state is State.RUNNING
            and each.condition is Condition.READY
        ),
        any(each.traits.role is None and roles.get(each.name) for each in seen),
    )


def removal(store: Store, fleet: Fleet, *, only: Sequence[str] = ()) -> Draft:
    """The plan by which every machine of the fleet goes, also those that its file has no more."""
    hosts = {
        name: host
        for name, host in _hosts(store, fleet, adopt=True).items()
        if host.block.fleet == fleet.name
    }
    rows = {row.name: row for row in survey(store, hosts, timeout=ASK_TIMEOUT)}
    needs = {each.name: each.needs for each in fleet.machines}
    members = _members(store, rows)
    seen = [
        dataclasses.replace(
            _seen(host, rows[name], None, members.get(name, (None, {}))), needs=needs.get(name, ())
        )
        for name, host in hosts.items()
    ]
    found = planner.plan([], seen)
    return Draft(
        fleet, _restricted(found, fleet, only, set(hosts)), notes=tuple(_notes(rows.values()))
    )


def _drafted(store: Store, fleet: Fleet, wanted: CreateRequest) -> Host:
    try:
        return create.planned(store, wanted)
    except UsageError as exc:
        raise FleetError(f"{fleet.path}: {wanted.name}: {exc.brief}", hint=exc.hint) from exc


def _hosts(store: Store, fleet: Fleet, *, adopt: bool) -> dict[str, Host]:
    """The machines of the store that are the fleet's, or have the name of one that shall be. Raises
    FleetError for those that are somebody else's."""
    names = {each.name for each in fleet.machines}
    found: dict[str, Host] = {}
    for name in store.names():
        try:
            host = Host.load(store, name)
            owner = host.block.fleet
        except MachineError:
            if name in names:
                raise
            continue  # what is wrong with others' machines is not the fleet's affair
        if owner == fleet.name or name in names:
            found[name] = host
    by_hand = [name for name, host in found.items() if not host.block.fleet]
    if by_hand and not adopt:
        raise FleetError(
            f"{', '.join(by_hand)}: there already, and not made by a fleet's file",
            hint=f"To have them in {fleet.name}: --adopt. Or give the fleet's machines other names",
        )
    for name, host in found.items():
        if host.block.fleet not in ("", fleet.name):
            raise FleetError(
                f'The machine "{name}" belongs to the fleet {host.block.fleet}',
                hint="Give one of them another name",
            )
    return found


def _wanted(machine: FleetMachine, host: Host) -> Wanted:
    fixed, loose = traits(host)
    role = Role(machine.swarm) if machine.swarm else None
    return Wanted(
        machine.name,
        Traits(fixed, loose, role, dict(machine.node_labels), frozenset(machine.push)),
        machine.needs,
    )


def _seen(
    host: Host, row: Row, drafted: Host | None, member: tuple[Role | None, Mapping[str, str]]
) -> Seen:
    source = _source(host)
    fixed, loose = traits(host)
    if drafted is not None and drafted.record.driver_name != host.record.driver_name:
        fixed = {**traits(drafted)[0], "driver": host.record.driver_name}
    role, labels = member
    return Seen(
        host.name,
        Traits(fixed, loose, role, labels),
        _condition(host, row),
        outlives=source in (Source.HOST, Source.ENGINE),
    )


def _with_images(store: Store, fleet: Fleet, seen: Sequence[Seen]) -> list[Seen]:
    """Those that are up are asked for their images; where nobody can be asked, all are there."""
    ready = {each.name for each in seen if each.condition is Condition.READY}
    images = fleet_images.had(store, [each for each in fleet.machines if each.name in ready])
    blind = {each.name for each in seen if each.condition is Condition.UNKNOWN}
    images |= {each.name: frozenset(each.push) for each in fleet.machines if each.name in blind}
    return [
        dataclasses.replace(
            each,
            traits=dataclasses.replace(each.traits, images=images.get(each.name, frozenset())),
        )
        for each in seen
    ]


def _comparable(seen: Seen, wanted: Sequence[Wanted]) -> Seen:
    """Of a node's labels those that the file names: others have theirs, and so have we."""
    named = next((each.traits.node_labels for each in wanted if each.name == seen.name), {})
    labels = {key: value for key, value in seen.traits.node_labels.items() if key in named}
    return dataclasses.replace(seen, traits=dataclasses.replace(seen.traits, node_labels=labels))


def _source(host: Host) -> Source | None:
    """None where its driver is not installed any more."""
    try:
        return host.driver.source
    except MachineError:
        return None


def _condition(host: Host, row: Row) -> Condition:
    if not host.block.journal.finished:
        return Condition.UNFINISHED
    if row.state is State.MISSING:
        return Condition.GONE
    if row.state in (State.STOPPED, State.SAVED) and Can.POWER in host.driver.can:
        return Condition.STOPPED
    return Condition.READY if row.state is State.RUNNING else Condition.UNKNOWN


def _notes(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        if row.error and not row.creating and row.state is not State.MISSING:
            yield f"{row.name}: {row.error}"


def traits(host: Host) -> tuple[dict[str, str], dict[str, str]]:
    """What another host would be needed for, and what is changed in place. Only what the source of a
    driver's hosts lets anybody choose is looked at."""
    block, source = host.block, _source(host)
    fixed = {"driver": host.record.driver_name}
    loose = {"fleet": block.fleet}
    config, lasting = _config(host)
    if source is Source.IMAGE:
        fixed |= {"image": block.image, "cpus": str(block.cpus)}
        fixed |= {"memory_mib": str(block.memory_mib), "disk_gib": str(block.disk_gib)}
    if source in (Source.IMAGE, Source.PROVIDER):
        fixed |= {"user": block.user, "cloud_init": _digest(block.cloud_init)}
        loose |= {"template": block.template}
    if source is not Source.ENGINE:
        fixed |= {"engine": block.engine, "setup": block.setup}
        loose |= _engine(host.record.engine_options)
    fixed |= {f"{host.record.driver_name}.{key}": value for key, value in lasting.items()}
    loose |= {f"{host.record.driver_name}.{key}": value for key, value in config.items()}
    loose |= {"context": _yes(block.context), "ssh_config": _yes(block.ssh_config)}
    return fixed, loose


def _engine(options: EngineOptions) -> dict[str, str]:
    return {
        "labels": ", ".join(options.labels),
        "engine.options": ", ".join(options.opts),
        "engine.env": ", ".join(options.env),
        "engine.insecure_registries": ", ".join(options.insecure_registries),
        "engine.registry_mirrors": ", ".join(options.registry_mirrors),
        "engine.storage_driver": options.storage_driver,
        "engine.tls_sans": ", ".join(options.tls_sans),
    }


def _config(host: Host) -> tuple[dict[str, str], dict[str, str]]:
    """The driver's options: those that say nothing of the host, and the others. Its size is not
    among them where the record has that by itself."""
    if _source(host) is None:
        return {}, {}
    cls = type(host.driver)
    config = flags.from_dict(cls.config_type, host.block.config)
    shown = {key: _shown(value) for key, value in flags.as_dict(config).items()}
    apart = apart_from_host(host)
    sizes = _sizes(cls, config) if cls.source is Source.IMAGE else ()
    return (
        {key: value for key, value in shown.items() if key in apart},
        {key: value for key, value in shown.items() if key not in (*apart, *sizes)},
    )


def apart_from_host(host: Host) -> tuple[str, ...]:
    """The driver's options that say nothing of the host itself."""
    config_type = type(host.driver).config_type
    known = {each.key for each in flags.options(host.record.driver_name, config_type)}
    return (*(key for key in REACHED_BY if key in known), *flags.secret_keys(config_type))


def _sizes(cls: Any, config: Any) -> tuple[str, ...]:
    """The options by which a size is chosen: with another number in them, the size is another."""
    numbers = [each.key for each in flags.options(cls.name, cls.config_type) if each.type is int]
    size = cls.size(config)
    much = 1 << 20
    return tuple(
        key for key in numbers if cls.size(dataclasses.replace(config, **{key: much})) != size
    )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return _yes(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _yes(value: bool) -> str:  # noqa: FBT001
    return "true" if value else "false"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else ""


def _members(
    store: Store, rows: Mapping[str, Row]
) -> dict[str, tuple[Role | None, Mapping[str, str]]]:
    """What machines are in the fleet's Swarm, and how their nodes are labelled: as one of its
    managers knows it, or else as each engine says."""
    found: dict[str, tuple[Role | None, Mapping[str, str]]] = {
        name: (_ROLES.get(row.swarm), {}) for name, row in rows.items() if row.engine_version
    }
    lead = next((name for name, row in rows.items() if row.swarm == Role.MANAGER), "")
    if not lead:
        return found
    try:
        with managers.managed(store, lead) as asked:
            nodes = {node.id: node for node in asked.nodes}
            names = managers.machines(store, asked)
    except MachineError:
        return found
    for node, name in names.items():
        if name in rows:
            found[name] = (Role(nodes[node].role), nodes[node].labels)
    return found


_ROLES: Final = {"": Role.NONE, "worker": Role.WORKER, "manager": Role.MANAGER}


def _restricted(
    found: Plan, fleet: Fleet, only: Sequence[str], others: set[str] | None = None
) -> Plan:
    """The part of a plan that is some machines'. Raises FleetError where it rests on what is left
    out."""
    if not only:
        return found
    names: set[str] = set()
    for word in only:
        own = fleet.named(word) or [each for each in others or () if each == word]
        own = own or [each.name for each in found.verdicts if each.name == word]
        if not own:
            raise FleetError(f'--only {word}: {fleet.path} has no machine and no table "{word}"')
        names |= set(own)
    ids = {step.id for step in found.steps if step.name in names}
    for step in found.steps:
        missing = sorted(step.after - ids) if step.name in names else []
        if missing:
            name, action = missing[0]
            raise FleetError(
                f'"{step.name}" ({step.action}) rests on "{name}" ({action}), which is left out',
                hint=f"Add --only {name}",
            )
    return Plan(
        tuple(each for each in found.verdicts if each.name in names),
        tuple(
            dataclasses.replace(step, turn=step.turn & ids)
            for step in found.steps
            if step.name in names
        ),
        found.swarm_ends,
    )
