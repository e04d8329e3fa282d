"""Instances of Amazon EC2."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Final, Self

from machine import wait
from machine.driver import Driver, Finding
from machine.drivers.amazonec2 import api, launch, network
from machine.drivers.amazonec2.config import Amazonec2Config, Amazonec2Facts
from machine.errors import DriverError, MachineError, TimedOut
from machine.model import Address, Can, Sighting, Size, Source, State, VmSpec

_STATES: Final = {  # EC2's API reference, "InstanceState"
    "pending": State.STARTING,
    "running": State.RUNNING,
    "shutting-down": State.STOPPING,
    "stopping": State.STOPPING,
    "stopped": State.STOPPED,
}
_CHANGE: Final = 600
"""Seconds for EC2 to start, stop or end an instance: large ones take minutes."""
_SHOWN: Final = 20
"""Seconds until EC2 shows an instance that it has just made ("eventual consistency")."""
_AT_ONCE: Final = 200
"""Values that one filter of EC2's API takes."""


class Amazonec2Driver(Driver[Amazonec2Config, Amazonec2Facts]):
    name: ClassVar[str] = "amazonec2"
    source: ClassVar[Source] = Source.PROVIDER
    can: ClassVar[Can] = Can.POWER | Can.KILL | Can.CONSOLE | Can.RESIZE
    resizes: ClassVar[frozenset[str]] = frozenset({"kind", "disk_gib"})
    experimental: ClassVar[str] = (
        "never run against Amazon itself; run against moto, with a real VM for its instance"
    )
    ignored: ClassVar[Mapping[str, str]] = {
        "--amazonec2-ssh-keypath PATH": "each machine has a key of its own, in its user-data",
        "--amazonec2-keypair-name NAME": "no key pair is needed: the key is in the user-data",
        "--amazonec2-block-duration-minutes N": "Amazon has no spot instances of fixed duration "
        "any more",
    }
    config_type: ClassVar[type[Amazonec2Config]] = Amazonec2Config
    facts_type: ClassVar[type[Amazonec2Facts]] = Amazonec2Facts

    @classmethod
    def size(cls, config: Amazonec2Config) -> Size:
        """The instance type is processors and memory."""
        return Size(disk_gib=config.root_size, kind=config.instance_type)

    def preflight(self) -> None:
        """Also what the request will be made of: it is the same then if it has to be repeated."""
        network.rules(self.config, self.facts.engine_port)
        launch.tags(self.host, self.config)
        launch.extra_user_data(self.config)
        self.facts = replace(self.facts, region=api.region(self._account))
        ec2 = self._client()
        ami, device = launch.image(ec2, self.config)
        vpc, subnet = network.place(ec2, self.config, self.facts.region)
        facts = replace(self.facts, ami=ami, device=device, vpc=vpc, subnet=subnet)
        self.save(replace(facts, account=network.account(ec2)))

    def create(self, spec: VmSpec) -> None:
        if self._look() is None:
            self._run(spec)
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
        """Its private one: instances of one VPC reach each other there, at no cost."""
        private = [each.get("PrivateIpAddress") for each in self._shown()]
        return str(private[0]) if private and private[0] else self.address().host

    def remove(self) -> None:
        if not self.facts.vpc:  # killed before anything was made
            return
        ec2 = self._client()
        for instance in self._shown():
            with api.doing(f"ending {instance['InstanceId']}"):
                ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
        wait.until(
            f"EC2 to end {self.facts.instance or 'the instance'}",
            lambda: not self._instances(),
            timeout=_CHANGE,
            most=5,
        )
        for group in network.release(ec2, self.facts.groups, self.facts.instance):
            self.report.warn(f"The security group {group} stays: something holds it still")

    def start(self) -> None:
        self._await_rest()
        with api.doing(f"starting {self.facts.instance}"):
            self._client().start_instances(InstanceIds=[self.facts.instance])
        self.save(replace(self.facts, address=""))
        self._await_address()

    def stop(self) -> None:
        with api.doing(f"stopping {self.facts.instance}"):
            self._client().stop_instances(InstanceIds=[self.facts.instance])

    def kill(self) -> None:
        if self.state() is not State.STOPPED:
            with api.doing(f"stopping {self.facts.instance}"):
                self._client().stop_instances(InstanceIds=[self.facts.instance], Force=True)
        wait.until(
            f'"{self.host.name}" to be off',
            lambda: self.state() in (State.STOPPED, State.MISSING),
            timeout=_CHANGE,
            most=5,
        )

    def resize(self, wanted: Size) -> Mapping[str, Any]:
        """A volume may grow whether its instance runs or not."""
        ec2, instance = self._client(), self._look()
        if instance is None:
            raise DriverError(f'EC2 does not have "{self.host.name}" any more')
        options: dict[str, Any] = {}
        if wanted.kind is not None:
            launch.change_type(ec2, instance, wanted.kind)
            options["instance_type"] = wanted.kind
        if wanted.disk_gib is not None:
            launch.grow(ec2, instance, wanted.disk_gib)
            options["root_size"] = wanted.disk_gib
        return options

    def console(self, offset: int = 0) -> tuple[bytes, int]:
        """EC2 keeps the last 64 KiB, and shows them some time after they were written."""
        if not self.facts.instance:
            return b"", offset
        with api.doing("reading the console"):
            said = self._client().get_console_output(InstanceId=self.facts.instance)
        log = said.get("Output", "").encode()
        return log[offset:], len(log)

    def explain(self) -> str:
        return self._sight().problem

    @classmethod
    def survey(cls, drivers: Sequence[Self]) -> Mapping[str, Sighting]:
        """One question for each account and region."""
        groups: dict[api.Account, list[Self]] = defaultdict(list)
        seen = {each.host.name: Sighting(State.MISSING) for each in drivers}
        for driver in drivers:
            if driver.facts.vpc:
                groups[driver._account].append(driver)
        for group in groups.values():
            try:
                found = _of(group)
            except MachineError as exc:
                sighting = Sighting(State.UNKNOWN, problem=exc.line)
                seen |= {each.host.name: sighting for each in group}
            else:
                for driver in group:
                    seen[driver.host.name] = driver._sighting(found.get(driver.host.id))
        return seen

    @classmethod
    def strays(cls, drivers: Sequence[Self], known_ids: frozenset[str]) -> Sequence[Finding]:
        from machine.drivers.amazonec2 import findings

        return findings.strays({each._account for each in drivers if each.facts.vpc}, known_ids)

    @property
    def _account(self) -> api.Account:
        config = self.config
        return api.Account(
            region=self.facts.region or config.region,
            access_key=api.reference(config.access_key),
            secret_key=api.reference(config.secret_key),
            session_token=api.reference(config.session_token),
            profile=config.profile,
            endpoint=api.endpoint(config.endpoint, insecure=config.insecure_transport),
            retries=config.retries,
        )

    def _client(self) -> Any:
        return api.client(self._account)

    def _found(self) -> list[dict[str, Any]]:
        """Everything with the machine's mark, also what is gone and still shown. Raises DriverError,
        also where another account is asked than had it made."""
        if not self.facts.vpc:
            return []
        ec2 = self._client()
        with api.doing(f'looking for "{self.host.name}"'):
            filters = network.as_filters({f"tag:{launch.ID_TAG}": self.host.id})
            found = launch.instances(ec2, filters)
        if not found:
            network.require_account(ec2, self.facts.account)
        return found

    def _instances(self) -> list[dict[str, Any]]:
        """Those that are not gone; one at most, unless somebody copied its tags."""
        return [each for each in self._found() if not launch.is_gone(each)]

    def _shown(self) -> list[dict[str, Any]]:
        """As ``_instances``, and waits a little for one that was asked for and never seen."""
        with suppress(TimedOut):
            seconds = _SHOWN if self.facts.asked else 0
            wait.until("EC2 to show the instance", self._found, timeout=seconds)
        return self._instances()

    def _look(self) -> dict[str, Any] | None:
        """The instance, whose id and address are facts from now on."""
        found = self._instances()
        if not found:
            return None
        self._learn(found[0])
        return found[0]

    def _learn(self, instance: Mapping[str, Any]) -> None:
        """Without writing it: commands that only read come here as well."""
        private = self.config.private_address_only or self.config.use_private_address
        address = instance.get("PrivateIpAddress" if private else "PublicIpAddress") or ""
        self.facts = replace(self.facts, instance=instance["InstanceId"], address=address)

    def _run(self, spec: VmSpec) -> None:
        """The id is saved before anything is waited for."""
        ec2 = self._client()
        self.facts = replace(self.facts, engine_port=spec.engine_port)
        for last in (False, True):
            self._join_groups(ec2)
            ask = launch.request(self.host, self.config, self.facts, spec)
            self.save(replace(self.facts, asked=True))
            try:
                with api.doing("the instance"):
                    made = ec2.run_instances(**ask)
                break
            except DriverError as exc:
                refused = api.code(exc)
                self.save(replace(self.facts, asked=not refused))
                # The last machine that used a group may have taken it away just now.
                if last or refused not in network.NO_GROUP:
                    raise
        self.save(replace(self.facts, instance=made["Instances"][0]["InstanceId"]))

    def _join_groups(self, ec2: Any) -> None:
        """Known before rules are added, so that ``remove`` finds a group that was made."""
        for name in self.config.security_group:
            group = network.ensure(ec2, self.facts.vpc, name)
            groups = tuple(dict.fromkeys((*self.facts.groups, group)))
            self.save(replace(self.facts, groups=groups))
            if not self.config.security_group_readonly:
                network.open_ports(ec2, group, network.rules(self.config, self.facts.engine_port))

    def _await_address(self) -> None:
        """An instance has its public address once it runs."""
        wait.until(
            f"EC2 to start {self.facts.instance}", self._has_address, timeout=_CHANGE, most=3
        )
        self.save(replace(self.facts, asked=False))

    def _has_address(self) -> bool:
        found = self._found()
        if not found and self.facts.asked:
            return False
        instance = next((each for each in found if not launch.is_ending(each)), None)
        if instance is None:
            raise DriverError(
                f"EC2 did not start {self.facts.instance}, and ended it",
                details="\n".join(filter(None, map(_why, found))),
            )
        self._learn(instance)
        state = _state(instance)
        if state is State.RUNNING and not self.facts.address:
            raise DriverError(
                f"{self.facts.instance} runs without a public address",
                hint="Reach it by its private one (--amazonec2-use-private-address), or choose a "
                "subnet with a way to the internet",
            )
        return state is State.RUNNING

    def _await_rest(self) -> None:
        """EC2 refuses to start what is still on its way down."""
        try:
            wait.until(
                f'"{self.host.name}" to be off',
                lambda: self.state() is not State.STOPPING,
                timeout=_CHANGE,
                most=5,
            )
        except TimedOut as exc:
            raise DriverError(exc.brief) from exc

    def _sight(self) -> Sighting:
        try:
            return self._sighting(self._look())
        except MachineError as exc:
            return Sighting(State.UNKNOWN, problem=exc.line)

    def _sighting(self, instance: Mapping[str, Any] | None) -> Sighting:
        if instance is None:
            return Sighting(State.MISSING)
        self._learn(instance)
        state = _state(instance)
        running = state is State.RUNNING and self.facts.address
        return Sighting(state, self.address() if running else None, _why(instance))


def _of(drivers: Sequence[Amazonec2Driver]) -> dict[str, dict[str, Any]]:
    """By their ids, the instances of many machines of one account and region."""
    ec2 = drivers[0]._client()
    ids = [driver.host.id for driver in drivers]
    found: dict[str, dict[str, Any]] = {}
    for at in range(0, len(ids), _AT_ONCE):
        filters = [{"Name": f"tag:{launch.ID_TAG}", "Values": ids[at : at + _AT_ONCE]}]
        with api.doing("looking for the machines"):
            for each in launch.instances(ec2, filters):
                if not launch.is_gone(each):
                    found[launch.tag(each, launch.ID_TAG)] = each
    if set(ids) - set(found):
        network.require_account(ec2, drivers[0].facts.account)
    return found


def _state(instance: Mapping[str, Any]) -> State:
    return _STATES.get(instance["State"]["Name"], State.UNKNOWN)


def _why(instance: Mapping[str, Any]) -> str:
    """What EC2 has to say of its state, unless its user wanted it so."""
    reason = instance.get("StateReason") or {}
    message = str(reason.get("Message", ""))
    return "" if str(reason.get("Code", "")).startswith("Client.User") else message
