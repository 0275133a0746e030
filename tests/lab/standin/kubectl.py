"""The little of kubectl that roles and lab tests use: ``get --raw``, ``get`` of nodes, pods and events, ``version``."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

_LISTS = {"pods": "/api/v1/pods", "events": "/api/v1/events"}
KUBECONFIG = Path("/etc/rancher/k3s/k3s.yaml")


class KubectlError(RuntimeError):
    """What kubectl would say before it exits 1."""


def kubeconfig(server: str, authority: str, certificate: str, key: str) -> str:
    """The admin's kubeconfig, in the form that K3s writes."""

    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    document = {
        "apiVersion": "v1",
        "clusters": [
            {"cluster": {"certificate-authority-data": encoded(authority), "server": server}, "name": "default"}
        ],
        "contexts": [{"context": {"cluster": "default", "user": "default"}, "name": "default"}],
        "current-context": "default",
        "kind": "Config",
        "users": [
            {
                "name": "default",
                "user": {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)},
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False)


def main(arguments: list[str]) -> int:
    """Run one kubectl command."""
    try:
        words, options = parse(arguments)
        sys.stdout.write(_run(words, options))
    except (KubectlError, OSError) as error:
        sys.stderr.write(f"Error from stand-in kubectl: {error}\n")
        return 1
    return 0


def parse(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Words and options of a command line; ``-o`` and ``--output`` are one option."""
    words: list[str] = []
    options: dict[str, str] = {}
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if not argument.startswith("-"):
            words.append(argument)
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-o") and not argument.startswith("--") and len(argument) > 2:
            name, equals, value = "o", "=", argument[2:].removeprefix("=")
        if name in ("no-headers", "insecure-skip-tls-verify", "client", "all-namespaces", "A") and not equals:
            value = "true"
        elif not equals:
            if not pending:
                raise KubectlError(f"flag needs an argument: {argument}")
            value = pending.pop(0)
        options["output" if name == "o" else name] = value
    return words, options


def _run(words: list[str], options: Mapping[str, str]) -> str:
    if words[:1] == ["version"]:
        return str(_get("/version", options))
    if words[:1] != ["get"]:
        raise KubectlError(f"the stand-in does not know: kubectl {' '.join(words)}")
    if "raw" in options:
        return _get(options["raw"], options)
    kinds = words[1].split(",") if len(words) == 2 else []
    if set(kinds) & set(_LISTS) and options.get("output") == "json":
        # The other kinds that a question may name have no objects here.
        paths = [_LISTS[kind] for kind in kinds if kind in _LISTS]
        items = [item for path in paths for item in json.loads(_get(path, options))["items"]]
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=4) + "\n"
    if words[1:2] not in (["node"], ["nodes"], ["no"]):
        raise KubectlError(f"the stand-in has nodes, pods and events only, not {' '.join(words[1:])}")
    path = "/api/v1/nodes" + (f"/{words[2]}" if len(words) > 2 else "")
    document = json.loads(_get(path, options))
    output = options.get("output", "")
    if output == "json":
        if document["kind"] == "NodeList":
            document["kind"] = "List"
        return json.dumps(document, indent=4) + "\n"
    nodes = document["items"] if document["kind"] == "NodeList" else [document]
    if output == "name":
        return "".join(f"node/{node['metadata']['name']}\n" for node in nodes)
    if output in ("", "wide"):
        return _table(nodes)
    raise KubectlError(f"the stand-in does not know output {output!r}")


def _table(nodes: list[dict[str, Any]]) -> str:
    rows = [("NAME", "STATUS", "ROLES", "VERSION")]
    for node in nodes:
        conditions = {item["type"]: item["status"] for item in node["status"]["conditions"]}
        roles = [label.partition("/")[2] for label in node["metadata"]["labels"] if label.startswith("node-role.")]
        rows.append(
            (
                node["metadata"]["name"],
                "Ready" if conditions["Ready"] == "True" else "NotReady",
                ",".join(roles) or "<none>",
                node["status"]["nodeInfo"]["kubeletVersion"],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def _get(path: str, options: Mapping[str, str]) -> str:
    file = Path(options.get("kubeconfig") or os.environ.get("KUBECONFIG") or KUBECONFIG)
    try:
        document = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        raise KubectlError(f"{file}: no such file; this node is no server, or K3s has not started yet") from None
    cluster = document["clusters"][0]["cluster"]
    user = document["users"][0]["user"]
    address = urlsplit(options.get("server") or cluster["server"])
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile("w") as pair:
        for part in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[part]).decode())
        pair.flush()
        context.load_cert_chain(pair.name)
    connection = http.client.HTTPSConnection(address.hostname or "", address.port or 443, timeout=30, context=context)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        raise KubectlError(f"{response.status}: {body.strip()}")
    return body
