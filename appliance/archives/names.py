"""Image names in archives: the one place that decides what a name means for the manifest beside it.

Every format comes here: annotations of OCI layouts, of Docker, containerd, podman and Hauler, and the ``RepoTags`` of
docker-archives. A name that cannot be used stops nothing here. It is kept with its reason until ``--name`` had its say,
so that one error lists every such name of a medium.

Decision 68.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from appliance.errors import ApplianceError
from appliance.oci.digests import is_digest
from appliance.oci.manifests import IMAGE_NAME, REF_NAME, Descriptor
from appliance.oci.reference import Reference, is_tag, parse_reference

_HAULER_KIND = re.compile(r"dev\.(?:hauler|cosignproject\.cosign)/(.+)")
_HAULER_ORIGINAL = "hauler.dev/original-ref"
_HAULER_IMAGES = frozenset({"image", "imageIndex"})
_HAULER_REFERRERS = "referrers"
_COSIGN_SUFFIX = {"sigs": "sig", "atts": "att", "sboms": "sbom"}
_COSIGN_TAG = re.compile(r"(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})(?:\.(sig|att|sbom))?")

FindIndex = Callable[[str], "Descriptor | None"]
"""Looks for an index of this digest that contains the manifest at hand."""


@dataclass(frozen=True)
class Meaning:
    """Meaning of a name.

    :param reference: the name to publish; None where there is none.
    :param target: the index that the name's digest stands for, where that is not the manifest at hand itself.
    :param problem: why a name that is there cannot be used.
    :param note: remark for the operator.
    """

    reference: Reference | None = None
    target: Descriptor | None = None
    problem: str = ""
    note: str = ""


def read_name(text: str, digest: str, find_index: FindIndex = lambda _: None) -> Meaning:
    """Decide what a name of an OCI layout means.

    :param text: the name as the archive has it.
    :param digest: digest of the manifest at hand.
    :param find_index: a name may have the digest of an index that contains the manifest; the name then means the index.
    """
    meaning = _parse(text)
    reference = meaning.reference
    if reference is None or reference.digest in (None, digest):
        return meaning
    assert reference.digest is not None
    index = find_index(reference.digest)
    if index is not None:
        return Meaning(reference, target=index)
    return Meaning(problem=f"{text[:150]!r}: its digest is {reference.digest}, and the image at hand has {digest}")


def read_saved_name(text: str, digest: str) -> Meaning:
    """Decide what a name of a docker-archive means; these archives do not keep the digests of the registry.

    :param digest: digest of the manifest that was made for the image.
    """
    meaning = _parse(text)
    reference = meaning.reference
    if reference is None or reference.digest in (None, digest):
        return meaning
    if reference.tag is None:
        why = f"a docker-archive does not keep the registry's digest, and the name has no tag (the image has {digest})"
        return Meaning(problem=f"{text[:150]!r}: {why}")
    note = (
        f"{reference} is published as {reference.tagged}: a docker-archive does not keep the registry's digest, so "
        f"nothing can be pulled by {reference.digest}."
    )
    return Meaning(replace(reference, digest=None), note=note)


def _parse(text: str) -> Meaning:
    if _is_nobodys(text):
        return Meaning()
    try:
        return Meaning(parse_reference(text))
    except ApplianceError as error:
        why = error.why
    if "+" in text.rpartition(":")[2]:
        why += "; registries allow no '+' in a tag, and Helm writes '_' in its place"
    return Meaning(problem=f"{text[:150]!r}: {why}")


def _is_nobodys(text: str) -> bool:
    """Tell whether a tool wrote this because there was no name."""
    return (
        not text.strip()
        or "<none>" in text  # docker
        or is_digest(text.removeprefix("@"))  # it says nothing that the manifest does not say
        or text.startswith("moby-dangling@")  # docker with containerd's store
        or text.endswith(":i-was-a-digest")  # crane
    )


def name_text(entry: Descriptor) -> str:
    """Return the name that an entry of ``index.json`` carries, as it stands there; empty where it carries none."""
    name = entry.annotations.get(IMAGE_NAME)
    if name:
        return name
    original = entry.annotations.get(_HAULER_ORIGINAL)
    if original and hauler_kind(entry) is not None:
        # Older hauls have no other name with its registry than the one that was asked for.
        return original
    name = entry.annotations.get(REF_NAME, "")
    # A bare word is a tag (or umoci's idea of one), no name: containerd would make up the rest.
    return name if any(char in name for char in "/:@") else ""


def ref_tag(entry: Descriptor) -> str | None:
    """Return the tag that a nameless entry carries, for ``--name`` without a tag."""
    name = entry.annotations.get(REF_NAME, "")
    return name if is_tag(name) else None


def hauler_kind(entry: Descriptor) -> str | None:
    """Return what Hauler and cosign call an entry: ``image``, ``sigs`` and so on; None where they did not write it."""
    found = _HAULER_KIND.fullmatch(entry.annotations.get("kind", ""))
    return found.group(1) if found else None


def is_attached(entry: Descriptor) -> bool:
    """Tell whether the name of an entry is that of the image which it is attached to, as Hauler writes it on signatures."""
    kind = (hauler_kind(entry) or "").partition("/")[0]
    return kind in _COSIGN_SUFFIX or kind == _HAULER_REFERRERS


class ImageNames:
    """The images of one archive by the names that Hauler wrote on them, to find what a signature belongs to."""

    def __init__(self, entries: Iterable[Descriptor]) -> None:
        self._digests: dict[str, str] = {}
        for entry in entries:
            reference = _parse(name_text(entry)).reference
            if reference is not None and hauler_kind(entry) in _HAULER_IMAGES:
                self._digests[reference.tagged] = entry.digest

    def image_of(self, entry: Descriptor) -> tuple[Reference | None, str | None]:
        """Return the name of the image that an attached entry belongs to, and its digest, as far as they are known."""
        reference = _parse(name_text(entry)).reference
        if reference is None:
            return None, None
        return reference, reference.digest or self._digests.get(reference.tagged)


def attached_name(entry: Descriptor, image: Reference, digest: str) -> Reference | None:
    """Return the name under which cosign looks for what is attached to an image; None for what has no such name."""
    suffix = _COSIGN_SUFFIX.get(hauler_kind(entry) or "")
    return replace(image, tag=f"{digest.replace(':', '-')}.{suffix}", digest=None) if suffix else None


def tagged_subject(entry: Descriptor, *, is_index: bool) -> tuple[str, str] | None:
    """Return the digest that a bare tag of the referrers' tag schema stands for, and its suffix.

    :param is_index: whether the entry is an index: without a suffix, the tag stands for an index of referrers.
    """
    found = _COSIGN_TAG.fullmatch(ref_tag(entry) or "") if not name_text(entry) else None
    if found is None or bool(found.group(2)) == is_index:
        return None
    return found.group(1).replace("-", ":", 1), found.group(2) or ""
