"""Small servers with the APIs of the clouds that libcloud drives. What they answer has the shape of
libcloud's own fixtures (Apache-2.0, in its package), which were recorded from the real services."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import libcloud

FIXTURES = Path(libcloud.__file__).parent / "test" / "compute" / "fixtures"
TOKEN = "canary-token-3a8b"
ADDRESS = "192.0.2.7"

Answer = tuple[int, Any]


def recorded(path: str) -> Any:
    return json.loads((FIXTURES / path).read_text())


class Service:
    """A provider's account; ``refuse`` is what the next request that makes something gets."""

    name: ClassVar[str]
    larger: ClassVar[str]
    """A second size of a machine."""
    makes: ClassVar[tuple[str, ...]] = ("POST",)

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.user_data = ""
        self.listings = 0
        self.refuse: Answer | None = None
        self.loses_answer = False
        self.url = ""
        self._serial = 100

    def next_id(self) -> str:
        self._serial += 1
        return str(self._serial)

    def authorised(self, headers: Any, path: str, body: Any) -> bool:
        return bool(headers.get("Authorization") == f"Bearer {TOKEN}")

    def answer(self, method: str, path: str, body: Any) -> Answer:
        """What it says to a request; a 404 where it has no such thing."""
        raise NotImplementedError

    def quota(self, reason: str) -> Answer:
        """Its refusal of what would be too much, in the shape of them all."""
        said = {"id": "unprocessable_entity", "message": reason, "error": reason, "status": 400}
        return 422, {**said, "errors": [{"reason": reason}]}

    def unauthorised(self) -> Answer:
        return 401, {"id": "unauthorized", "message": "Unable to authenticate you."}


class DigitalOcean(Service):
    name = "digitalocean"
    larger = "s-2vcpu-4gb"

    def answer(self, method: str, path: str, body: Any) -> Answer:
        words = path.strip("/").split("/")[1:]
        match (method, words):
            case "GET", ["droplets"]:
                self.listings += 1
                return 200, _page("droplets", list(self.nodes.values()))
            case "POST", ["droplets"]:
                node = recorded("digitalocean_v2/list_nodes.json")["droplets"][0]
                node |= {"id": int(self.next_id()), "name": body["name"], "tags": body["tags"]}
                node |= {"size_slug": body["size"], "status": "new"}
                node["networks"] = {"v4": [{"type": "public", "ip_address": ADDRESS}]}
                self.user_data = body["user_data"]
                self.nodes[str(node["id"])] = node
                answer = 202, {"droplet": dict(node)}
                node["status"] = "active"
                return answer
            case "DELETE", ["droplets", identifier]:
                return (204, None) if self.nodes.pop(identifier, None) else (404, {})
            case "POST", ["droplets", identifier, "actions"]:
                states = {"shutdown": "off", "power_on": "active"}
                node = self.nodes[identifier]
                if body["type"] == "resize":
                    assert node["status"] == "off"
                    node["size_slug"] = body["size"]
                else:
                    node["status"] = states[body["type"]]
                return 201, {"action": {}}
            case "GET", ["images"]:
                image = recorded("digitalocean_v2/list_images.json")["images"][0]
                return 200, _page("images", [image | {"slug": "debian-13-x64", "name": "13 x64"}])
            case "GET", ["sizes"]:
                size = recorded("digitalocean_v2/list_sizes.json")["sizes"][0]
                slugs = ("s-1vcpu-1gb", self.larger)
                sizes = [size | {"slug": slug, "regions": ["nyc3"]} for slug in slugs]
                return 200, _page("sizes", sizes)
            case "GET", ["regions"]:
                region = recorded("digitalocean_v2/list_locations.json")["regions"][0]
                return 200, _page("regions", [region | {"slug": "nyc3"}])
        return 404, {"id": "not_found", "message": path}


class Vultr(Service):
    name = "vultr"
    larger = "vc2-2c-4gb"

    def answer(self, method: str, path: str, body: Any) -> Answer:
        words = path.strip("/").split("/")[1:]
        match (method, words):
            case "GET", ["instances"]:
                self.listings += 1
                return 200, _page("instances", list(self.nodes.values()))
            case "POST", ["instances"]:
                node = recorded("vultr_v2/list_nodes.json")["instances"][0]
                node |= {"id": self.next_id(), "label": body["label"], "tag": body["tag"]}
                node |= {"plan": body["plan"], "main_ip": "0.0.0.0", "status": "pending"}
                self.user_data = _decoded(body["user_data"])
                self.nodes[node["id"]] = node
                answer = 202, {"instance": dict(node)}
                node |= {"main_ip": ADDRESS, "status": "active"}
                return answer
            case "DELETE", ["instances", identifier]:
                return (204, None) if self.nodes.pop(identifier, None) else (404, {})
            case "PATCH", ["instances", identifier]:
                self.nodes[identifier]["plan"] = body["plan"]
                return 202, {"instance": self.nodes[identifier]}
            case "POST", ["instances", "halt"]:
                for identifier in body["instance_ids"]:
                    self.nodes[identifier]["power_status"] = "stopped"
                return 204, None
            case "POST", ["instances", identifier, "start"]:
                self.nodes[identifier]["power_status"] = "running"
                return 204, None
            case "GET", ["plans"]:
                return 200, _page("plans", recorded("vultr_v2/list_sizes.json")["plans"][:3])
            case "GET", ["os"]:
                system = recorded("vultr_v2/list_images.json")["os"][0]
                return 200, _page("os", [system | {"id": 2625, "name": "Debian 13 x64 (trixie)"}])
            case "GET", ["regions"]:
                region = recorded("vultr_v2/list_locations.json")["regions"][0]
                return 200, _page("regions", [region | {"id": "ewr"}])
        return 404, {"error": path, "status": 404}

    def unauthorised(self) -> Answer:
        return 401, {"error": "Invalid API token.", "status": 401}


class Linode(Service):
    name = "linode"
    larger = "g6-standard-2"

    def answer(self, method: str, path: str, body: Any) -> Answer:
        words = path.strip("/").split("/")[1:]
        match (method, words):
            case "GET", ["linode", "instances"]:
                self.listings += 1
                return 200, _data(list(self.nodes.values()))
            case "POST", ["linode", "instances"]:
                node = recorded("linode_v4/list_nodes.json")["data"][0]
                node |= {"id": int(self.next_id()), "label": body["label"], "tags": body["tags"]}
                node |= {"type": body["type"], "status": "provisioning", "ipv4": [ADDRESS]}
                self.user_data = _decoded(body["metadata"]["user_data"])
                self.nodes[str(node["id"])] = node
                answer = 200, dict(node)
                node["status"] = "running"
                return answer
            case "DELETE", ["linode", "instances", identifier]:
                return (
                    (200, {}) if self.nodes.pop(identifier, None) else (404, _errors("Not found"))
                )
            case "POST", ["linode", "instances", identifier, "resize"]:
                assert self.nodes[identifier]["status"] == "offline"
                self.nodes[identifier]["type"] = body["type"]
                return 200, {}
            case "POST", ["linode", "instances", identifier, verb]:
                state = {"shutdown": "offline", "boot": "running"}[verb]
                self.nodes[identifier]["status"] = state
                return 200, {}
            case "GET", ["linode", "types"]:
                size = recorded("linode_v4/list_types.json")["data"][0]
                return 200, _data([size | {"id": each} for each in ("g6-standard-1", self.larger)])
            case "GET", ["images"]:
                image = recorded("linode_v4/list_images.json")["data"][0]
                return 200, _data([image | {"id": "linode/debian13"}])
            case "GET", ["regions"]:
                region = recorded("linode_v4/list_locations.json")["data"][0]
                return 200, _data([region | {"id": "us-east"}])
        return 404, _errors(path)

    def unauthorised(self) -> Answer:
        return 401, _errors("Invalid Token")


class OpenStack(Service):
    """Identity, compute, images and networks at paths of one address."""

    name = "openstack"
    larger = "m1.large"
    PARTS: ClassVar[dict[str, tuple[str, str]]] = {
        "compute": ("nova", "/nova/v2.1"),
        "image": ("glance", "/glance"),
        "network": ("neutron", "/neutron"),
    }

    def authorised(self, headers: Any, path: str, body: Any) -> bool:
        if path == "/v3/auth/tokens":
            user = body["auth"]["identity"]["password"]["user"]
            return bool(user["password"] == TOKEN)
        return bool(headers.get("X-Auth-Token") == TOKEN)

    def unauthorised(self) -> Answer:
        words = "The request you have made requires authentication."
        return 401, {"error": {"message": words, "code": 401, "title": "Unauthorized"}}

    def answer(self, method: str, path: str, body: Any) -> Answer:
        match (method, path.strip("/").split("/")):
            case "POST", ["v3", "auth", "tokens"]:
                return 201, self._token()
            case "GET", ["nova", _, "servers", "detail"]:
                self.listings += 1
                return 200, {"servers": list(self.nodes.values())}
            case "GET", ["nova", _, "servers", identifier]:
                return 200, {"server": self.nodes[identifier]}
            case "POST", ["nova", _, "servers"]:
                return 202, {"server": {"id": self._made(body["server"]), "adminPass": "x"}}
            case "DELETE", ["nova", _, "servers", identifier]:
                return (204, None) if self.nodes.pop(identifier, None) else (404, {})
            case "POST", ["nova", _, "servers", identifier, "action"]:
                return self._act(self.nodes[identifier], body)
            case "GET", ["nova", _, "flavors", "detail"]:
                flavour = recorded("openstack_v1_1/_flavors_detail.json")["flavors"][0]
                names = {"1": "m1.small", "2": self.larger}
                there = [flavour | {"id": key, "name": name} for key, name in names.items()]
                return 200, {"flavors": there}
            case "GET", ["glance", "v2", "images"]:
                image = recorded("openstack_v1_1/_images_v2.json")["images"][0]
                return 200, {"images": [image | {"name": "debian-13"}]}
            case "GET", ["neutron", "v2.0", "networks"]:
                network = recorded("openstack_v1_1/_v2_0__networks.json")["networks"][0]
                return 200, {"networks": [network | {"name": "private"}]}
        return 404, {"itemNotFound": {"message": path, "code": 404}}

    def _act(self, node: dict[str, Any], asked: Any) -> Answer:
        if "resize" in asked:
            node |= {"status": "VERIFY_RESIZE", "OS-EXT-STS:vm_state": "resized"}
            node["flavor"] = {"id": asked["resize"]["flavorRef"]}
        elif "confirmResize" in asked:
            node |= {"status": "SHUTOFF", "OS-EXT-STS:vm_state": "stopped"}
            return 204, None
        else:
            node["status"] = "SHUTOFF" if "os-stop" in asked else "ACTIVE"
        return 202, None

    def _made(self, asked: Any) -> str:
        node = recorded("openstack_v1_1/_servers_detail.json")["servers"][0]
        del node["fault"]
        node |= {"id": self.next_id(), "name": asked["name"], "metadata": asked["metadata"]}
        node |= {"status": "ACTIVE", "addresses": {"private": [{"version": 4, "addr": ADDRESS}]}}
        self.user_data = _decoded(asked["user_data"])
        self.nodes[node["id"]] = node
        return str(node["id"])

    def _token(self) -> Any:
        token = recorded("openstack/_v3__auth.json")
        token["token"] |= {"expires_at": "2999-01-01T00:00:00.000000Z"}
        token["token"]["catalog"] = [
            {
                "type": kind,
                "name": name,
                "id": kind,
                "endpoints": [
                    {
                        "url": self.url + path,
                        "region": "RegionOne",
                        "interface": "public",
                        "id": kind,
                    }
                ],
            }
            for kind, (name, path) in self.PARTS.items()
        ]
        return token


def service_account() -> str:
    """A key of Google's kind, for the token that nobody checks."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return json.dumps({"client_email": "machine@test", "private_key": pem.decode()})


def secret(service: Service) -> str:
    """What its driver has to be given."""
    return service_account() if isinstance(service, Google) else TOKEN


class Google(Service):
    """Operations are done as soon as they are asked for."""

    name = "google"
    larger = "e2-medium"
    PROJECT = "project_name"

    def __init__(self) -> None:
        super().__init__()
        self.firewalls: dict[str, dict[str, Any]] = {}

    def unauthorised(self) -> Answer:
        return 401, _google_error(401, "authError", "Invalid Credentials")

    def answer(self, method: str, path: str, body: Any) -> Answer:
        words = path.partition("/projects/")[2].split("/")
        match (method, words[1:]):
            case "GET", ["zones"]:
                return 200, recorded("gce/zones.json")
            case "GET", ["zones", "us-central1-a"]:
                return 200, recorded("gce/zones_us-central1-a.json")
            case "GET", ["regions"]:
                return 200, recorded("gce/regions.json")
            case "GET", ["regions", "us-central1"]:
                return 200, recorded("gce/regions_us-central1.json")
            case "GET", ["zones", zone, "machineTypes"]:
                return 200, {
                    "items": [self._size(zone, name) for name in ("e2-small", self.larger)]
                }
            case "GET", ["zones", zone, "machineTypes", name]:
                return 200, self._size(zone, name)
            case "GET", ["global", "images", "family", _]:
                file = "gce/projects_coreos-cloud_global_images_family_coreos_stable.json"
                return 200, recorded(file) | {"name": "ubuntu-2404-noble-v20250101"}
            case "GET", ["zones", _, "diskTypes", _]:
                return 200, recorded("gce/zones_us-central1-a_diskTypes_pd_standard.json")
            case "GET", ["global", "networks", "default"]:
                return 200, recorded("gce/global_networks_default.json")
            case "GET", ["global", "firewalls"]:
                return 200, {"items": list(self.firewalls.values())}
            case "GET", ["global", "firewalls", name]:
                return 200, self.firewalls[name]
            case ("POST", ["global", "firewalls"]) | ("PUT", ["global", "firewalls", _]):
                rule = recorded("gce/global_firewalls_lcfirewall.json") | body
                self.firewalls[rule["name"]] = rule
                return 200, self._done()
            case "DELETE", ["global", "firewalls", name]:
                del self.firewalls[name]
                return 200, self._done()
            case ("GET", ["zones", _, "operations", _]) | ("GET", ["global", "operations", _]):
                return 200, self._done()
            case "GET", ["aggregated", "instances"]:
                self.listings += 1
                there = {"zones/us-central1-a": {"instances": list(self.nodes.values())}}
                return 200, {"items": there}
            case "GET", ["aggregated", "machineTypes"]:
                there = {
                    "zones/us-central1-a": {
                        "machineTypes": [self._size("us-central1-a", "e2-small")]
                    }
                }
                return 200, {"items": there}
            case "GET", ["aggregated", "disks"]:
                return 200, {"items": {}}
            case "POST", ["zones", _, "instances"]:
                self._made(body)
                return 200, self._done()
            case "GET", ["zones", _, "instances", name] if name in self.nodes:
                return 200, self.nodes[name]
            case "DELETE", ["zones", _, "instances", name] if name in self.nodes:
                del self.nodes[name]
                return 200, self._done()
            case "POST", ["zones", _, "instances", name, "setMachineType"]:
                assert self.nodes[name]["status"] == "TERMINATED"
                self.nodes[name]["machineType"] = body["machineType"]
                return 200, self._done()
            case "POST", ["zones", _, "instances", name, verb]:
                state = {"stop": "TERMINATED", "start": "RUNNING"}[verb]
                self.nodes[name]["status"] = state
                return 200, self._done()
        return 404, _google_error(404, "notFound", path)

    def _size(self, zone: str, name: str) -> Any:
        file = "gce/zones_europe-west1-a_machineTypes_n1-standard-1.json"
        return recorded(file) | {"name": name, "zone": zone}

    def _done(self) -> Any:
        return recorded("gce/operations_operation_zones_us-central1-a_instances_post.json")

    def _made(self, asked: Any) -> None:
        node = recorded("gce/zones_us-central1-a_instances_node-name.json")
        node |= {"name": asked["name"], "labels": asked["labels"], "id": self.next_id()}
        node |= {"disks": [], "machineType": asked["machineType"]}
        node["tags"]["items"] = asked["tags"]["items"]
        node["networkInterfaces"][0]["accessConfigs"][0]["natIP"] = ADDRESS
        (item,) = asked["metadata"]["items"]
        self.user_data = item["value"]
        self.nodes[asked["name"]] = node


class Azure(Service):
    """Its resources by their paths, as they were put. What a node has of its own comes and goes with
    it, by the deleteOption that it was asked for with."""

    name = "azure"
    larger = "Standard_A2"
    makes = ("PUT",)
    SUBSCRIPTION: ClassVar[str] = "99999999"
    PREFIX: ClassVar[str] = f"/subscriptions/{SUBSCRIPTION}"

    def __init__(self) -> None:
        super().__init__()
        self.resources: dict[str, dict[str, Any]] = {}
        self.power: dict[str, str] = {}

    def unauthorised(self) -> Answer:
        return 401, _azure_error("AuthenticationFailed", "Authentication failed.")

    def quota(self, reason: str) -> Answer:
        return 409, _azure_error("OperationNotAllowed", reason)

    def answer(self, method: str, path: str, body: Any) -> Answer:
        words = path.removeprefix(f"{self.PREFIX}/").split("/")
        match (method, words):
            case "GET", ["providers", "Microsoft.Compute"]:
                return 200, recorded(f"{_AZURE}_providers_Microsoft_Compute.json")
            case "GET", ["providers", _, "locations", _, "vmSizes"]:
                return 200, recorded(
                    f"{_AZURE}_providers_Microsoft_Compute_locations_eastus_vmSizes.json"
                )
            case "GET", ["providers", _, "locations", _, *image, "versions"]:
                there = "Debian" in image and "debian-13" in image
                version = {"id": path, "name": "0.20250901.2222"}
                return (200, [version]) if there else (404, _azure_error("NotFound", path))
            case "GET", ["providers", "Microsoft.Compute", "virtualMachines"]:
                self.listings += 1
                return 200, {"value": list(self.nodes.values())}
            case "GET", ["resourceGroups", group, "resources"]:
                inside = f"{self.PREFIX}/resourceGroups/{group}/providers/"
                return 200, {"value": [key for key in self.resources if key.startswith(inside)]}
            case "PUT", [*_, "virtualMachines", name]:
                return 201, self._made(path, name, body)
            case "GET", [*_, "virtualMachines", name, "InstanceView"]:
                return 200, {"statuses": [{"code": f"PowerState/{self.power[name]}"}]}
            case "GET", [*_, "virtualMachines", name] if name in self.nodes:
                return 200, self.nodes[name]
            case "DELETE", [*_, "virtualMachines", name] if name in self.nodes:
                del self.nodes[name]
                return 202, None
            case "POST", [*_, "virtualMachines", name, verb]:
                return self._act(name, verb, body)
            case "PUT", _:
                self.resources[path] = {**body, "id": path}
                return 201, self.resources[path]
            case "GET", _ if path in self.resources:
                return 200, self.resources[path]
            case "DELETE", _ if path in self.resources:
                del self.resources[path]
                return 202, None
            case "GET", [*_, "networkInterfaces", _]:
                return 200, self._card(path)
            case "GET", [*_, "publicIPAddresses", _]:
                address = recorded(f"{_AZURE_GROUP}_publicIPAddresses_test_public_ip.json")
                address["properties"]["ipAddress"] = ADDRESS
                return 200, address
        return 404, _azure_error("ResourceNotFound", path)

    def _act(self, name: str, verb: str, body: Any) -> Answer:
        if verb == "resize":
            assert self.power[name] == "deallocated"
            self.nodes[name]["properties"]["hardwareProfile"]["vmSize"] = body["size"]
        else:
            self.power[name] = {"deallocate": "deallocated", "start": "running"}[verb]
        return 202, None

    def _made(self, path: str, name: str, asked: Any) -> Any:
        node = recorded(f"{_AZURE}_providers_Microsoft_Compute_virtualMachines.json")["value"][0]
        node |= {"id": path, "name": name, "tags": asked["tags"]}
        profile = asked["properties"]
        (card,) = profile["networkProfile"]["networkInterfaceConfigurations"]
        needed = card["properties"]["networkSecurityGroup"]["id"]
        (address,) = card["properties"]["ipConfigurations"]
        assert needed in self.resources
        assert address["properties"]["subnet"]["id"].partition("/subnets/")[0] in self.resources
        place = path.partition("/Microsoft.Compute/")[0] + "/Microsoft.Network"
        node["properties"]["networkProfile"]["networkInterfaces"] = [
            {"id": f"{place}/networkInterfaces/{card['name']}"}
        ]
        node["properties"]["hardwareProfile"] = profile["hardwareProfile"]
        self.user_data = _decoded(profile["osProfile"]["customData"])
        self.nodes[name], self.power[name] = node, "running"
        answer = {**node, "properties": {**profile, "provisioningState": "Creating"}}
        del answer["properties"]["networkProfile"]
        return answer

    def _card(self, path: str) -> Any:
        card = recorded(f"{_AZURE_CARD}.json")
        public = path.replace("networkInterfaces", "publicIPAddresses")
        card["properties"]["ipConfigurations"][0]["properties"]["publicIPAddress"] = {"id": public}
        return card


def _azure_error(code: str, message: str) -> Any:
    return {"error": {"code": code, "message": message}}


_AZURE = "azure_arm/_subscriptions_99999999"
_AZURE_GROUP = f"{_AZURE}_resourceGroups_REVIZOR_providers_Microsoft_Network"
_AZURE_CARD = (
    f"{_AZURE}_resourceGroups_000000_providers_Microsoft_Network_networkInterfaces_test_node_1_nic"
)


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """Its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if not service.authorised(self.headers, self.path, body):
                status, said = service.unauthorised()
            elif service.refuse and self.command in service.makes and "/auth/" not in self.path:
                (status, said), service.refuse = service.refuse, None
            else:
                where = urlsplit(self.path)
                status, said = service.answer(self.command, where.path, body)
            if service.loses_answer and service.nodes:
                service.loses_answer = False
                self.close_connection = True
                return
            text = b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Subject-Token", TOKEN)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _any

        def log_message(self, *words: object) -> None:
            """Standard error is the test's."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            service.url = f"http://127.0.0.1:{server.server_address[1]}"
            yield service.url
        finally:
            server.shutdown()
            thread.join()


def _page(key: str, things: list[Any]) -> Any:
    return {key: things, "links": {}, "meta": {"total": len(things), "links": {"next": ""}}}


def _data(things: list[Any]) -> Any:
    return {"data": things, "page": 1, "pages": 1, "results": len(things)}


def _errors(reason: str) -> Any:
    return {"errors": [{"reason": reason}]}


def _decoded(text: str) -> str:
    import base64

    return base64.b64decode(text).decode()


def _google_error(code: int, reason: str, message: str) -> Any:
    error = {"domain": "global", "reason": reason, "message": message}
    return {"error": {"code": code, "message": message, "errors": [error]}}
