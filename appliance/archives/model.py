"""Result of reading one archive: its images and what refers to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.archives.limits import Limits
from appliance.archives.sink import BlobSink
from appliance.errors import fail
from appliance.oci.manifests import Descriptor
from appliance.oci.platforms import Platform
from appliance.oci.reference import Reference

_SHOWN = 30
"""Names in one error, at most."""


@dataclass(frozen=True)
class Context:
    """Parameters of every resolver.

    :param sink: where the blobs went.
    :param limits: caps.
    :param where: the source, for messages.
    """

    sink: BlobSink
    limits: Limits
    where: str


@dataclass(frozen=True)
class NamedImage:
    """One name of an archive, or one manifest without a name.

    :param reference: the normalised name; None for what has none.
    :param descriptor: its manifest or index.
    :param platforms: what it runs on, counting only what is whole; empty for artifacts.
    :param subject: for a signature or attestation, the digest that it belongs to.
    :param problem: a name that the archive has for it and that cannot be used, with the reason.
    """

    reference: Reference | None
    descriptor: Descriptor
    platforms: list[Platform]
    subject: str | None = None
    problem: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Key that differs between the entries of one archive."""
        return (str(self.reference or self.problem), self.descriptor.digest, self.subject or "")

    @property
    def is_referrer(self) -> bool:
        """Return whether it belongs to another image and needs no name."""
        return self.subject is not None


@dataclass
class ArchiveContents:
    """Everything that one source holds.

    :param format: ``docker-archive``, ``oci-archive``, ``oci-layout`` or ``dir``.
    :param compression: ``none``, ``gzip``, ``zstd``, ``xz`` or ``bzip2``.
    :param images: names and nameless manifests, in the archive's order.
    :param blobs: size in bytes of every blob that the images reach and that is at hand, manifests included.
    :param missing: digests that an index lists and the source leaves out (a sparse index).
    :param notes: remarks for the operator, one sentence each.
    :param bytes_read: bytes read from the source.
    """

    format: str
    compression: str = "none"
    images: list[NamedImage] = field(default_factory=list)
    blobs: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes_read: int = 0

    @property
    def nameless(self) -> list[NamedImage]:
        """Images that nobody can pull until ``--name`` gives them a name."""
        return [image for image in self.images if image.reference is None and not image.is_referrer]

    @property
    def referrers(self) -> list[NamedImage]:
        """Signatures and attestations without a name."""
        return [image for image in self.images if image.reference is None and image.is_referrer]

    def settle(self) -> None:
        """Drop what is listed twice: equal entries, and an image without a name that has one as well."""
        named = {image.descriptor.digest for image in self.images if image.reference is not None}
        self.images = [
            image
            for image in {image.key: image for image in self.images}.values()
            if image.reference or image.subject or image.problem or image.descriptor.digest not in named
        ]


def refuse_unusable_names(sources: Iterable[tuple[Path, ArchiveContents]]) -> None:
    """Refuse names that cannot be used, all of them at once, together with the images that have no name.

    :raises ApplianceError: APL-0165.
    """
    nameless = [(file, image) for file, contents in sources for image in contents.nameless]
    if not any(image.problem for _, image in nameless):
        return
    files = list(dict.fromkeys(str(file) for file, _ in nameless))
    shown = [
        f"{image.descriptor.digest} in {file.name} "
        + (f"is called {image.problem[:400]}" if image.problem else "has no name")
        for file, image in nameless
    ]
    more = f"; and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    single = len({image.descriptor.digest for _, image in nameless}) == 1
    fail(
        "APL-0165",
        "names that cannot be used",
        where=", ".join(files[:_SHOWN]),
        why="; ".join(shown[:_SHOWN]) + more,
        fix="Save the images again under other names, or give each one here with "
        + ("--name NAME" if single else "--name NAME@sha256:...")
        + " (seed_names in the inventory); nothing was changed",
    )
