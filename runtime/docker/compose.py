"""Docker Compose, as the user has it: which program, and what it makes of a project."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from machine import command
from machine.errors import CommandFailed, EngineError, PreflightError
from machine.model import Project, Published

VALUED: Final = frozenset(
    {
        *("-f", "--file", "-p", "--project-name", "--profile", "--env-file"),
        *("--project-directory", "--workdir", "--ansi", "--progress", "--parallel"),
    }
)
"""Options before the command that take the next word (docker compose --help)."""
FILES: Final = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
"""That are looked for upward from the working folder."""
LASTING: Final = frozenset({"up", "run", "watch", "attach", "exec", "logs", "wait"})
BRIEF: Final = frozenset({"create", "start", "restart"})
DETACHED: Final = frozenset({"-d", "--detach", "--no-start", "--wait"})
FOLLOWS: Final = frozenset({"-f", "--follow"})
HOW: Final = (
    "Debian 13: apt-get install docker-compose\n"
    "Ubuntu: apt-get install docker-compose-v2\n"
    "Elsewhere: https://docs.docker.com/compose/install/"
)


def project(
    arguments: Sequence[str], env: Mapping[str, str | None], exclude: Sequence[str]
) -> Project:
    """As Engine.project has it."""
    found = program()
    options = leading(arguments)
    words = arguments[len(options) :]
    folder = _folder(options)
    argv = (*found, *arguments)
    if not words or words[0] not in LASTING | BRIEF or {"--help", "-h"} & {*arguments}:
        return Project(argv, folder)
    config = _config(found, options, env)
    patterns = [*_patterns(folder / ".dockerignore"), *exclude]
    return Project(
        argv=argv,
        folder=folder,
        mounts=tuple(sorted(set(_mounts(config)))),
        ports=tuple(_ports(config)),
        uses_files=True,
        lasts=_lasts(words),
        ignore=_matcher(patterns),
        ignore_is_final=not any(each.startswith("!") for each in patterns),
    )


def program() -> tuple[str, ...]:
    """Compose as a plugin of docker's, or by its own name. Raises PreflightError."""
    plugin = ("docker", "compose")
    if command.which("docker") and command.run(*plugin, "version", check=False).ok:
        return plugin
    if not command.which("docker-compose"):
        raise PreflightError("There is no Docker Compose on this computer", hint=HOW)
    shown = command.run("docker-compose", "version", "--short", check=False)
    version = shown.stdout.strip().removeprefix("v")
    if version.startswith("1."):
        raise PreflightError(
            f"The docker-compose of this computer is version {version}, and 2 is needed",
            details="Version 1 has had no updates since 2023.",
            hint=HOW,
        )
    return ("docker-compose",)


def leading(arguments: Sequence[str]) -> list[str]:
    """The options before the command."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        at += 2 if arguments[at] in VALUED else 1
    return list(arguments[:at])


def _lasts(words: Sequence[str]) -> bool:
    """Of the command and its words, whether there is time to use the containers meanwhile."""
    given = {*words[1:]}
    if words[0] == "logs":
        return bool(FOLLOWS & given)
    return words[0] in LASTING and not (words[0] in ("up", "run", "exec") and DETACHED & given)


def _folder(options: Sequence[str]) -> Path:
    """What Compose takes for the project's folder (its reference, "--project-directory"). One that
    was reached through a link keeps that name, as Compose has it."""
    here = Path(os.environ.get("PWD") or Path.cwd())
    here = here if here.is_dir() and here.samefile(Path.cwd()) else Path.cwd()
    given = _value(options, "--project-directory", "--workdir")
    file = _value(options, "--file", "-f") or os.environ.get("COMPOSE_FILE", "").split(":")[0]
    if given:
        return Path(os.path.normpath(here / given))
    if file and file != "-":
        return Path(os.path.normpath(here / file)).parent
    return next(
        (each for each in (here, *here.parents) if any((each / name).exists() for name in FILES)),
        here,
    )


def _value(options: Sequence[str], *names: str) -> str:
    """The first that is given, as "--file NAME" or "--file=NAME"."""
    for at, word in enumerate(options):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else "".join(options[at + 1 : at + 2])
    return ""


def _config(
    found: Sequence[str], options: Sequence[str], env: Mapping[str, str | None]
) -> dict[str, Any]:
    """The project with everything filled in. Raises EngineError."""
    given = {name: value for name, value in env.items() if value is not None}
    try:
        shown = command.run(*found, *options, "config", "--format", "json", env=given)
        config: dict[str, Any] = json.loads(shown.stdout)
    except CommandFailed as exc:
        raise EngineError("Compose cannot read the project", details=exc.details) from exc
    except ValueError as exc:
        raise EngineError("Compose describes the project in words unknown here") from exc
    return config


def _mounts(config: Mapping[str, Any]) -> Iterator[Path]:
    """Paths of this computer that the engine is told to mount: by volumes of type bind, by volumes
    that are one, and by secrets and configs that are files."""
    services = config.get("services") or {}
    for service in services.values():
        for volume in service.get("volumes") or ():
            if volume.get("type") == "bind":
                yield Path(volume["source"])
        for kind in ("secrets", "configs"):
            for each in service.get(kind) or ():
                if file := (config.get(kind) or {}).get(each["source"], {}).get("file"):
                    yield Path(file)
    for volume in (config.get("volumes") or {}).values():
        options = (volume or {}).get("driver_opts") or {}
        if "bind" in options.get("o", "") and options.get("device", "").startswith("/"):
            yield Path(options["device"])


def _ports(config: Mapping[str, Any]) -> Iterator[Published]:
    for name, service in (config.get("services") or {}).items():
        for port in service.get("ports") or ():
            published = str(port.get("published") or "")
            if published.isdigit():  # else the engine chooses one, or has a choice
                host = port.get("host_ip") or ""
                any_address = host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
                protocol = port.get("protocol") or "tcp"
                yield Published(name, int(published), "" if any_address else host, protocol)


def _patterns(file: Path) -> list[str]:
    """Of a .dockerignore; none where there is none."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _matcher(patterns: list[str]) -> Callable[[str], bool]:
    """By Docker's own rules for .dockerignore."""
    if not patterns:
        return lambda path: False
    from docker.utils.build import PatternMatcher

    matcher = PatternMatcher(patterns)
    return lambda path: bool(matcher.matches(path))  # type: ignore[arg-type]
