# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""What a site's nodes answered, judged: the order in which containerd asks, pulls, mirrors, and one table of it all.

The lookup follows containerd (``core/remotes/docker/config/hosts.go`` and ``config_unix.go``) with the change that
K3s's build carries: a hosts.toml without a ``server`` line has no default endpoint, unless it lists no host at all.
Pure functions.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import tomllib

from ansible_collections.site.appliance.plugins.filter.registries import (
    WILDCARD,
    is_loopback,
    normalise_endpoint,
)
from ansible_collections.site.appliance.plugins.plugin_utils.cluster import (
    add_pods,
    cluster_problems,
    failing,
    pods_of,
)
from ansible_collections.site.appliance.plugins.plugin_utils.image_names import full_name
from ansible_collections.site.appliance.plugins.plugin_utils.problems import Problems, plain
from ansible_collections.site.appliance.plugins.plugin_utils.words import each, read_document

# Any registry that nobody lists: what containerd does with it is what "*" stands for.
_UNLISTED = "not-listed.invalid"
_CONFIG_PATH_PLUGINS = ("io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri")
_COLUMNS = ("node", "role", "K3s", "ready", "generation", "names", "order", "pull", "peers", "missing", "pods")
_IMAGE_LINE = re.compile(r"^(\S+)\s+\S+\s+(sha256:[0-9a-f]{64})\s")


# --------------------------------------------------------------------------------- containerd's lookup


def containerd_roots(files: Mapping[str, str]) -> list[str]:
    """The directories in which containerd looks for a registry, in order.

    :param files: path to text of containerd's config.toml and of the files that it may import; the first path that is
        called ``config.toml`` is the main one.
    :raises ValueError: a file that counts is not valid TOML.
    """
    main = next((path for path in files if path.endswith("/config.toml")), "")
    if not main:
        return []
    document = _toml(files[main], main)
    found = _config_path(document)
    for pattern in document.get("imports", []):
        for path in sorted(files):
            if path != main and fnmatch.fnmatchcase(path, pattern):
                found = _config_path(_toml(files[path], path)) or found
    return [item for item in found.split(":") if item]


def sandbox_image(files: Mapping[str, str]) -> str:
    """Return the image that containerd takes for each pod's sandbox; empty where its configuration does not say.

    :param files: see :func:`containerd_roots`.
    """
    for path, text in files.items():
        if not path.endswith("/config.toml"):
            continue
        try:
            plugins = _toml(text, path).get("plugins", {})
        except ValueError:
            return ""
        new, old = (plugins.get(name, {}) for name in _CONFIG_PATH_PLUGINS)
        return str(new.get("pinned_images", {}).get("sandbox") or old.get("sandbox_image") or "")
    return ""


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where} is not valid TOML: {error}") from error
    return document


def _config_path(document: Mapping[str, Any]) -> str:
    plugins = document.get("plugins", {})
    for name in _CONFIG_PATH_PLUGINS:
        path = plugins.get(name, {}).get("registry", {}).get("config_path", "")
        if path:
            return str(path)
    return ""


def directory_names(registry: str) -> list[str]:
    """The names under which containerd looks for a registry's directory, in order; the first that exists wins."""
    host, colon, port = registry.rpartition(":")
    return [*([f"{host}_{port}_"] if colon and host else []), registry, "_default"]


def containerd_lookup(
    roots: Iterable[str], hosts: Mapping[str, Mapping[str, str | None]], registry: str
) -> dict[str, Any]:
    """Whom containerd asks for an image of a registry, in order.

    :param roots: the directories of ``config_path``.
    :param hosts: root to registry directory to text of its hosts.toml (``None`` where there is no such file).
    :param registry: ``host[:port]`` as image names start with.
    :returns: ``directory`` (empty where none was found), ``urls`` in order, ``default`` (the default endpoint that
        comes after them, empty where there is none).
    :raises ValueError: the hosts.toml that counts is not valid TOML.
    """
    implicit = f"https://{'registry-1.docker.io' if registry == 'docker.io' else registry}/v2"
    for root in roots:
        present = hosts.get(root, {})
        for name in directory_names(registry):
            if name not in present:
                continue
            where = f"{root}/{name}"
            text = present[name]
            if text is None:
                return {"directory": where, "urls": [], "default": implicit}
            document = _toml(text, f"{where}/hosts.toml")
            urls = [normalise_endpoint(url) for url in document.get("host", {})]
            default = ""
            if "server" in document:
                default = normalise_endpoint(document["server"]) if document["server"] else implicit
            elif not urls:
                default = implicit
            return {"directory": where, "urls": urls, "default": default}
    return {"directory": "", "urls": [], "default": implicit}


def check_order(
    files: Mapping[str, str],
    hosts: Mapping[str, Mapping[str, str | None]],
    expected: Mapping[str, list[str]],
    wildcard: bool,
) -> list[str]:
    """What is wrong with the order in which a node's containerd asks, one line a registry.

    :param files: see :func:`containerd_roots`.
    :param hosts: see :func:`containerd_lookup`.
    :param expected: registry to the URLs to be asked, in order; ``"*"`` stands for every other registry.
    :param wildcard: whether other registries are covered at all.
    """
    try:
        roots = containerd_roots(files)
    except ValueError as error:
        return [str(error)]
    if not roots:
        return ["containerd has no config_path: K3s has not written its configuration yet, or it is another containerd"]
    wrong = []
    for name, urls in expected.items():
        if name == WILDCARD and not wildcard:
            continue
        shown = "any other registry" if name == WILDCARD else name
        try:
            found = containerd_lookup(roots, hosts, _UNLISTED if name == WILDCARD else name)
        except ValueError as error:
            wrong.append(f"{shown}: {error}")
            continue
        # A default endpoint on this very host cannot go out; a registry inside the site may be its own default.
        order = list(found["urls"])
        if found["default"] and not is_loopback(urlsplit(found["default"]).netloc):
            order.append(found["default"])
        if order != urls:
            place = found["directory"] or "no hosts.toml"
            wrong.append(f"{shown}: asks {' then '.join(order) or 'nobody'}, not {' then '.join(urls)} ({place})")
    return wrong


# ---------------------------------------------------------------------------------------------- images


def parse_images(stdout: str) -> dict[str, str]:
    """Name to digest from the output of ``ctr images ls``."""
    found = {}
    for row in stdout.splitlines():
        match = _IMAGE_LINE.match(row)
        if match:
            found[match.group(1)] = match.group(2)
    return found


def split_name(name: str) -> tuple[str, str]:
    """An image name's registry (empty where it has none) and the name without tag and digest."""
    base = name.split("@", 1)[0]
    head, colon, tag = base.rpartition(":")
    if colon and "/" not in tag:
        base = head
    first, slash, _ = base.partition("/")
    registry = first if slash and ("." in first or ":" in first or first == "localhost") else ""
    return registry, base


def unshared_images(images: Mapping[str, str], served: Mapping[str, str]) -> list[dict[str, str]]:
    """Images that K3s's embedded registry cannot share, because somebody imported them by ``ctr`` alone.

    K3s's importer and every pull leave a second name ``repository@digest``; ``ctr images import`` does not, and
    without it other nodes find the tag and then fail on the digest.

    :param images: name to digest, all images in containerd's namespace ``k8s.io``.
    :param served: name to digest, the images that the mirror serves.
    :returns: ``name``, ``digest`` and the ``command`` that makes each shareable.
    """
    found = []
    for name, digest in sorted(images.items()):
        if "@" in name or name.startswith("sha256:"):
            continue
        registry, base = split_name(name)
        if not registry or is_loopback(registry):
            continue
        second = f"{base}@{digest}"
        if second in images or served.get(name) == digest:
            continue
        found.append({"name": name, "digest": digest, "command": f"k3s ctr -n k8s.io images tag {name} {second}"})
    return found


def mirror_images(stdout: str) -> dict[str, str]:
    """Name to digest from ``appliance images --json``; empty where the output is not that."""
    try:
        document = json.loads(stdout)
    except ValueError:
        return {}
    rows = document.get("images", []) if isinstance(document, dict) else document
    if not isinstance(rows, list):
        return {}
    return {
        str(row["name"]): str(row["digest"])
        for row in rows
        if isinstance(row, dict) and row.get("name") and row.get("digest")
    }


# ------------------------------------------------------------------------------------------- judgement


def _loads(stdout: str) -> dict[str, Any]:
    return read_document(stdout) or {}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no message"


def _seconds(delta: str) -> str:
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", delta or "")
    if not match:
        return "ok"
    hours, minutes, seconds = match.groups()
    return f"{int(hours) * 3600 + int(minutes) * 60 + float(seconds):.2f} s"


def verify_node(spec: Mapping[str, Any]) -> dict[str, Any]:
    """One node's row of the site's table, with what is wrong and what is worth knowing.

    :param spec: ``name``, ``role``, ``version`` (of the K3s binary), ``state`` (of the node, see ``k3s_node_state``),
        ``status`` (output of ``appliance status --json``), ``status_error``, ``files`` and ``hosts`` (see
        :func:`check_order`), ``expected`` (None where it is not known), ``wildcard``, ``image`` (the one that was pulled; may be empty),
        ``pull_rc``, ``pull_error``, ``pull_time`` (``h:mm:ss.ffffff``), ``proof`` (output of ``appliance prove --sample``),
        ``proof_error`` (its error; may be empty),
        ``images`` (output of ``ctr images ls``), ``mirror_images`` (output of ``appliance images --json``),
        ``cluster`` (result of ``site.appliance.cluster_pods_info``) and ``node_name`` (its name in Kubernetes).
    :returns: ``cells`` (column to text), ``bad`` (names of bad columns), ``problems`` and ``notes`` (lines),
        ``node_name``, and ``sandbox`` (the image that every pod of the node needs).
    """
    spec = plain(spec)
    name = str(spec["name"])
    problems, notes = Problems(), Problems()
    cells: dict[str, str] = dict.fromkeys(_COLUMNS, "-")
    cells["node"], cells["role"] = name, str(spec.get("role", "-"))
    bad: list[str] = []

    def wrong(column: str, text: str, code: str, what: str, *, why: str = "", fix: str = "") -> None:
        cells[column] = text
        bad.append(column)
        problems.add(code, what, where=name, why=why, fix=fix)

    state = spec.get("state") or {}
    cells["K3s"] = state.get("version") or spec.get("version") or "-"
    if not spec.get("version"):
        wrong("K3s", "absent", "APL-0901", "K3s is not installed", fix="Run site.yml")
    elif state.get("version") and spec["version"] and state["version"] != spec["version"]:
        wrong(
            "K3s",
            state["version"],
            "APL-0901",
            "K3s runs in another version than is installed",
            why=f"{state['version']} runs, {spec['version']} is installed",
            fix="Run site.yml",
        )
    cells["ready"] = "yes"
    if not state.get("ready"):
        wrong("ready", "no", "APL-0902", "the node is not Ready", why=str(state.get("why") or "no server answered"))

    cells["order"] = "ok"
    _verify_mirror(spec, cells, wrong)

    if spec.get("expected") is None:
        wrong(
            "order",
            "unknown",
            "APL-0904",
            "the order in which containerd asks cannot be judged",
            why="the mirror did not say which registries it serves",
            fix="Mend the mirror first, then run verify again",
        )
    order = check_order(
        spec.get("files") or {}, spec.get("hosts") or {}, spec.get("expected") or {}, bool(spec["wildcard"])
    )
    for line in order:
        wrong(
            "order",
            "wrong",
            "APL-0904",
            "containerd does not ask in the order that the inventory wants",
            why=line,
            fix="Run site.yml; if this stays, look for files in certs.d that neither K3s nor the appliance wrote",
        )

    image = spec.get("image")
    if image:
        cells["pull"] = _seconds(str(spec.get("pull_time") or ""))
        if spec.get("pull_rc") != 0:
            why = _last_line(str(spec.get("pull_error") or ""))
            wrong("pull", "failed", "APL-0905", f"{image} cannot be pulled", why=why)

    proof = _loads(str(spec.get("proof") or ""))
    if not proof and spec.get("proof_error") and spec.get("status"):
        why = _last_line(str(spec["proof_error"]))
        wrong("pull", "no sample", "APL-0916", "no sample could be taken from the mirror", why=why)
    for item in proof.get("wrong") or []:
        wrong(
            "pull",
            "wrong",
            "APL-0916",
            f"the mirror does not give {item['name']} as it was published",
            why=f"{item['answered']} instead of {item['expected']}",
            fix="Run appliance fsck on this node",
        )

    pods = pods_of(spec.get("cluster") or {}, str(spec.get("node_name") or name))
    cells["pods"] = f"{len(pods) - len(failing(pods))}/{len(pods)}" if pods else cells["pods"]
    if failing(pods):
        bad.append("pods")
        add_pods(problems, pods, name)

    images = parse_images(str(spec.get("images") or ""))
    served = mirror_images(str(spec.get("mirror_images") or ""))
    for item in unshared_images(images, served):
        notes.add(
            "APL-0906",
            f"{item['name']} is on this node only",
            where=name,
            why="it was imported by ctr alone, and other nodes cannot pull it",
            fix=f"To share it, run there: {item['command']}",
        )
    if not spec["wildcard"]:
        covered = {str(item) for item in (spec.get("expected") or {})}
        open_names = sorted({split_name(item)[0] for item in images if not item.startswith("sha256:")} - covered - {""})
        listed = f"; images here from such registries: {', '.join(open_names)}" if open_names else ""
        notes.add(
            "APL-0907",
            'names of unlisted registries could go out, since the inventory refuses "*"',
            where=name,
            why=f"covered are only {', '.join(sorted(covered)) or 'none'}{listed}",
            fix="Set registries_wildcard: true",
        )
    return {
        "cells": each(cells),
        "bad": bad,
        "problems": problems.lines,
        "notes": notes.lines,
        "node_name": str(spec.get("node_name") or name),
        "sandbox": sandbox_image(spec.get("files") or {}),
    }


def _verify_mirror(spec: Mapping[str, Any], cells: dict[str, str], wrong: Callable[..., None]) -> None:
    """The columns that come from the mirror's own status."""
    status = _loads(str(spec.get("status") or ""))
    if not status:
        why = _last_line(str(spec.get("status_error") or ""))
        wrong(
            "generation",
            "no answer",
            "APL-0903",
            "the mirror does not answer",
            why=why,
            fix="Look at appliance-agent.service",
        )
        return
    for item in status.get("foreign_listeners") or []:
        is_peer = item.get("service") == "peer"
        asks = "other nodes in place of the peer service" if is_peer else "containerd in place of the mirror"
        wrong(
            "peers" if is_peer else "order",
            "foreign",
            "APL-0917",
            f"another process answers {asks}",
            why=str(item.get("words")),
            fix=f"Stop it, then: systemctl restart appliance-{'peer' if is_peer else 'mirror'}",
        )
    generation = status.get("generation") or {}
    digest = str(generation.get("digest", ""))
    cells["generation"] = f"{generation['number']} {digest[7:19]}" if generation else "none"
    cells["names"] = str(status.get("names", "-"))
    missing = int(status.get("wanted_missing") or 0)
    cells["missing"] = str(missing)
    if missing:
        wrong(
            "missing",
            str(missing),
            "APL-0908",
            f"{missing} blobs that this node should hold are not there yet",
            fix="Wait and run verify again; if the number stays, look at the agent's log",
        )
    peers = [peer for peer in status.get("peers") or [] if peer.get("id") != spec["name"]]
    up = [peer for peer in peers if peer.get("state") == "up"]
    cells["peers"] = f"{len(up)}/{len(peers)}"
    for peer in peers:
        if peer not in up:
            wrong(
                "peers",
                cells["peers"],
                "APL-0909",
                f"its mirror does not reach {peer.get('id')} at {peer.get('address')}",
                fix="Look whether that node runs and whether 5443/tcp is open between the two",
            )
    for trouble in status.get("troubles") or []:
        # That a peer does not answer is said above.
        if trouble.get("ended") or trouble.get("about") == "ping":
            continue
        who = trouble.get("peer") or "this node"
        wrong(
            "peers" if trouble.get("peer") else "generation",
            cells["peers" if trouble.get("peer") else "generation"],
            "APL-0432",
            f"its mirror has had trouble with {who} ({trouble.get('about')}) {trouble.get('times')} times "
            f"since {trouble.get('since')}"
            + (f"; it keeps back {back}" if (back := trouble.get("keeps_back")) else ""),
            why=str(trouble.get("reason") or ""),
            fix=f"Look at {who}; the other nodes are followed meanwhile, and it is tried again by itself",
        )


def verify_site(
    rows: Iterable[Mapping[str, Any]],
    absent: Mapping[str, str] | None = None,
    cluster: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The site's table with everything that is wrong.

    :param rows: what :func:`verify_node` returned, one for each node that answered.
    :param absent: node to role of those that did not answer.
    :param cluster: ``pods`` (result of ``site.appliance.cluster_pods_info``), ``held`` (outputs of ``ctr images ls``),
        ``served`` (outputs of ``appliance images --json``) and ``expected`` (see :func:`check_order`); None: the cluster
        is not judged.
    :returns: ``table`` (text), ``problems`` and ``notes`` (lines).
    """
    problems, notes = Problems(), Problems()
    shown: list[dict[str, str]] = []
    generations: dict[str, list[str]] = {}
    rows = plain(list(rows))
    for row in rows:
        cells = {column: f"!{text}" if column in row["bad"] else text for column, text in row["cells"].items()}
        shown.append(cells)
        problems.lines += row["problems"]
        notes.lines += row["notes"]
        if row["cells"]["generation"] not in ("-", "no answer"):
            generations.setdefault(row["cells"]["generation"], []).append(row["cells"]["node"])
    for name, role in sorted((absent or {}).items()):
        shown.append({**dict.fromkeys(_COLUMNS, "-"), "node": name, "role": role, "ready": "!unreachable"})
        problems.add("APL-0910", "the node does not answer by SSH", where=name, fix="Look whether it runs")
    if len(generations) > 1:
        told = "; ".join(f"{generation}: {', '.join(names)}" for generation, names in sorted(generations.items()))
        problems.add(
            "APL-0911",
            "the nodes do not serve the same generation",
            where="site",
            why=told,
            fix="Nodes catch up within half a minute; if one stays behind, look at its peers",
        )
        for cells in shown:
            if cells["generation"] not in ("-", "!no answer"):
                cells["generation"] = f"!{cells['generation']}"
    if cluster is not None:
        problems.lines += _judge_cluster(plain(cluster), rows)
    shown.sort(key=lambda cells: (cells["role"] != "server", cells["node"]))
    return {"table": verify_table(shown), "problems": problems.lines, "notes": notes.lines}


def _judge_cluster(cluster: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> list[str]:
    present = {}
    for stdout in cluster["held"]:
        present.update({full_name(name): digest for name, digest in parse_images(str(stdout or "")).items()})
    for stdout in cluster["served"]:
        present.update({full_name(name): digest for name, digest in mirror_images(str(stdout or "")).items()})
    info = cluster["pods"]
    return cluster_problems(
        info if "pods" in info else {"error": info.get("msg") or "no server answered"},
        nodes={str(row["node_name"]) for row in rows},
        present=present,
        sandboxes={str(row["sandbox"]) for row in rows if row["sandbox"]},
        elsewhere={
            registry
            for registry, urls in (cluster.get("expected") or {}).items()
            if any(not is_loopback(urlsplit(url).netloc) for url in urls)
        },
    )


def verify_table(rows: Iterable[Mapping[str, str]]) -> str:
    """Rows of columns as text, each column as wide as its widest cell."""
    rows = list(rows)
    widths = {column: max([len(column), *(len(row.get(column, "-")) for row in rows)]) for column in _COLUMNS}
    lines = ["  ".join(column.ljust(widths[column]) for column in _COLUMNS).rstrip()]
    lines.append("  ".join("-" * widths[column] for column in _COLUMNS))
    lines += ["  ".join(row.get(column, "-").ljust(widths[column]) for column in _COLUMNS).rstrip() for row in rows]
    return "\n".join(lines)


def verify_sampled(stdout: str) -> str:
    """Return the name that containerd pulls after ``appliance prove --sample``: one that was proved and is small enough.

    :param stdout: the command's output; of anything else, nothing is pulled.
    """
    return str(_loads(stdout).get("pull") or "")


def verify_hashed(results: Iterable[Mapping[str, Any]]) -> str:
    """Return how much the nodes' samples held together.

    :param results: results of ``appliance prove --sample --json``.
    """
    samples = [_loads(str(result.get("stdout") or "")) for result in results]
    blobs, size = (sum(int(sample.get(key) or 0) for sample in samples) for key in ("blobs", "bytes"))
    return f"{blobs}, {size / (1 << 20):.1f} MiB on {len(samples)} nodes"


def verify_role_of(name: str, servers: Iterable[str]) -> str:
    """``server`` or ``agent``, by the group of servers."""
    return "server" if name in list(servers) else "agent"


class FilterModule:
    """Filters of the verify role."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function, as Ansible asks for them."""
        return {
            "verify_node": verify_node,
            "verify_site": verify_site,
            "verify_role_of": verify_role_of,
            "verify_hashed": verify_hashed,
            "verify_sampled": verify_sampled,
            "mirror_images": mirror_images,
        }
