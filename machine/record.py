"""One machine's config.json: docker-machine's keys for others to read, one block of ours beside them."""

from __future__ import annotations

import dataclasses
import datetime
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from machine.compat import migrate
from machine.errors import RecordDamaged
from machine.model import Address, EngineOptions, Login
from machine.paths import MachineFolder, StoreFolder

SCHEMA = 1
"""Version of our own block; a newer one is refused."""


@dataclass(slots=True)
class Journal:
    """How far a create got. ``done`` holds finished steps in order; ``step`` the one at work."""

    done: list[str] = field(default_factory=list)
    step: str = ""
    finished: bool = False


@dataclass(slots=True)
class Block:
    """What ``machine`` itself needs to know of a machine (the key ``Machine``)."""

    id: str
    created: str
    template: str = ""
    image: str = ""
    image_digest: str = ""
    user: str = "machine"
    cpus: int = 1
    memory_mib: int = 1024
    disk_gib: int = 10
    boot_timeout: int = 600
    cloud_init: str = ""
    engine: str = "docker"
    bundle: str = ""  # sha256
    bundle_kind: str = "packages"
    layers: list[str] = field(default_factory=list)  # keys of those that it began with
    use_layers: bool = True
    warm: bool = False  # a warm start was asked for
    context: bool = False  # the engine's client knows it by name
    ssh_config: bool = False
    ssh_key: str = ""  # the user's own, where there is none of ours
    setup: str = "install"  # what is done to a host that was there before: model.Setup
    open_firewall: str = "ask"  # likewise: whether its firewall may be opened; or "yes", "no"
    engine_port: int = 0  # where its engine listens; 0: its usual one
    swarm: str = ""  # the id of the Swarm that it is in, as far as this tool brought it there
    node: str = ""  # its own id in that
    drained: bool = False  # by this tool, until it is started again
    restored: bool = False  # to a snapshot: what the guest has may be older than this record
    config: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    journal: Journal = field(default_factory=Journal)
    schema: int = SCHEMA


@dataclass(slots=True)
class Record:
    """A loaded config.json. ``raw`` keeps every key, known or not, as it was read."""

    name: str
    driver_name: str
    raw: dict[str, Any]
    block: Block | None  # None: made by docker-machine itself
    migrated: bool = False

    @property
    def ours(self) -> Block:
        if self.block is None:
            raise RecordDamaged(
                f'"{self.name}" was made by docker-machine with the {self.driver_name} driver',
                details="Its record has no block of ours, so there is no way to drive it from here.",
                hint=f"Forget it with: machine rm -f {self.name}",
            )
        return self.block

    @property
    def engine_options(self) -> EngineOptions:
        host = self.raw.get("HostOptions") or {}
        engine = host.get("EngineOptions") or {}
        auth = host.get("AuthOptions") or {}
        return EngineOptions(
            labels=tuple(engine.get("Labels") or ()),
            insecure_registries=tuple(engine.get("InsecureRegistry") or ()),
            registry_mirrors=tuple(engine.get("RegistryMirror") or ()),
            storage_driver=engine.get("StorageDriver") or "",
            env=tuple(engine.get("Env") or ()),
            opts=tuple(engine.get("ArbitraryFlags") or ()),
            tls_sans=tuple(auth.get("ServerCertSANs") or ()),
        )

    @engine_options.setter
    def engine_options(self, options: EngineOptions) -> None:
        """Names for its certificate stay what they were."""
        engine = self.raw["HostOptions"].setdefault("EngineOptions", {})
        ours = _engine_options(options)
        for key in _OPTIONS:
            engine[key] = ours[key]

    def note_address(self, address: Address) -> None:
        """What docker-machine's own readers look up; never relied on by us."""
        driver = self.raw["Driver"]
        driver["IPAddress"], driver["SSHPort"] = address.host, address.ssh_port
        driver["EnginePort"] = address.engine_port

    def note_login(self, login: Login) -> None:
        """Likewise, where it is not with the key that was made for the machine."""
        self.raw["Driver"]["SSHUser"] = login.user
        if self.block is not None and login.keys:
            self.block.ssh_key = str(login.keys[0])

    def place(self, store: StoreFolder) -> None:
        """Write the store's present folder into the absolute paths that other tools read."""
        folder = store.machine(self.name)
        self.raw.setdefault("Driver", {}).update(_driver_paths(self.raw, store, folder, self.block))
        host = self.raw.setdefault("HostOptions", {})
        auth = host.get("AuthOptions")
        host["AuthOptions"] = {**(auth or {}), **_auth_paths(store, folder)}

    def as_json(self) -> dict[str, Any]:
        """The record as ``machine inspect`` prints it and the store writes it."""
        data = dict(self.raw)
        if self.block is not None:
            data["Machine"] = {**(self.raw.get("Machine") or {}), **dataclasses.asdict(self.block)}
        return data


def new(name: str, driver_name: str, block: Block, engine: EngineOptions) -> Record:
    """A fresh record with every key that docker-machine 0.16 writes (PERSISTED schema 3)."""
    raw: dict[str, Any] = {
        "ConfigVersion": migrate.CURRENT,
        "Driver": {
            "IPAddress": "",
            "MachineName": name,
            "SSHUser": block.user,
            "SSHPort": 0,
            "SSHKeyPath": "",
            "StorePath": "",
            "SwarmMaster": False,
            "SwarmHost": "",
            "SwarmDiscovery": "",
        },
        "DriverName": driver_name,
        "HostOptions": {
            "Driver": "",
            "Memory": 0,
            "Disk": 0,
            "EngineOptions": _engine_options(engine),
            "SwarmOptions": _swarm_options(),
            "AuthOptions": {"ServerCertSANs": list(engine.tls_sans)},
        },
        "Name": name,
    }
    return Record(name, driver_name, raw, block)


def block(**values: Any) -> Block:
    """Our block of a new machine, with its id and time of birth."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Block(id=str(uuid.uuid4()), created=now, **values)


def parse(name: str, text: str) -> Record:
    """A record from config.json's text. Raises RecordDamaged with what is wrong; guesses nothing."""
    try:
        raw = json.loads(text)
    except ValueError as exc:
        raise _damaged(name, f"not JSON: {exc}") from None
    if not isinstance(raw, dict):
        raise _damaged(name, "not a JSON object")
    try:
        raw, migrated = migrate.migrate(raw)
    except ValueError as exc:
        raise _damaged(name, str(exc)) from None
    for key, kind in (("DriverName", str), ("Driver", dict), ("HostOptions", dict)):
        if not isinstance(raw.get(key), kind):
            raise _damaged(name, f"{key} is missing or no {kind.__name__}")
    ours = raw.get("Machine")
    return Record(
        name, raw["DriverName"], raw, _block(name, ours) if ours is not None else None, migrated
    )


def _block(name: str, values: object) -> Block:
    if not isinstance(values, dict):
        raise _damaged(name, "Machine is no object")
    schema = values.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise _damaged(name, f"Machine.schema is {schema!r}; this version knows up to {SCHEMA}")
    journal = values.get("journal")
    checked = _checked(name, "Machine", _BLOCK, {**values, "journal": {}})
    checked["journal"] = Journal(
        **_checked(name, "Machine.journal", _JOURNAL, journal if isinstance(journal, dict) else {})
    )
    return Block(**checked)


Kinds = Mapping[str, tuple[type, bool]]
"""By field: the type of its value in JSON, and whether it has to be there."""


def _kinds(cls: type[Any]) -> Kinds:
    kinds: dict[str, type] = {"str": str, "int": int, "bool": bool, "Journal": dict}
    missing = dataclasses.MISSING
    return {
        each.name: (
            kinds.get(str(each.type)) or (list if str(each.type).startswith("list") else dict),
            each.default is missing and each.default_factory is missing,
        )
        for each in dataclasses.fields(cls)
    }


_BLOCK, _JOURNAL = _kinds(Block), _kinds(Journal)  # once: a listing reads every record


def _checked(name: str, where: str, kinds: Kinds, values: Mapping[str, Any]) -> dict[str, Any]:
    """The known ones of ``values``, each of the type that it should have."""
    known = {}
    for key, (kind, required) in kinds.items():
        if key in values:
            value = values[key]
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise _damaged(name, f"{where}.{key} is {value!r}, no {kind.__name__}")
            known[key] = value
        elif required:
            raise _damaged(name, f"{where}.{key} is missing")
    return known


def _damaged(name: str, why: str) -> RecordDamaged:
    return RecordDamaged(
        f'The record of "{name}" cannot be read: {why}',
        hint=f"Mend machines/{name}/config.json by hand, or forget it with: machine rm -f {name}",
    )


def _engine_options(engine: EngineOptions) -> dict[str, Any]:
    return {
        "ArbitraryFlags": list(engine.opts),
        "Dns": None,
        "GraphDir": "",
        "Env": list(engine.env),
        "Ipv6": False,
        "InsecureRegistry": list(engine.insecure_registries),
        "Labels": list(engine.labels),
        "LogLevel": "",
        "StorageDriver": engine.storage_driver,
        "SelinuxEnabled": False,
        "TlsVerify": True,
        "RegistryMirror": list(engine.registry_mirrors),
        "InstallURL": "",
    }


_OPTIONS: Final = (
    "ArbitraryFlags",
    "Env",
    "InsecureRegistry",
    "Labels",
    "StorageDriver",
    "RegistryMirror",
)
"""Those that are EngineOptions."""


def _swarm_options() -> dict[str, Any]:
    return {
        "IsSwarm": False,
        "Address": "",
        "Discovery": "",
        "Agent": False,
        "Master": False,
        "Host": "",
        "Image": "",
        "Strategy": "",
        "Heartbeat": 0,
        "Overcommit": 0,
        "ArbitraryFlags": [],
        "ArbitraryJoinFlags": [],
        "Env": None,
        "IsExperimental": False,
    }


def _driver_paths(
    raw: Mapping[str, Any], store: StoreFolder, folder: MachineFolder, block: Block | None
) -> dict[str, str]:
    if block is None:
        key = str((raw.get("Driver") or {}).get("SSHKeyPath") or "")
        name = key.rpartition("/")[2] or "id_rsa"
        return {"StorePath": str(store.root), "SSHKeyPath": str(folder.root / name)}
    return {"StorePath": str(store.root), "SSHKeyPath": block.ssh_key or str(folder.ssh_key)}


def _auth_paths(store: StoreFolder, folder: MachineFolder) -> dict[str, Any]:
    certs = str(store.certs)
    return {
        "CertDir": certs,
        "CaCertPath": f"{certs}/ca.pem",
        "CaPrivateKeyPath": f"{certs}/ca-key.pem",
        "CaCertRemotePath": "",
        "ServerCertPath": str(folder.server_cert),
        "ServerKeyPath": str(folder.server_key),
        "ClientKeyPath": f"{certs}/key.pem",
        "ServerCertRemotePath": "",
        "ServerKeyRemotePath": "",
        "ClientCertPath": f"{certs}/cert.pem",
        "StorePath": str(folder.root),
    }
