"""The providers of apache-libcloud against small servers: their contract, refusals, what they leave."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine import flags, registry
from machine.driver import HostRef
from machine.drivers.cloud.config import CloudFacts
from machine.drivers.cloud.driver import CloudDriver
from machine.errors import DriverError, PreflightError
from machine.model import Identity, Size, State, VmSpec
from machine.testing.contract import DriverContract
from tests import clouds

IDENTITY = Identity("w1", "0" * 32, "machine", ("ssh-ed25519 AAAA",), "private", "ssh-ed25519 BBBB")
SPEC = VmSpec(1, 1024, 25, None, IDENTITY)
SERVICES = (
    clouds.Azure,
    clouds.DigitalOcean,
    clouds.Google,
    clouds.Linode,
    clouds.OpenStack,
    clouds.Vultr,
)


def given(service: clouds.Service, url: str) -> dict[str, Any]:
    """Options that make its driver ask the small server, by key."""
    match service.name:
        case "openstack":
            who = {"username": "user", "password": "env:CANARY", "tenant_name": "admin"}
            what = {"size": "m1.small", "image": "debian-13", "net_name": "private"}
            return {"auth_url": f"{url}/v3", **who, **what}
        case "azure":
            who = {"subscription_id": clouds.Azure.SUBSCRIPTION, "tenant_id": "t", "client_id": "c"}
            what = {"size": "Standard_A1", "endpoint": url}
            return {**who, "client_secret": "env:CANARY", **what}
        case "google":
            return {"project": clouds.Google.PROJECT, "credentials": "env:CANARY", "endpoint": url}
        case "digitalocean":
            return {"access_token": "env:CANARY", "endpoint": url}
        case "vultr":
            return {"api_key": "env:CANARY", "endpoint": url}
    return {"token": "env:CANARY", "endpoint": url}


@pytest.fixture(params=SERVICES, ids=lambda each: each.name)
def service(request: pytest.FixtureRequest) -> clouds.Service:
    made: clouds.Service = request.param()
    return made


@pytest.fixture
def url(service: clouds.Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("CANARY", clouds.secret(service))
    # As libcloud's own tests do it: these tokens come from addresses that cannot be changed.
    monkeypatch.setattr(
        "libcloud.common.google.GoogleOAuth2Credential._get_token_from_file",
        lambda _: {"access_token": clouds.TOKEN, "expire_time": "2999-01-01T00:00:00Z"},
    )
    monkeypatch.setattr(
        "libcloud.common.azure_arm.AzureResourceManagementConnection.get_token_from_credentials",
        _no_token,
    )
    with clouds.serving(service) as url:
        yield url


def _no_token(connection: Any) -> None:
    """The secret itself stands for the token that it would get."""
    connection.access_token, connection.expires_on = connection.key, "32503680000"


def build(service: clouds.Service, url: str, folder: Path, name: str = "w1") -> CloudDriver:
    machine = folder / "machines" / name
    machine.mkdir(parents=True, exist_ok=True)
    cls = registry.driver(service.name)
    config = flags.build(cls.name, cls.config_type, given(service, url), {})
    made = cls(HostRef(name, str(uuid.uuid4()), machine), config, CloudFacts())
    assert isinstance(made, CloudDriver)
    return made


@pytest.fixture
def driver(service: clouds.Service, url: str, tmp_path: Path) -> CloudDriver:
    made = build(service, url, tmp_path)
    made.preflight()
    return made


class TestContract(DriverContract):
    """Once for each provider."""

    @pytest.fixture(autouse=True)
    def chosen(self, service: clouds.Service) -> None:
        type(self).driver_type = registry.driver(service.name)

    def spec(self, tmp_path: Path) -> VmSpec:
        return SPEC

    @pytest.fixture
    def driver(self, service: clouds.Service, url: str, tmp_path: Path) -> CloudDriver:
        made = build(service, url, tmp_path, "contract")
        made.preflight()
        return made


def test_a_node_has_our_user_data_and_mark(driver: CloudDriver, service: clouds.Service) -> None:
    driver.create(SPEC)
    assert service.user_data.startswith("#cloud-config")
    assert '"ed25519_private": "private"' in service.user_data
    (node,) = service.nodes.values()
    assert driver.host.id in str(node)
    assert driver.address().host == clouds.ADDRESS
    assert driver.facts.node in str(node)


def test_an_answer_that_is_lost_makes_no_second_node(
    driver: CloudDriver, service: clouds.Service
) -> None:
    service.loses_answer = True
    with pytest.raises(DriverError, match="making the node"):
        driver.create(SPEC)
    assert len(service.nodes) == 1
    driver.create(SPEC)
    assert len(service.nodes) == 1
    driver.facts = CloudFacts(image=driver.facts.image)
    driver.remove()
    assert service.nodes == {}


def test_power(driver: CloudDriver) -> None:
    driver.create(SPEC)
    driver.stop()
    assert driver.state() is State.STOPPED
    driver.start()
    driver.start()
    assert driver.state() is State.RUNNING


def test_its_size_is_another_one_once_it_is_off(
    driver: CloudDriver, service: clouds.Service
) -> None:
    driver.create(SPEC)
    driver.stop()
    for _ in range(2):
        assert driver.resize(Size(kind=service.larger)) == {"size": service.larger}
    names = (service.larger, driver.facts.size)
    assert driver.provider.size_name(driver._node()) in names
    assert driver.state() is State.STOPPED
    with pytest.raises(PreflightError, match="has no size 'nosuch'"):
        driver.resize(Size(kind="nosuch"))
    driver.start()
    assert driver.state() is State.RUNNING


def test_each_account_is_asked_once(
    driver: CloudDriver, service: clouds.Service, url: str, tmp_path: Path
) -> None:
    others = [build(service, url, tmp_path, name) for name in ("w2", "w3")]
    for each in (driver, *others):
        each.preflight()
        each.create(SPEC)
    before = service.listings
    seen = type(driver).survey([driver, *others])
    assert {each.state for each in seen.values()} == {State.RUNNING}
    assert service.listings == before + 1


def test_nodes_of_no_record_are_named_with_their_price(
    driver: CloudDriver, service: clouds.Service
) -> None:
    driver.create(SPEC)
    assert type(driver).strays([driver], frozenset({driver.host.id})) == []
    (told,) = type(driver).strays([driver], frozenset())
    assert '"w1"' in told.text
    assert ("USD a" in told.text) == (service.name not in ("azure", "google", "openstack"))
    assert driver.facts.node in told.remedy or told.remedy.endswith("delete w1")
    assert len(service.nodes) == 1


def test_nobody_is_asked_where_nothing_is_configured(
    service: clouds.Service, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = registry.driver(service.name)
    for option in flags.options(cls.name, cls.config_type):
        for variable in option.env:
            monkeypatch.delenv(variable, raising=False)
    assert cls.strays([], frozenset()) == []


@pytest.mark.parametrize("key", ["size", "image", "region"])
def test_what_there_is_not_is_said_with_what_there_is(
    service: clouds.Service, url: str, tmp_path: Path, key: str
) -> None:
    cls = registry.driver(service.name)
    place = {"openstack": "net_name", "google": "zone", "azure": "location"}.get(
        service.name, "region"
    )
    key = place if key == "region" else key
    config = flags.build(cls.name, cls.config_type, {**given(service, url), key: "nosuch"}, {})
    made = cls(HostRef("w1", str(uuid.uuid4()), tmp_path), config, CloudFacts())
    with pytest.raises(PreflightError) as caught:
        made.preflight()
    assert "nosuch" in f"{caught.value.brief} {caught.value.details}"
    if key in ("size", "region", "zone", "location"):
        assert "is one of: " in caught.value.hint
    assert service.nodes == {}


def test_refused_credentials(
    service: clouds.Service, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "wrong-token")
    with pytest.raises(PreflightError) as caught:
        build(service, url, tmp_path).preflight()
    assert "credentials" in f"{caught.value.brief} {caught.value.hint}"
    monkeypatch.setenv(
        "CANARY", clouds.secret(service)
    )  # they are exchanged, and the config is not
    build(service, url, tmp_path).preflight()


def test_missing_credentials(service: clouds.Service, tmp_path: Path) -> None:
    cls = registry.driver(service.name)
    made = cls(HostRef("w1", "id", tmp_path), cls.config_type(), CloudFacts())
    with pytest.raises(PreflightError, match=f"needs --{service.name}-") as caught:
        made.preflight()
    assert caught.value.hint.startswith("export ")


def test_a_quota_is_told_in_the_providers_words(
    driver: CloudDriver, service: clouds.Service
) -> None:
    reason = "creating this would exceed your droplet limit"
    service.refuse = service.quota(reason)
    with pytest.raises(DriverError) as caught:
        driver.create(SPEC)
    assert reason in caught.value.details
    assert "quota" in caught.value.hint
    assert service.nodes == {}


@pytest.mark.parametrize("service", [clouds.Azure], indirect=True, ids=["azure"])
def test_what_machines_share_goes_with_the_last_of_them_and_others_things_stay(
    driver: CloudDriver, service: clouds.Azure, url: str, tmp_path: Path
) -> None:
    group = f"{service.PREFIX}/resourceGroups/docker-machine"
    theirs = f"{group}/providers/Microsoft.Network/virtualNetworks/docker-machine-vnet"
    service.resources[theirs] = {"id": theirs, "properties": {}}
    second = build(service, url, tmp_path, "w2")
    for each in (driver, second):
        each.preflight()
        each.create(SPEC)
    rules = f"{group}/providers/Microsoft.Network/networkSecurityGroups/docker-machine"
    assert set(service.resources) == {group, rules, theirs}
    opened = service.resources[rules]["properties"]["securityRules"]
    assert [each["properties"]["destinationPortRange"] for each in opened] == ["22", "2376"]
    driver.remove()
    assert set(service.resources) == {group, rules, theirs}
    second.remove()
    assert set(service.resources) == {group, theirs}
    del service.resources[theirs]
    driver.create(SPEC)
    assert len(service.resources) == 3
    driver.remove()
    assert service.resources == {}
