"""The walk of a create: steps with names, each on disk when it is done, resumed or undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from machine import flags, record, registry, ssh
from machine.errors import (
    BadOption,
    CommandFailed,
    DigestMismatch,
    DiskFull,
    GuestError,
    HostError,
    HostKeyMismatch,
    ImageError,
    LayerError,
    MachineError,
    PreflightError,
    TemplateError,
    WarmRefused,
    lines,
)
from machine.events import Emit, Reporter, ignore
from machine.host import Host, certs_lock
from machine.images import ImageCache
from machine.layers import KEY_DIGITS, LayerCache
from machine.model import (
    Can,
    EngineOptions,
    FirstBoot,
    GuestFile,
    Identity,
    Image,
    Medium,
    Setup,
    Source,
    VmSpec,
    Warm,
)
from machine.paths import MachineFolder
from machine.runtime.bundle import LABEL, Bundle, BundleCache
from machine.store import Store, check_name, taken, write
from machine.template import HostTemplate
from machine.workflows import (
    bootstrap,
    console,
    entries,
    existing,
    host_key,
    layers,
    remove,
    secrets,
)
from machine.workflows import plan as plans
from machine.workflows.plan import Plan

if TYPE_CHECKING:
    from machine.ssh import SshGuest


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """What the user asked for; ``given`` holds the driver's options by key."""

    name: str
    driver: str
    template: HostTemplate
    given: Mapping[str, Any] = field(default_factory=dict)
    engine: EngineOptions = field(default_factory=EngineOptions)
    keep_on_failure: bool = False
    context: bool = False  # a context of the engine's client
    ssh_config: bool = False  # an entry for the user's own ssh
    layers: bool = True  # False: everything from the image
    warm: bool = False  # from saved memory, which is made if there is none
    setup: Setup = Setup.INSTALL  # for a host that is there already
    open_firewall: bool | None = None  # likewise; None: its user is asked
    fleet: str = ""  # the fleet that it belongs to


def create(store: Store, request: CreateRequest, emit: Emit = ignore) -> Host:
    """Make a machine whose engine answers. On failure everything is undone again, unless
    ``keep_on_failure``; a kill leaves a machine for ``resume`` or ``remove``."""
    check_name(request.name)
    host = planned(store, request, emit)
    _ = host.driver  # an unknown driver is told before anything is written
    entries.check(host)
    with store.lock(request.name):
        store.reserve(host.record)
        options, table = _declared(request)
        secrets.keep(options, request.given, table, host.folder, host.report)
        _finish(host, keep=request.keep_on_failure)
    return host


def check(store: Store, request: CreateRequest) -> Host:
    """What can be told before any work starts: bad names and options, a name that is taken. The
    machine as it will be."""
    check_name(request.name)
    if store.exists(request.name):
        raise taken(request.name)
    return planned(store, request)


def planned(store: Store, request: CreateRequest, emit: Emit = ignore) -> Host:
    """The machine as it will be, of which nothing is written yet."""
    return Host(store, _record(request), Reporter(emit, request.name))


def prepare(store: Store, request: CreateRequest, emit: Emit = ignore) -> list[str]:
    """Make the layers that a create like this would begin with, and no machine; answers their
    keys. Raises LayerError where its image can have none, WarmRefused where its memory cannot."""
    host = _Draft(store, _record(request), Reporter(emit))
    walk = Walk(host)
    host.driver.preflight()
    for work in (_bundles, _image, _bundle):
        work(walk)
    if reason := layers.missing(walk.image):
        raise LayerError(f"No layer can be made of {walk.image.name}: {reason}")
    engine = layers.engine(walk.image, walk.bundle, host.report)
    host.block.layers = [engine.key]
    if request.warm:
        memory = layers.warm(host, walk.spec(NOBODY), host.report, build=True)
        host.block.layers += [memory.key] if memory else []
    return host.block.layers


class _Draft(Host):
    """A machine that never comes to be: nothing of it is written into the store."""

    scratch: Path | None = None  # what stands for its folder

    @property
    def folder(self) -> MachineFolder:
        return MachineFolder(self.scratch) if self.scratch else super().folder

    def save(self) -> None:
        return


def rehearse(store: Store, request: CreateRequest, emit: Emit = ignore) -> Plan:
    """What a create would change on a host that is there already; nothing is changed. Raises what
    the create would, where that can be told before."""
    if registry.driver(request.driver).source is not Source.HOST:
        raise BadOption(
            "--dry-run is for a host that is there already",
            hint=f"The {request.driver} driver makes new ones: there is nothing yet to be changed",
        )
    with TemporaryDirectory(prefix="machine-") as scratch:
        host = _Draft(store, _record(request), Reporter(emit, request.name))
        host.scratch = Path(scratch)
        options, table = _declared(request)
        secrets.keep(options, request.given, table, host.folder, host.report)
        with host.report.step("preflight", "Looking at the host"):
            host.driver.preflight()
            host.driver.reserve(host.engine_port)
            write(host.folder.known_hosts, ssh.known_hosts_line(host.driver.host_key()).encode())
            session = bootstrap.Session.open(host)
            try:
                return plans.plan(session)
            finally:
                session.close()


def resume(store: Store, name: str, emit: Emit = ignore) -> Host:
    """Go on after the last finished step of a create that was cut off. Keeps what there is when
    it fails again. Raises HostError when the create had ended already."""
    host = Host.load(store, name, Reporter(emit, name))
    with store.lock(name):
        host = Host.load(store, name, host.report)
        if host.block.journal.finished:
            raise HostError(f'"{name}" is complete: there is nothing to resume')
        _finish(host, keep=True)
    return host


def _record(request: CreateRequest) -> record.Record:
    template = request.template
    cls = registry.driver(request.driver)
    options, table = _declared(request)
    given = secrets.references(options, request.given, table)
    config = flags.build(request.driver, cls.config_type, given, table)
    size = cls.size(config)
    if request.setup is not Setup.INSTALL and cls.source is not Source.HOST:
        raise BadOption(
            f"--{request.setup} is for a host that is there already",
            hint=f"The {request.driver} driver makes new ones",
        )
    block = record.block(
        template=template.name,
        image=template.image if cls.source is Source.IMAGE else "",
        user=getattr(config, "ssh_user", "") or template.user,
        cpus=size.cpus or template.cpus,
        memory_mib=size.memory_mib or template.memory_mib,
        disk_gib=size.disk_gib or template.disk_gib,
        boot_timeout=getattr(config, "boot_timeout", None) or 600,
        engine_port=getattr(config, "engine_port", None) or 0,
        setup=request.setup,
        open_firewall=_CONSENT[request.open_firewall],
        fleet=request.fleet,
        cloud_init=template.cloud_init,
        engine=template.engine,
        bundle_kind=template.bundle,
        use_layers=request.layers,
        warm=request.warm,
        context=request.context,
        ssh_config=request.ssh_config,
        config=flags.as_dict(config),
    )
    return record.new(request.name, request.driver, block, request.engine)


def _declared(request: CreateRequest) -> tuple[list[flags.Option], Mapping[str, Any]]:
    """The driver's options, and the template's table of them."""
    config_type = registry.driver(request.driver).config_type
    options = flags.options(request.driver, config_type)
    return options, request.template.driver.get(request.driver, {})


_CONSENT: Final = {None: "ask", True: "yes", False: "no"}


def _finish(host: Host, *, keep: bool) -> None:
    walk = Walk(host)
    journal = host.block.journal
    try:
        for name, title, work in STEPS:
            if name in journal.done or walk.needless(name):
                continue
            journal.step = name
            host.save()
            with host.report.step(name, walk.title(name, title)):
                work(walk)
            journal.done.append(name)
            host.save()
        journal.step, journal.finished = "", True
        host.save()
    except MachineError as exc:
        walk.close()
        if not keep:
            _undo(walk, exc)
        else:
            exc.hint = lines(
                exc.hint,
                f"Go on with: machine create --resume {host.name}\n"
                f"or remove it with: machine rm {host.name}",
            )
        raise
    finally:
        walk.close()


def _undo(walk: Walk, exc: MachineError) -> None:
    """Remove what was made, and put back what was changed of a host that was there before; if even
    that fails, the record stays, so that nothing is orphaned."""
    host, command = walk.host, "rm"
    try:
        if walk.keeps:
            command = "rm --undo"
            existing.undo(host)
            command = "rm"
        with host.report.step("undo", "Removing what was made"):
            remove.discard(host)
    except MachineError as second:
        said = f"It could not be undone ({second}): machine {command} {host.name}"
        exc.hint = lines(exc.hint, said)
    else:
        if "vm" in host.block.journal.done or host.block.journal.step == "vm":
            exc.hint = lines(exc.hint, "To look into a failed machine: create --keep-on-failure")


TITLES: Final = {"vm": "Taking it in", "boot": "Logging in", "settle": "Noting how it is reached"}
"""Of the steps that are something else for what was there before."""
OF_IMAGES: Final = frozenset({"image", "bundle", "layer"})
OF_SYSTEMS: Final = frozenset({"boot", "system", "install", "configure", "start"})
OF_ENGINES: Final = frozenset({"system", "install", "configure", "start"})
"""Steps that only hosts made of an image have, those with a login, those that we set up."""
NOBODY: Final = Identity("", "", "", (), "", "")
"""Where only a machine's size and disk are asked about."""


class Walk:
    """What the steps of one create share; each value is found again after a kill."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._session: bootstrap.Session | None = None
        self.login: SshGuest | None = None  # of the boot, for the session that follows
        self.keeps = False  # what the host was like before: it was no machine's until this create

    @cached_property
    def image(self) -> Image:
        block = self.host.block
        return ImageCache().find(block.image_digest or block.image)

    @cached_property
    def bundle(self) -> Bundle:
        return bootstrap.bundle_for(
            self.host, self.image.os, self.image.os_version, self.image.arch
        )

    @cached_property
    def base(self) -> Image:
        """What the machine's disk is laid over: the image, or a layer of it."""
        if not self.host.block.layers:
            return self.image
        return layers.engine(self.image, self.bundle, self.host.report).on(self.image)

    @property
    def warm(self) -> Warm | None:
        """The memory that the machine starts from, if it is still there and nobody else's."""
        if len(self.host.block.layers) < 2:
            return None
        cache = LayerCache()
        try:
            layer = cache.get(self.host.block.layers[1])
            cache.check(layer)
        except LayerError:
            return None
        digests = {name: entry["sha256"] for name, entry in layer.files.items()}
        return Warm(layer.folder, digests, layer.facts)

    def spec(self, identity: Identity, media: tuple[Medium, ...] = ()) -> VmSpec:
        block = self.host.block
        return VmSpec(
            cpus=block.cpus,
            memory_mib=block.memory_mib,
            disk_gib=block.disk_gib,
            image=self.base if self.host.driver.source is Source.IMAGE else None,
            identity=identity,
            media=media,
            engine_port=self.host.engine_port,
        )

    @property
    def ready_made(self) -> bool:
        """Whether the engine is there at the first boot, with its configuration."""
        host = self.host
        return bool(host.block.layers) and host.engine.boots_configured(host.record.engine_options)

    def title(self, step: str, usual: str) -> str:
        made = self.host.driver.source in (Source.IMAGE, Source.PROVIDER)
        return usual if made else TITLES.get(step, usual)

    def needless(self, step: str) -> bool:
        """Whether a step has nothing to do: because of what the driver's hosts are made of, or
        because a layer has it done."""
        host, source = self.host, self.host.driver.source
        if step in OF_IMAGES and source is not Source.IMAGE:
            return True
        if step in OF_SYSTEMS and source is Source.ENGINE:
            return True
        if step in OF_ENGINES and host.setup is Setup.REGISTER:
            return True
        if step == "verify":
            return not host.is_asked
        if step == "layer":
            return not host.block.use_layers
        if step == "install":
            return bool(host.block.layers) or host.setup is Setup.ADOPT
        return step in ("system", "configure", "start") and self.ready_made

    def keep(self) -> None:
        """Called before the first change. A host that another create has changed is not for this
        one to put back."""
        self.keeps = existing.keep(self.session) or self.keeps

    @property
    def is_of_ours(self) -> bool:
        """Whether its system is an image that we build, of which everything is known."""
        return (
            self.host.driver.source is Source.IMAGE and self.image.first_boot is FirstBoot.IDENTITY
        )

    @property
    def has_cloud_init(self) -> bool:
        source = self.host.driver.source
        if source is Source.IMAGE:
            return self.image.first_boot is FirstBoot.CLOUD_INIT
        return source is Source.PROVIDER

    @property
    def session(self) -> bootstrap.Session:
        if self._session is None:
            self._session = bootstrap.Session.open(self.host, self.login)
        return self._session

    def close(self) -> None:
        for each in (self._session, self.login):
            if each is not None:
                each.close()
        self._session = self.login = None


def _preflight(walk: Walk) -> None:
    if not walk.host.folder.record.exists():
        raise PreflightError(f'The record of "{walk.host.name}" is gone')
    walk.host.driver.preflight()
    if walk.host.driver.source is Source.IMAGE:
        _bundles(walk)


def _bundles(walk: Walk) -> None:
    BundleCache().preflight(walk.host.engine, walk.host.block.bundle_kind)


def _image(walk: Walk) -> None:
    block = walk.host.block
    image = ImageCache().ensure(block.image, walk.host.report)
    needed = Can.IDENTITY if image.first_boot is FirstBoot.IDENTITY else Can.CLOUD_INIT
    if needed not in walk.host.driver.can:
        raise TemplateError(
            f"The {walk.host.record.driver_name} driver cannot boot the image {image.name} "
            f"(first boot: {image.first_boot})",
            hint="machine image ls shows the images; choose another template",
        )
    if block.cloud_init and image.first_boot is not FirstBoot.CLOUD_INIT:
        raise TemplateError(
            f"The image {image.name} does not run cloud-init, so the template's cloud_init would "
            "have no effect",
            hint="machine image ls shows the images and how each of them boots first",
        )
    if block.disk_gib < image.disk_gib:
        raise BadOption(
            f"The image {image.name} is larger than the disk of {block.disk_gib} GiB",
            hint=f"Give the machine a disk of {image.disk_gib} GiB or more",
        )
    block.image_digest = image.digest


def _bundle(walk: Walk) -> None:
    image = walk.image
    bootstrap.ensure_bundle(walk.host, image.os, image.os_version, image.arch)


def _layer(walk: Walk) -> None:
    """Before anything is made: a machine that is there already has what it began with."""
    host, block = walk.host, walk.host.block
    if "vm" in block.journal.done or not block.use_layers:
        return
    if reason := layers.missing(walk.image):
        if walk.image.first_boot is FirstBoot.IDENTITY or block.warm:
            host.report.note(f"Without a layer: {reason}")
        return
    try:
        layer = layers.engine(walk.image, walk.bundle, host.report)
    except (ImageError, LayerError, DiskFull, CommandFailed) as exc:
        host.report.warn(f"Without a layer: {exc.brief}")
        return
    layer.note_use()
    block.layers = [layer.key]
    try:
        warm = layers.warm(host, walk.spec(NOBODY), host.report, build=block.warm)
    except WarmRefused as exc:
        if block.warm:
            host.report.note(f"Without a warm start: {exc.brief}")
        return
    except MachineError as exc:  # it would have been quicker, and can be done without
        last = exc.details.strip().splitlines()[-1:]
        host.report.warn(": ".join(["Without a warm start", exc.brief, *last]))
        return
    if warm:
        warm.note_use()
        block.layers.append(warm.key)


def _keys(walk: Walk) -> None:
    from machine import keys
    from machine.tls import Authority

    host, folder = walk.host, walk.host.folder
    source = host.driver.source
    public = host.driver.host_key()
    if source in (Source.IMAGE, Source.PROVIDER):
        user, guest = keys.ed25519(comment=host.name), keys.ed25519(comment=host.name)
        write(folder.ssh_key, user.private.encode())
        write(folder.ssh_key_public, user.public.encode() + b"\n", mode=0o644)
        write(folder.host_key, guest.private.encode())
        public = guest.public
    if public:
        write(folder.known_hosts, ssh.known_hosts_line(public).encode(), mode=0o644)
    Authority(host.store.folders.certs, certs_lock(host.store)).ensure()
    bootstrap.copy_client_certs(host)


def _vm(walk: Walk) -> None:
    from machine.keys import public_of

    host, block, folder = walk.host, walk.host.block, walk.host.folder
    host.driver.reserve(host.engine_port)
    if host.driver.source in (Source.HOST, Source.ENGINE):
        host.driver.create(walk.spec(NOBODY))
        return
    given_key = folder.host_key.read_text()
    identity = Identity(
        hostname=host.name,
        machine_id=block.id.replace("-", ""),
        user=block.user,
        authorized_keys=(folder.ssh_key_public.read_text().strip(),),
        host_key=given_key,
        host_key_public=public_of(given_key),
        cloud_init=block.cloud_init,
        files=_engine_files(host) if walk.ready_made else (),
    )
    media: tuple[Medium, ...] = ()
    if Can.MEDIA in host.driver.can and not block.layers:
        media = (Medium(LABEL, walk.bundle.path, walk.bundle.sha256),)
    try:
        _make(walk, identity, media)
    except DigestMismatch:
        if not block.layers:
            raise
        name = block.layers[0][:KEY_DIGITS]
        host.report.warn(f"The layer {name} is damaged: it is made again")
        LayerCache().remove(name)
        del walk.base, block.layers[1:]
        _make(walk, identity, media)


def _make(walk: Walk, identity: Identity, media: tuple[Medium, ...]) -> None:
    """From saved memory if there is some that fits, or else to be booted."""
    host, spec = walk.host, walk.spec(identity, media)
    if warm := walk.warm:
        try:
            host.driver.create(replace(spec, warm=warm))
        except WarmRefused as exc:
            host.report.warn(f"It starts cold: {exc.brief}")
            if exc.spent:
                LayerCache().remove(warm.folder.name)
        else:
            return
    del host.block.layers[1:]
    host.driver.create(spec)


def _engine_files(host: Host) -> tuple[GuestFile, ...]:
    """What the engine is to find at its first start, its own certificate among it."""
    bootstrap.issue_server_certificate(host)
    settings = bootstrap.settings(host, bootstrap.server_tls(host))
    return host.engine.first_boot(host.block.bundle_kind, settings)


def _boot(walk: Walk) -> None:
    host = walk.host
    if host.driver.source is Source.HOST:
        walk.login = host.guest(timeout=30)
        if host.setup is not Setup.REGISTER:
            walk.login.run("true", sudo=True)  # whoever may not become root is told at once
        host.block.user = walk.login.user
        return
    try:
        walk.login = _first_login(host)
        if walk.has_cloud_init:
            walk.close()  # what cloud-init changes of the user counts from the next login on
            bootstrap.wait_for_cloud_init(host)
        if host.driver.source is Source.PROVIDER:
            host_key.replace(host)
    except GuestError:
        raise
    except MachineError as exc:
        exc.details = console.explain(host, exc.details)
        raise
    host.record.note_address(host.address())


def _first_login(host: Host) -> SshGuest:
    try:
        return bootstrap.wait_for_ssh(host)
    except HostKeyMismatch:
        if not host_key.adopt(host):
            raise
        return bootstrap.wait_for_ssh(host)


def _system(walk: Walk) -> None:
    """A host that was there before keeps its name."""
    provisioner = walk.session.provisioner
    if walk.host.driver.source is not Source.HOST:
        provisioner.set_hostname(walk.host.name)


def _install(walk: Walk) -> None:
    if walk.host.driver.source is Source.IMAGE:
        walk.session.install_engine(walk.bundle)
        return
    walk.keep()
    if not walk.session.ensure_engine():
        walk.host.report.note("It has an engine already, which stays")


def _configure(walk: Walk) -> None:
    if walk.host.setup is Setup.ADOPT:
        walk.session.require_engine()
    walk.keep()
    walk.session.configure_engine(fresh_certificate=True)


def _start(walk: Walk) -> None:
    walk.session.engine.restart()
    if not walk.is_of_ours:
        existing.pass_firewall(walk.session)


def _verify(walk: Walk) -> None:
    bootstrap.verify(walk.host)


def _settle(walk: Walk) -> None:
    host = walk.host
    host.driver.settle()
    if host.driver.source in (Source.HOST, Source.ENGINE):
        host.record.note_address(host.address())
        host.record.note_login(host.login)
    host.folder.host_key.unlink(missing_ok=True)
    entries.renew(host)


STEPS: Final[tuple[tuple[str, str, Callable[[Walk], None]], ...]] = (
    ("preflight", "Checking that it can be made", _preflight),
    ("image", "Getting the image", _image),
    ("bundle", "Getting the engine bundle", _bundle),
    ("layer", "Looking for a layer", _layer),
    ("keys", "Making keys and certificates", _keys),
    ("vm", "Making the VM", _vm),
    ("boot", "Waiting for SSH", _boot),
    ("system", "Detecting the system", _system),
    ("install", "Installing the engine", _install),
    ("configure", "Configuring the engine", _configure),
    ("start", "Starting the engine", _start),
    ("verify", "Asking the engine over TLS", _verify),
    ("settle", "Removing first-boot media", _settle),
)
"""Names are stored in the journal: renaming one breaks the resuming of older records."""
