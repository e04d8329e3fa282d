"""The one driver for all providers of apache-libcloud: a provider is a row, and never a copy of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from machine import flags, secret, seed, wait
from machine.driver import Driver, Finding, HostRef
from machine.drivers.cloud import api
from machine.drivers.cloud.config import CloudFacts
from machine.drivers.cloud.provider import Order, Provider
from machine.errors import BadOption, DriverError, MachineError, PreflightError, SecretMissing
from machine.model import Address, Can, Sighting, Size, Source, State, VmSpec

_STATES: Final = {  # libcloud.compute.types.NodeState
    "running": State.RUNNING,
    "starting": State.STARTING,
    "pending": State.STARTING,
    "rebooting": State.STARTING,
    "reconfiguring": State.STARTING,
    "migrating": State.RUNNING,
    "updating": State.RUNNING,
    "stopped": State.STOPPED,
    "stopping": State.STOPPING,
    "suspended": State.STOPPED,
    "paused": State.PAUSED,
    "error": State.ERROR,
    "terminated": State.MISSING,
}
_CHANGE: Final = 600
"""Seconds for a provider to start, stop or remove a node."""
_SHOWN: Final = 12
"""Names that a message lists."""


_INSIDE: Final = ("use_internal_ip", "use_internal_ip_only", "use_private_ip", "no_public_ip")
"""Options by which a node is reached at its private address."""


class CloudDriver(Driver[Any, CloudFacts]):
    """Subclasses say which provider; nothing else."""

    provider: ClassVar[Provider]
    source: ClassVar[Source] = Source.PROVIDER
    can: ClassVar[Can] = Can.POWER | Can.RESIZE
    resizes: ClassVar[frozenset[str]] = frozenset({"kind"})
    experimental: ClassVar[str] = (
        "never run against the real service; run against a small server with its recorded answers"
    )
    facts_type: ClassVar[type[CloudFacts]] = CloudFacts

    @classmethod
    def size(cls, config: Any) -> Size:
        """The provider's sizes are processors, memory, and often the disk."""
        return Size(disk_gib=getattr(config, "disk_size", None), kind=config.size)

    def preflight(self) -> None:
        row, config = self.provider, self.config
        for key in row.needs:
            if not getattr(config, key):
                option = next(each for each in self._options() if each.key == key)
                raise PreflightError(
                    f"{row.title} needs {option.flag}", hint=f"export {option.env[-1]}=..."
                )
        self._extra_user_data()
        try:
            made = self._made
        except SecretMissing as exc:
            raise PreflightError(exc.brief, details=exc.details, hint=exc.hint) from exc
        location, size, image = self._choose(made, PreflightError)
        self.save(replace(self.facts, location=_id(location), size=_id(size), image=_id(image)))

    def create(self, spec: VmSpec) -> None:
        if self._look() is None:
            self._make(spec)
        self._await_address()

    def state(self) -> State:
        return self._sight().state

    def address(self) -> Address:
        if not self.facts.address:
            self._sight()
        if not self.facts.address:
            raise DriverError(f'"{self.host.name}" has no address yet', details=self.explain())
        return Address(self.facts.address, engine_port=self.facts.engine_port)

    def peer_address(self) -> str:
        """A private one, where it has one."""
        private = [each for node in self._nodes() for each in node.private_ips]
        return str(private[0]) if private else self.address().host

    def remove(self) -> None:
        if not self.facts.image:  # killed before anything was made
            return
        made, title = self._made, self.provider.title
        for node in self._nodes():
            with api.doing(title, f"removing {node.name}"):
                self.provider.destroy(made, node)
        wait.until(
            f'{title} to remove "{self.host.name}"',
            lambda: not self._nodes(),
            timeout=_CHANGE,
            most=5,
        )
        with api.doing(title, "removing what machines shared"):
            self.provider.clean(made, self.config)

    def start(self) -> None:
        if self.state() is not State.RUNNING:
            with api.doing(self.provider.title, f"starting {self.host.name}"):
                self.provider.start(self._made, self._node())
        self.save(replace(self.facts, address=""))
        self._await_address()

    def stop(self) -> None:
        with api.doing(self.provider.title, f"stopping {self.host.name}"):
            self.provider.stop(self._made, self._node())

    def resize(self, wanted: Size) -> Mapping[str, Any]:
        made, row, config = self._made, self.provider, replace(self.config, size=wanted.kind)
        node = self._node()
        _, size, _ = type(self)(self.host, config, self.facts)._choose(made)
        names = (_id(size), size.name)
        if row.size_name(node) not in names:
            with api.doing(row.title, f"changing {self.host.name} to {wanted.kind}"):
                row.resize(made, node, size)
        wait.until(
            f'{row.title} to change "{self.host.name}" to {wanted.kind}',
            lambda: self._has_size(names),
            timeout=_CHANGE,
            most=5,
        )
        self.save(replace(self.facts, size=_id(size)))
        return {"size": wanted.kind}

    def explain(self) -> str:
        return self._sight().problem

    @classmethod
    def survey(cls, drivers: Sequence[Self]) -> Mapping[str, Sighting]:
        """One listing for each account."""
        seen = {each.host.name: Sighting(State.MISSING) for each in drivers}
        for group in _by_account(drivers):
            try:
                found = {cls.provider.mark(node): node for node in group[0]._all()}
            except MachineError as exc:
                sighting = Sighting(State.UNKNOWN, problem=exc.line)
                seen |= {each.host.name: sighting for each in group}
            else:
                for driver in group:
                    seen[driver.host.name] = driver._sighting(found.get(driver.host.id))
        return seen

    @classmethod
    def strays(cls, drivers: Sequence[Self], known_ids: frozenset[str]) -> Sequence[Finding]:
        """In the accounts of the machines, or else in that of the variables, if they name one."""
        row, found = cls.provider, []
        for group in _by_account(drivers) or _by_account(cls._of_variables()):
            made = group[0]
            try:
                lost = [
                    node for node in made._all() if (of := row.mark(node)) and of not in known_ids
                ]
                prices = made._prices() if lost else {}
            except MachineError as exc:
                text = f"{row.title} cannot be asked: {exc.line}"
                found.append(Finding("warning", cls.name, text, exc.hint))
                continue
            for node in lost:
                price = prices.get(row.size_name(node))
                costs = f"{price:g} USD a {row.price_per}" if price else "what its size costs"
                text = (
                    f'the node {node.id} "{node.name}" ({node.state}) is a machine that this store '
                    f"does not know: it costs {costs}"
                )
                remedy = row.by_hand.format(id=node.id, name=node.name)
                found.append(Finding("warning", cls.name, text, remedy))
        return found

    @classmethod
    def _of_variables(cls) -> Sequence[Self]:
        """A driver for no machine, where variables have all that is needed to ask."""
        try:
            config = flags.build(cls.name, cls.config_type, {}, {})
        except BadOption:
            return ()
        if not all(getattr(config, key) for key in cls.provider.needs):
            return ()
        return (cls(HostRef("", "", Path()), config, CloudFacts(image="any")),)

    @classmethod
    def _options(cls) -> list[flags.Option]:
        return flags.options(cls.name, cls.config_type)

    @property
    def _secrets(self) -> dict[str, str]:
        """References by key."""
        return {key: getattr(self.config, key) for key in flags.secret_keys(self.config_type)}

    @property
    def _account(self) -> tuple[object, ...]:
        """Machines that have it in common are asked about together."""
        keys = (*self.provider.needs, "region", "zone", "endpoint")
        chosen = (getattr(self.config, key, "") for key in keys if key not in self._secrets)
        return (*chosen, *self._secrets.items())

    @property
    def _made(self) -> Any:
        """libcloud's driver, with secrets as they are now. Raises SecretMissing, DriverError."""
        if self._connection is None:
            given = {key: secret.resolve(where) for key, where in self._secrets.items() if where}
            with api.doing(self.provider.title, "connecting"):
                self._connection = self.provider.connect(self.config, given)
        return self._connection

    _connection: Any = None
    _seen: bool = False

    def _all(self) -> list[Any]:
        with api.doing(self.provider.title, "listing the machines"):
            return self.provider.nodes(self._made)

    def _nodes(self) -> list[Any]:
        """Those of the machine that are not gone: more than one only if a provider made a second
        one unasked."""
        if not self.facts.image:
            return []
        return [
            node
            for node in self._all()
            if self.provider.mark(node) == self.host.id and _state(node) is not State.MISSING
        ]

    def _look(self) -> Any | None:
        found = self._nodes()
        if found:
            self._learn(found[0])
        return found[0] if found else None

    def _node(self) -> Any:
        node = self._look()
        if node is None:
            raise DriverError(f'{self.provider.title} does not have "{self.host.name}" any more')
        return node

    def _learn(self, node: Any) -> None:
        """Without writing it: commands that only read come here as well."""
        config = self.config
        inside = any(getattr(config, key, False) for key in _INSIDE)
        addresses = node.private_ips if inside else node.public_ips or node.private_ips
        usable = [each for each in addresses if each and ":" not in each and each != "0.0.0.0"]  # noqa: S104
        address = str(usable[0]) if usable else ""
        self.facts = replace(self.facts, node=str(node.id), address=address)

    def _choose(self, made: Any, error: type[MachineError] = DriverError) -> tuple[Any, Any, Any]:
        """libcloud's location, size and image that the options mean. Raises PreflightError for one
        that there is not, and ``error`` where the provider does not answer."""
        row, config = self.provider, self.config

        def listed(what: str, ask: Callable[[], Any]) -> Any:
            with api.doing(row.title, f"looking for the {what}", error):
                return ask()

        if choose := row.location:
            location = listed("place", lambda: choose(made, config))
        else:
            location = self._one(row.place, listed(row.place, made.list_locations))
        size = self._one("size", listed("size", lambda: row.sizes(made, location)))
        if find := row.image:
            image = listed(f"image {config.image}", lambda: find(made, config))
        else:
            image = self._one("image", listed("image", made.list_images))
        return location, size, image

    def _one(self, key: str, there: Sequence[Any]) -> Any:
        wanted = getattr(self.config, key)
        for each in there:
            if wanted and wanted in (_id(each), each.name, _slug(each)):
                return each
        flag = next(option.flag for option in self._options() if option.key == key)
        names = sorted({_slug(each) or _id(each) for each in there})
        more = ", ..." if len(names) > _SHOWN else ""
        raise PreflightError(
            f"{self.provider.title} has no {key} {wanted!r}",
            hint=f"{flag} is one of: {', '.join(names[:_SHOWN])}{more}",
        )

    def _make(self, spec: VmSpec) -> None:
        """The id is saved before anything is waited for."""
        made, row = self._made, self.provider
        self.facts = replace(self.facts, engine_port=spec.engine_port)
        location, size, image = self._choose(made)
        order = Order(
            name=self.host.name,
            id=self.host.id,
            user_data=seed.user_data(spec.identity, self._extra_user_data()),
            disk_gib=spec.disk_gib,
            engine_port=spec.engine_port,
            size=size,
            image=image,
            location=location,
        )
        with api.doing(row.title, "making the node"), api.once(made):
            row.prepare(made, self.config, order)
            if row.make:
                node = row.make(made, self.config, order)
            else:
                words = row.order(self.config, order)
                node = made.create_node(name=order.name, size=size, image=image, **words)
        self.save(replace(self.facts, node=str(node.id)))

    def _extra_user_data(self) -> str:
        """Raises BadOption."""
        return seed.user_file(self.config.userdata, "The file with user-data")

    def _await_address(self) -> None:
        """A node has its address once it runs."""
        wait.until(
            f'{self.provider.title} to start "{self.host.name}"',
            self._has_address,
            timeout=_CHANGE,
            most=3,
        )
        self.save(self.facts)

    def _has_address(self) -> bool:
        node = self._look()
        if node is None and not self._seen:  # some show a node some time after they made it
            return False
        self._seen = True
        state = _state(node) if node is not None else State.MISSING
        if state in (State.MISSING, State.ERROR):
            raise DriverError(
                f'{self.provider.title} did not start "{self.host.name}" (state: {state})',
                details=str((node.extra or {}).get("fault", "")) if node is not None else "",
            )
        return state is State.RUNNING and bool(self.facts.address)

    def _has_size(self, names: Sequence[str]) -> bool:
        """And is at rest, as it was or started again by its provider."""
        node, row = self._node(), self.provider
        with api.doing(row.title, f"changing {self.host.name}"):
            ended = row.resized(self._made, node)
        at_rest = _state(node) in (State.STOPPED, State.RUNNING)
        return ended and at_rest and row.size_name(node) in names

    def _prices(self) -> dict[str, float]:
        if not self.provider.price_per:
            return {}
        with api.doing(self.provider.title, "listing prices"):
            sizes = self.provider.sizes(self._made, None)
        return {name: each.price for each in sizes for name in (each.id, each.name) if each.price}

    def _sight(self) -> Sighting:
        try:
            return self._sighting(self._look())
        except MachineError as exc:
            return Sighting(State.UNKNOWN, problem=exc.line)

    def _sighting(self, node: Any | None) -> Sighting:
        if node is None:
            return Sighting(State.MISSING)
        self._learn(node)
        state = _state(node)
        running = state is State.RUNNING and self.facts.address
        return Sighting(state, self.address() if running else None)


def _by_account(drivers: Sequence[CloudDriver]) -> list[list[Any]]:
    """Those of which something may be there."""
    groups: dict[tuple[object, ...], list[Any]] = defaultdict(list)
    for driver in drivers:
        if driver.facts.image:
            groups[driver._account].append(driver)
    return list(groups.values())


def _state(node: Any) -> State:
    return _STATES.get(str(node.state), State.UNKNOWN)


def _id(thing: Any) -> str:
    return str(thing.id)


def _slug(thing: Any) -> str:
    """DigitalOcean's name of an image for use in requests."""
    return str(thing.extra.get("slug") or "") if isinstance(thing.extra, dict) else ""
