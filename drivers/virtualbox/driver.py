"""VMs by VirtualBox, through its own command line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from machine import wait
from machine.driver import Driver, Finding
from machine.drivers.virtualbox import media, network, output, preflight
from machine.drivers.virtualbox.config import IGNORED, VirtualboxConfig, VirtualboxFacts
from machine.drivers.virtualbox.network import Lan
from machine.drivers.virtualbox.output import Sight
from machine.drivers.virtualbox.vboxmanage import UNREADABLE, NotInstalled, VBoxFailed, VBoxManage
from machine.errors import DriverError, MachineError, PreflightError
from machine.model import Address, Can, FirstBoot, Nic, Sighting, Size, Snapshot, State, VmSpec

ID, STORE, READY, LAN = "machine/id", "machine/store", "machine/ready", "machine/lan"
"""Our marks: extra data of a machine, which its user's changes in VirtualBox's window leave alone."""
OS_TYPE: Final = "Linux26_64"
"""Which every version knows; only defaults depend on it."""
_OFF: Final = (State.STOPPED, State.SAVED)


class VirtualboxDriver(Driver[VirtualboxConfig, VirtualboxFacts]):
    name: ClassVar[str] = "virtualbox"
    can: ClassVar[Can] = (
        Can.POWER
        | Can.KILL
        | Can.PAUSE
        | Can.CONSOLE
        | Can.IDENTITY
        | Can.CLOUD_INIT
        | Can.SNAPSHOT
        | Can.RESIZE
    )
    resizes: ClassVar[frozenset[str]] = frozenset({"cpus", "memory_mib", "disk_gib"})
    ignored: ClassVar[Mapping[str, str]] = IGNORED
    config_type: ClassVar[type[VirtualboxConfig]] = VirtualboxConfig
    facts_type: ClassVar[type[VirtualboxFacts]] = VirtualboxFacts

    @classmethod
    def size(cls, config: VirtualboxConfig) -> Size:
        """-1 processors are all, 32 at most, as docker-machine has it."""
        cpus, disk = config.cpu_count, config.disk_size
        if cpus is not None and cpus < 1:
            cpus = min(os.cpu_count() or 1, 32)
        return Size(cpus, config.memory, None if disk is None else -(-disk // 1024))

    def memory_available(self) -> int | None:
        return preflight.memory(VBoxManage())

    def preflight(self) -> None:
        vbox = VBoxManage()
        if warning := preflight.version(vbox.version):
            self.report.warn(warning)
        preflight.kernel_module()
        if not self.config.no_vtx_check:
            preflight.processor()
        preflight.name(vbox, self.host.name, self.host.id)
        preflight.addresses(vbox, self.config)
        preflight.shares(self.config)

    def reserve(self, engine_port: int) -> Address:
        """Ports of this computer that nobody listens at; a start chooses others if they are taken
        by then."""
        if not self.facts.ssh_port:
            ssh, engine = network.free_ports(self.host.id)
            facts = replace(self.facts, ssh_port=ssh, engine_port=engine)
            self.save(replace(facts, guest_engine_port=engine_port))
        return self.address()

    def create(self, spec: VmSpec) -> None:
        vbox = VBoxManage()
        self.reserve(spec.engine_port)
        info = vbox.info(self.host.id)
        if info is None or not vbox.marked(self.host.id, READY):
            self.clear(vbox)
            self._make(vbox, spec)
        self._power_on(vbox)

    def state(self) -> State:
        return self._sight().state

    def address(self) -> Address:
        if not self.facts.ssh_port:
            raise DriverError(f'"{self.host.name}" has no address yet')
        return Address("127.0.0.1", self.facts.ssh_port, self.facts.engine_port)

    def peer_address(self) -> str:
        if not self.facts.lan:
            raise DriverError(
                f'"{self.host.name}" has no second network: other machines do not reach it',
                details="VirtualBox's NAT keeps its machines apart.",
                hint="See docs/virtualbox.md, and make the machine again",
            )
        return self.facts.lan.partition("/")[0]

    def remove(self) -> None:
        if self.facts.ssh_port:  # else killed before anything was made
            self.clear(VBoxManage())

    def settle(self) -> None:
        """Take the first-boot disk out of the drive; the secrets' file is deleted either way."""
        vbox = VBoxManage()
        if vbox.info(self.host.id) is not None:
            vbox.attach(self.host.id, media.CONTROLLER, media.SEED_PORT, "dvddrive", "emptydrive")
        if self._seed.exists():
            vbox.close_medium("dvd", self._seed, delete=False)
            self._seed.unlink()

    def start(self) -> None:
        vbox = VBoxManage()
        if self._existing(vbox).state is State.PAUSED:
            vbox.control(self.host.id, "resume")
        else:
            self._power_on(vbox)

    def stop(self) -> None:
        vbox = VBoxManage()
        state = self._existing(vbox).state
        if state is State.PAUSED:  # the guest could not see the button
            vbox.control(self.host.id, "resume")
        if state not in _OFF:
            vbox.control(self.host.id, "acpipowerbutton")

    def kill(self) -> None:
        vbox = VBoxManage()
        if self._existing(vbox).state not in _OFF:
            self._power_off(vbox)

    def pause(self) -> None:
        vbox = VBoxManage()
        if self._existing(vbox).state is not State.PAUSED:
            vbox.control(self.host.id, "pause")

    def resume(self) -> None:
        vbox = VBoxManage()
        if self._existing(vbox).state is not State.RUNNING:
            vbox.control(self.host.id, "resume")

    def snapshot(self, name: str) -> None:
        vbox = VBoxManage()
        self._existing(vbox)
        if any(each.name == name for each in self._kept(vbox)):
            raise DriverError(f'"{self.host.name}" has a snapshot "{name}" already')
        vbox.take_snapshot(self.host.id, name)

    def snapshots(self) -> Sequence[Snapshot]:
        vbox = VBoxManage()
        self._existing(vbox)
        return self._kept(vbox)

    def restore(self, name: str) -> None:
        vbox = VBoxManage()
        self._check_kept(vbox, name)
        vbox.restore_snapshot(self.host.id, name)

    def delete_snapshot(self, name: str) -> None:
        vbox = VBoxManage()
        self._check_kept(vbox, name)
        vbox.delete_snapshot(self.host.id, name)

    def resize(self, wanted: Size) -> Mapping[str, Any]:
        """A snapshot holds the disk as large as it was: with one, the disk does not grow."""
        vbox = VBoxManage()
        self._existing(vbox)
        settings = [("cpus", wanted.cpus), ("memory", wanted.memory_mib)]
        if changes := [(name, value) for name, value in settings if value is not None]:
            vbox.modify(self.host.id, *changes)
        options = {"cpu_count": wanted.cpus, "memory": wanted.memory_mib}
        if wanted.disk_gib is not None:
            if kept := self._kept(vbox):
                raise DriverError(
                    f'The disk of "{self.host.name}" cannot grow: it has snapshots',
                    hint=f"machine snapshot rm {self.host.name} {kept[0].name}",
                )
            options["disk_size"] = wanted.disk_gib * 1024
            vbox.resize_disk(self._disk, wanted.disk_gib * 1024)
        return {key: value for key, value in options.items() if value is not None}

    def console(self, offset: int = 0) -> tuple[bytes, int]:
        """VirtualBox begins the file anew at each start."""
        try:
            with self._console.open("rb") as file:
                if file.seek(0, os.SEEK_END) >= offset:
                    file.seek(offset)
                else:
                    file.seek(offset := 0)
                new = file.read()
        except FileNotFoundError:
            return b"", offset
        return new, offset + len(new)

    def explain(self) -> str:
        sight = self._sight()
        return "\n".join(
            part
            for part in (sight.problem or f"VirtualBox says: {sight.state}", self._log())
            if part
        )

    @classmethod
    def survey(cls, drivers: Sequence[Self]) -> Mapping[str, Sighting]:
        """By one call, however many there are."""
        try:
            sights: Mapping[str, Sight] | MachineError = VBoxManage().sights()
        except MachineError as exc:
            sights = exc
        return {driver.host.name: driver._sighting(sights) for driver in drivers}

    @classmethod
    def prune(
        cls, drivers: Sequence[Self], keep: frozenset[str], gone: frozenset[str], *, dry_run: bool
    ) -> Mapping[str, int]:
        """Bases that no machine's disk is laid over."""
        removed: dict[str, int] = {}
        if not media.folder().exists():
            return removed
        with suppress(MachineError), media.lock():
            vbox = VBoxManage()
            for path in list(media.unneeded(vbox)):
                removed[path.name] = path.stat().st_size
                if not dry_run:
                    media.remove_base(vbox, path)
        return removed

    @classmethod
    def findings(cls, store: Path, known_ids: frozenset[str], *, fix: bool) -> Sequence[Finding]:
        from machine.drivers.virtualbox import findings

        return findings.findings(store, known_ids, fix=fix)

    # Its parts

    @property
    def _folder(self) -> Path:
        """Where VirtualBox puts a machine of that name in the folder it is given."""
        return self.host.folder / self.host.name

    @property
    def _disk(self) -> Path:
        return self._folder / "disk.vdi"

    @property
    def _seed(self) -> Path:
        return self._folder / "first-boot.iso"

    @property
    def _console(self) -> Path:
        return self._folder / "console.log"

    def _make(self, vbox: VBoxManage, spec: VmSpec) -> None:
        """The machine, ready to start; the mark at the end says that it is whole."""
        vm, config = self.host.id, self.config
        with media.lock():
            base = media.base(vbox, spec.booted, spec.disk_gib)
            vbox.create(self.host.name, vm, self.host.folder, OS_TYPE)
            vbox.mark(vm, ID, vm)
            vbox.mark(vm, STORE, str(self.host.folder.parent.parent))
            lan = self._lan(vbox)
            vbox.mark(vm, LAN, lan.address)
            self.save(replace(self.facts, network=lan.kind, adapter=lan.name, lan=lan.address))
            vbox.make_child(self._disk, base)
        vbox.modify(
            vm,
            ("memory", spec.memory_mib),
            ("cpus", spec.cpus),
            ("ioapic", "on"),
            ("firmware", "bios"),
            ("boot1", "disk"),
            ("boot2", "none"),
            ("rtc_use_utc", "on"),
            ("graphicscontroller", "vmsvga"),
            ("vram", 16),
            ("audio", "none"),
            ("mouse", "ps2"),
            ("uart1", "0x3f8", "4"),
            ("uart_mode1", "file", str(self._console)),
            *self._cards(lan),
        )
        vbox.add_controller(vm, media.CONTROLLER, ports=2)
        vbox.attach(vm, media.CONTROLLER, media.DISK_PORT, "hdd", self._disk)
        self._write_seed(spec)
        vbox.attach(vm, media.CONTROLLER, media.SEED_PORT, "dvddrive", self._seed)
        for folder, name in preflight.shares(config):
            vbox.share(vm, name, folder)
        vbox.mark(vm, READY, "yes")

    def _cards(self, lan: Lan) -> list[tuple[str, str]]:
        config = self.config
        cards = [
            ("nic1", "nat"),
            ("nic_type1", config.nat_nictype),
            ("mac_address1", network.mac(self.host.id, "nat").replace(":", "")),
            ("nat_dns_proxy1", "off" if config.no_dns_proxy else "on"),
            ("nat_dns_host_resolver1", "on" if config.host_dns_resolver else "off"),
        ]
        if lan.address:
            cards += [
                *network.card(lan),
                ("nic_type2", config.hostonly_nictype),
                ("nic_promisc2", config.hostonly_nicpromisc),
                ("mac_address2", network.mac(self.host.id, "lan").replace(":", "")),
            ]
        return cards

    def _lan(self, vbox: VBoxManage) -> Lan:
        """The caller holds the lock: two machines never get one address."""
        wanted = self.config.network
        if wanted == "none":
            return Lan("none")
        if wanted != "internal":
            cidr = network.cidr(self.config.hostonly_cidr)
            try:
                network.check(vbox, cidr)
                return network.host_only(vbox, cidr, set(vbox.marks(LAN).values()))
            except (VBoxFailed, PreflightError) as exc:
                if wanted == "hostonly":
                    raise
                self.report.note(
                    "Without a host-only network: machines reach each other, and this computer them "
                    f"by forwarded ports only ({exc.brief})"
                )
        return network.internal(self.host.id)

    def cards_of_guest(self) -> list[Nic]:
        """As the guest is to set them up: by DHCP only where that tells it this computer's name
        servers, and statically, which is at once, elsewhere."""
        config = self.config
        by_dhcp = config.no_dns_proxy and not config.host_dns_resolver
        nat = () if by_dhcp else network.GUEST_NAT
        nics = [Nic(network.mac(self.host.id, "nat"), *nat)]
        if self.facts.lan:
            nics.append(Nic(network.mac(self.host.id, "lan"), self.facts.lan))
        return nics

    def _write_seed(self, spec: VmSpec) -> None:
        from machine import seed

        ours = spec.booted.first_boot is FirstBoot.IDENTITY
        make = seed.identity_iso if ours else seed.nocloud_iso
        content = make(spec.identity, self.cards_of_guest())
        self._seed.unlink(missing_ok=True)
        handle = os.open(self._seed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)

    # What it does

    def _power_on(self, vbox: VBoxManage) -> None:
        """Start it if it does not run."""
        vm = self.host.id
        info = vbox.info(vm) or {}
        if output.sight(info.get("VMState", "")).state not in _OFF:
            return
        if output.sight(info["VMState"]).state is State.STOPPED:
            self._forward(vbox, info)
        try:
            vbox.start(vm, self.config.ui_type)
        except VBoxFailed as exc:
            if self.state() is State.RUNNING:  # another process started it meanwhile
                return
            exc.details = "\n".join(part for part in (exc.details, self._log()) if part)
            raise

    def _forward(self, vbox: VBoxManage, info: Mapping[str, str]) -> None:
        """Bring the rules to what the facts say, with other ports if somebody listens at those."""
        facts = self.facts
        if not (network.free(facts.ssh_port) and network.free(facts.engine_port)):
            ssh, engine = network.free_ports(self.host.id)
            facts = replace(facts, ssh_port=ssh, engine_port=engine)
            self.save(facts)
        wanted = {
            "ssh": output.forward("ssh", facts.ssh_port, network.GUEST, 22),
            "engine": output.forward(
                "engine", facts.engine_port, network.GUEST, facts.guest_engine_port
            ),
        }
        there = output.forwards(info)
        for name, rule in wanted.items():
            if there.get(name) == rule:
                continue
            with suppress(VBoxFailed):  # there is none to delete
                vbox.modify(self.host.id, ("nat_pf1", "delete", name))
            vbox.modify(self.host.id, ("nat_pf1", rule))

    def _power_off(self, vbox: VBoxManage) -> None:
        with suppress(VBoxFailed):  # it may end by itself in this moment
            vbox.control(self.host.id, "poweroff")
        wait.until(
            f'"{self.host.name}" to be off',
            lambda: self.state() in (*_OFF, State.MISSING),
            timeout=30,
        )

    def clear(self, vbox: VBoxManage) -> None:
        """Remove it, whatever its facts say. The disk goes first, so that VirtualBox does not look
        for what it is laid over."""
        vm = self.host.id
        try:
            info = vbox.info(vm)
        except VBoxFailed as exc:
            if exc.code != UNREADABLE:
                raise
            vbox.unregister(vm, delete=False)
            info = None
        if info is not None:
            state = output.sight(info.get("VMState", "")).state
            if state is State.SAVED:
                vbox.discard_state(vm)
            elif state is not State.STOPPED:
                self._power_off(vbox)
            if "SnapshotName" not in info:
                for port, kind in ((media.DISK_PORT, "hdd"), (media.SEED_PORT, "dvddrive")):
                    if info.get(f"{media.CONTROLLER}-{port}-0", "none") != "none":
                        vbox.attach(vm, media.CONTROLLER, port, kind, "none")
            else:  # whose disks VirtualBox alone can take apart
                with media.lock():
                    media.protect(vbox)
            vbox.unregister(vm, delete="SnapshotName" in info)
        media.close_below(vbox, self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _existing(self, vbox: VBoxManage) -> Sight:
        """Its state. Raises DriverError where there is none."""
        info = vbox.info(self.host.id)
        if info is None:
            raise DriverError(f'VirtualBox does not know "{self.host.name}" any more')
        return output.sight(info.get("VMState", ""))

    def _kept(self, vbox: VBoxManage) -> list[Snapshot]:
        return output.snapshots(vbox.snapshots(self.host.id))

    def _check_kept(self, vbox: VBoxManage, name: str) -> None:
        self._existing(vbox)
        if all(each.name != name for each in self._kept(vbox)):
            raise DriverError(f'"{self.host.name}" has no snapshot "{name}"')

    # How it is seen

    def _sight(self) -> Sight:
        try:
            info = VBoxManage().info(self.host.id)
        except NotInstalled as exc:
            return self._unseen(exc)
        except VBoxFailed as exc:
            return Sight(State.ERROR if exc.code == UNREADABLE else State.UNKNOWN, exc.brief)
        except MachineError as exc:
            return Sight(State.UNKNOWN, exc.brief)
        return Sight(State.MISSING) if info is None else output.sight(info.get("VMState", ""))

    def _sighting(self, sights: Mapping[str, Sight] | MachineError) -> Sighting:
        if isinstance(sights, MachineError):
            state, problem = self._unseen(sights)
        else:
            state, problem = sights.get(self.host.id, Sight(State.MISSING))
        address = self.address() if state is State.RUNNING and self.facts.ssh_port else None
        return Sighting(state, address, problem)

    def _unseen(self, exc: MachineError) -> Sight:
        """Where VirtualBox cannot be asked: of what was never made there is nothing to ask."""
        return Sight(State.UNKNOWN if self.facts.ssh_port else State.MISSING, exc.brief)

    def _log(self) -> str:
        """The last line that VirtualBox wrote into the machine's own log."""
        for name in ("VBox.log", "VBoxHardening.log"):
            with suppress(OSError):
                lines = (self._folder / "Logs" / name).read_text(errors="replace").splitlines()
                if lines:
                    return f"{name}: {lines[-1]}"
        return ""
