"""Pushes: blobs, mounts, manifests, tags and deletions in any order, held against sets of digests.

Input: steps, a byte for each decision. What may be pushed comes from a small pool, odd things among it: layers of a
manifest's media type, one blob in two roles, descriptors that lie, seeded tags and seeded manifests. The model has the
rules of ``docs/explanation/decisions.md`` (what is in use is not deleted, the generation's names stay, an index is not
pushed without its children) and nothing of how they are kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from appliance.oci import mediatypes
from tests.fuzz.choices import Choices
from tests.fuzz.world import BOTH, ONE, OPERATOR, SEEDED, SIGNATURE, TWO, Answer, World, reached, world
from tests.unit.store.made import compact, sha

REPOSITORIES = ("team/app", "library/nginx", "quay.io/team/app", "team/other")
TAGS = ("1", "1.27-alpine", "latest", "x")
BLOBS = (
    b"",
    b"layer",
    b"{}",
    b"not JSON at all",
    compact({"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": []}),
    ONE.raw,
    ONE.blobs[ONE.layers[0]],
)
_NOT_DISTRIBUTED = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_TYPES = (
    mediatypes.OCI_LAYER,
    _NOT_DISTRIBUTED,
    mediatypes.OCI_INDEX,
    mediatypes.OCI_MANIFEST,
    mediatypes.PIECE_MAP,
    mediatypes.OCI_CONFIG,
)
_BLOB_DIGESTS = (*map(sha, BLOBS), sha(BLOBS[1], "sha512"))
_ALGORITHMS = ("sha256", "sha256", "sha512")
_STEPS = 20


@dataclass(frozen=True)
class Pushed:
    """A manifest as the model has it: its bytes, and the layers that nobody had to bring."""

    raw: bytes
    absent: frozenset[str] = frozenset()

    @property
    def document(self) -> dict[str, Any]:
        """The JSON."""
        found: dict[str, Any] = json.loads(self.raw)
        return found

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Descriptors of config and layers."""
        document = self.document
        return [document["config"], *document["layers"]] if "config" in document else []

    @property
    def subject(self) -> str | None:
        """Digest of what it refers to."""
        found: str | None = self.document.get("subject", {}).get("digest")
        return found


@dataclass
class Repository:
    """What one repository has, by the model.

    :param seeded: digest to bytes of what the generation's names reach.
    :param seeded_tags: the generation's tags, to digests.
    :param seeded_manifests: the manifests among ``seeded``.
    """

    seeded: dict[str, bytes]
    seeded_tags: dict[str, str]
    seeded_manifests: dict[str, bytes]
    claims: set[str] = field(default_factory=set)
    manifests: dict[str, Pushed] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def has_blob(self, digest: str) -> bool:
        """Whether the digest is readable under the repository's name."""
        return (
            digest in self.seeded
            or digest in self.claims
            or digest in self.manifests
            or any(
                part["digest"] == digest and digest not in item.absent
                for item in self.manifests.values()
                for part in item.parts
            )
        )

    def manifest(self, reference: str) -> str | None:
        """Digest of what a tag or digest gives."""
        if ":" in reference:
            return reference if reference in self.manifests or reference in self.seeded_manifests else None
        return self.seeded_tags.get(reference) or self.tags.get(reference)

    def referrers(self, digest: str) -> set[str]:
        """Digests of the manifests whose subject it is."""
        seeded = {name: Pushed(raw) for name, raw in self.seeded_manifests.items()}
        return {name for name, item in {**self.manifests, **seeded}.items() if item.subject == digest}


class Model:
    """All repositories, and all bytes that were ever sent."""

    def __init__(self) -> None:
        self.content = {sha(raw): raw for raw in BLOBS} | {sha(BLOBS[1], "sha512"): BLOBS[1]}
        self.content |= {image.digest: image.raw for image in (ONE, TWO, BOTH, SIGNATURE)}
        self.content[ONE.document["config"]["digest"]] = ONE.blobs[ONE.document["config"]["digest"]]
        self.sizes = {
            digest: len(raw) for blobs in reached().values() for digest, raw in blobs.items() if raw is not None
        }
        self.sizes |= {digest: len(raw) for digest, raw in self.content.items()}
        self.touched = {REPOSITORIES[0]}
        self.repositories = {name: _seeded(name if "." in name else f"docker.io/{name}") for name in REPOSITORIES}


def _seeded(full: str) -> Repository:
    names = {name: image for name, image in SEEDED.items() if name.startswith((f"{full}:", f"{full}@"))}
    return Repository(
        {digest: raw for digest, raw in reached().get(full, {}).items() if raw is not None},
        {name.removeprefix(f"{full}:"): image.digest for name, image in names.items() if name.startswith(f"{full}:")},
        {str(item["digest"]): image.blobs[item["digest"]] for image in names.values() for item in image.manifests},
    )


def run(data: bytes) -> None:
    """Every answer is the model's, and at the end all that can be seen is."""
    here, model, choices = world(), Model(), Choices(data)
    here.reset()
    for _ in range(_STEPS):
        if not choices.more:
            break
        choices.pick((_upload, _upload, _mount, _put, _put, _put, _put_known, _delete, _delete_blob))(
            here, model, choices
        )
    for name in sorted(model.touched):
        _compare(here, model, name, model.repositories[name])


def _call(here: World, method: str, target: str, body: bytes = b"", kind: str | None = None) -> Answer:
    headers = {"Authorization": OPERATOR} | ({"Content-Type": kind} if kind else {})
    return here.call(here.peer, method, target, headers=headers, body=body)


def _compare(here: World, model: Model, name: str, repository: Repository) -> None:
    for digest, raw in model.content.items():
        answer = _call(here, "GET", f"/v2/{name}/blobs/{digest}")
        assert answer.status == (200 if repository.has_blob(digest) else 404), (name, digest, answer)
        assert answer.status == 404 or answer.body == raw
        if raw[:1] != b"{":
            continue
        answer = _call(here, "GET", f"/v2/{name}/manifests/{digest}")
        assert answer.status == (404 if repository.manifest(digest) is None else 200), (name, digest, answer)
        assert answer.status == 404 or answer.body == raw
        listed = json.loads(_call(here, "GET", f"/v2/{name}/referrers/{digest}").body)["manifests"]
        assert {item["digest"] for item in listed} == repository.referrers(digest), (name, digest)
    tags = {**repository.tags, **repository.seeded_tags}
    for tag in TAGS:
        answer = here.call(here.local, "GET", f"/v2/{name}/manifests/{tag}")
        assert answer.headers.get("docker-content-digest") == tags.get(tag), (name, tag, answer)
    answer = _call(here, "GET", f"/v2/{name}/tags/list")
    if repository.manifests or repository.seeded_manifests:
        assert json.loads(answer.body)["tags"] == sorted(tags), (name, answer)
    else:
        assert answer.status == 404, (name, answer)


def _repository(model: Model, choices: Choices) -> str:
    name = choices.pick(REPOSITORIES)
    model.touched.add(name)
    return name


def _digest(model: Model, choices: Choices) -> str:
    known = [*model.content]
    return known[(choices.number() << 8 | choices.number()) % len(known)]


def _upload(here: World, model: Model, choices: Choices) -> None:
    name, raw = _repository(model, choices), choices.pick(BLOBS)
    digest = sha(raw, "sha512" if raw == BLOBS[1] and choices.flag() else "sha256")
    assert _call(here, "POST", f"/v2/{name}/blobs/uploads/?digest={digest}", raw).status == 201
    model.repositories[name].claims.add(digest)


def _mount(here: World, model: Model, choices: Choices) -> None:
    name, source, digest = _repository(model, choices), _repository(model, choices), _digest(model, choices)
    answer = _call(here, "POST", f"/v2/{name}/blobs/uploads/?mount={digest}&from={source}")
    if model.repositories[source].has_blob(digest):
        assert answer.status == 201, (name, source, digest, answer)
        model.repositories[name].claims.add(digest)
    else:
        assert answer.status == 202, (name, source, digest, answer)
        assert _call(here, "DELETE", answer.headers["location"]).status == 204


def _describe(model: Model, choices: Choices, digest: str, kind: str) -> dict[str, Any]:
    lie = choices.number(12) == 11
    return {"mediaType": kind, "digest": digest, "size": len(model.content[digest]) + lie}


def _image(model: Model, choices: Choices) -> dict[str, Any]:
    def blob(kinds: tuple[str, ...]) -> dict[str, Any]:
        return _describe(model, choices, choices.pick(_BLOB_DIGESTS), choices.pick(kinds))

    kind = choices.pick((mediatypes.OCI_MANIFEST, mediatypes.DOCKER_MANIFEST))
    found = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": blob(_TYPES[::-1]),
        "layers": [blob(_TYPES) for _ in range(choices.number(3))],
    }
    if choices.number(4) == 3:
        subject = choices.pick((ONE.digest, sha(b"nowhere"), _digest(model, choices)))
        found["subject"] = {"mediaType": mediatypes.OCI_MANIFEST, "digest": subject, "size": 1}
    return found


def _index(model: Model, choices: Choices) -> dict[str, Any]:
    children = []
    for _ in range(choices.number(3)):
        digest = _digest(model, choices)
        kind = mediatypes.OCI_MANIFEST
        if choices.number(8) != 7:  # else it may be a lie
            with_type = model.content[digest]
            kind = json.loads(with_type).get("mediaType", kind) if with_type[:1] == b"{" else kind
        children.append(_describe(model, choices, digest, kind))
    return {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": children}


def _put(here: World, model: Model, choices: Choices) -> None:
    document = (_index if choices.number(4) == 3 else _image)(model, choices)
    _push(here, model, choices, compact(document), document)


def _put_known(here: World, model: Model, choices: Choices) -> None:
    """One that was pushed before, or is seeded: again, or elsewhere."""
    raw = model.content[_digest(model, choices)]
    document = json.loads(raw) if raw[:1] == b"{" else {}
    if "mediaType" in document:
        _push(here, model, choices, raw, document)


def _push(here: World, model: Model, choices: Choices, raw: bytes, document: dict[str, Any]) -> None:
    name = _repository(model, choices)
    digest = sha(raw)
    if choices.flag():
        digest = sha(raw, choices.pick(_ALGORITHMS))
        tags = [choices.pick(TAGS) for _ in range(choices.number(3))]
        target = f"/v2/{name}/manifests/{digest}" + ("?" + "&".join(f"tag={tag}" for tag in tags) if tags else "")
    else:
        tags = [choices.pick(TAGS)]
        target = f"/v2/{name}/manifests/{tags[0]}"
    answer = _call(here, "PUT", target, raw, document["mediaType"])
    model.content.setdefault(digest, raw)
    model.sizes.setdefault(digest, len(raw))
    repository = model.repositories[name]
    moved = [tag for tag in tags if repository.seeded_tags.get(tag, digest) != digest]
    absent, missing = _lists(model, repository, Pushed(raw))
    expected = 403 if moved else 404 if missing else 201
    assert answer.status == expected, (target, document, moved, missing, answer)
    if expected == 201:
        repository.manifests[digest] = Pushed(raw, frozenset(absent))
        repository.tags |= {tag: digest for tag in tags if tag not in repository.seeded_tags}


def _lists(model: Model, repository: Repository, item: Pushed) -> tuple[set[str], list[str]]:
    """The layers that need not be there and are not, and whatever else is missing."""
    absent, missing = set(), []
    for part in item.parts:
        if not repository.has_blob(part["digest"]) and part["mediaType"] == _NOT_DISTRIBUTED:
            absent.add(part["digest"])
        elif not repository.has_blob(part["digest"]) or model.sizes[part["digest"]] != part["size"]:
            missing.append(part["digest"])
    for child in item.document.get("manifests", []):
        raw = model.content[child["digest"]] if repository.manifest(child["digest"]) else b"{}"
        if (len(raw), json.loads(raw).get("mediaType")) != (child["size"], child["mediaType"]):
            missing.append(child["digest"])
    return absent, missing


def _delete(here: World, model: Model, choices: Choices) -> None:
    name = _repository(model, choices)
    repository = model.repositories[name]
    reference = choices.pick(TAGS) if choices.flag() else _digest(model, choices)
    answer = _call(here, "DELETE", f"/v2/{name}/manifests/{reference}")
    if reference in repository.seeded_tags or reference in repository.seeded:
        assert answer.status == 403, (name, reference, answer)
    elif reference in repository.tags or reference in repository.manifests:
        assert answer.status == 202, (name, reference, answer)
        repository.manifests.pop(reference, None)
        repository.tags = {tag: to for tag, to in repository.tags.items() if reference not in (tag, to)}
    else:
        assert answer.status == 404, (name, reference, answer)


def _delete_blob(here: World, model: Model, choices: Choices) -> None:
    name, digest = _repository(model, choices), _digest(model, choices)
    repository = model.repositories[name]
    in_use = digest in repository.manifests or any(
        part["digest"] == digest for item in repository.manifests.values() for part in item.parts
    )
    answer = _call(here, "DELETE", f"/v2/{name}/blobs/{digest}")
    expected = 403 if digest in repository.seeded else 405 if in_use else 202 if digest in repository.claims else 404
    assert answer.status == expected, (name, digest, answer)
    if expected == 202:
        repository.claims.discard(digest)
