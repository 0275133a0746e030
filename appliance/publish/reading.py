"""Result of reading media: what their sources hold together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from appliance.archives.label import Label
from appliance.archives.left_out import LeftOutList
from appliance.media import MediumIdentity
from appliance.publish.referrers import Brought
from appliance.store.index import Entry


@dataclass
class Reading:
    """Contents of all sources of a run.

    :param names: full reference to what it points to.
    :param sizes: full reference to the bytes of everything it needs, each blob once.
    :param blobs: size in bytes of every blob the names need and the medium brought.
    :param origins: full reference to the source that brings it, as it was named.
    :param labels: source to what the medium says of itself, where it does.
    :param identities: source to the medium that it is, for those that were read.
    :param sources: for each source as it was named: ``path``, ``bytes``, and ``state``: ``read``, ``verified-before`` (an
        earlier run read it, and its blobs are in the store) or ``absent-published``; and ``medium``, which one it is in words,
        where that is known.
    :param left_out: files on the media that are not read, with the reason.
    :param notes: remarks for the operator.
    :param manifests: full reference to the digests of the manifests that it reaches.
    :param referrers: signatures and attestations without a name, by digest; which of them are served, the plan says.
    :param allow: which names the sources may bring, as the operator wrote it.
    :param foreign: images that no node can run and that are taken as asked, for the audit log.
    :param other_sites: sources that were made for another site and are taken as asked, with that site.
    """

    names: dict[str, Entry] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, frozenset[str]] = field(default_factory=dict)
    referrers: dict[str, Brought] = field(default_factory=dict)
    allow: list[str] = field(default_factory=list)
    labels: dict[str, Label] = field(default_factory=dict)
    identities: dict[str, MediumIdentity] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    left_out: LeftOutList = field(default_factory=LeftOutList)
    notes: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    other_sites: dict[str, str] = field(default_factory=dict)

    @property
    def all_blobs(self) -> dict[str, int]:
        """Size in bytes of every blob that came for a name or a referrer, whichever of those are published."""
        return self.blobs | {digest: size for item in self.referrers.values() for digest, size in item.blobs.items()}

    @property
    def published_sources(self) -> list[str]:
        """Return the sources that were read, now or by an earlier run, as the operator named them."""
        return [source["path"] for source in self.sources if source["state"] != "absent-published"]

    @property
    def media(self) -> dict[str, dict[str, str]]:
        """Identities of the media, in the form that a generation keeps."""
        return {source: identity.as_dict() for source, identity in self.identities.items()}
