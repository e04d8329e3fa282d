"""`machine bundle`."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from machine import registry
from machine.cli import complete, context, output, progress
from machine.download import is_url
from machine.engine import GOARCH
from machine.errors import BundleError, UsageError
from machine.events import Reporter
from machine.model import BundleKind
from machine.runtime.bundle import ANY, Bundle, BundleCache, obtain

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
Ref = Annotated[str, typer.Argument(metavar="BUNDLE", autocompletion=complete.bundles)]


@app.command()
def ls(output_format: context.Output = "text") -> None:
    """List the bundles of this computer."""
    cache = BundleCache()
    bundles = cache.list()
    if context.is_json(output_format):
        output.envelope("bundles", [output.plain(each) for each in bundles])
    else:
        heads = ("NAME", "KIND", "VERSION", "FOR", "ARCH", "SHA256", "MIB")
        output.table(heads, [_row(each) for each in bundles])
    for problem in cache.problems():
        output.say(f"Warning: {problem.brief} ({problem.details}): {problem.hint}")


@app.command()
def show(ref: Ref, output_format: context.Output = "json") -> None:
    """Print what is known of a bundle, as JSON."""
    context.is_json(output_format)
    output.envelope("bundle", output.plain(BundleCache().get(ref)))


@app.command()
def build(
    engine: Annotated[str, typer.Argument(metavar="ENGINE")] = "docker",
    kind: Annotated[
        str, typer.Option(help="packages (of a distribution) or static (upstream's archive)")
    ] = BundleKind.PACKAGES,
    os_id: Annotated[str, typer.Option("--os", help="packages: os-release ID (debian)")] = "",
    os_version: Annotated[
        str, typer.Option("--os-version", help="packages: os-release VERSION_ID (13)")
    ] = "",
    source: Annotated[
        str, typer.Option("--from", metavar="FILE|URL", help="static: upstream's archive")
    ] = "",
    sha256: Annotated[str, typer.Option(help="static: the digest that it must have")] = "",
    version: Annotated[
        str, typer.Option("--version", help="static: where FILE's name does not say it")
    ] = "",
    arch: Annotated[
        str, typer.Option(help="static: uname -m of the guests (this computer's)")
    ] = "",
    output_format: context.Output = "text",
) -> None:
    """Make an engine's bundle: from packages that are downloaded now, or from upstream's archive."""
    as_json = context.is_json(output_format)
    _check_options(kind, (os_id, os_version), (source, sha256, version, arch))
    arch = arch or os.uname().machine
    cls, report = registry.engine(engine), Reporter(progress.sink(as_json=as_json))
    cache = BundleCache()
    make: Callable[[], Bundle]
    if kind == BundleKind.PACKAGES:
        system = (os_id or "debian", os_version or "13")
        make = partial(cache.build_packages, cls, *system, arch, report)
    elif not source or ("://" in source and not (is_url(source) and sha256)):
        raise UsageError(
            "A static bundle is made from upstream's archive: --from FILE, or --from URL with "
            "the --sha256 that it must have",
            hint=obtain(cls, arch),
        )
    else:

        def make() -> Bundle:
            file = cache.fetch(source, sha256, report) if is_url(source) else Path(source)
            made = cache.build_static(cls, file, arch, report, version=version, sha256=sha256)
            if is_url(source):
                file.unlink()
            return made

    made = progress.run({engine: make})[engine]
    if as_json:
        output.json_line("bundle", output.plain(made))
        return
    output.say(f"Made {made.name}: {made.engine} {made.version} for {_system(made)}, {made.arch}")
    output.value(made.sha256)


@app.command()
def verify(ref: Ref, output_format: context.Output = "text") -> None:
    """Compare a bundle with its digest."""
    as_json = context.is_json(output_format)
    bundle = BundleCache().get(ref)
    BundleCache().verify(bundle)
    if as_json:
        output.envelope("bundle", output.plain(bundle))
    else:
        output.say(f"{ref} is as it was made")


@app.command()
def rm(ref: Ref, output_format: context.Output = "text") -> None:
    """Remove a bundle; a create that needs one of packages builds it again."""
    as_json = context.is_json(output_format)
    BundleCache().remove(ref)
    if as_json:
        output.envelope("removed", {"name": ref})
    else:
        output.say(f"Removed {ref}")


@app.command()
def unpack(
    ref: Ref,
    member: Annotated[str, typer.Option(help="name of one package in it")],
    to: Annotated[Path, typer.Option(help="folder to unpack into")],
) -> None:
    """Unpack one package file of a bundle, and print its path."""
    bundle = BundleCache().get(ref)
    wanted = [name for name, _ in bundle.files if Path(name).name.startswith(f"{member}_")]
    if not wanted:
        raise BundleError(f"{ref} holds no package {member}", hint=f"machine bundle show {ref}")
    target = to / Path(wanted[0]).name
    to.mkdir(parents=True, exist_ok=True)
    with tarfile.open(bundle.path) as tar, target.open("wb") as file:
        content = tar.extractfile(wanted[0])
        assert content
        shutil.copyfileobj(content, file)
    output.value(str(target))


def _check_options(kind: str, packages: tuple[str, str], static: tuple[str, str, str, str]) -> None:
    """Each option belongs to one kind. Raises UsageError."""
    _, sha256, _, arch = static
    if kind not in list(BundleKind):
        raise UsageError(f"--kind is {kind!r}, and must be {' or '.join(BundleKind)}")
    if kind == BundleKind.PACKAGES and any(static):
        raise UsageError("--from, --sha256, --version and --arch go with --kind static")
    if kind == BundleKind.STATIC and any(packages):
        raise UsageError("--os and --os-version go with --kind packages: a static bundle fits any")
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"--sha256 is {sha256!r}, and must be 64 hexadecimal digits")
    if arch and arch not in GOARCH:
        raise UsageError(f"--arch is {arch!r}, and must be {' or '.join(GOARCH)}")


def _row(bundle: Bundle) -> tuple[str, ...]:
    size = str(bundle.path.stat().st_size >> 20)
    digest = bundle.sha256[:12]
    return bundle.name, bundle.kind, bundle.version, _system(bundle), bundle.arch, digest, size


def _system(bundle: Bundle) -> str:
    if bundle.os_id == ANY:
        return "any distribution"
    return f"{bundle.os_id} {bundle.os_version}"
