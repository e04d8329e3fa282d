"""moto as a real server on loopback: Amazon's API without Amazon."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIACANARY0000000001",
    "AWS_SECRET_ACCESS_KEY": "canary-secret",
}
VARIABLES = (
    *CREDENTIALS,
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
)
_AMI = {
    "state": "available",
    "public": True,
    "owner_id": "136693071363",
    "sriov": "simple",
    "root_device_type": "ebs",
    "root_device_name": "/dev/xvda",
    "image_type": "machine",
    "virtualization_type": "hvm",
    "hypervisor": "xen",
}
_IMAGES = (
    ("ami-0000000000000001", "debian-13-amd64-20250901-2222", "x86_64", "2025-09-01"),
    ("ami-0000000000000002", "debian-13-amd64-20251006-2257", "x86_64", "2025-10-06"),
    ("ami-0000000000000003", "debian-13-arm64-20251006-2257", "arm64", "2025-10-06"),
    ("ami-0000000000000004", "debian-12-amd64-20251112-2294", "x86_64", "2025-11-12"),
)


def images(path: Path) -> Path:
    """What Debian's account has published, in moto's format."""
    known = [
        {**_AMI, "ami_id": ami, "name": name, "architecture": arch, "description": name}
        | {"creation_date": f"{day}T00:00:00.000Z", "image_location": f"amazon/{name}"}
        for ami, name, arch, day in _IMAGES
    ]
    path.write_text(json.dumps(known))
    return path


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "MOTO_AMIS_PATH": str(images(folder / "amis.json"))}


def wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < end, "moto did not come up"
            time.sleep(0.1)
        else:
            return


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment(folder))
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def left(url: str) -> list[str]:
    """Everything in the account that machines could have left."""
    ec2 = client(url)
    told = ec2.describe_instances()["Reservations"]
    instances = [one for group in told for one in group["Instances"]]
    found = [each["InstanceId"] for each in instances if each["State"]["Name"] != "terminated"]
    found += [each["VolumeId"] for each in ec2.describe_volumes()["Volumes"]]
    groups = ec2.describe_security_groups()["SecurityGroups"]
    found += [each["GroupId"] for each in groups if each["GroupName"] != "default"]
    return found + [each["KeyName"] for each in ec2.describe_key_pairs()["KeyPairs"]]


def client(url: str, service: str = "ec2", region: str = REGION) -> Any:
    import boto3

    return boto3.client(
        service,
        region_name=region,
        endpoint_url=url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
