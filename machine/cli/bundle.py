"""`machine bundle`."""

from __future__ import annotations

import dataclasses
import os
import tarfile
from pathlib import Path
from typing import Annotated

import typer

from machine import registry
from machine.cli import complete, context, output, progress
from machine.errors import BundleError
from machine.events import Reporter
from machine.runtime.bundle import Bundle, BundleCache

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
Ref = Annotated[str, typer.Argument(metavar="BUNDLE", autocompletion=complete.bundles)]


@app.command()
def ls(output_format: context.Output = "text") -> None:
    """List the bundles of this computer."""
    bundles = BundleCache().list()
    if context.is_json(output_format):
        output.envelope("bundles", [_data(each) for each in bundles])
        return
    output.table(
        ("NAME", "VERSION", "ARCH", "SHA256", "MIB"),
        [
            (
                each.name,
                each.version,
                each.arch,
                each.sha256[:12],
                str(each.path.stat().st_size >> 20),
            )
            for each in bundles
        ],
    )


@app.command()
def show(ref: Ref) -> None:
    """Print what is known of a bundle, as JSON."""
    output.envelope("bundle", _data(BundleCache().get(ref)))


@app.command()
def build(
    engine: Annotated[str, typer.Argument(metavar="ENGINE")] = "docker",
    os_id: Annotated[str, typer.Option("--os", help="os-release ID")] = "debian",
    os_version: Annotated[str, typer.Option("--os-version", help="os-release VERSION_ID")] = "13",
) -> None:
    """Resolve and download an engine's packages for a release."""
    report = Reporter(progress.sink(as_json=False))
    cls, arch = registry.engine(engine), os.uname().machine

    def make() -> Bundle:
        return BundleCache().build(cls, os_id, os_version, arch, "packages", report)

    output.value(progress.run({engine: make})[engine].sha256)


@app.command()
def verify(ref: Ref) -> None:
    """Compare a bundle with its digest."""
    BundleCache().verify(BundleCache().get(ref))
    output.say(f"{ref} is as it was made")


@app.command()
def rm(ref: Ref) -> None:
    """Remove a bundle; the next create that needs it builds it again."""
    BundleCache().remove(ref)
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
    with tarfile.open(bundle.path) as tar:
        tar.extract(wanted[0], to, filter="data")
    output.value(str(to / wanted[0]))


def _data(bundle: Bundle) -> dict[str, object]:
    return {**dataclasses.asdict(bundle), "path": str(bundle.path)}
