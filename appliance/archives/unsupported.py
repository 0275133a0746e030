"""Formats that are recognised but not supported, and how to convert them."""

from __future__ import annotations

import re
from typing import NoReturn

from appliance.archives.filenames import is_archive_name
from appliance.archives.limits import Limits
from appliance.archives.scan import Collected
from appliance.errors import NotAnImageArchive
from appliance.oci.strictjson import load_json

_BY_REGISTRY = "Copy it into a registry ('{}'), and from there with 'skopeo copy --all docker://... oci-archive:FILE'"
_BY_SKOPEO = "Copy the images with 'skopeo copy --all docker://... oci-archive:FILE'"
_OF_AN_IMAGE = re.compile(
    r"oci-layout|index\.json|manifest\.json|repositories|version|blobs/.*"
    r"|.*\.(?:json|tar(?:\.\w+)?|tgz)|(?:.*/)?(?:VERSION|json)|(?:.*/)?(?:sha256:)?[0-9a-f]{12,128}(?:[/.].*)?",
    re.DOTALL,
)
_DOUBTFUL = 50
_ROOT = frozenset({"bin", "dev", "etc", "lib", "opt", "proc", "root", "sbin", "sys", "tmp", "usr", "var"})


def refuse_imgpkg(manifest_json: bytes, limits: Limits, where: str) -> None:
    """imgpkg and kbld list images and indexes in a manifest.json of their own.

    :raises ApplianceError: APL-0113.
    """
    listed = load_json(manifest_json, limit=limits.json_bytes, where=f"{where}: manifest.json")
    if isinstance(listed, list) and any(
        isinstance(item, dict) and {"Image", "ImageIndex"} & set(item) for item in listed
    ):
        _refuse("an imgpkg bundle", _BY_REGISTRY.format("imgpkg copy --tar FILE --to-repo REGISTRY/NAME"), where)


class GiveUp:
    """A filter of the members of a tar that ends the reading after many which no image archive has.

    For a file whose name does not say that it is an archive, such as the backup of a disk: it is not unpacked to its end.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._strange = 0

    def __call__(self, name: str) -> bool:
        """Accept a member.

        :raises NotAnImageArchive: APL-0113.
        """
        self._strange += not _OF_AN_IMAGE.fullmatch(name)
        if self._strange > _DOUBTFUL:
            _refuse(f"something unknown ({name[:60]!r} ...)", "Name it as a source if it is one", self._where)
        return True


def refuse_unknown(collected: Collected, where: str) -> NoReturn:
    """Say what an archive is that holds no image in a form that is read here, and how to make one of it.

    :raises ApplianceError: APL-0113.
    """
    names = set(collected.files) | set(collected.documents)
    tops = {name.partition("/")[0] for name in names | set(collected.links)}
    nested = sorted(name for name in names if name.endswith(("/oci-layout", "/manifest.json", "/index.json")))
    inner = sorted(name for name in names if is_archive_name(name))
    charts = sorted(name for name in names if name.count("/") == 1 and name.endswith("/Chart.yaml"))
    if "zarf.yaml" in tops:
        _refuse(
            "a Zarf package",
            "Unpack it with 'zarf tools archiver decompress' and bring its images directory; where its images have no "
            "names, give them with --name NAME@sha256:...",
            where,
        )
    if {"imageset-config.yaml", "imageset-config.yml", "release-signatures", "working-dir", "oc-mirror"} & tops or any(
        name.startswith("mirror_") for name in tops
    ):
        _refuse("an oc-mirror image set", _BY_REGISTRY.format("oc-mirror --from ... docker://REGISTRY"), where)
    if any("docker/registry/v2/" in name for name in names):
        _refuse("the storage of a registry", f"Serve it with a registry; then: {_BY_SKOPEO}", where)
    if "index.json" in collected.documents:
        _refuse("an OCI layout without its oci-layout file", "Make it again with the tool that wrote it", where)
    if "repositories" in collected.documents:
        _refuse("a docker save of Docker 1.9 or older", "Load it and save it again with a current Docker", where)
    if nested:
        folder = nested[0].rpartition("/")[0][:100]
        _refuse(f"an archive of the folder {folder!r}", f"Make it with: tar -C {folder} -cf FILE .", where)
    if charts:
        _refuse("a Helm chart", "It holds no images: bring those that its templates name, as OCI archives", where)
    if len(_ROOT & tops) > 2 or {"etc", "usr"} <= tops:
        _refuse(
            "a root file system",
            "Make an image of it: 'docker import FILE NAME:TAG', then 'docker save NAME:TAG'",
            where,
        )
    if inner:
        _refuse(
            f"an archive of archives ({inner[0][:100]!r} ...)", "Unpack it once and bring the archives inside it", where
        )
    some = ", ".join(repr(name[:60]) for name in sorted(names)[:3])
    _refuse(
        f"something unknown ({some} ...)" if some else "an archive without files",
        "Bring it as docker save, podman save, skopeo or ctr images export write it",
        where,
    )


def _refuse(what: str, fix: str, where: str) -> NoReturn:
    raise NotAnImageArchive("APL-0113", f"not an image archive but {what}", where=where, fix=fix)
