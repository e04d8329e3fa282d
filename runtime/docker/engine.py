"""Docker: dockerd behind mutual TLS on 2376, its own files in /etc/docker."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from machine.engine import Archive, Engine, Recipe, ServerTls
from machine.errors import BadOption, CommandFailed, EngineError, EngineUnreachable
from machine.model import Address, BundleKind, EngineInfo, EngineOptions, GuestFile, TlsFiles
from machine.runtime.docker import context, static

DAEMON_JSON: Final = "/etc/docker/daemon.json"
DROP_IN: Final = "/etc/systemd/system/docker.service.d/10-machine.conf"
CA, CERT, KEY = "/etc/docker/ca.pem", "/etc/docker/server.pem", "/etc/docker/server-key.pem"
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

    _before: dict[str, bytes | None] | None = None  # configuration to go back to

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
        return words[2].rstrip(",") if shown.ok and len(words) > 2 else None

    def install(self, folder: str, kind: str) -> None:
        if kind == BundleKind.STATIC:
            static.install(self.guest, self.provisioner, f"{folder}/archive")
        else:
            self.provisioner.install_packages(f"{folder}/packages")

    def configure(self, options: EngineOptions, labels: Mapping[str, str], tls: ServerTls) -> bool:
        """Merged daemon.json, validated by dockerd itself; TLS files; the listener's drop-in."""
        present = self.guest.get(DAEMON_JSON, sudo=True)
        wanted = merge(_parse(present), options, labels)
        if not (dockerd := self._dockerd()):
            raise EngineError(
                "There is no dockerd on this host", hint="machine provision NAME installs it"
            )
        containerd = CONTAINERD
        if static.is_installed(self.guest, dockerd):
            self._require_firewall(wanted)
            containerd = ""
        files = {
            CA: (tls.ca, 0o644),
            CERT: (tls.cert, 0o644),
            KEY: (tls.key, 0o600),
            DROP_IN: (drop_in(dockerd, options.env, containerd).encode(), 0o644),
        }
        if present is None or _parse(present) != wanted:
            content = _json(wanted)
            self._validate(content, dockerd)
            files[DAEMON_JSON] = (content, 0o644)
        before = {path: self.guest.get(path, sudo=True) for path in files}
        changed = {path: new for path, new in files.items() if before[path] != new[0]}
        for path, (content, mode) in changed.items():
            self.guest.put(content, path, mode=mode)
        if changed:
            self._before = {path: before[path] for path in changed}
            self.provisioner.reload_services()
        return bool(changed)

    @classmethod
    def boots_configured(cls, options: EngineOptions) -> bool:
        """Labels, registries and the like can be wrong, and dockerd says so only when it starts."""
        return merge({}, options, {}) == merge({}, EngineOptions(), {})

    @classmethod
    def first_boot(
        cls, kind: str, options: EngineOptions, labels: Mapping[str, str], tls: ServerTls
    ) -> tuple[GuestFile, ...]:
        static_kind = kind == BundleKind.STATIC
        dockerd = "/usr/local/bin/dockerd" if static_kind else "/usr/sbin/dockerd"
        listener = drop_in(dockerd, options.env, "" if static_kind else CONTAINERD)
        units = static.UNITS if static_kind else "/usr/lib/systemd/system"
        return (
            GuestFile(DAEMON_JSON, _json(merge({}, options, labels))),
            GuestFile(CA, tls.ca),
            GuestFile(CERT, tls.cert),
            GuestFile(KEY, tls.key, mode=0o600),
            GuestFile(DROP_IN, listener.encode()),
            GuestFile(
                f"/etc/systemd/system/multi-user.target.wants/{cls.unit}",
                link=f"{units}/{cls.unit}",
            ),
        )

    @classmethod
    def rehearsal(cls) -> str:
        return (Path(__file__).parent / "rehearse.sh").read_text()

    def restart(self) -> None:
        self.provisioner.enable_service(self.unit)
        try:
            self.provisioner.restart_service(self.unit, timeout=300)
        except CommandFailed as exc:
            details = exc.details
            if self._before and all(old is not None for old in self._before.values()):
                self._put_back()
                details += "\nThe configuration from before is back in place."
            raise EngineError(
                "dockerd does not start with its new configuration",
                details=details,
                hint="Look at the --engine-opt values",
            ) from exc

    @classmethod
    def probe(cls, address: Address, tls: TlsFiles, *, timeout: float) -> EngineInfo:
        from machine.runtime.docker import api  # and ssl, which most commands do without

        return api.version(address, tls, timeout=timeout)

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
    def check_context(cls, name: str, mark: str) -> None:
        context.check(name, mark)

    @classmethod
    def write_context(cls, name: str, url: str, tls: TlsFiles, mark: str) -> None:
        context.write(name, url, tls, mark)

    @classmethod
    def remove_context(cls, name: str, mark: str) -> None:
        context.remove(name, mark)

    def _put_back(self) -> None:
        for path, content in (self._before or {}).items():
            if content is not None:
                self.guest.put(content, path, mode=0o600 if path == KEY else 0o644)
        self.provisioner.reload_services()
        self.provisioner.restart_service(self.unit, timeout=300)

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
        trial = f"{DAEMON_JSON}.trial"
        self.guest.put(content, trial)
        try:
            # It looks for docker-proxy too, and sudo has a PATH of its own.
            words = ("env", f"PATH={static.PATH}", dockerd, "--validate", "--config-file", trial)
            self.guest.run(*words, sudo=True, timeout=120)
        except CommandFailed as exc:
            if "unknown flag: --validate" in exc.details:
                return  # 20.10, Debian 12's: its start is the test then
            raise EngineError(
                "dockerd refuses the engine options", details=exc.details, hint="See --engine-opt"
            ) from exc
        finally:
            self.guest.run("rm", "-f", trial, sudo=True, check=False)


def merge(
    present: Mapping[str, Any], options: EngineOptions, labels: Mapping[str, str]
) -> dict[str, Any]:
    """daemon.json as it should be: keys of the user's stay, the options' keys win."""
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
    return {**present, **ours}


_LISTS: Final = frozenset({"dns", "dns-opts", "dns-search", "storage-opts", "exec-opts", "labels"})
"""Keys of dockerd that repeat on its command line and are lists in daemon.json."""


def drop_in(dockerd: str, env: tuple[str, ...], containerd: str = CONTAINERD) -> str:
    """The unit's listener: `hosts` in daemon.json is refused beside -H on the command line.
    Without the address of a ``containerd``, dockerd runs its own."""
    lines = ["[Service]", "ExecStart="]
    lines.append(
        f"ExecStart={dockerd} -H fd:// -H tcp://0.0.0.0:{DockerEngine.port} --tlsverify "
        f"--tlscacert={CA} --tlscert={CERT} --tlskey={KEY}"
        + (f" --containerd={containerd}" if containerd else "")
    )
    for each in env:
        # systemd.exec(5): quotes group, backslash escapes, % is a specifier
        escaped = each.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
        lines.append(f'Environment="{escaped}"')
    return "\n".join(lines) + "\n"


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
