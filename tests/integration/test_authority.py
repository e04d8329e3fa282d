"""Many processes that need the store's authority at the same moment make one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys
from pathlib import Path
from machine.tls import Authority
folder = Path(sys.argv[1])
Authority(folder / "certs", folder / "certs.lock").ensure()
print((folder / "certs" / "ca.pem").read_text())
"""


def test_sixteen_processes_make_one_authority(tmp_path: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(16)
    ]
    seen = {child.communicate(timeout=60)[0] for child in children}
    assert [child.returncode for child in children] == [0] * 16
    assert len(seen) == 1
    assert "BEGIN CERTIFICATE" in seen.pop()
    files = {each.name for each in (tmp_path / "certs").iterdir()}
    assert files == {"ca.pem", "ca-key.pem", "cert.pem", "key.pem"}
