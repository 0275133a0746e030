"""Keys and certificates of a site's nodes, as its role makes them."""

from __future__ import annotations

from pathlib import Path

from appliance import pki


def certify(ca: Path, directory: Path, node: str, address: str = "10.0.0.1") -> Path:
    """Make the key of a node, have the authority sign it, and return the node's directory of keys.

    :param ca: directory of the authority.
    """
    pki.request(directory, node, address)
    pki.sign(ca, directory / "node.csr", directory / "node.crt", node, address)
    (directory / "ca.crt").write_bytes((ca / "ca.crt").read_bytes())
    return directory


def site_keys(root: Path, *nodes: str, address: str = "10.0.0.1") -> Path:
    """Make an authority in ``<root>/ca`` and the keys of each node in ``<root>/<node>``; returns ``root``."""
    pki.init_ca(root / "ca")
    for node in nodes:
        certify(root / "ca", root / node, node, address)
    return root
