"""The one reader of ``/etc/appliance/config.yaml``: what a node is told about its site.

Unknown keys are refused, so that a typo is found at start and not at the third power loss.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from appliance.errors import fail

DEFAULT_PATH = Path("/etc/appliance/config.yaml")
PEER_PORT = 5443
MIRROR_PORT = 5000


@dataclass(frozen=True)
class Peer:
    """One listed node of the site.

    :param id: ``inventory_hostname``; also the name its certificate carries.
    :param url: base URL of its peer listener, without a trailing slash.
    :param address: host or ``host:port`` its clients may use as the registry part of a name.
    :param zone: name of the part of the site it stands in.
    :param seed: whether its signature makes a generation valid.
    """

    id: str
    url: str
    address: str
    zone: str = "default"
    seed: bool = False


@dataclass(frozen=True)
class Config:
    """What one node knows of its site; see :func:`load` for the file's form."""

    node: str
    store: Path
    peers: tuple[Peer, ...] = ()
    seeds: tuple[str, ...] = ()
    mirror_copies: int | None = 2
    pki: Path | None = None
    agent_socket: Path = Path("/run/appliance/agent.sock")
    mirror_listen: str = f"127.0.0.1:{MIRROR_PORT}"
    peer_listen: str = f"0.0.0.0:{PEER_PORT}"
    keep_generations: int = 3
    free_percent: float = 15.0
    workers: int = 2
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def publisher(self) -> str | None:
        """Id of the one node that makes generations: the first seed."""
        return self.seeds[0] if self.seeds else None

    @property
    def is_publisher(self) -> bool:
        """Whether this node makes generations; a node without a site makes its own."""
        return not self.seeds or self.node == self.publisher

    @property
    def others(self) -> tuple[Peer, ...]:
        """Every listed node but this one."""
        return tuple(peer for peer in self.peers if peer.id != self.node)

    @property
    def site_addresses(self) -> frozenset[str]:
        """Every spelling of a listed node's address that a client may send as ``ns``: it then means no ``ns``."""
        spellings: set[str] = set()
        for peer in self.peers:
            host, _, port = peer.address.rpartition(":") if ":" in peer.address else (peer.address, "", "")
            spellings.add(peer.address)
            if not port:
                spellings |= {f"{host}:{PEER_PORT}"}
            spellings |= {peer.id, f"{peer.id}:{PEER_PORT}"}
        return frozenset(spellings)


_KEYS = {
    "node",
    "store",
    "pki",
    "publisher",
    "seeds",
    "mirror_copies",
    "peers",
    "agent_socket",
    "mirror_listen",
    "peer_listen",
    "keep_generations",
    "free_percent",
    "workers",
}
_PEER_KEYS = {"id", "address", "zone", "seed", "url"}


def load(path: Path = DEFAULT_PATH) -> Config:
    """Read and check the configuration of this node.

    The file is a mapping: ``node`` (id), ``store`` and ``pki`` (directories), ``seeds`` (ordered ids, the first is
    the publisher), ``mirror_copies`` (number or ``all``), ``peers`` (list of mappings ``id``, ``address``, ``zone``,
    ``seed``), and optional ``agent_socket``, ``mirror_listen``, ``peer_listen``, ``keep_generations`` (count),
    ``free_percent`` (percent of the store's file system to leave free), ``workers`` (count).

    :raises ApplianceError: APL-0601 when it cannot be read, APL-0602 when its content is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        fail(
            "APL-0601",
            "cannot read the appliance's configuration",
            where=str(path),
            why=error.strerror or str(error),
            fix="Run site.yml for this node, or name another file with --config",
        )
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        fail("APL-0602", "the configuration is not YAML", where=str(path), why=str(error), fix="Run site.yml again")
    return from_mapping(data, str(path))


def from_mapping(data: object, where: str) -> Config:
    """Build a :class:`Config` from parsed YAML; ``where`` names the file in errors (APL-0602)."""
    if not isinstance(data, dict):
        _wrong(where, "it is not a mapping")
    unknown = sorted(set(data) - _KEYS)
    if unknown:
        _wrong(where, f"unknown keys: {', '.join(map(str, unknown))}")
    for key in ("node", "store"):
        if not isinstance(data.get(key), str):
            _wrong(where, f"{key} is missing or not a string")
    peers = tuple(_peer(item, where) for item in data.get("peers") or ())
    ids = [peer.id for peer in peers]
    if len(set(ids)) != len(ids):
        _wrong(where, "two peers have one id")
    seeds = tuple(data.get("seeds") or ())
    if peers and data["node"] not in ids:
        _wrong(where, f"peers does not list this node, {data['node']}")
    strangers = [seed for seed in seeds if seed not in ids]
    if strangers:
        _wrong(where, f"seeds that no peer is: {', '.join(strangers)}")
    publisher = data.get("publisher")
    if publisher is not None and (not seeds or publisher != seeds[0]):
        _wrong(where, f"publisher {publisher} is not the first of seeds")
    copies = data.get("mirror_copies", 2)
    if copies != "all" and (not isinstance(copies, int) or isinstance(copies, bool) or copies < 1):
        _wrong(where, "mirror_copies is neither a number above 0 nor 'all'")
    values: dict[str, Any] = {
        "node": data["node"],
        "store": Path(data["store"]),
        "peers": peers,
        "seeds": seeds,
        "mirror_copies": None if copies == "all" else copies,
        "pki": Path(data["pki"]) if data.get("pki") else None,
    }
    for key in ("mirror_listen", "peer_listen", "keep_generations", "free_percent", "workers"):
        if key in data:
            values[key] = data[key]
    if "agent_socket" in data:
        values["agent_socket"] = Path(data["agent_socket"])
    return Config(**values)


def _peer(item: object, where: str) -> Peer:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str) or not isinstance(item.get("address"), str):
        _wrong(where, "a peer without id and address")
    unknown = sorted(set(item) - _PEER_KEYS)
    if unknown:
        _wrong(where, f"peer {item['id']}: unknown keys: {', '.join(map(str, unknown))}")
    address = item["address"]
    try:
        host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        host = address
    return Peer(
        id=item["id"],
        url=item.get("url") or f"https://{host}:{PEER_PORT}",
        address=address,
        zone=item.get("zone", "default"),
        seed=bool(item.get("seed", False)),
    )


def _wrong(where: str, why: str) -> NoReturn:
    fail("APL-0602", "the configuration is wrong", where=where, why=why, fix="Correct the inventory and run site.yml")
