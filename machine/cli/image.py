"""`machine image`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from machine import catalogue
from machine.catalogue import Source
from machine.cli import complete, context, output, progress
from machine.download import Digest, is_url
from machine.errors import BadOption, ImageError, ImageNotFound, UsageError
from machine.events import Reporter
from machine.images import BUILT, ImageCache
from machine.model import Image

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
Ref = Annotated[str, typer.Argument(metavar="IMAGE", autocompletion=complete.images)]
Known = Annotated[str, typer.Argument(metavar="IMAGE", autocompletion=complete.known_images)]
OsId = Annotated[str, typer.Option("--os", help="ID of its /etc/os-release")]
OsVersion = Annotated[str, typer.Option("--os-version", help="VERSION_ID of its /etc/os-release")]
DigestText = Annotated[str, typer.Option("--digest", help="sha256:HEX that it must have")]


@app.command()
def ls(
    all_: Annotated[
        bool, typer.Option("--all", "-a", help="also those that can be built or pulled")
    ] = False,
    output_format: context.Output = "text",
) -> None:
    """List the images of this computer."""
    cache = ImageCache()
    images = []
    for name in cache.names():
        try:
            images.append(cache.find(name))
        except ImageError as exc:
            output.say(f"Warning: {exc.brief} ({exc.hint.splitlines()[0]})")
    for name, size in cache.unfinished().items():
        output.say(
            f"A download that broke off is kept: {name}, {size >> 20} MiB "
            f"(machine image pull {name} goes on with it, machine image rm {name} drops it)"
        )
    others = _others(cache.names()) if all_ else []
    if context.is_json(output_format):
        output.envelope("images", [*map(output.plain, images), *others])
        return
    rows: list[tuple[str, ...]] = [
        (
            each.name,
            f"{each.os} {each.os_version}",
            each.arch,
            each.digest[:12],
            str(each.disk.stat().st_size >> 20),
            each.first_boot,
            each.origin.partition(" (")[0],
        )
        for each in images
    ]
    rows += [
        (
            each["name"],
            f"{each['os']} {each['os_version']}",
            each["arch"],
            "",
            "",
            "",
            each["origin"],
        )
        for each in others
    ]
    output.table(("NAME", "OS", "ARCH", "DIGEST", "MIB", "FIRST BOOT", "ORIGIN"), rows)


@app.command()
def show(ref: Ref) -> None:
    """Print what is known of an image, as JSON."""
    output.envelope("image", output.plain(ImageCache().find(ref)))


@app.command()
def build(name: Known, output_format: context.Output = "text") -> None:
    """Build an image from its distribution's packages: debian-12, debian-13. It replaces one of
    that name."""
    _make(name, output_format, lambda report: ImageCache().build(name, report))


@app.command()
def pull(
    name: Known,
    url: Annotated[str, typer.Option(help="of an image that is not in the catalogue")] = "",
    checksums: Annotated[str, typer.Option(help="URL of a checksum file that names it")] = "",
    digest: DigestText = "",
    os_id: OsId = "",
    os_version: OsVersion = "",
    output_format: context.Output = "text",
) -> None:
    """Download an official cloud image of the catalogue (machine image ls --all), and check it
    against its publisher's digest. A broken download is gone on with; an image of that name is
    replaced if the publisher has a newer one."""
    wanted = _digest(digest)
    source = catalogue.sources(os.uname().machine).get(name)
    if url:
        if not is_url(url) or (checksums and not is_url(checksums)):
            raise UsageError(
                "--url and --checksums must be http or https URLs of files",
                hint="A password belongs in ~/.netrc, not in a URL",
            )
        if bool(checksums) == bool(wanted):
            raise UsageError(
                "--url needs --digest or --checksums: nothing is used that was not verified",
                hint="--digest sha256:HEX, or --checksums with the URL of a SHA256SUMS file",
            )
        source = Source(
            name,
            *_system(name, os_id, os_version),
            arch=os.uname().machine,
            url=url,
            checksums=checksums,
            digest=wanted,
        )
    elif checksums or wanted or os_id or os_version:
        raise UsageError("--checksums, --digest, --os and --os-version belong to --url")
    if source is None:
        raise ImageNotFound(
            f'There is no image "{name}" for {os.uname().machine} in the catalogue',
            hint="machine image ls --all shows those that can be built or pulled; "
            "any other: machine image pull --url URL --digest sha256:HEX "
            f"--os ID --os-version VERSION {name}",
        )
    chosen = source
    _make(
        name,
        output_format,
        lambda report: ImageCache().pull(chosen, report),
        left="What arrived is kept: the same command goes on with it.",
    )


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="FILE", autocompletion=complete.files)],
    name: Annotated[str, typer.Option(help="name that templates use")],
    os_id: OsId = "",
    os_version: OsVersion = "",
    digest: DigestText = "",
    force: Annotated[bool, typer.Option("--force", help="replace an image of that name")] = False,
    output_format: context.Output = "text",
) -> None:
    """Take over a cloud image (qcow2 or raw) that boots by itself and runs cloud-init. The system
    need not be named where the catalogue knows NAME. An image that is here already is not
    replaced without --force."""
    wanted = _digest(digest)
    system, version = _system(name, os_id, os_version)
    _make(
        name,
        output_format,
        lambda report: ImageCache().import_file(
            path,
            name,
            report,
            os_id=system,
            os_version=version,
            digest=wanted,
            replace=force,
        ),
    )


@app.command()
def verify(ref: Ref) -> None:
    """Compare every file of an image with its digest."""
    output.say(f"{ImageCache().verify(ref)} is as it was made")


@app.command()
def rm(ref: Ref) -> None:
    """Remove an image, damaged or not, or a download of one that broke off. Machines that were made
    from it stay."""
    cache = ImageCache()
    try:
        digest = cache.find(ref).digest
    except ImageError:
        digest = ""
    output.say(f"Removed {cache.remove(ref)}")
    if users := _made_from(digest):
        output.say(f"Made from it, and not touched: {', '.join(users)}")


def _make(
    name: str, output_format: str, job: Callable[[Reporter], Image], *, left: str = ""
) -> None:
    """Run a job that makes an image, and print the image's digest. ``left`` is said of what an
    interrupted one leaves."""
    as_json = context.is_json(output_format)
    report = Reporter(progress.sink(as_json=as_json))
    said = (lambda name: left) if left else None
    image = progress.run({name: lambda: job(report)}, left=said)[name]
    if as_json:
        output.json_line("image", output.plain(image))
    else:
        output.value(image.digest)


def _system(name: str, os_id: str, os_version: str) -> tuple[str, str]:
    known = catalogue.sources(os.uname().machine).get(name)
    if known and not os_id and not os_version:
        return known.os, known.os_version
    if not os_id or not os_version:
        raise UsageError(
            "--os and --os-version are needed: the system decides how the engine is installed",
            hint="They are ID and VERSION_ID of the image's /etc/os-release, "
            "for example --os debian --os-version 12",
        )
    return os_id, os_version


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text) if text else None
    except ValueError as exc:
        raise BadOption(f"--digest {exc}") from None


def _others(here: tuple[str, ...]) -> list[dict[str, str]]:
    """What could be here and is not: in the form of ``output.plain``, as far as it is known."""
    return [
        {
            "name": name,
            "os": source.os,
            "os_version": source.os_version,
            "arch": source.arch,
            "origin": f"can be {'built, or ' if name in BUILT else ''}"
            f"pulled from {urlsplit(source.url).netloc}",
        }
        for name, source in sorted(catalogue.sources(os.uname().machine).items())
        if name not in here
    ]


def _made_from(digest: str) -> list[str]:
    """Machines of the store whose record names that image."""
    return [
        record.name
        for record in context.store().ours()
        if digest and record.ours.image_digest == digest
    ]
