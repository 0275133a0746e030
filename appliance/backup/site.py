"""Backup of a site, made on the controller: the authority, the publisher's store, and what installs K3s again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from appliance import pki
from appliance.backup import container
from appliance.backup import contents as names
from appliance.backup.container import Backup, Content
from appliance.errors import fail

KIND = "site"
STORE = "store.tar"
CA_KEY, CA_CERTIFICATE = "pki/ca.key", "pki/ca.crt"

Authority = Literal["absent", "same", "other"]


def pack(path: Path, created: str, ca: Path, store: Path, more: Mapping[str, Path], about: Mapping[str, Any]) -> Backup:
    """Write the backup of a site.

    :param ca: directory of the site's authority.
    :param store: the backup that the publisher's store gave.
    :param more: further files: name to where it lies.
    :param about: what else ``backup.json`` says.
    :raises ApplianceError: as :func:`appliance.backup.container.write`; APL-0607 for an authority that cannot be used.
    """
    site = pki.site_of(ca)
    with container.open_backup(store) as file:
        part = container.read(file, names.KIND, str(store))
    contents: dict[str, Content] = {CA_KEY: ca / "ca.key", CA_CERTIFICATE: ca / "ca.crt", STORE: store, **more}
    said = {**about, "site": site, "authority": _print(ca / "ca.crt"), "store": dict(part.about)}
    return container.write(path, KIND, created, said, contents)


def check(file: BinaryIO, where: str, *, site: str | None, ca: Path | None) -> tuple[Backup, Authority]:
    """Read a site's backup whole, and hold it against where it would be restored.

    :param site: name that the site has to have (``mirror_site``); None: any.
    :param ca: directory of the authority on this controller; None: not looked at.
    :returns: the backup, and whether the controller has its authority already.
    :raises ApplianceError: APL-0870 for no whole backup, APL-0872 for another site's, APL-0874 where the controller has
        another authority.
    """
    backup = container.read(file, KIND, where)
    lacking = [name for name in (CA_KEY, CA_CERTIFICATE, STORE) if name not in backup.files]
    if lacking:
        fail("APL-0870", "the backup is incomplete or corrupt", where=where, why=f"it has no {', '.join(lacking)}")
    own = backup.about.get("site")
    if site is not None and own != site:
        fail(
            "APL-0872",
            "the backup belongs to another site",
            where=where,
            why=f"it is of {own!r}, and this inventory is of {site!r} (mirror_site)",
            fix="Nothing was changed. Take this site's backup, or the inventory that belongs to it",
        )
    return backup, "absent" if ca is None else _authority(backup, ca)


def _authority(backup: Backup, ca: Path) -> Authority:
    there = [name for name in (CA_KEY, CA_CERTIFICATE) if (ca / Path(name).name).exists()]
    if not there:
        return "absent"
    for name in there:
        content = (ca / Path(name).name).read_bytes()
        if (len(content), hashlib.sha256(content).hexdigest()) != backup.files[name]:
            fail(
                "APL-0874",
                "this controller has another certificate authority than the backup",
                where=str(ca),
                why=f"{Path(name).name} differs; nodes that have certificates of one do not know the other",
                fix="Nothing was changed. If the backup's is the right one, move this directory away and run it again",
            )
    # Half of it is the whole of it once the other half is back.
    return "same" if len(there) == 2 else "absent"


def _print(certificate: Path) -> str:
    return f"sha256:{hashlib.sha256(certificate.read_bytes()).hexdigest()}"
