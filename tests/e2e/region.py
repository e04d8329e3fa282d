"""A region of EC2 inside a test bed: moto for its API, and a real VM for each instance with the tag
``vm``. Runs in the bed's namespaces: ``python -m tests.e2e.region FOLDER IMAGE``.

An instance's VM gets exactly the user-data that the API was given, from a NoCloud volume instead of
the metadata service; it is reached at the instance's public address, which is this computer's own.
"""

from __future__ import annotations

import base64
import http.client
import http.server
import io
import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pycdlib

from tests import amazon

PORT = 5000
URL = f"http://127.0.0.1:{PORT}"
SILENT_PORT = 5001
SILENT_URL = f"http://127.0.0.1:{SILENT_PORT}"
"""Does what RunInstances asks for, and never says so."""


@dataclass
class Vm:
    """One instance's, over all its starts."""

    folder: Path
    image: Path
    address: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def make(self, instance: str, user_data: str) -> None:
        self.folder.mkdir()
        (self.folder / "user-data").write_text(user_data)
        (self.folder / "seed.iso").write_bytes(seed(instance, user_data))
        disk, form = str(self.folder / "disk.qcow2"), ("-f", "qcow2", "-F", "qcow2")
        create = ["qemu-img", "create", "-q", *form, "-b", str(self.image), disk, "6G"]
        subprocess.run(create, check=True)

    def boot(self, address: str) -> None:
        """The address moves to where the VM is, as Amazon moves it."""
        self.address = address
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
        forward = ",".join(f"hostfwd=tcp:{address}:{port}-:{port}" for port in (22, 2376))
        (self.folder / "monitor").unlink(missing_ok=True)
        argv = [
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-m",
            "1024",
            "-smp",
            "2",
            "-display",
            "none",
        ]
        argv += ["-drive", f"file={self.folder}/disk.qcow2,if=virtio"]
        argv += ["-drive", f"file={self.folder}/seed.iso,if=virtio,format=raw,readonly=on"]
        argv += ["-netdev", f"user,id=net,{forward}", "-device", "virtio-net-pci,netdev=net"]
        argv += ["-serial", f"file:{self.folder}/console.log"]
        argv += ["-monitor", f"unix:{self.folder}/monitor,server=on,wait=off"]
        with (self.folder / "qemu.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def shut_down(self) -> None:
        """As Amazon does it: the power button, and off after a while."""
        if self.process is None:
            return
        if self.runs:
            with socket.socket(socket.AF_UNIX) as monitor:
                monitor.connect(str(self.folder / "monitor"))
                monitor.sendall(b"system_powerdown\n")
                time.sleep(0.5)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.end()
        self.leave()

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.leave()

    def leave(self) -> None:
        self.process = None
        subprocess.run(["ip", "address", "del", f"{self.address}/32", "dev", "lo"], check=True)


def seed(instance: str, user_data: str) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.new(joliet=3, vol_ident="cidata")
    files = {"user-data": user_data, "meta-data": json.dumps({"instance-id": instance})}
    for number, (name, text) in enumerate(files.items()):
        content = text.encode()
        path = f"/FILE{number}.;1"
        iso.add_fp(io.BytesIO(content), len(content), path, joliet_path=f"/{name}")
    out = io.BytesIO()
    iso.write_fp(out)
    return out.getvalue()


class Silent(http.server.BaseHTTPRequestHandler):
    """Hands every question on to moto, and keeps the answer to RunInstances to itself."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        there = http.client.HTTPConnection("127.0.0.1", PORT)
        there.request("POST", self.path, body, dict(self.headers.items()))
        answer = there.getresponse()
        content = answer.read()
        if b"Action=RunInstances" in body:
            threading.Event().wait()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Standard error is the test's."""


def instances(ec2: Any) -> list[dict[str, Any]]:
    asked = ec2.describe_instances(Filters=[{"Name": "tag-key", "Values": ["vm"]}])
    return [one for group in asked["Reservations"] for one in group["Instances"]]


def follow(ec2: Any, folder: Path, image: Path) -> None:
    """Do with the VMs what the API says of the instances, for ever."""
    vms: dict[str, Vm] = {}
    while True:
        for each in instances(ec2):
            identifier, state = each["InstanceId"], each["State"]["Name"]
            if identifier not in vms:
                vms[identifier] = Vm(folder / identifier, image)
                asked = ec2.describe_instance_attribute(InstanceId=identifier, Attribute="userData")
                text = base64.b64decode(asked["UserData"]["Value"]).decode()
                vms[identifier].make(identifier, text)
            vm = vms[identifier]
            if state == "running" and not vm.runs:
                vm.boot(each["PublicIpAddress"])
            elif state == "stopped":
                vm.shut_down()
            elif state == "terminated":
                vm.end()
        time.sleep(0.3)


def main() -> None:
    folder, image = map(Path, sys.argv[1:])
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(PORT)]
    with (folder / "moto.log").open("wb") as log:
        subprocess.Popen(argv, stdout=log, stderr=log, env=amazon.environment(folder))
    amazon.wait_for(PORT)
    silent = http.server.ThreadingHTTPServer(("127.0.0.1", SILENT_PORT), Silent)
    threading.Thread(target=silent.serve_forever, daemon=True).start()
    (folder / "region").touch()
    follow(amazon.client(URL), folder, image)


if __name__ == "__main__":
    main()
