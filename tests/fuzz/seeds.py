"""The inputs made on purpose: ``python -m tests.fuzz.seeds`` writes them into the corpus as ``seed-*``.

Binary ones (tars, compressed streams) are made by the code that makes them for the unit tests, so that everybody can
see what they are.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
import tarfile

from appliance.oci import mediatypes
from appliance.oci.manifests import Descriptor
from appliance.store import generations, pins, pushes
from appliance.store.index import Entry
from tests.badpeers import entries
from tests.badpeers.answers import Reply, sent
from tests.fuzz import CORPUS
from tests.fuzz.targets import peers
from tests.unit.archives import made as archives
from tests.unit.store import made

_DIGEST = "sha256:" + "ab" * 32
_SHORT, _WIRE_SEED = 600, 300
_CONFIG = '{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["$1"]}}'
_MANIFEST = (
    f'{{"schemaVersion":2,"mediaType":"{mediatypes.OCI_MANIFEST}","config":{{"mediaType":"{mediatypes.OCI_CONFIG}",'
    f'"digest":"$2","size":%2}},"layers":[{{"mediaType":"{mediatypes.OCI_LAYER}","digest":"$1","size":%1}}]}}'
)
_LAYOUT = 'oci-layout {"imageLayoutVersion":"1.0.0"}'


def _entry(line: int, name: str = "", kind: str = mediatypes.OCI_MANIFEST, **notes: str) -> str:
    annotations = ({"org.opencontainers.image.ref.name": name} if name else {}) | notes
    more = "".join(f',"annotations":{archives.compact(annotations).decode()}' if annotations else "")
    return f'{{"mediaType":"{kind}","digest":"${line}","size":%{line}{more}}}'


def _index(*entries: str) -> str:
    return f'{{"schemaVersion":2,"manifests":[{",".join(entries)}]}}'


def _media() -> dict[str, str]:
    image = ["* layer", f"* {_CONFIG}", f"* {_MANIFEST}"]
    children = f'{{"schemaVersion":2,"mediaType":"{mediatypes.OCI_INDEX}","manifests":[{_entry(3)}]}}'
    sparse = children.replace(f"{_entry(3)}]", f"{_entry(3)},{_entry(3).replace('$3', _DIGEST)}]")
    docker = '[{"Config":"$2.json","RepoTags":["a/b:1"],"Layers":["$1/layer.tar"]}]'
    packed = _MANIFEST.replace(mediatypes.OCI_LAYER, mediatypes.OCI_LAYER_GZIP)
    loop = f'{{"schemaVersion":2,"mediaType":"{mediatypes.OCI_INDEX}","manifests":['
    layout = "\n".join([*image, f"index.json {_index(_entry(3, 'a/b:1'))}", _LAYOUT])
    return {
        "oci-tar": f"t\n{layout}",
        "oci-zstd": f"z\n{layout}",
        "oci-gzip": f"g\n{layout}",
        "directory": f"d\n{layout}",
        "nested": "\n".join(
            ["t", *image, f"* {children}", f"index.json {_index(_entry(4, 'q.io/a:1', mediatypes.OCI_INDEX))}", _LAYOUT]
        ),
        "sparse": "\n".join(
            ["d", *image, f"* {sparse}", f"index.json {_index(_entry(4, 'q.io/a:1', mediatypes.OCI_INDEX))}", _LAYOUT]
        ),
        "docker": "\n".join(["t", "$1/layer.tar layer", f"$2.json {_CONFIG}", f"manifest.json {docker}"])
        .replace("\n$1/", "\nx/")
        .replace("$2.json {", "c.json {")
        .replace('"$2.json"', '"c.json"')
        .replace("$1/layer", "x/layer"),
        "docker-links": "\n".join(
            [
                "t",
                "x layer",
                "=y/layer.tar -> ../x",
                f"c.json {_CONFIG}",
                'manifest.json [{"Config":"c.json","RepoTags":["a:1","b:2"],"Layers":["y/layer.tar"]}]',
            ]
        ),
        "dir-transport": "\n".join(["d", "version Directory Transport Version: 1.1\\n", "x layer", f"y {_CONFIG}"]),
        "packed-layer": "\n".join(
            ["t", "g* layer", f"* {_CONFIG}", f"* {packed}", f"index.json {_index(_entry(3, 'a/b:1'))}", _LAYOUT]
        ),
        "signature": "\n".join(
            [
                "t",
                *image,
                "* " + _MANIFEST[:-1] + f',"subject":{_entry(3)}}}',
                f"index.json {_index(_entry(3, 'a/b:1'), _entry(4))}",
                _LAYOUT,
            ]
        ),
        "signature-of-a-signature": "\n".join(
            [
                "t",
                *image,
                "* " + _MANIFEST[:-1] + f',"subject":{_entry(3)}}}',
                "* " + _MANIFEST[:-1] + f',"subject":{_entry(4)}}}',
                f"index.json {_index(_entry(3, 'a/b@$3'), _entry(4), _entry(5))}",
                _LAYOUT,
            ]
        ),
        "noted-subject": "\n".join(
            [
                "d",
                *image,
                "* " + _MANIFEST[:-1] + ',"annotations":{"x":"y"}}',
                "index.json " + _index(_entry(3, "a/b:1@$3"), _entry(4, **{"io.containerd.manifest.subject": "$3"})),
                _LAYOUT,
            ]
        ),
        "build-cache": "\n".join(
            [
                "t",
                *image,
                f"* {loop}{_entry(1, kind='application/vnd.buildkit.cacheconfig.v0+json')}]}}",
                f"index.json {_index(_entry(4, 'a:1', mediatypes.OCI_INDEX))}",
                _LAYOUT,
            ]
        ),
        "odd-child": "\n".join(
            [
                "t",
                *image,
                f"* {loop}{_entry(3)},{_entry(1, kind='text/x')}]}}",
                f"index.json {_index(_entry(4, 'a:1', mediatypes.OCI_INDEX))}",
                _LAYOUT,
            ]
        ),
        "link-out": "\n".join(
            ["d", *image, "=blobs/sha256/x -> ../../../../secret", _LAYOUT, "=index.json -> ../../secret"]
        ),
        "pipe": "\n".join(["d", "|index.json", _LAYOUT]),
        "control-characters": 't\n\x1b[2J\x07 x\nmanifest.json [{"Config":"\x1b[31m"}]',
    }


def _tars() -> dict[str, bytes]:
    member, special, pax, raw = archives.tar, archives.special, archives.pax, archives.raw_member
    layout = archives.Layout()
    layout.name(layout.image(b"layer"), "a/b:1")
    return {
        "layout": layout.tar(),
        "layout-pax": archives.tar(*layout.members(), form=2),
        "no-end": layout.tar(end=False),
        "docker": member(*archives.docker(b"layer", tags=["a:1"])),
        "upwards": member(("a/../../x", b"x")),
        "links": member(("a", b"x"), special("l", tarfile.SYMTYPE, "a"), special("h", tarfile.LNKTYPE, "./a")),
        "pax-path": member(*pax("x", b"content", path="blobs/x", size="7")),
        "pax-bad": member(raw("x", b"99 path=x\n", tarfile.XHDTYPE), ("y", b"")),
        "long-name": member(raw("././@LongLink", b"n" * 200 + b"\0", tarfile.GNUTYPE_LONGNAME), ("x", b"1")),
        "long-link": member(raw("././@LongLink", b"n" * 200, tarfile.GNUTYPE_LONGLINK), special("l", tarfile.SYMTYPE)),
        "sparse": member(special("s", tarfile.GNUTYPE_SPARSE)),
        "global": member(raw("g", b"12 size=999\n", tarfile.XGLTYPE), ("x", b"1")),
        "devices": member(special("d", tarfile.CHRTYPE), special("p", tarfile.FIFOTYPE), special("f", tarfile.DIRTYPE)),
        "repeated": member(("x", b"1"), ("x", b"1"), ("x", b"2")),
    }


def _documents() -> dict[str, bytes]:
    image = made.image(1, layers=2, size=10, annotations={"a": "b"})
    both = made.index({"amd64": image})
    entry = {"docker.io/a/b:1": Entry(Descriptor(mediatypes.OCI_MANIFEST, _DIGEST, 7), frozenset({_DIGEST}))}
    generation = generations.make(None, entry, {}, cause="seeding", created=made.CREATED, sources=["x"])
    pushed = pushes.Pushed.after(None, entry, {}, made.CREATED)
    found = {
        "image": (0, image.raw),
        "index": (0, both.raw),
        "index-by-type": (1, both.raw),
        "config": (0, image.blobs[image.document["config"]["digest"]]),
        "artifact": (3, made.compact({"mediaType": mediatypes.OCI_ARTIFACT_MANIFEST, "blobs": [image.descriptor]})),
        "both-meanings": (0, made.compact({**image.document, "manifests": [image.descriptor]})),
        "generation": (0, generation.raw),
        "label": (0, b"site: harbour-7\nid: q2\ncreated: 2026-04-01T08:00:00Z\nnote: x\n"),
        "pins": (0, pins.Pinned.after(None, entry, {}, made.CREATED).raw),
        "pushes": (0, pushed.raw),
        "piece-map": (
            0,
            b'{"schemaVersion":1,"mediaType":"%s","blob":"%s","size":0,"pieceSize":1048576,"pieces":[]}'
            % (mediatypes.PIECE_MAP.encode(), _DIGEST.encode()),
        ),
        "descriptor": (
            0,
            made.compact({**image.descriptor, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}),
        ),
        "signature": (0, b'{"signer":"a","certificate":"b","signature":"c"}'),
        "layout": (0, b'{"imageLayoutVersion":"1.0.0"}'),
        "twice": (0, b'{"manifests":[],"manifests":[]}'),
        "infinite": (0, generation.raw.replace(b'"1"', b"1e999", 1)),
        "infinite-pushes": (0, pushed.raw.replace(b'"1"', b"1e999", 1)),
    }
    return {name: bytes([kind, 0]) + raw for name, (kind, raw) in found.items()} | {
        f"deep-{place}": bytes([0, 48]) + text
        for place, text in {
            "document": b"@",
            "size": b'{"mediaType":"x","size":@}',
            "digest": b'{"mediaType":"x","size":1,"digest":@}',
            "platform": b'{"os":@}',
            "layout": b'{"imageLayoutVersion":@}',
        }.items()
    }


def _requests() -> dict[str, str]:
    push = "P+ PUT /v2/team/app/manifests/1\nContent-Type: application/vnd.oci.image.index.v1+json\n\n"
    return {
        "tag": "L- GET /v2/library/nginx/manifests/1",
        "head": "L- HEAD /v2/library/nginx/manifests/{1}\n--\nL- HEAD /v2/library/nginx/blobs/{2}",
        "blob": "L- GET /v2/library/nginx/blobs/{2}\nRange: bytes=3-9\n--\nL- GET /v2/library/nginx/blobs/{2}",
        "suffix": "L- GET /v2/library/nginx/blobs/{2}\nRange: bytes=-5\n--\nP+ GET /v2/library/nginx/blobs/{2}\nRange: bytes=99999-",
        "lost": "L- GET /v2/registry.site:5000/blobs/manifests/blobs/{9}",
        "namespace": "L- GET /v2/team/app/manifests/latest?ns=quay.io\n--\nL- GET /v2/team/app/tags/list?ns=quay.io&n=1&last=a",
        "ns-no-host": "P+ POST /v2/team/app/blobs/uploads/?ns=foo\n--\n"
        + push.replace("/1\n", "/1?ns=foo\n")
        + '{"schemaVersion":2,"manifests":[]}',
        "other-repository": "L- GET /v2/team/app/blobs/{2}\n--\nL- GET /v2/library/nginx/blobs/{2}?ns=quay.io",
        "catalog": "L- GET /v2/_catalog?n=2&last=a\n--\nL- GET /v2/\n--\nL- GET /healthz\n--\nP- OPTIONS /healthz",
        "referrers": "L- GET /v2/library/nginx/referrers/{1}?artifactType=application/x.signature",
        "peers": "P- GET /p2p/v1/ping\n--\nP- GET /p2p/v1/generation\n--\nP- GET /p2p/v1/pushes\n--\nP- GET /p2p/v1/blobs/{2}",
        "upload": "P+ POST /v2/team/app/blobs/uploads/\n--\nP+ PATCH {location}\nContent-Range: 0-4\n\nhello\n--\nP+ PUT {location}?digest="
        + made.sha(b"hello!")
        + "\n\n!",
        "chunked": "P+ POST /v2/team/app/blobs/uploads/\n--\nP* PATCH {location}\n\nhello\n--\nP+ GET {location}\n--\nP+ DELETE {location}",
        "at-once": "P+ POST /v2/team/app/blobs/uploads/?digest={digest}\n\nhello\n--\nP+ DELETE {location}",
        "mount": "P+ POST /v2/team/app/blobs/uploads/?mount={2}&from=library/nginx\n--\nP+ POST /v2/team/app/blobs/uploads/?mount={5}",
        "push": push
        + '{"schemaVersion":2,"manifests":[]}\n--\nP+ GET /v2/team/app/tags/list\n--\nP+ DELETE /v2/team/app/manifests/1',
        "push-tags": push.replace("/1\n", "/{digest}?tag=a&tag=b\n") + '{"schemaVersion":2,"manifests":[]}',
        "seeded": "P+ DELETE /v2/library/nginx/manifests/1\n--\nP+ DELETE /v2/library/nginx/blobs/{2}",
        "stranger": "P- PUT /v2/team/app/manifests/1\n--\nP- DELETE /v2/library/nginx/manifests/1\n--\nP- POST /v2/a/blobs/uploads/",
        "read-only": "L+ PUT /v2/team/app/manifests/1\n--\nL+ POST /v2/a/blobs/uploads/",
        "escapes": "L- GET /v2/library%2fnginx/manifests/1\n--\nL- GET //v2//library//nginx/manifests/1\n--\nL- GET /v2/%ff%00/tags/list",
        "too-long": "P+ PATCH /v2/team/app/blobs/uploads/x\nContent-Length: 999999999999\n\nx",
    }


def _streams() -> dict[str, bytes]:
    text = b"content of a layer, content of a layer\n" * 20
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    found = {
        "gzip": gzip.compress(text, mtime=0),
        "gzip-members": archives.gzip_members(text, 3) + b"\0" * 20,
        "zstd": archives.zstd(text),
        "zstd-frames": skippable + archives.zstd(text, 3),
        "bzip2": bz2.compress(text, 1),
        "bzip2-streams": bz2.compress(text, 1) * 2,
        "xz": lzma.compress(text, preset=0),
        "xz-streams": lzma.compress(text, preset=0) * 2,
        "plain": text[:50],
        "lz4": b"\x04\x22\x4d\x18x",
        "bomb": gzip.compress(b"\0" * (1 << 20), mtime=0),
        "zstd-window": b"\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00",
    }
    return {name: b"\x07\x0b" + stream for name, stream in found.items()} | {
        f"{name}-cut": b"\x07\x0b" + stream[:-5]
        for name, stream in found.items()
        if name in ("gzip", "zstd", "xz", "bzip2")
    }


class _Asked:
    """A request to a bad peer whose signatures are the marks that the target puts its own in for."""

    method, path = "GET", "/p2p/v1/generation"

    def at(self, path: str) -> _Asked:
        return self

    def honest(self) -> Reply:
        signature = {"signer": "a", "certificate": "$C", "signature": "$S"}
        return Reply(200, json.dumps({"raw": "$R", "signature": signature}).encode(), {})

    def blob(self) -> bytes:
        return b""

    def sign(self, content: bytes) -> dict[str, str]:
        return {"signer": "c", "certificate": "$D", "signature": "$T"}


class _HeadAsked(_Asked):
    """A request for a head."""

    path = "/p2p/v1/generation/head"

    def honest(self) -> Reply:
        signature = {"signer": "a", "certificate": "$C", "signature": "$S", "head": "$H"}
        # The size is a number: its mark is no JSON before the target has put it in.
        head = {"kind": "generation", "number": 1, "digest": "$G", "size": 0, "signature": signature}
        return Reply(200, json.dumps(head).encode(), {})


def _peers() -> dict[str, bytes]:
    """Return what the catalogue of bad peers answers, as far as it is short; what is long there is a mark here."""
    known = {name: number for number, name in enumerate(peers.KINDS)}
    found = {f"ping-{name}": (known["ping"], 0, 0, body) for name, (_, body) in entries.PINGS.items()}
    for name, (_, lie) in entries.LIES.items():
        # These two change the bytes of a certificate, which is no mark: they are inputs of another kind.
        if name not in ("version-7", "certificate-bits"):
            body = sent(entries.lying(lie)(_Asked())).partition(b"\r\n\r\n")[2]
            found[f"generation-{name}"] = (known["generation"], 0, 0, body)
    for name, (_, lie) in entries.HEADS.items():
        body = sent(entries.lying(lie)(_HeadAsked())).partition(b"\r\n\r\n")[2]
        found[f"head-{name}"] = (known["head"], 0, 0, body.replace(b'"size": 0', b'"size": $Z'))
    for name, (_, steps) in entries.WIRE.items():
        found[f"wire-{name}"] = (known["wire"], 0, 0, sent(steps)[:_WIRE_SEED])
    honest = _Asked().honest().body
    found |= {f"{index}-honest": (known[index], 0, 0, honest) for index in entries.INDEXES}
    found |= {
        "ping-deep": (known["ping"], 255, 0, b"@"),
        "ping-deep-within": (known["ping"], 60, 0, b'{"generation":{"number":@,"digest":"x"}}'),
        "ping-many-keys": (known["ping"], 0, 2, b"[^0]"),
        "wire-status-line-long": (known["wire"], 15, 0, b"@"),
        "generation-deep": (known["generation"], 255, 0, b"@"),
        "generation-raw-deep": (known["generation"], 255, 0, honest.replace(b"$R", b"@")),
        "generation-brackets": (known["generation"], 0, 255, b"[^0]"),
        "pushes-brackets": (known["pushes"], 0, 255, b"[^0]"),
        "pins-deep": (known["pins"], 255, 0, b"@"),
        "head-honest": (known["head"], 0, 0, _HeadAsked().honest().body.replace(b'"size": 0', b'"size": $Z')),
        "head-deep": (known["head"], 255, 0, b"@"),
        "head-brackets": (known["head"], 0, 255, b"[^0]"),
        "signature": (known["signature"], 0, 0, json.dumps(_Asked().sign(b"")).encode()),
        "signature-with-head": (known["signature"], 0, 0, json.dumps(_Asked().sign(b"") | {"head": "$I"}).encode()),
        "signature-publisher": (known["signature"], 0, 0, json.dumps(json.loads(honest)["signature"]).encode()),
        "signature-as-publisher": (known["signature"], 0, 0, b'{"signer":"a","certificate":"$D","signature":"$T"}'),
        "certificate": (known["certificate"], 0, 0, b""),
        # Where a certificate has its version (RFC 5280 4.1), and a few places in its names, dates and key.
        "certificate-version-7": (known["certificate"], 0, 0, bytes([0, 12, 6])),
        "certificate-bits": (known["certificate"], 0, 0, bytes([0, 40, 255, 0, 90, 0, 1, 0, 255])),
    }
    short = {name: (kind, deep, wide, text) for name, (kind, deep, wide, text) in found.items() if len(text) <= _SHORT}
    return {name: bytes([kind, deep, wide]) + text for name, (kind, deep, wide, text) in short.items()}


def seeds() -> dict[str, dict[str, bytes]]:
    """Target to name to input."""
    plain: dict[str, dict[str, str]] = {
        "names": {
            "short": "nginx",
            "whole": f"registry.k8s.io:5000/a/b-c__d.e:v1.2@{_DIGEST}",
            "sha512": "a@sha512:" + "0" * 128,
            "alias": "index.docker.io/nginx:1",
            "capital": "FOO/bar",
            "ipv6": "[2001:db8::1]:5000/x",
            "identifier": "ab" * 32,
            "namespace": "team/app\nquay.io:443",
            "ns-no-host": "team/app\nfoo",
            "site": "10.0.0.1:5443/quay.io/app:1\n10.0.0.1",
            "upwards": "a/../b:1",
            "tag": "v1.27_-.",
            "digest": _DIGEST,
            "digest-capitals": _DIGEST.upper().replace("SHA", "sha"),
            "terminal": "a\x1b[2J",
        },
        "ranges": {
            "first": "\x40bytes=0-0",
            "open": "\x40bytes=5-",
            "suffix": "\x40bytes=-70",
            "none": "\0bytes=-1",
            "beyond": "\x40bytes=64-",
            "backwards": "\x405-4",
            "several": "\x40bytes=0-1,3-4",
            "spaces": "\x40 Bytes= 0 - 1 ",
            "long": "\x40bytes=0-99999999999999999999",
            "upload": "\x400-63",
            "basic": "\x40ops:correct horse",
        },
    }
    found = {target: {name: text.encode() for name, text in inputs.items()} for target, inputs in plain.items()}
    return found | {
        "requests": {name: text.encode() for name, text in _requests().items()},
        "media": {name: text.encode() for name, text in _media().items()},
        "tars": {name: b"\0" + raw for name, raw in _tars().items()},
        "documents": _documents(),
        "streams": _streams(),
        "peers": _peers(),
        # Begin, append twice, finish; begin and cancel; a wrong digest; a restart in between.
        "uploads": {
            "whole": bytes([0, 0, 1, 0, 5, 1, 0, 1, 0, 6, 1, 0, 3, 0, 0, 0, 0, 0, 0]),
            "ranged": bytes([0, 1, 1, 0, 5, 3, 0, 1, 0, 7, 3, 0, 3, 0, 0, 0, 1, 0, 0]),
            "cancelled": bytes([0, 0, 0, 1, 5, 1, 5, 0]),
            "wrong": bytes([0, 0, 3, 0, 5, 1, 0, 3]),
            "restarted": bytes([0, 0, 1, 0, 9, 1, 0, 8, 1, 0, 9, 1, 0, 3, 0, 0, 0, 0, 0]),
            "at-once": bytes([6, 1, 7, 1, 0, 6, 1, 5, 0, 0, 7, 0, 1]),
        },
        # Blobs, a manifest of them, a tag, deletions; a mount; layers of odd types.
        "pushes": {
            "image": bytes([0, 0, 2, 0, 0, 0, 1, 0, 3, 0, 0, 0, 2, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 2]),
            "delete": bytes([0, 0, 2, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0, 8, 0, 0, 2]),
            "mount": bytes([2, 0, 1, 0, 10, 2, 3, 0, 0, 1, 8, 0, 0, 10]),
            "odd-layer": bytes([0, 0, 3, 0, 0, 2, 0, 3, 0, 0, 0, 2, 0, 1, 3, 2, 0, 0, 0, 0, 0]),
            "seeded": bytes([6, 0, 7, 1, 0, 0, 7, 1, 1, 0, 8, 1, 0, 7]),
            "index": bytes([6, 0, 8, 0, 0, 0, 3, 3, 1, 0, 8, 0, 0, 0, 0, 3]),
        },
    }


def main() -> int:
    """Write them."""
    for target, inputs in seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for name, content in inputs.items():
            (folder / f"seed-{name}").write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
