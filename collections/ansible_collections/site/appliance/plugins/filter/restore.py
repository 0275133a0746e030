# SPDX-License-Identifier: Apache-2.0
"""What a restore would put back and replace, and what forbids it, as pure functions from data to text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils.problems import Problems, plain
from ansible_collections.site.appliance.plugins.plugin_utils.words import each

PASSWORD = "k3s/nodes/"
#: Files of a backup that hold K3s's tokens, with what they are and the setting that says where they go.
TOKENS = (("k3s/token", "servers", "token_file"), ("k3s/agent-token", "agents", "agent_token_file"))
#: Files of a backup that hold K3s's datastore, by its kind.
DATASTORES = {"sqlite": "k3s/state.db", "etcd": "k3s/snapshot"}


def restore_state(served: Mapping[str, Any] | None, kept: Mapping[str, Any] | None, history: Sequence[str]) -> str:
    """Return how what a store serves stands to a backup.

    ``same``; ``forward``: it has nothing, or what came before; ``other``: what the backup does not know.

    :param served: ``number`` and ``digest`` that the store serves; None: nothing.
    :param kept: the same of the backup.
    :param history: digests of the generations that came before the backup's.
    """
    if served is None:
        return "same" if kept is None else "forward"
    if kept is not None and served["digest"] == kept["digest"]:
        return "same"
    return "forward" if kept is not None and served["digest"] in history else "other"


def restore_seen(hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> dict[str, Any]:
    """Return node to what ``site.appliance.served_info`` said of it; None for one that was not asked (``--limit``)."""
    return {host: hostvars[host].get("__restore_seen") for host in hosts}


def restore_plan(
    archive: Mapping[str, Any],
    seen: Mapping[str, Mapping[str, Any] | None],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return ``lines`` (what would be put back, and what it replaces), ``problems``, and ``empty``.

    :param archive: what ``appliance backup show --json`` printed.
    :param seen: node to what ``site.appliance.served_info`` returned; None for one that did not answer.
    :param settings: ``publisher``, ``server`` (the first), ``servers``, ``parts``, ``over``, and the paths ``ca``,
        ``token_file``, ``agent_token_file``, ``database``, ``snapshot``, ``etcd``, ``password_file``.
    """
    about, parts = archive["about"], settings["parts"]
    shas = {item["name"]: item["sha256"] for item in archive["files"]}
    problems, todo = Problems(), []
    if "authority" in parts and archive["authority"] != "same":
        todo.append(f"controller: the site's authority, to {settings['ca']}")
    if "names" in parts:
        todo += _names(about["store"], seen, settings, problems)
    if "k3s" in parts:
        todo += _k3s(about.get("k3s") or {}, shas, seen, settings, problems)
    head = f"Backup of site {about['site']}, made {archive['created']} by release {archive['release']}: {archive['archive']}"
    lines = [head, *(f"  {line}" for line in todo or ["nothing to put back: all of it is there"])]
    media = about["store"]["media"]
    if "names" in parts and media:
        lines.append("Layers are not in it. They come back from the media that brought them:")
        lines += [f"  {medium}" for medium in media]
    return plain(each({"lines": lines, "problems": problems.lines, "empty": not todo}))


def _names(
    store: Mapping[str, Any],
    seen: Mapping[str, Mapping[str, Any] | None],
    settings: Mapping[str, Any],
    problems: Problems,
) -> list[str]:
    publisher, todo = settings["publisher"], []
    for node, found in seen.items():
        for key in ("generation", "pushes") if found else ():
            served, kept = found[key], store[key]
            state = restore_state(served, kept, store["history"])
            # An index of pushes has no history; what is older goes forward, as everywhere.
            if key == "pushes" and state == "other" and kept and served["number"] < kept["number"]:
                state = "forward"
            if node == publisher and state != "same":
                replaced = f", in place of {served['number']}" if served else ""
                what = f"{key} {kept['number']}" if kept else f"no {key}"
                names = f" with {store['names']} names" if key == "generation" else ""
                todo.append(f"{node}: {what}{names}{replaced}")
            if state == "other" and not settings["over"]:
                _refuse(problems, node, key, served, kept, publisher)
    return todo


def _refuse(
    problems: Problems, node: str, key: str, served: Mapping[str, Any], kept: Mapping[str, Any] | None, publisher: str
) -> None:
    why = f"{key} {served['number']} {served['digest']}; in the backup: "
    why += f"{kept['number']} {kept['digest']}" if kept else "none"
    if node == publisher:
        problems.add(
            "APL-0873",
            "the publisher serves what the backup does not know",
            where=node,
            why=why,
            fix="Keep it, or replace it all the same with -e restore_over=true",
        )
    else:
        problems.add(
            "APL-0875",
            "a node serves what the backup does not know",
            where=node,
            why=why,
            fix=f"It would not follow {publisher}. Put it first in mirror_seeds and it goes on from what it serves; or run again"
            " with -e restore_over=true and empty the nodes' stores",
        )


def _k3s(
    k3s: Mapping[str, Any],
    shas: Mapping[str, str],
    seen: Mapping[str, Mapping[str, Any] | None],
    settings: Mapping[str, Any],
    problems: Problems,
) -> list[str]:
    def there(node: str, path: str) -> str:
        return ((seen.get(node) or {}).get("files") or {}).get(path, "")

    server, todo = settings["server"], []
    datastore = DATASTORES.get(str(k3s.get("datastore")))
    target = settings["snapshot"] if datastore == DATASTORES["etcd"] else settings["database"]
    foreign = [
        f"{node} has {path}" for node in settings["servers"] for path in (settings["etcd"],) if there(node, path)
    ]
    for name, _, setting in TOKENS:
        if name in shas and there(server, settings[setting]) not in ("", shas[name]):
            foreign.append(f"{server} has another token in {settings[setting]}")
    if there(server, settings["database"]) and there(server, settings["database"]) != shas.get(DATASTORES["sqlite"]):
        foreign.append(f"{server} has {settings['database']}")
    if foreign:
        problems.add(
            "APL-0876",
            "there is a K3s cluster already",
            where=server,
            why="; ".join(foreign),
            fix="K3s is restored onto fresh hosts alone. Take it off the servers first, or leave it as it is with"
            """ -e '{"restore_parts": ["authority", "names"]}'""",
        )
    for name, whose, setting in TOKENS:
        if name in shas and there(server, settings[setting]) != shas[name]:
            todo.append(f"{server}: K3s's token of {whose}, to {settings[setting]}")
    if datastore in shas and there(server, target) != shas[datastore]:
        todo.append(f"{server}: K3s's datastore ({k3s['datastore']}), read by K3s when site.yml starts it")
    for node in seen:
        sha = shas.get(PASSWORD + node)
        if sha and there(node, settings["password_file"]) != sha:
            todo.append(f"{node}: K3s's password of the node, to {settings['password_file']}")
    return todo


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {"restore_plan": restore_plan, "restore_seen": restore_seen, "restore_state": restore_state}
