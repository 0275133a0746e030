"""Reader of ``/etc/appliance/config.yaml``, the configuration of a node.

Unknown keys are refused, so that a typo is found at start and not at the third power loss.

Decision 5.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import yaml

from appliance.errors import ApplianceError, fail

DEFAULT_PATH = Path("/etc/appliance/config.yaml")
PEER_PORT = 5443
MIRROR_PORT = 5000
LIVE = ("seeds", "mirror_copies", "peers")
"""Keys that a running process reloads when the file is replaced, ``publisher`` with ``seeds``: the list of nodes."""

_LOG = logging.getLogger("appliance.config")


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
    """Configuration of one node; see :func:`load` for the form of its file.

    ``platforms``: what the site's nodes run (``linux/amd64``), for seedings by hand; empty where that is not known.
    ``site``: its name, that a medium may say it is for; None where it has none.
    """

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
    store_limit: int | None = None
    scrub_rate: int = 8 << 20
    workers: int = 2
    peer_workers: int = 1
    push_users: Path | None = None
    platforms: tuple[str, ...] = ()
    site: str | None = None
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def publisher(self) -> str | None:
        """Id of the one node that makes generations: the first seed."""
        return self.seeds[0] if self.seeds else None

    @property
    def is_publisher(self) -> bool:
        """Return whether this node makes generations; a node without a site makes its own."""
        return not self.seeds or self.node == self.publisher

    @cached_property
    def others(self) -> tuple[Peer, ...]:
        """Every listed node but this one."""
        return tuple(peer for peer in self.peers if peer.id != self.node)

    @cached_property
    def ids(self) -> frozenset[str]:
        """Ids of the nodes of this site."""
        return frozenset(peer.id for peer in self.peers)

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Addresses that listed nodes connect from, without ports, in the form that the kernel gives."""
        return frozenset(
            _canonical(host)
            for peer in self.peers
            for text in (f"//{_bracketed(peer.address)}", peer.url)
            if (host := urlsplit(text).hostname) is not None
        )

    @cached_property
    def site_addresses(self) -> frozenset[str]:
        """Every spelling of a listed node's address that a client may send as ``ns``: it then means no ``ns``."""
        spellings: set[str] = set()
        for peer in self.peers:
            host = _bracketed(peer.address)
            spellings |= {peer.address, host, peer.id, f"{peer.id}:{PEER_PORT}", urlsplit(peer.url).netloc}
            if not _has_port(host):
                spellings.add(f"{host}:{PEER_PORT}")
        return frozenset(spellings)


class LiveConfig:
    """Configuration as it is now: the list of nodes (:data:`LIVE`) is reloaded when the file is replaced.

    All other keys keep the values that they had at the start of the process: listeners, workers and directories do not
    change. A file that cannot be used changes nothing, and is logged once. One ``stat`` finds the change, so no signal is
    needed and none can be missed. A caller that needs one list for a whole request asks once.

    :param config: what this process started with.
    :param path: the file; None: it never changes (development, and what runs for a moment).
    """

    def __init__(self, config: Config, path: Path | None = None) -> None:
        self._config = config
        self._path = path
        self._seen: tuple[int, ...] | None = ()

    def get(self) -> Config:
        """The configuration of now; the same object until something in the list changes."""
        if self._path is not None:
            state = _state(self._path)
            if state != self._seen:
                self._seen = state
                self._config = self._renewed(self._path)
        return self._config

    @property
    def seeds(self) -> Collection[str]:
        """The ids of the seeds, whenever it is looked at."""
        return _View(lambda: self.get().seeds)

    @property
    def site_addresses(self) -> Collection[str]:
        """:attr:`Config.site_addresses`, whenever it is looked at."""
        return _View(lambda: self.get().site_addresses)

    def _renewed(self, path: Path) -> Config:
        known = self._config
        try:
            found = load(path)
            if found.node != known.node:
                _wrong(str(path), f"it is of node {found.node}, and this is {known.node}")
        except ApplianceError as problem:
            _LOG.error("the list of nodes stays as it was: %s", problem)
            return known
        renewed = replace(known, **{key: getattr(found, key) for key in LIVE})
        return known if renewed == known else renewed


class _View(Collection[str]):
    """Words that are looked up anew each time."""

    def __init__(self, take: Callable[[], Collection[str]]) -> None:
        self._take = take

    def __contains__(self, item: object) -> bool:
        return item in self._take()

    def __iter__(self) -> Iterator[str]:
        return iter(self._take())

    def __len__(self) -> int:
        return len(self._take())


def _state(path: Path) -> tuple[int, ...] | None:
    """Changes whenever a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


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
    "store_limit",
    "scrub_rate",
    "workers",
    "peer_workers",
    "push_users",
    "site",
}
_PEER_KEYS = {"id", "address", "zone", "seed", "url"}


def load(path: Path = DEFAULT_PATH) -> Config:
    """Read and check the configuration of this node.

    The file is a mapping: ``node`` (id), ``store`` and ``pki`` (directories), ``seeds`` (ordered ids, the first is
    the publisher), ``mirror_copies`` (number or ``all``), ``peers`` (list of mappings ``id``, ``address``, ``zone``,
    ``seed``), and optional ``agent_socket``, ``mirror_listen``, ``peer_listen``, ``keep_generations`` (count),
    ``free_percent`` (percent of the store's file system to leave free), ``store_limit`` (bytes that the store may take),
    ``scrub_rate`` (bytes a second that are re-hashed; 0: none), ``workers`` and ``peer_workers``
    (processes that answer on the local and on the peers' listener), ``push_users`` (file of
    operators' credentials; pushing is on where it is named), ``site`` (its name; a medium for another one is refused).
    :class:`LiveConfig` says which keys count at once.

    Beside it, on the node that seeds, lies ``platforms``: what the site's nodes run, one a line. It is a file of its own
    because the services do not start from it: a node of another architecture must not restart them.

    :raises ApplianceError: APL-0601 when it cannot be read, APL-0602 when its content is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        _wrong(str(path), f"it is not UTF-8: {error}")
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
    except (yaml.YAMLError, RecursionError) as error:
        fail("APL-0602", "the configuration is not YAML", where=str(path), why=str(error), fix="Run site.yml again")
    return replace(from_mapping(data, str(path)), platforms=_platforms(path.with_name("platforms")))


def _platforms(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    except OSError as error:
        fail(
            "APL-0601",
            "cannot read the list of running images",
            where=str(path),
            why=error.strerror or str(error),
            fix="Run playbooks/update.yml, which writes it, or name the platforms with --platform",
        )
    return tuple(line for line in map(str.strip, lines) if line and not line.startswith("#"))


def from_mapping(data: object, where: str) -> Config:
    """Build a :class:`Config` from parsed YAML; ``where`` names the file in errors (APL-0602)."""
    if not isinstance(data, dict):
        _wrong(where, "it is not a mapping")
    unknown = sorted(map(str, set(data) - _KEYS))
    if unknown:
        _wrong(where, f"unknown keys: {', '.join(unknown)}")
    for key in ("node", "store"):
        if not isinstance(data.get(key), str) or not data[key]:
            _wrong(where, f"{key} is missing or not a string")
    seeds = tuple(_list(data, "seeds", where))
    if not all(isinstance(seed, str) for seed in seeds) or len(set(seeds)) != len(seeds):
        _wrong(where, "seeds is not a list of ids, each once")
    peers = tuple(_peer(item, where, seeds) for item in _list(data, "peers", where))
    ids = [peer.id for peer in peers]
    if len(set(ids)) != len(ids):
        _wrong(where, "two peers have one id")
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
    }
    for key in ("pki", "push_users", "agent_socket", "mirror_listen", "peer_listen"):
        value = data.get(key)
        if value is None:
            continue
        if not isinstance(value, str) or not value:
            _wrong(where, f"{key} is not a string")
        values[key] = value if key.endswith("_listen") else Path(value)
    if (site := data.get("site")) is not None:
        if not isinstance(site, str) or not site:
            _wrong(where, "site is not a string")
        values["site"] = site
    for key in ("keep_generations", "workers", "peer_workers"):
        if key in data:
            if type(data[key]) is not int or data[key] < 1:
                _wrong(where, f"{key} is not a number above 0")
            values[key] = data[key]
    for key, least in (("store_limit", 1), ("scrub_rate", 0)):
        if data.get(key) is not None:
            if type(data[key]) is not int or data[key] < least:
                _wrong(where, f"{key} is not a number of bytes, {least} or more")
            values[key] = data[key]
    if "free_percent" in data:
        percent = data["free_percent"]
        if type(percent) not in (int, float) or not 0 <= percent < 100:
            _wrong(where, "free_percent is not a number from 0 to below 100")
        values["free_percent"] = float(percent)
    return Config(**values)


def _list(data: dict[Any, Any], key: str, where: str) -> list[Any]:
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        _wrong(where, f"{key} is not a list")
    return value


def _peer(item: object, where: str, seeds: tuple[str, ...]) -> Peer:
    if not isinstance(item, dict):
        _wrong(where, "a peer without id and address")
    for key in ("id", "address"):
        if not isinstance(item.get(key), str) or not item[key]:
            _wrong(where, "a peer without id and address")
    unknown = sorted(map(str, set(item) - _PEER_KEYS))
    if unknown:
        _wrong(where, f"peer {item['id']}: unknown keys: {', '.join(unknown)}")
    for key in ("zone", "url"):
        if not isinstance(item.get(key, ""), str):
            _wrong(where, f"peer {item['id']}: {key} is not a string")
    if not isinstance(item.get("seed", False), bool):
        # The text "false" is true in every language that has to guess.
        _wrong(where, f"peer {item['id']}: seed is neither true nor false")
    host = _bracketed(item["address"])
    return Peer(
        id=item["id"],
        url=(item.get("url") or f"https://{host if _has_port(host) else f'{host}:{PEER_PORT}'}").rstrip("/"),
        address=item["address"],
        zone=item.get("zone", "default"),
        # The ordered list is what counts: it names the publisher, and whose signatures are good.
        seed=item["id"] in seeds if seeds else item.get("seed", False),
    )


def _bracketed(address: str) -> str:
    """The address as it stands in a URL: an IPv6 address in brackets."""
    try:
        return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        return address


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def _wrong(where: str, why: str) -> NoReturn:
    fail("APL-0602", "the configuration is invalid", where=where, why=why, fix="Correct the inventory and run site.yml")
