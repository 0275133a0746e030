# SPDX-License-Identifier: Apache-2.0
"""The plan that an operator sees before anything changes, as pure functions from data to text."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain

_PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
_OF_RELEASE = re.compile(r".+-(\w+)\.(?:tar(?:\.\w+)?|tgz|tzst|txz|tbz2?)", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"^Usage: appliance .*^Error: (?P<what>No such (?:command|option)[^\n]*?)\.?$", re.MULTILINE | re.DOTALL
)
#: Roles that say what they would change, in the order in which they act; each leaves the fact ``__<role>_plan``.
_ROLES = ("host", "firewall", "mirror", "registries", "k3s")


def plan_roles(directory: str) -> list[str]:
    """Return the roles that have a plan of their own (``tasks/plan.yml``), in the order in which they act.

    :param directory: directory that holds the roles.
    """
    return [role for role in _ROLES if os.path.isfile(os.path.join(directory, role, "tasks", "plan.yml"))]


def plan_platforms(machines: Iterable[str]) -> list[str]:
    """Return what the nodes run, as ``os/architecture``, each once, from their machine names."""
    return sorted({_PLATFORMS.get(machine, f"linux/{machine}") for machine in machines})


def plan_machines(hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> list[str]:
    """Return the machine names of the nodes that were asked (``uname -m``); with ``--limit`` not all were."""
    found = [(hostvars[host].get("ansible_facts") or {}).get("architecture") for host in hosts]
    return [str(machine) for machine in found if machine]


def plan_checksums(sources: Iterable[str]) -> list[str]:
    """Return where the checksums of sources may lie, as ``appliance.archives.checksums`` looks for them."""
    files: list[str] = []
    for source in sources:
        directory, name = os.path.split(source.rstrip("/"))
        files.append(os.path.join(directory, f"{name}.sha256"))
        found = _OF_RELEASE.fullmatch(name)
        if found:
            files.append(os.path.join(directory, f"sha256sum-{found[1]}.txt"))
    return list(dict.fromkeys(files))


def plan_options(settings: Mapping[str, Any]) -> list[str]:
    """Return what ``appliance plan`` and ``appliance seed`` get alike: options, and behind ``--`` the sources.

    :param settings: ``sources``, ``names``, ``move_pinned``, ``remove`` (lists), ``allow`` (source, or ``*`` for all, to
        patterns), ``platforms`` (what the nodes run; empty: what ``machines`` says), ``any_platform``, ``older`` and
        ``other_site`` (what is agreed to), and ``staging`` (where the sources were carried to; empty where they are read
        in place).
    """
    staging = settings["staging"]

    def place(source: str) -> str:
        return f"{staging}/{os.path.basename(source.rstrip('/'))}" if staging else source

    words = [f"--platform={platform}" for platform in settings["platforms"] or plan_platforms(settings["machines"])]
    words += ["--any-platform"] if settings["any_platform"] else []
    words += [f"--name={name}" for name in settings["names"]]
    words += [f"--remove={name}" for name in settings["remove"]]
    words += [f"--move-pinned={name}" for name in settings["move_pinned"]]
    words += ["--older"] if settings["older"] else []
    words += ["--other-site"] if settings["other_site"] else []
    for source, given in settings["allow"].items():
        patterns = [given] if isinstance(given, str) and given else list(given or [])
        if not patterns:
            # No option at all would mean that everything may come.
            raise AnsibleFilterError(
                f"APL-0143: seed_allow lists nothing for {source}. Give it patterns, or take {source} out of seed_sources"
            )
        prefix = "" if source == "*" else f"{place(source)}="
        words += [f"--allow={prefix}{pattern}" for pattern in patterns]
    return plain([*words, "--json", "--", *[place(source) for source in settings["sources"]]])


def rollback_options(given: Mapping[str, str], move_pinned: Iterable[str]) -> list[str]:
    """Return what ``appliance rollback`` gets.

    :param given: ``to``, ``at`` and ``medium``; those that are not meant are empty.
    :param move_pinned: pinned names that may move.
    """
    words = [f"--{key}={value}" for key, value in given.items() if value]
    return plain([*words, *[f"--move-pinned={name}" for name in move_pinned]])


def plan_error(result: Mapping[str, Any]) -> str:
    """Return the one line that a failed command of the appliance has for the operator, or all that it said.

    A command that it does not know means an older release than this checkout's: playbooks other than site.yml install none.

    :param result: result of ``ansible.builtin.command``.
    """
    said = str(result.get("stderr") or result.get("stdout") or result.get("msg") or "").strip()
    own = [line for line in said.splitlines() if line.startswith("APL-")]
    unknown = _UNKNOWN.search(said) if result.get("rc") == 2 else None
    if unknown:
        return (
            f"APL-0773: the release on the node is older than this checkout: {unknown['what']}. "
            "Run ansible-playbook site.yml, which brings the release of this checkout to every node, and then this again"
        )
    return "\n".join(own) if own else said


def plan_refusal(result: Mapping[str, Any]) -> str:
    """Return what a failed ``appliance plan --json`` has for the operator: the plan as far as it was made, and the error.

    :param result: result of ``ansible.builtin.command``.
    """
    try:
        images = json.loads(str(result.get("stdout") or ""))
    except ValueError:
        images = None
    shown = _image_lines(images) if isinstance(images, dict) else []
    return "\n".join([*shown, plan_error(result)])


def plan_nodes(
    hostvars: Mapping[str, Mapping[str, Any]],
    hosts: Iterable[str],
    images: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return for each node what would change on it, what would restart, and what would be written to its store.

    :param hostvars: with the facts that the roles' plans left: ``__<role>_plan`` (lines), ``__mirror_restarts`` (units),
        ``__k3s_restart`` (whether K3s restarts), ``__plan_report`` (result of ``site.appliance.host_report``).
    :param hosts: the nodes in the order of the inventory.
    :param images: what ``appliance plan --json`` printed; None where there is nothing to import.
    :param settings: ``seed_host`` (the node that imports), ``copies`` (number or ``all``), ``store`` (its directory).
    """
    hosts = list(hosts)
    to_write = int(images["bytes_to_write"]) if images else 0
    nodes = []
    for host in hosts:
        facts = hostvars[host]
        changes = [line for role in _ROLES for line in facts.get(f"__{role}_plan") or []]
        restarts = list(facts.get("__mirror_restarts") or [])
        if facts.get("__k3s_restart"):
            restarts.append("K3s")
        disk = (facts.get("__plan_report") or {}).get("report", {}).get("filesystems", {}).get(settings["store"], {})
        nodes.append(
            {
                "host": host,
                "changes": changes,
                "restarts": restarts,
                "writes": to_write
                if host == settings["seed_host"]
                else _share(to_write, settings["copies"], len(hosts)),
                "exact": host == settings["seed_host"] or settings["copies"] == "all" or len(hosts) == 1,
                "free": disk.get("available"),
                "mount": disk.get("mount", ""),
            }
        )
    return plain(nodes)


def plan_is_empty(images: Mapping[str, Any] | None, nodes: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether nothing at all would change."""
    return not plan_publishes(images) and not any(node["changes"] or node["restarts"] for node in nodes)


def plan_publishes(images: Mapping[str, Any] | None) -> bool:
    """Return whether importing the sources would change what the site serves, or bring it bytes it lacks."""
    return bool(images) and bool(_names_change(images) or images["bytes_to_write"])


def _names_change(images: Mapping[str, Any]) -> bool:
    """Return whether there would be a new generation; an interrupted import may have left nothing but that to do."""
    return bool(images["added"] or images["moved"] or images["completed"] or images.get("removed"))


def plan_too_small(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return one error for each node whose file system cannot take what will certainly be written to it."""
    return [
        f"APL-0771: {node['host']}: the file system at {node['mount']} is too small: {_size(node['writes'])} needed"
        f" ({node['writes']} bytes, for the store), {_size(node['free'])} available ({node['free']} bytes)."
        " Free space there, or mount a larger file system at /var/lib/appliance"
        for node in nodes
        if node["exact"] and node["free"] is not None and node["writes"] > node["free"]
    ]


def plan_text(images: Mapping[str, Any] | None, nodes: Sequence[Mapping[str, Any]]) -> str:
    """Write the plan for people.

    :param images: what ``appliance plan --json``, or ``appliance rollback --plan --json``, printed; None where there is
        nothing to import.
    :param nodes: what :func:`plan_nodes` returned.
    """
    if plan_is_empty(images, nodes):
        if images and "target" in images:
            return f"Nothing to do: {_served(images)} is served, with what generation {images['target']['number']} had."
        served = f" {_served(images).capitalize()} is served." if images else ""
        return "\n".join(
            [f"Nothing to do: the site is as the inventory and the medium want it.{served}", *_sources(images)]
        )
    return "\n".join(["This run would change the following.", "", *_image_lines(images), "", *_node_lines(nodes)])


def _image_lines(images: Mapping[str, Any] | None) -> list[str]:
    if images is None:
        return ["Images: no source is configured (seed_sources); what is served stays."]
    head = f"Images: {_served(images)} is served now"
    if _names_change(images):
        head += f"; generation {((images['generation'] or {}).get('number') or 0) + 1} will be published"
    target = images.get("target")
    if target:
        origin = ", ".join(target["sources"]) or "no medium"
        head += f", with what generation {target['number']} of {target['created']} had ({origin})"
    lines = [f"{head}."]
    removed = images.get("removed") or []
    back = {item["name"]: item["number"] for item in images.get("steps_back") or []}
    # One column for what happens, as wide as the longest word that is there.
    verb = len("remove") + 1 if removed else len("cover")
    width = max((len(item["name"]) for item in [*images["added"], *images["moved"], *removed]), default=0)
    lines += [
        f"  {'add':<{verb}} {item['name']:<{width}}  {_short(item['digest'])}  {_size(item['size'])}"
        for item in images["added"]
    ]
    lines += [
        f"  {'move':<{verb}} {item['name']:<{width}}  {_short(item['old'])} -> {_short(item['new'])}"
        f"{'  (pinned)' if item.get('pinned') else ''}"
        f"{'  (back to what generation {} had)'.format(back[item['name']]) if item['name'] in back else ''}"
        for item in images["moved"]
    ]
    lines += [
        f"  {'remove':<{verb}} {item['name']:<{width}}  {_short(item['digest'])}{'  (pinned)' if item.get('pinned') else ''}"
        for item in removed
    ]
    lines += [f"  {'fill':<{verb}} {name}  (platforms that were left out before)" for name in images["completed"]]
    lines += [
        f"  {'cover':<{verb}} {item['name']:<{width}}  {_short(item['old'])} (pushed by an operator) -> {_short(item['new'])}"
        for item in images.get("covers_pushed") or []
    ]
    lines += [
        f"  then what an operator pushed is served: {item['name']}  {_short(item['new'])}"
        for item in images.get("uncovers_pushed") or []
    ]
    count = len(images["unchanged"])
    stay = "1 name stays as it is" if count == 1 else f"{count} names stay as they are"
    lines.append(f"  {stay}." if removed else f"  {stay}; none is removed.")
    lines += [
        f"  cannot be brought back: {item['name']} lacks {', '.join(map(_short, item['blobs']))}"
        for item in images.get("missing") or []
    ]
    lines += _media(images)
    lines += [f"  note: {note}" for note in images.get("notes") or []]
    return [*lines, *_sources(images)]


def _media(images: Mapping[str, Any]) -> list[str]:
    older = images.get("older_media") or {}
    return [
        f"  medium: {label['id']}, for {label['site']}, made {label['created']}"
        f"{' (' + label['note'] + ')' if label.get('note') else ''}"
        f"{', older than one of {} that was published'.format(older[source]['newest']) if source in older else ''}"
        for source, label in (images.get("medium") or {}).items()
    ]


def _sources(images: Mapping[str, Any] | None) -> list[str]:
    lines = []
    for source in (images or {}).get("sources", []):
        if source["state"] == "read":
            lines.append(f"  read and verified: {source['path']} ({_size(source['bytes'])})")
        else:
            lines.append(f"  not there, but published before: {source['path']}")
    return lines


def _node_lines(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = ["Nodes:"]
    for node in nodes:
        room = "" if node["free"] is None else f", {_size(node['free'])} free at {node['mount']}"
        about = "" if node["exact"] else "about "
        writes = (
            f"{about}{_size(node['writes'])} to write to the store{room}" if node["writes"] else "no images to write"
        )
        lines.append(f"  {node['host']}: {writes}")
        lines += [f"    {change}" for change in node["changes"]]
        if node["restarts"]:
            lines.append(f"    restarts (or starts): {', '.join(node['restarts'])}")
        if not node["changes"] and not node["restarts"]:
            lines.append("    nothing changes in its configuration")
    return lines


def _share(size: int, copies: Any, nodes: int) -> int:
    """Bytes that a node other than the importing one takes over, on average."""
    if copies == "all":
        return size
    others = min(int(copies), nodes) - 1
    return size * others // (nodes - 1) if nodes > 1 else 0


def _served(images: Mapping[str, Any] | None) -> str:
    generation = (images or {}).get("generation")
    return f"generation {generation['number']}" if generation else "nothing"


def _short(digest: str) -> str:
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}:{encoded[:12]}"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {
            "plan_checksums": plan_checksums,
            "plan_error": plan_error,
            "plan_is_empty": plan_is_empty,
            "plan_machines": plan_machines,
            "plan_nodes": plan_nodes,
            "plan_options": plan_options,
            "plan_platforms": plan_platforms,
            "plan_publishes": plan_publishes,
            "plan_refusal": plan_refusal,
            "plan_roles": plan_roles,
            "plan_text": plan_text,
            "plan_too_small": plan_too_small,
            "rollback_options": rollback_options,
        }
