"""An older Debian that is there already: its own Docker, 20.10, and its own systemd."""

from __future__ import annotations

from pathlib import Path

from tests.hosts import OLDER
from tests.somebodys import SUDO, SomebodysBed, forget_containers, inventory, run_container


def test_it_is_set_up_and_put_back(tmp_path: Path, docker: str, image_tar: Path) -> None:
    with SomebodysBed(tmp_path / "older", "older", tree=OLDER) as bed:
        host = bed.hosts["older"]
        untouched = inventory(host)
        made = bed.create("older", env=SUDO)
        assert made.returncode == 0, made.stderr
        assert bed.machine("version", "older").stdout.startswith("20.10.")
        run_container(bed, "older", docker, image_tar)
        again = bed.machine("provision", "older", env=SUDO)
        assert (again.returncode, "nothing had to change" in again.stderr) == (0, True)
        gone = bed.machine("rm", "-y", "--undo", "older", env=SUDO)
        assert gone.returncode == 0, gone.stderr
        forget_containers(host)
        assert inventory(host) == untouched
