"""Docker: dockerd behind mutual TLS on 2376, its own files in /etc/docker."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from machine import systemd
from machine.engine import Archive, Engine, Footprint, Recipe, Settings
from machine.errors import BadOption, CommandFailed, EngineError, EngineUnreachable
from machine.model import (
    Address,
    BundleKind,
    EngineInfo,
    EngineOptions,
    FileChange,
    GuestFile,
    Project,
    Standing,
    TlsFiles,
    Verdict,
)
from machine.runtime.docker import context, listener, static
from machine.runtime.docker.listener import CA, CERT, KEY

if TYPE_CHECKING:
    from docker import APIClient

    from machine.container_image import Images
    from machine.guest import Guest
    from machine.swarm import Swarm

DAEMON_JSON: Final = "/etc/docker/daemon.json"
SOCKET_UNIT: Final = "docker.socket"
CONTAINERD: Final = "/run/containerd/containerd.sock"
"""Of the packages' containerd, which is a service of its own."""


class DockerEngine(Engine):
    name: ClassVar[str] = "docker"
    port: ClassVar[int] = 2376
    service: ClassVar[str] = "docker"
    unit: ClassVar[str] = "docker.service"
    door: ClassVar[str] = CERT
    """dockerd loads its certificate before containerd, its id and its networks (26.1: newAPIServer-
    TLSConfig comes first in DaemonCli.start); a running one would have to be restarted for it."""
    archive: ClassVar[Archive | None] = static.ARCHIVE

    _changed: Sequence[FileChange] = ()  # to go back from
    _ran: bool = False  # before that

    @classmethod
    def recipe(cls, os_id: str, os_version: str) -> Recipe | None:
        if os_id != "debian":
            return None
        # Since Debian 13 the client is a package of its own; in 12 it is part of docker.io.
        client = () if os_version == "12" else ("docker-cli",)
        return Recipe(("docker.io", *client, "iptables", "apparmor"))

    def installed_version(self) -> str | None:
        if not (dockerd := self._dockerd()):
            return None
        shown = self.guest.run(dockerd, "--version", sudo=True, check=False)
        words = shown.stdout.split()  # Docker version 26.1.5+dfsg1, build a72d7cd
        if shown.ok and len(words) > 2:
            return words[2].rstrip(",")
        if self.provisioner.is_cut_off():
            return None
        raise EngineError(
            "There is an engine on the host, and it does not run",
            details=f"$ {dockerd} --version\n{(shown.stderr or shown.stdout).strip()}",
            hint="Mend it there, or remove it: then one is installed",
        )

    def installed_kind(self) -> str:
        if not (dockerd := self._dockerd()):
            return ""
        is_static = static.is_installed(self.guest, dockerd)
        return BundleKind.STATIC if is_static else BundleKind.PACKAGES

    def install(self, folder: str, kind: str, *, exact: bool = False) -> None:
        if kind == BundleKind.STATIC:
            static.install(self.guest, self.provisioner, f"{folder}/archive")
            return
        self.provisioner.install_packages(f"{folder}/packages", exact=exact)
        if self.installed_kind() == BundleKind.STATIC:
            static.step_aside(self.guest, self.provisioner)

    def tidy(self) -> None:
        static.tidy(self.guest, in_use=self.installed_kind() == BundleKind.STATIC)

    def changes(self, settings: Settings, kind: str = "") -> Sequence[FileChange]:
        """Where there is a dockerd, it validates its configuration itself."""
        dockerd = self._dockerd()
        if not dockerd and not kind:
            raise EngineError(
                "There is no dockerd on this host", hint="machine provision NAME installs it"
            )
        own = self.provisioner.service_arguments(self.unit) if dockerd else None
        if dockerd and own is None:
            raise EngineError(
                f"There is a dockerd on the host ({dockerd}), and no service {self.unit} starts it",
                hint="Give it one there; --register leaves it as it is",
            )
        paths = [DAEMON_JSON, CA, CERT, KEY, *self.provisioner.overrides(self.unit)]
        there = self.guest.get_all(paths, sudo=True)
        present = there[DAEMON_JSON]
        configured = _parse(present)
        tls = settings.tls
        files = {CA: (tls.ca, 0o644), CERT: (tls.cert, 0o644), KEY: (tls.key, 0o600)}
        if settings.adopt:
            listener.require_room(own or "", configured, settings.port)
            arguments = [*listener.local(own or ""), *listener.remote(settings.port)]
            override = self.provisioner.override_service(self.unit, arguments)
        else:
            wanted = merge(configured, settings.options, settings.labels, settings.former)
            listener.require_room("", wanted, settings.port)
            is_static = kind == BundleKind.STATIC
            if dockerd:
                is_static = static.is_installed(self.guest, dockerd)
            containerd = "" if is_static or "containerd" in wanted else CONTAINERD
            if is_static and dockerd:
                self._require_firewall(wanted)
            local = "fd://" if self._has_socket(dockerd) else listener.SOCKET
            override = self.provisioner.override_service(
                self.unit,
                ["-H", local, *listener.remote(settings.port, containerd)],
                program=dockerd or _dockerd_of(kind),
                env=settings.options.env,
            )
            if present is None or configured != wanted:
                content = _json(wanted)
                if dockerd:
                    self._validate(content, dockerd)
                files[DAEMON_JSON] = (content, self._mode(DAEMON_JSON) if present else 0o644)
        files[override.path] = (override.content, override.mode)
        return [
            FileChange(path, there[path], content, mode)
            for path, (content, mode) in files.items()
            if there[path] != content
        ]

    def configure(self, settings: Settings) -> bool:
        changes = self.changes(settings)
        if not changes:
            return False
        state = self.provisioner.service_state(self.unit)
        self._changed, self._ran = changes, state is not None and state.active
        for change in changes:
            self.guest.put(change.after, change.path, mode=change.mode)
        self.provisioner.reload_services()
        return True

    def footprint(self) -> Footprint:
        return Footprint(
            files=(
                *(DAEMON_JSON, CA, CERT, KEY, "/etc/docker/key.json"),
                *self.provisioner.overrides(self.unit),
                *self.provisioner.service_files(static.DEFINITIONS),
                *static.LINKS,
            ),
            trees=(static.HOME,),
            in_use=(static.CURRENT,),
            units=(self.unit, SOCKET_UNIT, "containerd.service"),
            group="docker",
            data=("/var/lib/docker", "/var/lib/containerd"),
            folders=("/opt/containerd/bin", "/opt/containerd/lib"),
            erasers=("/var/lib/docker/nuke-graph-directory.sh",),  # docker.io's postrm calls it
        )

    def at_stake(self) -> str:
        client = self._which("docker")
        if not client:
            return ""
        local = ("-H", listener.SOCKET)
        running = self.guest.run(client, *local, "ps", "--quiet", sudo=True, check=False)
        count = len(running.stdout.split()) if running.ok else 0
        if not count:
            return ""
        live = self.guest.run(
            client, *local, "info", "--format", "{{.LiveRestoreEnabled}}", sudo=True, check=False
        )
        if live.stdout.strip() == "true":
            return ""
        containers = "1 container runs" if count == 1 else f"{count} containers run"
        return f"{containers}, and live-restore is off"

    @classmethod
    def boots_configured(cls, options: EngineOptions) -> bool:
        """Labels, registries and the like can be wrong, and dockerd says so only when it starts."""
        return merge({}, options, {}) == merge({}, EngineOptions(), {})

    @classmethod
    def first_boot(cls, kind: str, settings: Settings) -> tuple[GuestFile, ...]:
        static_kind = kind == BundleKind.STATIC
        containerd = "" if static_kind else CONTAINERD
        words = [_dockerd_of(kind), "-H", "fd://", *listener.remote(settings.port, containerd)]
        units = static.UNITS if static_kind else "/usr/lib/systemd/system"
        return (
            GuestFile(DAEMON_JSON, _json(merge({}, settings.options, settings.labels))),
            GuestFile(CA, settings.tls.ca),
            GuestFile(CERT, settings.tls.cert),
            GuestFile(KEY, settings.tls.key, mode=0o600),
            systemd.drop_in(cls.unit, systemd.joined(words), settings.options.env),
            GuestFile(
                f"/etc/systemd/system/multi-user.target.wants/{cls.unit}",
                link=f"{units}/{cls.unit}",
            ),
        )

    @classmethod
    def rehearsal(cls) -> str:
        return (Path(__file__).parent / "rehearse.sh").read_text()

    def stop(self) -> None:
        if self.provisioner.has_socket(SOCKET_UNIT):
            self.provisioner.stop_service(SOCKET_UNIT)  # or a client's call would start it again
        self.provisioner.stop_service(self.unit)

    def restart(self) -> None:
        self.provisioner.enable_service(self.unit)
        try:
            self.provisioner.restart_service(self.unit, timeout=300)
        except CommandFailed as exc:
            brief, details = "dockerd does not start", _told(exc.details)
            if self._changed:
                brief += " with its new configuration"
            if self._ran:
                details += self._put_back()
            hint = f"Look at the --engine-opt values, and at {DAEMON_JSON} on the host"
            raise EngineError(brief, details=details, hint=hint) from exc

    @classmethod
    def probe(cls, address: Address, tls: TlsFiles, *, timeout: float) -> EngineInfo:
        from machine.runtime.docker import api  # and ssl, which most commands do without

        return api.version(address, tls, timeout=timeout)

    @classmethod
    def api(
        cls, address: Address, tls: TlsFiles, *, timeout: float = 60
    ) -> AbstractContextManager[APIClient]:
        from machine.runtime.docker import client

        return client.connected(address, tls, timeout=timeout)

    @classmethod
    def swarm(cls, client: APIClient) -> Swarm:
        from machine.runtime.docker.swarm import DockerSwarm

        return DockerSwarm(client)

    @classmethod
    def images(cls, client: APIClient) -> Images:
        from machine.runtime.docker.images import DockerImages

        return DockerImages(client)

    @classmethod
    def standing(cls, client: APIClient) -> Standing:
        from machine.runtime.docker import glance

        return glance.standing(client)

    @classmethod
    def containers(cls, client: APIClient) -> Mapping[str, str]:
        from machine.runtime.docker import glance

        return glance.containers(client)

    @classmethod
    def check(cls, guest: Guest, client: APIClient, address: Address) -> Iterator[Verdict]:
        from machine.runtime.docker.check import walk

        return walk.through(guest, client, address)

    @classmethod
    def survey(
        cls, engines: Mapping[str, tuple[Address, TlsFiles]], *, timeout: float
    ) -> Iterator[tuple[str, EngineInfo | EngineUnreachable]]:
        from machine.runtime.docker import api

        return api.versions(engines, timeout=timeout)

    @classmethod
    def client_env(cls, url: str, tls_folder: Path) -> dict[str, str | None]:
        return {
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_HOST": url,
            "DOCKER_CERT_PATH": str(tls_folder),
        }

    @classmethod
    def project(
        cls, arguments: Sequence[str], env: Mapping[str, str | None], exclude: Sequence[str] = ()
    ) -> Project:
        from machine.runtime.docker import compose

        return compose.project(arguments, env, exclude)

    @classmethod
    def check_context(cls, name: str, mark: str) -> None:
        context.check(name, mark)

    @classmethod
    def write_context(cls, name: str, url: str, tls: TlsFiles, mark: str) -> None:
        context.write(name, url, tls, mark)

    @classmethod
    def remove_context(cls, name: str, mark: str) -> None:
        context.remove(name, mark)

    def _put_back(self) -> str:
        """Answers what came of it, a line."""
        for change in self._changed:
            if change.before is None:
                self.guest.run("rm", "-f", change.path, sudo=True)
            else:
                self.guest.put(change.before, change.path, mode=change.mode)
        self._changed = ()
        self.provisioner.reload_services()
        try:
            self.provisioner.restart_service(self.unit, timeout=300)
        except CommandFailed:
            return "\nNor does it with the configuration from before, which is back in place."
        return "\nThe configuration from before is back in place."

    def _has_socket(self, dockerd: str) -> bool:
        """Whether the service manager hands it one, or will when it is installed."""
        if dockerd:
            return self.provisioner.has_socket(SOCKET_UNIT)
        files = self.provisioner.service_files(static.DEFINITIONS)
        return any(path.endswith(f"/{SOCKET_UNIT}") for path in files)

    def _mode(self, path: str) -> int:
        """A file keeps the mode that its owner gave it."""
        shown = self.guest.run("stat", "-c", "%a", path, sudo=True, check=False)
        return int(shown.stdout, 8) if shown.ok else 0o644

    def _dockerd(self) -> str:
        """Its path; "" where there is none. Not every login has these folders in its PATH."""
        return self._which("dockerd")

    def _which(self, program: str) -> str:
        search = f"PATH=/usr/local/bin:$PATH:/usr/sbin:/sbin; command -v {program}"
        return self.guest.run("sh", "-c", search, check=False).stdout.strip()

    def _require_firewall(self, configuration: Mapping[str, Any]) -> None:
        """dockerd refuses to start without the program that it sets NAT rules with, and says so
        only in its log. A bundle of packages brings it; with a static one it is the guest's own."""
        if configuration.get("iptables") is False:
            return
        program = "nft" if configuration.get("firewall-backend") == "nftables" else "iptables"
        if not self._which(program):
            raise EngineError(
                f"This guest has no {program}, and dockerd needs it for its containers' network",
                hint=f'Use an image with {program} in it, or bundle = "packages"; '
                "--engine-opt iptables=false does without, and publishes no ports",
            )

    def _validate(self, content: bytes, dockerd: str) -> None:
        # Behind a cat: standard input may be a socket, which /dev/stdin does not open.
        command = f'cat | exec env PATH={static.PATH} "$0" --validate --config-file /dev/stdin'
        try:
            # It looks for docker-proxy too, and sudo has a PATH of its own.
            self.guest.run("sh", "-c", command, dockerd, sudo=True, stdin=content, timeout=120)
        except CommandFailed as exc:
            if "unknown flag: --validate" in exc.details:
                return  # 20.10, Debian 12's: its start is the test then
            raise EngineError(
                "dockerd refuses the engine options", details=exc.details, hint="See --engine-opt"
            ) from exc


def _told(log: str) -> str:
    """Of a log's end, what is more than news."""
    lines = log.splitlines()
    return "\n".join([line for line in lines if "level=info" not in line] or lines)


def _dockerd_of(kind: str) -> str:
    """Where a bundle puts it."""
    return "/usr/local/bin/dockerd" if kind == BundleKind.STATIC else "/usr/sbin/dockerd"


NONE: Final = EngineOptions()


def merge(
    present: Mapping[str, Any],
    options: EngineOptions,
    labels: Mapping[str, str],
    former: EngineOptions = NONE,
) -> dict[str, Any]:
    """daemon.json as it should be: keys of the user's stay, the options' keys win. What ``former``
    options had set, and these do not, goes, unless somebody gave it another value since."""
    ours = _keys(options, labels)
    before = _keys(former, labels)
    kept = {
        key: value
        for key, value in present.items()
        if key in ours or key not in before or before[key] != value
    }
    return {**kept, **ours}


def _keys(options: EngineOptions, labels: Mapping[str, str]) -> dict[str, Any]:
    """Those of daemon.json that options say."""
    ours: dict[str, Any] = {
        "labels": [*(f"{key}={value}" for key, value in labels.items()), *options.labels]
    }
    if options.insecure_registries:
        ours["insecure-registries"] = list(options.insecure_registries)
    if options.registry_mirrors:
        ours["registry-mirrors"] = list(options.registry_mirrors)
    if options.storage_driver:
        ours["storage-driver"] = options.storage_driver
    for text in options.opts:
        key, sign, value = text.lstrip("-").partition("=")
        if not key:
            raise BadOption(f"--engine-opt is {text!r}, and must be KEY=VALUE")
        typed = _value(value) if sign else True
        if key in ours and isinstance(ours[key], list):
            ours[key].append(typed)
        else:
            ours[key] = [typed] if key in _LISTS else typed
    return ours


_LISTS: Final = frozenset({"dns", "dns-opts", "dns-search", "storage-opts", "exec-opts", "labels"})
"""Keys of dockerd that repeat on its command line and are lists in daemon.json."""


def _json(configuration: Mapping[str, Any]) -> bytes:
    return json.dumps(configuration, indent=4).encode() + b"\n"


def _parse(content: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(content or b"{}")
    except ValueError as exc:
        raise EngineError(
            f"{DAEMON_JSON} on the host is not JSON", details=str(exc), hint="Mend it there first"
        ) from exc
    if not isinstance(value, dict):
        raise EngineError(f"{DAEMON_JSON} on the host is no JSON object")
    return value


def _value(text: str) -> Any:
    """true, false and whole numbers as JSON has them; all else is text."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdecimal() else text
