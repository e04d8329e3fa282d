"""`machine image`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from machine.cli import complete, context, output, progress
from machine.events import Reporter
from machine.images import ImageCache

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
Ref = Annotated[str, typer.Argument(metavar="IMAGE", autocompletion=complete.images)]


@app.command()
def ls(output_format: context.Output = "text") -> None:
    """List the images of this computer."""
    images = ImageCache().list()
    if context.is_json(output_format):
        output.envelope("images", [_data(each) for each in images])
        return
    output.table(
        ("NAME", "DIGEST", "ARCH", "FIRST BOOT", "MIB"),
        [
            (
                each.name,
                each.digest[:12],
                each.arch,
                each.first_boot,
                str(each.disk.stat().st_size >> 20),
            )
            for each in images
        ],
    )


@app.command()
def show(ref: Ref) -> None:
    """Print what is known of an image, as JSON."""
    output.envelope("image", _data(ImageCache().find(ref)))


@app.command()
def build(name: Ref) -> None:
    """Build an image from its distribution's packages: debian-12, debian-13."""
    report = Reporter(progress.sink(as_json=False))
    image = progress.run({name: lambda: ImageCache().build(name, report)})[name]
    output.value(image.digest)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="FILE", autocompletion=complete.files)],
    name: Annotated[str, typer.Option(help="name that templates use")],
    os_id: Annotated[str, typer.Option("--os", help="os-release ID")],
    os_version: Annotated[str, typer.Option("--os-version", help="os-release VERSION_ID")],
) -> None:
    """Take over a cloud image (qcow2 or raw) that boots by itself and runs cloud-init."""
    image = ImageCache().import_file(path, name, os_id=os_id, os_version=os_version)
    output.value(image.digest)


@app.command()
def verify(ref: Ref) -> None:
    """Compare every file of an image with its digest."""
    image = ImageCache().verify(ref)
    output.say(f"{image.name} is as it was made")


@app.command()
def rm(ref: Ref) -> None:
    """Remove an image; machines that were made from it stay."""
    output.say(f"Removed {ImageCache().remove(ref).name}")


def _data(image: object) -> dict[str, object]:
    data = dataclasses.asdict(image)  # type: ignore[call-overload]
    return {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}
