"""The values that the parts of the tool hand to each other."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class State(StrEnum):
    """A host's state in docker-machine's words; ``MISSING`` is rancher-machine's addition."""

    RUNNING = "Running"
    PAUSED = "Paused"
    SAVED = "Saved"
    STOPPED = "Stopped"
    STOPPING = "Stopping"
    STARTING = "Starting"
    ERROR = "Error"
    TIMEOUT = "Timeout"
    MISSING = "Not Found"
    UNKNOWN = "Unknown"


class Can(enum.Flag):
    """What a driver is able to do; the core asks for these and never for a driver's name."""

    NOTHING = 0
    POWER = enum.auto()  # start, stop
    KILL = enum.auto()
    PAUSE = enum.auto()  # pause, resume
    CONSOLE = enum.auto()  # the serial log
    IDENTITY = enum.auto()  # boots our own images (an identity tar on a disk)
    CLOUD_INIT = enum.auto()  # boots foreign cloud images (a NoCloud seed)
    MEDIA = enum.auto()  # attaches read-only disks (the engine bundle)
    WARM = enum.auto()  # starts machines from saved memory
    SNAPSHOT = enum.auto()  # keeps states of a machine, and returns to them
    RESIZE = enum.auto()  # changes the size of a machine that is off


class Source(StrEnum):
    """What a driver's hosts are made of; it decides which steps a create has."""

    IMAGE = "image"  # an image of this computer's cache, handed over in VmSpec
    PROVIDER = "provider"  # its provider's own image, which runs cloud-init on user-data
    HOST = "host"  # nothing is made: a host that is there already, with SSH
    ENGINE = "engine"  # nothing is made: an engine that is there already, and no login


class Setup(StrEnum):
    """What is done to a host that was there before."""

    INSTALL = "install"  # everything that is missing
    ADOPT = "adopt"  # its own engine stays: certificates and listener only
    REGISTER = "register"  # nothing at all is changed


class Outcome(StrEnum):
    """What a check came to."""

    OK = "ok"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one thing that containers are made of holds on a live host, and how that was seen."""

    name: str
    outcome: Outcome
    text: str  # one sentence
    evidence: tuple[str, ...]  # lines, as they were read on the host
    look: tuple[str, ...]  # commands with which the user sees the same for a container of theirs
    explanation: str  # what it is, for somebody who hears of it for the first time


class FirstBoot(StrEnum):
    """How an image takes on a host's identity at its first boot."""

    IDENTITY = "identity"
    CLOUD_INIT = "cloud-init"


class BundleKind(StrEnum):
    """Where an engine's programs come from."""

    PACKAGES = "packages"  # the distribution's packages, for one release
    STATIC = "static"  # upstream's own archive, for any distribution


@dataclass(frozen=True, slots=True)
class Address:
    """How this computer reaches a host; a NAT forward may change both ports."""

    host: str
    ssh_port: int = 22
    engine_port: int = 2376
    engine_host: str = ""  # where the engine is reached elsewhere than sshd: a tunnel

    @property
    def engine_at(self) -> str:
        return self.engine_host or self.host


@dataclass(frozen=True, slots=True)
class Size:
    """What was chosen of a host's size; None is what the template says, or what stays as it is."""

    cpus: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None
    kind: str | None = None  # a provider's own name for processors and memory: "t3.large"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A kept state of a machine's."""

    name: str
    created: str = ""  # ISO 8601, where the provider tells
    current: bool = False  # what is written now is on top of it


@dataclass(frozen=True, slots=True)
class Login:
    """How a host is logged in to over SSH. The two secrets are asked for when they are needed, and
    only then; both raise when there is nobody to ask."""

    user: str
    known_hosts: Path  # the pinned key of the host, under ssh.ALIAS
    keys: tuple[Path, ...] = ()  # private keys, tried in this order
    agent: bool = False  # before them, the keys that the user's SSH agent has
    jump: str = ""  # hosts in between, as ssh's -J takes them; their keys are the user's affair
    config: str = ""  # the user's own ssh config, for those, where it is not where ssh looks
    passphrase: Callable[[], str] | None = None  # of a key that has one
    sudo_password: Callable[[], str] | None = None  # None: sudo asks for none


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a provider says of one host at this moment."""

    state: State
    address: Address | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes of something that there is so much of; a total of None is not known."""

    used: int
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What one running host takes at this moment; None is what cannot be told."""

    cpu_seconds: float | None = None  # of all its processors together, since it started
    cpus: int | None = None
    memory: Amount | None = None
    disk: Amount | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What an engine says of itself that seldom changes."""

    version: str
    role: str = ""  # in a swarm: "leader", "manager", "worker", or what is wrong; "" in none


@dataclass(frozen=True, slots=True)
class Image:
    """A verified guest image on this computer.

    ``disk`` is qcow2. With ``kernel`` and ``initrd`` the hypervisor boots them directly with
    ``cmdline``; without, the disk boots by itself (BIOS).
    """

    name: str  # "debian-13"
    digest: str  # sha256 of the disk, hex
    arch: str  # uname -m: x86_64, aarch64
    os: str  # os-release ID
    os_version: str  # os-release VERSION_ID
    first_boot: FirstBoot
    disk: Path
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    origin: str = ""  # where it came from, for `image show`
    disk_gib: int = 0  # the smallest disk that holds it
    recipe: str = ""  # of those that we built: which version of ours it was
    tree: Path | None = None  # its file system as a tar archive, for layers


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card as the guest's network configuration names it, by its MAC address.

    ``address`` with prefix length ("10.0.0.2/24") is set statically; None asks DHCP. ``gateway``
    is the way out of a static address, and ``dns`` its name server; "" where there is none.
    """

    mac: str
    address: str | None = None
    gateway: str = ""
    dns: str = ""


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file of a guest's, before it is there; with ``link`` a symbolic link to that."""

    path: str
    content: bytes = field(default=b"", repr=False)  # may be a key
    mode: int = 0o644
    link: str = ""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file of a host's that is to have another content."""

    path: str
    before: bytes | None = field(repr=False)  # None: there is none
    after: bytes = field(repr=False)
    mode: int = 0o644

    @property
    def is_secret(self) -> bool:
        return not self.mode & 0o077


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a host is from its first instruction on. Holds a private key: never log it."""

    hostname: str
    machine_id: str  # 32 hex digits
    user: str
    authorized_keys: tuple[str, ...]
    host_key: str = field(repr=False)  # OpenSSH private key, ed25519; "" for nobody's machine
    host_key_public: str
    cloud_init: str = ""  # the template's extra cloud-config (YAML), for CLOUD_INIT images
    files: tuple[GuestFile, ...] = ()  # laid over the system before it starts, for IDENTITY images


@dataclass(frozen=True, slots=True)
class Medium:
    """A read-only disk to attach for the first boot; the guest sees ``label`` as its serial."""

    label: str  # at most 20 characters (virtio-blk's limit)
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Warm:
    """Saved memory to start from: what ``Driver.save_warm`` put into a folder, and answered."""

    folder: Path
    sha256: Mapping[str, str]  # of each file in the folder
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VmSpec:
    """What ``Driver.create`` is asked to make."""

    cpus: int
    memory_mib: int
    disk_gib: int
    image: Image | None  # None for a driver whose ``source`` is not Source.IMAGE
    identity: Identity
    media: tuple[Medium, ...] = ()
    engine_port: int = 2376  # where the engine will listen on the guest
    warm: Warm | None = None

    @property
    def booted(self) -> Image:
        """The image, where there has to be one."""
        assert self.image is not None
        return self.image


@dataclass(frozen=True, slots=True)
class OsRelease:
    """The parts of /etc/os-release that decide which provisioner serves a host."""

    id: str
    id_like: tuple[str, ...] = ()
    version_id: str = ""
    pretty_name: str = ""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself over its API."""

    version: str
    api_version: str = ""
    swarm: str = ""  # "active/manager", "active/worker", "inactive", "locked"...; "" if not told


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the engine's host that a service of a project is reached at."""

    service: str
    port: int
    host: str = ""  # an address of the host's; "" is all of them
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Project:
    """Several containers described by files of this computer, and a command of the client's about
    them."""

    argv: tuple[str, ...]  # the client's program, and what it is told
    folder: Path  # that its paths are relative to
    mounts: tuple[Path, ...] = ()  # of this computer, as its containers are to have them
    ports: tuple[Published, ...] = ()
    uses_files: bool = False  # the command makes, starts or uses containers
    lasts: bool = False  # and they are there to be used while it runs
    ignore: Callable[[str], bool] = lambda path: False  # paths relative to the folder
    ignore_is_final: bool = True  # nothing in a folder that is ignored is taken in again


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The client's side of mutual TLS: the three files that DOCKER_CERT_PATH holds."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the user chose for the engine; docker-machine's ``--engine-*`` flags."""

    labels: tuple[str, ...] = ()  # k=v
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    storage_driver: str = ""
    env: tuple[str, ...] = ()  # K=V of the daemon
    opts: tuple[str, ...] = ()  # key=value, dockerd's long options, merged into daemon.json
    tls_sans: tuple[str, ...] = ()
