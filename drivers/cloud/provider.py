"""What one provider is to the driver that all share: a row of names and small functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

MARK: Final = "machine-id"
"""What a node of ours is known by: a tag "machine-id:ID", or a key with the id as its value."""


@dataclass(frozen=True, slots=True)
class Order:
    """A node to be made; ``size``, ``image`` and ``location`` are libcloud's objects."""

    name: str
    id: str
    user_data: str
    disk_gib: int
    engine_port: int
    size: Any
    image: Any
    location: Any


def nothing(made: Any, config: Any, order: Order) -> None:
    """For providers that need nothing before a node."""


def nothing_more(config: Any, order: Order) -> Mapping[str, Any]:
    """For providers whose nodes are not made by create_node."""
    return {}


def no_remains(made: Any, config: Any) -> None:
    """For providers where nothing is left of the last node."""


@dataclass(frozen=True, slots=True)
class Provider:
    """``secrets`` are values of the options that are, by key. Functions get libcloud's own driver as
    ``made``, and may raise whatever it raises."""

    title: str
    connect: Callable[[Any, Mapping[str, str]], Any]  # config, secrets: libcloud's driver
    mark: Callable[[Any], str]  # node: the id of the machine that it is, or ""
    by_hand: str  # a command that removes a node: {id}, {name}
    order: Callable[[Any, Order], Mapping[str, Any]] = nothing_more  # create_node's further words
    make: Callable[[Any, Any, Order], Any] | None = None  # instead of create_node
    destroy: Callable[[Any, Any], Any] = lambda made, node: made.destroy_node(node)
    nodes: Callable[[Any], list[Any]] = lambda made: list(made.list_nodes())
    sizes: Callable[[Any, Any], list[Any]] = lambda made, location: list(made.list_sizes(location))
    place: str = "region"  # the option that says where
    location: Callable[[Any, Any], Any] | None = None  # made, config; None: by its id or name
    image: Callable[[Any, Any], Any] | None = None
    start: Callable[[Any, Any], Any] = lambda made, node: made.start_node(node)
    stop: Callable[[Any, Any], Any] = lambda made, node: made.stop_node(node)
    resize: Callable[[Any, Any, Any], Any] = lambda made, node, size: made.ex_resize_node(
        node, size
    )
    resized: Callable[[Any, Any], bool] = lambda made, node: True  # asked until it is
    size_name: Callable[[Any], str] = lambda node: str(node.size)
    price_per: str = ""  # what libcloud's prices are for: "hour", "month"; "" without any
    prepare: Callable[[Any, Any, Order], None] = nothing
    clean: Callable[[Any, Any], None] = no_remains
    needs: tuple[str, ...] = ()  # options without which nothing can be asked


def tagged(tags: Any) -> str:
    """The machine's id in a list of tags."""
    marks = [str(tag).partition(":")[2] for tag in tags or () if str(tag).startswith(f"{MARK}:")]
    return marks[0] if marks else ""


def tag(order: Order) -> str:
    return f"{MARK}:{order.id}"
