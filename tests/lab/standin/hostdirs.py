"""Several registry directories as one, for tools that take only one and always add a default endpoint.

containerd 2.x looks a registry up in the first directory of ``config_path``, then in the next; in each under
``host_port_``, ``host:port`` and ``_default``, and the first host directory that exists wins whole. K3s's build adds
the registry itself as last endpoint only where a hosts.toml has a ``server`` or names no host at all. containerd 1.6
takes one directory, and adds the registry itself always; so a hosts.toml that K3s's build would end without it gets a
``server`` on loopback that answers 404.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

_toml = import_module("tomllib")  # Python 3.11; by name, since the checker's oldest Python lacks it

Directory = Mapping[str, Mapping[str, bytes]]
"""Host directories: name to the files in it."""


def merged(directories: Sequence[Directory], dead_end: str) -> dict[str, dict[str, bytes]]:
    """One directory in which every registry finds what it would find in these, in their order.

    :param dead_end: URL of the server on loopback that has nothing.
    """
    result: dict[str, dict[str, bytes]] = {}
    for directory in directories:
        taken = {_canonical(name) for name in result}
        for name, files in directory.items():
            if _canonical(name) not in taken:
                result[name] = {
                    file: terminated(content, dead_end) if file == "hosts.toml" else content
                    for file, content in files.items()
                }
        if "_default" in directory:
            break  # it answers for every registry: no later directory is ever asked
    return result


def terminated(hosts_toml: bytes, dead_end: str) -> bytes:
    """A hosts.toml that ends, for containerd 1.6, where K3s's containerd would end; broken ones stay as they are."""
    try:
        table = _toml.loads(hosts_toml.decode("utf-8"))
    except ValueError:
        return hosts_toml
    if "server" in table or not table.get("host"):
        return hosts_toml
    return f'server = "{dead_end}"\n'.encode() + hosts_toml


def read(directory: Path) -> dict[str, dict[str, bytes]]:
    """The host directories of one registry directory, with their files; none where it does not exist."""
    found: dict[str, dict[str, bytes]] = {}
    if not directory.is_dir():
        return found
    for host in sorted(directory.iterdir()):
        if host.is_dir():
            found[host.name] = {item.name: item.read_bytes() for item in sorted(host.iterdir()) if item.is_file()}
    return found


def write(directory: Path, content: Directory) -> bool:
    """Make a directory hold exactly this; files that are right stay untouched. Says whether anything changed."""
    changed = False
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for host in [item for item in directory.iterdir() if item.name not in content]:
        for item in host.iterdir():
            item.unlink()
        host.rmdir()
        changed = True
    for name, files in content.items():
        host = directory / name
        host.mkdir(mode=0o700, exist_ok=True)
        for item in [item for item in host.iterdir() if item.name not in files]:
            item.unlink()
            changed = True
        for file, data in files.items():
            target = host / file
            if target.is_file() and target.read_bytes() == data:
                continue
            fresh = host / f".{file}.new"
            fresh.write_bytes(data)
            fresh.replace(target)
            changed = True
    return changed


def _canonical(name: str) -> str:
    """``reg_5000_`` and ``reg:5000`` are two names for one registry."""
    if name.endswith("_") and name != "_default":
        host, _, port = name[:-1].rpartition("_")
        if host and port.isdigit():
            return f"{host}:{port}"
    return name
