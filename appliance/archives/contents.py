"""What a reader found in an archive."""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.archives.limits import Limits
from appliance.archives.sink import BlobSink
from appliance.oci.manifests import Descriptor
from appliance.oci.names import Reference
from appliance.oci.platforms import Platform


@dataclass(frozen=True)
class Context:
    """What every resolver needs.

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
    """

    reference: Reference | None
    descriptor: Descriptor
    platforms: list[Platform]
    subject: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it differ from other entries of one archive."""
        return (str(self.reference or ""), self.descriptor.digest, self.subject or "")

    @property
    def is_referrer(self) -> bool:
        """Whether it belongs to another image and needs no name."""
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
