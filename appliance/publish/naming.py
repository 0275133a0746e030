"""Names for images that have none, over all sources of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.archives.model import ArchiveContents, refuse_unusable_names
from appliance.archives.reader import apply_names
from appliance.errors import fail
from appliance.oci.reference import parse_reference


@dataclass(frozen=True)
class Found:
    """One file or directory that was read.

    :param source: what the operator named: the file, or a directory above it.
    :param file: the file.
    :param contents: what it holds.
    """

    source: str
    file: Path
    contents: ArchiveContents


def name_images(found: Sequence[Found], names: Sequence[str]) -> None:
    """Give the names of ``--name``, and refuse what is left without one.

    ``NAME@sha256:...`` goes to that image, whichever file holds it; a bare ``NAME`` to the one image without a name,
    or to the one image that there is at all.

    :raises ApplianceError: APL-0123 where it is not clear which image is meant, APL-0124 with everything that has no
        name, APL-0165 with every name that cannot be used.
    """
    for text in names:
        digest = parse_reference(text, default_tag=None, where="--name").digest
        holders = [
            item
            for item in found
            if (digest is None and item.contents.nameless)
            or any(digest == image.descriptor.digest and not image.is_referrer for image in item.contents.images)
        ]
        if not holders and len(found) == 1:
            holders = list(found)
        meant = {image.descriptor.digest for item in holders for image in item.contents.nameless}
        if not holders or (digest is None and len(holders) > 1 and len(meant) > 1):
            listed = [
                f"{image.descriptor.digest} in {item.file}" for item in holders for image in item.contents.nameless
            ]
            fail(
                "APL-0123",
                f"not clear which image {text[:200]!r} is for",
                where=", ".join(dict.fromkeys(item.source for item in found)),
                why=f"without a name: {', '.join(listed[:10])}" if listed else "no source holds such an image",
                fix="Write --name NAME@sha256:... with the digest of the image",
            )
        for item in holders:
            apply_names(item.contents, [text], str(item.file))
    refuse_unusable_names([(item.file, item.contents) for item in found])
    nameless = [(item.file, image.descriptor.digest) for item in found for image in item.contents.nameless]
    if nameless:
        fail(
            "APL-0124",
            "images without a name",
            why="; ".join(f"{digest} in {file}" for file, digest in nameless),
            fix="Nobody could pull them. Name each with "
            + ("--name NAME" if len(nameless) == 1 else "--name NAME@sha256:...")
            + " (seed_names in the inventory)",
        )
