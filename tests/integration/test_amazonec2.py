"""The amazonec2 driver against moto's server: its contract, its refusals, what it leaves."""

from __future__ import annotations

import dataclasses
import io
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPResponse

from machine import flags
from machine.driver import HostRef
from machine.drivers.amazonec2 import api
from machine.drivers.amazonec2.config import Amazonec2Config, Amazonec2Facts
from machine.drivers.amazonec2.driver import Amazonec2Driver
from machine.errors import BadOption, DriverError, PreflightError
from machine.model import Identity, Size, State, VmSpec
from machine.testing.contract import DriverContract
from tests import amazon
from tests.amazon import left

Made = Amazonec2Driver
IDENTITY = Identity("w1", "0" * 32, "machine", ("ssh-ed25519 AAAA",), "private", "ssh-ed25519 BBBB")
SPEC = VmSpec(1, 1024, 8, None, IDENTITY)


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with amazon.server(tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture(autouse=True)
def account(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in amazon.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for name, value in amazon.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", moto)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    api.client.cache_clear()


def build(folder: Path, name: str = "w1", **given: Any) -> Made:
    machine = folder / "machines" / name
    machine.mkdir(parents=True, exist_ok=True)
    config = flags.build("amazonec2", Amazonec2Config, given, {})
    return Made(HostRef(name, str(uuid.uuid4()), machine), config, Amazonec2Facts())


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Made]:
    made = build(tmp_path)
    yield made
    made.remove()


class TestAmazonec2Driver(DriverContract):
    driver_type = Amazonec2Driver

    def spec(self, tmp_path: Path) -> VmSpec:
        return SPEC

    @pytest.fixture
    def driver(self, tmp_path: Path) -> Made:
        """After its preflight, which is where the core is when it makes a host."""
        made = build(tmp_path, "contract")
        made.preflight()
        return made


def test_an_instance_has_what_was_asked_for(tmp_path: Path, moto: str) -> None:
    given: dict[str, Any] = {
        "instance_type": "t4g.small",
        "tags": "team,red",
        "open_port": ("80", "53/udp"),
        "open_to": ("192.0.2.0/24", "2001:db8::/32"),
        "zone": "b",
        "volume_type": "gp2",
        "request_spot_instance": True,
    }
    driver = build(tmp_path, **given)
    saved: list[Amazonec2Facts] = []
    driver._checkpoint = saved.append
    driver.preflight()
    driver.create(SPEC)
    ec2 = amazon.client(moto)
    (one,) = ec2.describe_instances(InstanceIds=[driver.facts.instance])["Reservations"][0][
        "Instances"
    ]
    assert one["ImageId"] == "ami-0000000000000003"  # Debian 13 for that processor
    assert one["Placement"]["AvailabilityZone"] == "us-east-1b"
    assert one["InstanceLifecycle"] == "spot"
    assert one["MetadataOptions"]["HttpTokens"] == "required"
    tags = {each["Key"]: each["Value"] for each in one["Tags"]}
    assert tags["machine:id"] == driver.host.id
    assert tags["machine:store"] == str(tmp_path)
    assert (tags["Name"], tags["machine:name"], tags["team"]) == ("w1", "w1", "red")
    (volume,) = ec2.describe_volumes()["Volumes"]
    assert (volume["Size"], volume["VolumeType"]) == (8, "gp2")
    (group,) = ec2.describe_security_groups(GroupIds=list(driver.facts.groups))["SecurityGroups"]
    opened = {(each["IpProtocol"], each["FromPort"]) for each in group["IpPermissions"]}
    assert opened == {("tcp", 22), ("tcp", 2376), ("tcp", 80), ("udp", 53)}
    told = json.dumps(group["IpPermissions"])
    assert "192.0.2.0/24" in told
    assert "2001:db8::/32" in told
    assert "0.0.0.0/0" not in told
    assert "KeyName" not in one
    assert saved[-1] == driver.facts
    driver.remove()
    assert left(moto) == []


def test_a_create_that_is_made_again_finds_the_instance_of_which_nothing_was_saved(
    driver: Made, moto: str
) -> None:
    driver.preflight()
    before = driver.facts
    driver.create(SPEC)
    first = driver.facts.instance
    driver.facts = before  # as a kill between the call and the save leaves it
    driver.create(SPEC)
    assert driver.facts.instance == first
    driver.facts = before
    driver.remove()
    assert driver.state() is State.MISSING


def test_a_group_goes_with_the_last_machine_that_uses_it(tmp_path: Path, moto: str) -> None:
    first, second = build(tmp_path, "w1"), build(tmp_path, "w2")
    for each in (first, second):
        each.preflight()
        each.create(SPEC)
    assert first.facts.groups == second.facts.groups
    first.remove()
    assert second.facts.groups[0] in left(moto)
    second.remove()
    assert left(moto) == []


def test_a_group_of_others_stays_and_keeps_its_rules(tmp_path: Path, moto: str) -> None:
    ec2 = amazon.client(moto)
    theirs = ec2.create_security_group(GroupName="theirs", Description="not ours")["GroupId"]
    driver = build(tmp_path, security_group=("theirs",), security_group_readonly=True)
    driver.preflight()
    driver.create(SPEC)
    driver.remove()
    (group,) = ec2.describe_security_groups(GroupIds=[theirs])["SecurityGroups"]
    assert group["IpPermissions"] == []
    ec2.delete_security_group(GroupId=theirs)


def test_power(driver: Made) -> None:
    driver.preflight()
    driver.create(SPEC)
    driver.stop()
    assert driver.state() is State.STOPPED
    with pytest.raises(DriverError, match="has no address"):
        driver.address()
    driver.start()
    driver.start()
    assert driver.state() is State.RUNNING
    assert driver.address().host == driver.facts.address
    text, offset = driver.console()
    assert driver.console(offset) == (b"", offset)
    assert offset == len(text)


def test_a_stopped_instance_has_another_type_and_a_larger_disk(driver: Made, moto: str) -> None:
    driver.preflight()
    driver.create(SPEC)
    driver.stop()
    wanted = Size(kind="t3.large", disk_gib=16)
    for _ in range(2):
        assert driver.resize(wanted) == {"instance_type": "t3.large", "root_size": 16}
    ec2 = amazon.client(moto)
    told = ec2.describe_instances(InstanceIds=[driver.facts.instance])["Reservations"]
    assert told[0]["Instances"][0]["InstanceType"] == "t3.large"
    assert [each["Size"] for each in ec2.describe_volumes()["Volumes"]] == [16]
    with pytest.raises(PreflightError, match="cannot run"):
        driver.resize(Size(kind="t4g.small"))
    with pytest.raises(PreflightError, match="instance type"):
        driver.resize(Size(kind="t3.nosuch"))


def test_an_instance_that_was_ended_by_others_is_missing(driver: Made, moto: str) -> None:
    driver.preflight()
    driver.create(SPEC)
    amazon.client(moto).terminate_instances(InstanceIds=[driver.facts.instance])
    assert driver.state() is State.MISSING
    assert Made.survey([driver])["w1"].state is State.MISSING


def test_another_accounts_credentials_do_not_make_it_gone(
    driver: Made, moto: str, tmp_path: Path
) -> None:
    driver.preflight()
    driver.create(SPEC)
    role = amazon.client(moto, "sts").assume_role(
        RoleArn="arn:aws:iam::999999999999:role/other", RoleSessionName="other"
    )["Credentials"]
    keys = {"access_key": "AccessKeyId", "secret_key": "SecretAccessKey"}
    for key, name in {**keys, "session_token": "SessionToken"}.items():
        (driver.host.folder / key).write_text(role[name])
    others: dict[str, Any] = {
        key: f"file:{driver.host.folder / key}" for key in (*keys, "session_token")
    }
    stranger = Made(driver.host, dataclasses.replace(driver.config, **others), driver.facts)
    assert stranger.state() is State.UNKNOWN
    assert "999999999999" in stranger.explain()
    with pytest.raises(DriverError, match="999999999999"):
        stranger.remove()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"instance_type": "t9.enormous"}, "t9.enormous"),
        ({"ami": "ami-0123456789abcdef0"}, "belongs to one region"),
        ({"ami": "ami-0000000000000003"}, "cannot run ami-0000000000000003"),
        ({"subnet_id": "subnet-0123456789abcdef0"}, "--amazonec2-region right"),
        ({"vpc_id": "vpc-0123456789abcdef0"}, "no subnet"),
        ({"zone": "q"}, "us-east-1q"),
        ({"region": "mars-1", "endpoint": ""}, "us-east-1, us-east-2"),
        ({"profile": "nosuch"}, "nosuch"),
        ({"secret_key": "env:NOSUCH"}, "NOSUCH is not set"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(
    tmp_path: Path, moto: str, given: dict[str, Any], words: str
) -> None:
    driver = build(tmp_path, **given)
    with pytest.raises(PreflightError) as caught:
        driver.preflight()
    assert words in f"{caught.value.brief} {caught.value.details} {caught.value.hint}"
    assert left(moto) == []


def test_without_credentials_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in amazon.CREDENTIALS:
        monkeypatch.delenv(name)
    with pytest.raises(PreflightError, match="There are no AWS credentials"):
        build(tmp_path).preflight()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tags": "a,b,c"}, "KEY,VALUE"),
        ({"open_port": ("http",)}, "53/udp"),
        ({"userdata": "/nosuch"}, "/nosuch"),
        ({"insecure_transport": True}, "--amazonec2-endpoint"),
    ],
)
def test_bad_options(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        build(tmp_path, **given).preflight()


def test_forgotten_instances_are_named(driver: Made) -> None:
    driver.preflight()
    driver.create(SPEC)
    assert Made.strays([driver], frozenset({driver.host.id})) == []
    (told,) = Made.strays([driver], frozenset())
    assert driver.facts.instance in told.text
    assert '"w1"' in told.text
    assert told.remedy.startswith("aws ec2 terminate-instances --region us-east-1")
    assert driver.state() is State.RUNNING


def refusal(driver: Made, operation: str, code: str, message: str, times: int) -> list[int]:
    """EC2's answer to the next calls of an operation, as the SDK gets it from the network; what is
    answered is how many are left."""
    left_over = [times]

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        if not left_over[0]:
            return None
        left_over[0] -= 1
        error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        text = f"<Response><Errors>{error}</Errors><RequestID>1</RequestID></Response>"
        raw = HTTPResponse(io.BytesIO(text.encode()), preload_content=False)
        return AWSResponse(request.url, 400, {}, raw)

    events = api.client(driver._account).meta.events
    events.register_first(f"before-send.ec2.{operation}", answer)
    return left_over


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("VcpuLimitExceeded", "Service Quotas"),
        ("InsufficientInstanceCapacity", "--amazonec2-zone"),
        ("UnauthorizedOperation", "docs/clouds.md"),
    ],
)
def test_a_refusal_is_told_in_amazons_words_and_leaves_nothing(
    driver: Made, moto: str, code: str, hint: str
) -> None:
    driver.preflight()
    refusal(driver, "RunInstances", code, "You have requested more than you may.", 1)
    with pytest.raises(DriverError, match="AWS refused the instance") as caught:
        driver.create(SPEC)
    assert caught.value.details == f"{code}: You have requested more than you may."
    assert hint in caught.value.hint
    assert not driver.facts.asked  # so that nothing is waited for
    driver.remove()
    assert left(moto) == []


def test_what_was_asked_for_is_noted_before_the_answer_comes(driver: Made) -> None:
    driver.preflight()
    saved: list[Amazonec2Facts] = []
    driver._checkpoint = saved.append
    driver.create(SPEC)
    kept = [(bool(each.groups), each.asked, bool(each.instance)) for each in saved]
    assert list(dict.fromkeys(kept)) == [
        (True, False, False),
        (True, True, False),
        (True, True, True),
        (True, False, True),
    ]


def test_a_call_that_is_throttled_is_made_again(driver: Made) -> None:
    driver.preflight()
    left_over = refusal(driver, "DescribeInstances", "RequestLimitExceeded", "Slow down.", 1)
    assert driver.state() is State.MISSING
    assert left_over == [0]


def test_an_instance_that_was_ended_at_once_is_told_with_the_reason(
    driver: Made, moto: str
) -> None:
    driver.preflight()
    api.client(driver._account).meta.events.register(
        "after-call.ec2.RunInstances",
        lambda parsed, **_: (
            amazon.client(moto).terminate_instances(
                InstanceIds=[parsed["Instances"][0]["InstanceId"]]
            )
            and None
        ),
    )
    with pytest.raises(DriverError, match="and ended it"):
        driver.create(SPEC)


def test_an_instance_that_is_not_shown_yet_is_waited_for(driver: Made, moto: str) -> None:
    """A kill after the request was sent: EC2 shows what it made some seconds later."""
    driver.preflight()
    driver.create(SPEC)
    driver.facts = dataclasses.replace(driver.facts, asked=True, instance="", address="")
    events = api.client(driver._account).meta.events
    hidden = [3]

    def hide(parsed: dict[str, Any], **_: Any) -> None:
        if hidden[0]:
            hidden[0] -= 1
            parsed["Reservations"] = []

    events.register("after-call.ec2.DescribeInstances", hide)
    driver.remove()
    assert left(moto) == []
