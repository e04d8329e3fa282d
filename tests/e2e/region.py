"""A region of EC2 inside a test bed: moto for its API, and what is behind an instance by its tag ``is``:
a real ``vm``, or a ``host`` in namespaces, which needs no emulation; nothing without. Runs in the bed's
network: ``python -m tests.e2e.region FOLDER NAMESPACE IMAGE``.

Both get exactly the user-data that the API was given, as NoCloud's files instead of the metadata
service, and are reached at the instance's public address.
"""

from __future__ import annotations

import base64
import http.client
import http.server
import io
import json
import signal
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
from tests.hosts import TOOL, WITH_CLOUD_INIT, Host, HostBed

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
    public: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def make(self, instance: str, user_data: str) -> None:
        (self.folder / "seed.iso").write_bytes(seed(instance, user_data))
        disk, form = str(self.folder / "disk.qcow2"), ("-f", "qcow2", "-F", "qcow2")
        create = ["qemu-img", "create", "-q", *form, "-b", str(self.image), disk, "6G"]
        subprocess.run(create, check=True)

    def boot(self, address: str) -> None:
        """The address moves to where the VM is, as Amazon moves it."""
        self.public = address
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
        forward = ",".join(f"hostfwd=tcp:{address}:{port}-:{port}" for port in (22, 2376))
        (self.folder / "monitor").unlink(missing_ok=True)
        argv = [
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-m",
            "1024",
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
        subprocess.run(["ip", "address", "del", f"{self.public}/32", "dev", "lo"], check=True)


class Inside(HostBed):
    """The bed, for what runs in its network."""

    def __init__(self, folder: Path, namespace: str) -> None:
        super().__init__(folder, tree=WITH_CLOUD_INIT)
        self.namespace = namespace


class Instance(Host):
    """One that cloud-init makes somebody of. Its network is there before: EC2's would tell it."""

    public = ""
    """Its address, while it runs."""

    @property
    def runs(self) -> bool:
        return bool(self.public)

    def make(self, instance: str, user_data: str) -> None:
        for name in ("root", "work", "engine"):
            (self.folder / name).mkdir(parents=True)
        self.write("etc/cloud/cloud.cfg.d/network.cfg", "network: {config: disabled}\n")
        self.write("var/lib/cloud/seed/nocloud/user-data", user_data)
        self.write("var/lib/cloud/seed/nocloud/meta-data", json.dumps({"instance-id": instance}))
        self.connect(f"52:54:00:4f:00:{self.number:02x}")

    def write(self, path: str, text: str) -> None:
        file = self.folder / "changed" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def boot(self, address: str) -> None:
        self.public = address
        network = f"[Match]\nName=eth0\n[Network]\nAddress={address}/32\n"
        route = f"[Route]\nGateway={TOOL}\nGatewayOnLink=yes\n"
        self.write("etc/systemd/network/instance.network", network + route)
        subprocess.run(["ip", "route", "replace", f"{address}/32", "dev", "hosts"], check=True)
        self.power_on()

    def shut_down(self) -> None:
        super().shut_down()
        self.leave()

    def end(self) -> None:
        self.cut_off()
        self.leave()

    def leave(self) -> None:
        if self.public:
            subprocess.run(["ip", "route", "del", f"{self.public}/32"], check=True)
            self.public = ""


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
    asked = ec2.describe_instances(Filters=[{"Name": "tag-key", "Values": ["is"]}])
    return [one for group in asked["Reservations"] for one in group["Instances"]]


@dataclass
class Region:
    """What the API says of the instances, done with what is behind them."""

    ec2: Any
    bed: Inside
    image: Path
    behind: dict[str, Vm | Instance] = field(default_factory=dict)

    def follow(self) -> None:
        for each in instances(self.ec2):
            identifier, state = each["InstanceId"], each["State"]["Name"]
            one = self.behind.get(identifier) or self.make(each)
            address = each.get("PublicIpAddress", "")
            if state == "terminated":
                one.end()
                continue
            # Another address: it was stopped and started since it was looked at.
            if state == "stopped" or (state == "running" and one.runs and address != one.public):
                one.shut_down()
            if state == "running" and not one.runs:
                one.boot(address)

    def make(self, instance: dict[str, Any]) -> Vm | Instance:
        identifier = instance["InstanceId"]
        asked = self.ec2.describe_instance_attribute(InstanceId=identifier, Attribute="userData")
        text = base64.b64decode(asked["UserData"]["Value"]).decode()
        folder = self.bed.folder / identifier
        folder.mkdir()
        (folder / "user-data").write_text(text)
        made: Vm | Instance
        if {"Key": "is", "Value": "vm"} in instance["Tags"]:
            made = Vm(folder, self.image)
        else:
            made = Instance(self.bed, identifier, len(self.behind) + 1)
        made.make(identifier, text)
        self.behind[identifier] = made
        return made

    def close(self) -> None:
        for each in self.behind.values():
            each.end()
            if isinstance(each, Instance):
                each.remove()


def main() -> None:
    folder, image = Path(sys.argv[1]), Path(sys.argv[3])
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(PORT)]
    with (folder / "moto.log").open("wb") as log:
        subprocess.Popen(argv, stdout=log, stderr=log, env=amazon.environment(folder))
    amazon.wait_for(PORT)
    silent = http.server.ThreadingHTTPServer(("127.0.0.1", SILENT_PORT), Silent)
    threading.Thread(target=silent.serve_forever, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    region = Region(amazon.client(URL), Inside(folder, sys.argv[2]), image)
    (folder / "region").touch()
    try:
        while True:
            region.follow()
            time.sleep(0.3)
    finally:
        region.close()


if __name__ == "__main__":
    main()
