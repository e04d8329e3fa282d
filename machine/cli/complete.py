"""What may stand at a place of the command line: quick answers from file names alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from machine import registry


def machines(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Machines that are not named yet."""
    named = _named(ctx)
    return (name for name in _machines(ctx) if name not in named)


def machine(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """The one machine that a command takes."""
    return iter(()) if _named(ctx) else _machines(ctx)


def places(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """What `scp` takes: the beginning of MACHINE:PATH, and files here."""
    yield from (f"{name}:" for name in _machines(ctx))
    yield from files(ctx, incomplete)


def unfinished(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """What `create` takes: a new name, or with --resume a machine that is there."""
    return machines(ctx, incomplete) if ctx.params.get("resume") else iter(())


def templates(ctx: click.Context, incomplete: str) -> Iterator[str]:
    from machine import template

    yield from template.names()
    if "/" in incomplete:
        yield from files(ctx, incomplete)


def drivers(ctx: click.Context, incomplete: str) -> list[str]:
    return registry.names("machine.drivers", registry.DRIVERS)


def images(ctx: click.Context, incomplete: str) -> list[str]:
    from machine.images import ImageCache

    return list(ImageCache().names())


def known_images(ctx: click.Context, incomplete: str) -> list[str]:
    """Those that can be built or pulled, too."""
    from machine.images import ImageCache

    return sorted(ImageCache().known())


def bundles(ctx: click.Context, incomplete: str) -> list[str]:
    from machine.runtime.bundle import BundleCache

    return [path.stem for path in BundleCache().root.glob("*.json")]


def layers(ctx: click.Context, incomplete: str) -> list[str]:
    from machine.layers import MANIFEST, LayerCache

    return [path.parent.name for path in LayerCache().root.glob(f"[!.]*/{MANIFEST}")]


def outputs(ctx: click.Context, incomplete: str) -> list[str]:
    return ["text", "json"]


def files(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Files and folders that begin so; a folder ends in a slash, for typing to go on."""
    folder, slash, begun = incomplete.rpartition("/")
    try:
        entries = sorted(os.scandir(Path(folder + slash).expanduser()), key=lambda each: each.name)
    except OSError:
        return
    for entry in entries:
        if begun or not entry.name.startswith("."):
            yield f"{folder}{slash}{entry.name}{'/' if entry.is_dir() else ''}"


def for_click(
    candidates: Callable[[click.Context, str], Iterable[str]],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """The same for a parameter that is made without Typer."""
    return lambda ctx, param, incomplete: [
        each for each in candidates(ctx, incomplete) if each.startswith(incomplete)
    ]


def _machines(ctx: click.Context) -> Iterator[str]:
    from machine.store import Store

    root = ctx.find_root().params.get("storage_path")
    return iter(Store(Path(root).expanduser() if root else None).names())


def _named(ctx: click.Context) -> set[str]:
    """Every word that an argument of the command has taken so far."""
    taken = [ctx.params.get(each.name or "") for each in ctx.command.params]
    return {word for value in taken if isinstance(value, list | tuple) for word in value}
