"""Meaning of the entries of an ``index.json``: images with and without names, and the manifests that refer to them.

Rules: annotations.md of the OCI image specification 1.1, and the habits of Docker, containerd, cosign and Hauler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from appliance.archives.model import ArchiveContents, Context, NamedImage
from appliance.archives.names import (
    ImageNames,
    attached_name,
    is_attached,
    name_text,
    read_name,
    ref_tag,
    tagged_subject,
)
from appliance.archives.oci_layout import Node, Walker
from appliance.errors import ApplianceError, fail, make_error
from appliance.oci import mediatypes
from appliance.oci.digests import is_digest
from appliance.oci.manifests import IMAGE_NAME, REF_NAME, SUBJECT, Descriptor, parse_manifest
from appliance.words import one_line


def resolve_layout(index: bytes, walker: Walker, context: Context, contents: ArchiveContents) -> None:
    """Fill ``contents`` from an ``index.json``.

    :raises ApplianceError: those of :class:`Walker`; APL-0112 for an image that is not whole, APL-0114 for one
        name that means two images, APL-0120 for a layout without images.
    """
    where = context.where
    limit = context.limits.json_bytes
    root = parse_manifest(index, mediatypes.OCI_INDEX, limit=limit, where=f"{where}: index.json")
    if not root.manifests:
        fail("APL-0120", "archive contains no image", where=where, why="its index.json lists none")
    found = [(entry, _visit(walker, entry, where)) for entry in root.manifests]
    resolver = _Resolver(walker, contents, ImageNames(root.manifests), where)
    for entry, node in found:
        resolver.take(entry, node)
    finish(contents, walker, where)


def _visit(walker: Walker, entry: Descriptor, where: str) -> Node:
    """Walk from an entry; an error of anything below it names the entry's image."""
    try:
        return walker.visit(entry)
    except ApplianceError as error:
        name = name_text(entry)[:200] or ref_tag(entry) or entry.digest
        if entry.digest in error.where and name == entry.digest:
            raise
        inner = error.where.removeprefix(f"{where}: ")
        raise make_error(
            error.code, error.what, why=error.why, fix=error.fix, where=f"{where}: {name}: {inner}"
        ) from error


class _Resolver:
    def __init__(self, walker: Walker, contents: ArchiveContents, images: ImageNames, where: str) -> None:
        self._walker = walker
        self._contents = contents
        self._images = images
        self._where = where

    def take(self, entry: Descriptor, node: Node) -> None:
        """Add what one entry brings."""
        if node.whole and node.manifest is None:
            self._no_manifest(entry)
        elif is_attached(entry):
            self._attached(entry, node)
        elif (tagged := tagged_subject(entry, is_index=_is_index(node))) is not None:
            self._by_tag(entry, node, *tagged)
        else:
            self._image(entry, node)

    def _add(self, image: NamedImage) -> None:
        self._contents.images.append(image)

    def _leave_out(self, entry: Descriptor, why: str) -> None:
        name = name_text(entry)[:200] or ref_tag(entry) or ""
        self._contents.notes.append(one_line(f"Left out: {name + ' ' if name else ''}{entry.digest}: {why}."))

    def _no_manifest(self, entry: Descriptor) -> None:
        """Note an entry that is no image; the image specification allows such entries in an index."""
        if name_text(entry):
            fail(
                "APL-0167",
                "not an image: a name stands for something that is no manifest",
                where=f"{self._where}: {name_text(entry)[:200]}",
                why=f"{entry.digest} is {entry.media_type[:100]!r}",
                fix="Take the file off the medium, or save the image again with a current tool",
            )
        self._leave_out(entry, f"it is no image but {entry.media_type[:100]!r}")

    def _image(self, entry: Descriptor, node: Node) -> None:
        subject = _subject(entry, node)
        meaning = read_name(name_text(entry), entry.digest, lambda stated: self._walker.index_of(entry.digest, stated))
        nameless = meaning.reference is None and not meaning.problem
        if nameless and subject is not None:
            self._referrer(entry, node, subject)
            return
        # Tools list the children of an index once more on their own.
        if nameless and entry.digest in self._walker.parents:
            return
        check_whole(node, entry, self._where)
        descriptor, platforms = clean_descriptor(entry), node.platforms
        if meaning.target is not None:
            descriptor, platforms = meaning.target, self._walker.visit(meaning.target).platforms
            descriptor = replace(descriptor, annotations={}, platform=None)
        self._add(NamedImage(meaning.reference, descriptor, platforms, subject, meaning.problem))

    def _referrer(self, entry: Descriptor, node: Node, subject: str) -> None:
        if node.whole:
            self._add(NamedImage(None, clean_descriptor(entry), node.platforms, subject))
        else:
            self._leave_out(entry, f"a signature or attestation of {subject} that is not whole here")

    def _attached(self, entry: Descriptor, node: Node) -> None:
        """Take what Hauler or cosign attached to an image: it has the image's name, and cosign looks for it by a tag."""
        image, stated = self._images.image_of(entry)
        own = node.manifest.subject.digest if node.manifest is not None and node.manifest.subject is not None else None
        subject = own or stated or _subject(entry, node)
        if subject is None:
            self._leave_out(entry, "a signature or attestation, and nothing says of which image")
            return
        if not node.whole:
            self._referrer(entry, node, subject)
            return
        reference = attached_name(entry, image, subject) if image is not None else None
        if own is not None and any(item.reference == reference for item in self._contents.images):
            reference = None  # one tag holds one of them, the list of referrers holds them all
        self._add(NamedImage(reference, clean_descriptor(entry), node.platforms, subject))

    def _by_tag(self, entry: Descriptor, node: Node, subject: str, suffix: str) -> None:
        """Take what the tag schema of cosign and of the distribution specification names without a repository."""
        if not suffix:
            for child in node.manifest.manifests if node.manifest is not None else ():
                below = self._walker.visit(child)
                self._referrer(child, below, _subject(child, below) or subject)
        else:
            self._referrer(entry, node, subject)


def _is_index(node: Node) -> bool:
    return node.manifest is not None and node.manifest.kind == "index"


def _subject(entry: Descriptor, node: Node) -> str | None:
    """Return what a manifest refers to: its own word, else that of the tool that packed it."""
    if node.manifest is not None and node.manifest.subject is not None:
        return node.manifest.subject.digest
    noted = entry.annotations.get(SUBJECT)
    return noted if is_digest(noted) else None


def check_whole(node: Node, entry: Descriptor, where: str) -> None:
    """Refuse an image that is not whole.

    :raises ApplianceError: APL-0112.
    """
    if not node.whole:
        name = name_text(entry)[:200]
        fail(
            "APL-0112",
            "image is incomplete",
            where=f"{where}: {name + ': ' if name else ''}{entry.digest}",
            why=f"missing: {', '.join(node.missing)}",
            fix="Save the image again, with all of its layers",
        )


def clean_descriptor(entry: Descriptor) -> Descriptor:
    """Return an entry without the annotations of whoever packed it, but for a tag that may serve ``--name``."""
    tag = ref_tag(entry) if IMAGE_NAME not in entry.annotations else None
    return replace(entry, annotations={REF_NAME: tag} if tag else {})


def finish(contents: ArchiveContents, walker: Walker, where: str) -> None:
    """Add up blobs and missing digests, drop repeated names, and refuse contradictions.

    :raises ApplianceError: APL-0114, APL-0167 for what is an image's layer in one place and something else in another.
    """
    tag_signatures(contents)
    check_names(contents.images, where)
    contents.settle()
    for digest in walker.odd.keys() & walker.present:
        fail(
            "APL-0167",
            "not an image: an index lists something that is no manifest",
            where=f"{where}: {digest}",
            why=f"it calls {walker.odd[digest][:100]!r} what an image has as a part of it",
            fix="Take the file off the medium, or save the image again with a current tool",
        )
    contents.blobs = dict(walker.blobs)
    contents.missing = [*walker.missing, *(digest for digest in walker.odd if digest not in walker.missing)]
    contents.notes += [
        f"An index lists {digest}, which is no manifest but {media_type[:100]!r}; it is not served."
        for digest, media_type in walker.odd.items()
    ]
    if walker.missing:
        contents.notes.append(
            f"{len(walker.missing)} blobs that indexes list are not in the source; "
            "other platforms than those shown cannot be pulled."
        )


def tag_signatures(contents: ArchiveContents) -> None:
    """Give signatures that came under a bare tag of cosign the repositories of their images, where those have names."""
    for item in contents.referrers:
        tag = ref_tag(item.descriptor)
        repositories = {
            replace(image.reference, tag=tag, digest=None)
            for image in contents.images
            if image.reference is not None and image.descriptor.digest == item.subject
        }
        if repositories and tagged_subject(item.descriptor, is_index=False) is not None:
            contents.images.remove(item)
            contents.images += [replace(item, reference=name) for name in sorted(repositories, key=str)]


def check_names(images: Sequence[NamedImage], where: str) -> None:
    """Refuse one name for two images.

    :raises ApplianceError: APL-0114.
    """
    seen: dict[str, NamedImage] = {}
    for image in images:
        if image.reference is None:
            continue
        before = seen.setdefault(image.reference.key, image)
        if before.descriptor.digest != image.descriptor.digest:
            fail(
                "APL-0114",
                f"archive gives one name to two images: {image.reference.key}",
                where=where,
                why=f"{_described(before)} and {_described(image)}",
                fix="Save them one by one, or save the multi-platform index as one: "
                f"skopeo copy --all docker://{image.reference.key} oci-archive:FILE:{image.reference.key}",
            )


def _described(image: NamedImage) -> str:
    platforms = ", ".join(map(str, image.platforms))
    return image.descriptor.digest + (f" ({platforms})" if platforms else "")
