# SPDX-License-Identifier: Apache-2.0
"""The plan that an operator sees before anything changes, as pure functions from data to text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.site.appliance.plugins.plugin_utils.checksum_names import checksum_paths
from ansible_collections.site.appliance.plugins.plugin_utils.plan_images import (
    image_lines,
    note_lines,
    source_lines,
)
from ansible_collections.site.appliance.plugins.plugin_utils.plan_lines import next_number, publishes, served
from ansible_collections.site.appliance.plugins.plugin_utils.plan_nodes import node_lines
from ansible_collections.site.appliance.plugins.plugin_utils.plan_summary import summary_lines
from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words
from ansible_collections.site.appliance.plugins.plugin_utils.words import each, read_document, several_lines

_PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
_K3S_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_OF_K3S = re.compile(r"k3s-airgap-images-(\w+)\..+")
_UNKNOWN = re.compile(
    r"^Usage: appliance .*^Error: (?P<what>No such (?:command|option)[^\n]*?)\.?$", re.MULTILINE | re.DOTALL
)
_SCREEN_LINES = 34
"""Lines that the plan may take on a screen: with the task's name and the question it fits 40 lines."""
_SCREEN_COLUMNS = 116
#: Roles that have a plan, in the order in which they act; each leaves the fact ``__<role>_plan``.
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


def plan_k3s_archives(hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> list[str]:
    """Return K3s's image archives on the controller that the mirror can serve, each once.

    An archive that a K3s release made for an architecture that no node is known to have is left out, and so are lists of
    names. The archives of two architectures have the same names, and a registry has one image under a name: where nodes
    need both, neither is taken.

    :param hostvars: with ``k3s_airgap_images`` where the inventory sets it.
    :param hosts: the nodes of the inventory.
    """
    hosts = list(hosts)
    wanted = {_K3S_ARCHITECTURES.get(machine, machine) for machine in plan_machines(hostvars, hosts)}
    files = dict.fromkeys(str(file) for host in hosts for file in hostvars[host].get("k3s_airgap_images") or [])
    taken = {file: _k3s_architecture(file) for file in files if not file.endswith(".txt")}
    taken = {file: made_for for file, made_for in taken.items() if not (wanted and made_for) or made_for in wanted}
    mixed = len(set(taken.values()) - {""}) > 1
    return plain([file for file, made_for in taken.items() if not (mixed and made_for)])


def plan_k3s_notes(taken: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> list[str]:
    """Return a note on K3s's image archives that the mirror will not serve because the nodes need several architectures.

    :param taken: archives that are imported into the mirror.
    :param hostvars: with ``k3s_airgap_images`` where the inventory sets it.
    :param hosts: the nodes of the inventory.
    """
    hosts = list(hosts)
    wanted = {_K3S_ARCHITECTURES.get(machine, machine) for machine in plan_machines(hostvars, hosts)}
    files = dict.fromkeys(str(file) for host in hosts for file in hostvars[host].get("k3s_airgap_images") or [])
    left_out = [file for file in files if file not in taken and _k3s_architecture(file) in wanted]
    if len({_k3s_architecture(file) for file in left_out}) < 2:
        return []
    names = ", ".join(map(os.path.basename, left_out))
    return [
        f"the mirror will not serve the images of {names}: they have the same names for several architectures. "
        "Each node imports its own archive, and needs it again where containerd removed an image"
    ]


def _k3s_architecture(file: str) -> str:
    """Return the architecture that a release's archive is for; empty for any other file."""
    release = _OF_K3S.fullmatch(os.path.basename(file))
    return release[1] if release else ""


def plan_stale_checksums(staged: Iterable[str], sources: Iterable[str], carried: Iterable[str]) -> list[str]:
    """Return the names of staged checksums that do not lie beside their files any more.

    :param staged: names of all staged files.
    :param sources: paths of what is carried.
    :param carried: paths of the checksums that are carried with it.
    """
    names = {os.path.basename(path) for path in checksum_paths(list(sources))}
    return sorted((names & set(staged)) - {os.path.basename(path) for path in carried})


def plan_options(settings: Mapping[str, Any]) -> list[str]:
    """Return what ``appliance plan`` and ``appliance seed`` get alike: options, and behind ``--`` the sources.

    :param settings: ``sources``, ``names``, ``move_pinned``, ``remove`` (lists), ``allow`` (source, or ``*`` for all, to
        patterns), ``platforms`` (what the nodes run; empty: what ``machines`` says), ``any_platform``, ``older`` and
        ``other_site`` (what is agreed to), ``staging`` (where the sources were carried to; empty where they are read
        in place), ``controller_sources`` (files that always come from the controller) and ``controller_staging`` (the
        directory of their copies on the node).
    """
    staging = settings["staging"]
    carried = [f"{settings['controller_staging']}/{os.path.basename(file)}" for file in settings["controller_sources"]]

    def place(source: str) -> str:
        return f"{staging}/{os.path.basename(source.rstrip('/'))}" if staging else source

    words = [f"--platform={platform}" for platform in settings["platforms"] or plan_platforms(settings["machines"])]
    words += ["--any-platform"] if settings["any_platform"] else []
    words += [f"--name={name}" for name in settings["names"]]
    words += [f"--remove={name}" for name in settings["remove"]]
    words += [f"--move-pinned={name}" for name in settings["move_pinned"]]
    words += ["--allow-downgrade"] if settings["older"] else []
    words += ["--allow-other-site"] if settings["other_site"] else []
    for source, given in settings["allow"].items():
        patterns = [given] if isinstance(given, str) and given else list(given or [])
        if not patterns:
            # No option at all would mean that everything may come.
            raise AnsibleFilterError(
                f"APL-0143: seed_allow lists nothing for {source}. Give it patterns, or take {source} out of seed_sources"
            )
        prefix = "" if source == "*" else f"{place(source)}="
        words += [f"--allow={prefix}{pattern}" for pattern in patterns]
    # The lists are for media. These files are named one by one in the inventory, and go to every node in any case.
    words += [f"--allow={file}=*" for file in carried if settings["allow"]]
    places = [place(source) for source in settings["sources"]]
    return plain([*words, "--json", "--", *places, *[file for file in carried if file not in places]])


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
    own = [line for line in said.split("\n") if line.startswith("APL-")]
    unknown = _UNKNOWN.search(said) if result.get("rc") == 2 else None
    if unknown:
        return (
            f"APL-0773: the release on the node is older than this checkout: {unknown['what']}. "
            "Run ansible-playbook site.yml, which brings the release of this checkout to every node, and then this again"
        )
    return several_lines("\n".join(own) if own else said)


def plan_refusal(result: Mapping[str, Any]) -> str:
    """Return what a failed ``appliance plan --json`` has for the operator: the plan as far as it was made, and the error.

    :param result: result of ``ansible.builtin.command``.
    """
    images = read_document(result.get("stdout"))
    shown = image_lines(images) if images is not None else []
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
    staged = min(to_write, int(images.get("bytes_staged") or 0)) if images else 0
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
                "writes": to_write - staged
                if host == settings["seed_host"]
                else _share(to_write, settings["copies"], len(hosts)),
                "staged": staged if host == settings["seed_host"] else 0,
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
    return publishes(images)


def plan_kept(images: Mapping[str, Any] | None, host: str) -> str:
    """Return what a refused plan leaves for the next run, as a sentence; empty where it leaves nothing.

    :param host: the node that read the medium.
    """
    until = (images or {}).get("staged_until")
    if not until:
        return ""
    return f"What was verified is kept on {host} until {_time(str(until))}: run it again and it asks at once."


def plan_stops(images: Mapping[str, Any] | None, host: str) -> dict[str, str]:
    """Return what is true where a run is stopped while it publishes: ``stopped``, or ``switched`` where it was too late.

    :param host: the publisher.
    """
    before = (
        f"{host} serves {served(images)} as before" if (images or {}).get("generation") else "nothing is served yet"
    )
    after = f"Generation {next_number(images)}" if images else "A new generation"
    return {
        "stopped": f"Nothing was published: {before}. {plan_kept(images, host)}".strip(),
        "switched": f"{after} was published before the run stopped, and every node follows it. Run it again to prove it.",
    }


def _time(stamp: str) -> str:
    """Return a time in ISO form as people write it, to the minute."""
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*$", r"\1 \2 UTC", stamp)


def plan_too_small(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return one error for each node whose file system cannot take what will certainly be written to it."""
    return [
        f"APL-0771: {node['host']}: the file system at {node['mount']} is too small: {size_words(node['writes'])} needed"
        f" ({node['writes']} bytes, for the store), {size_words(node['free'])} available ({node['free']} bytes)."
        " Free space there, or mount a larger file system at /var/lib/appliance"
        for node in nodes
        if node["exact"] and node["free"] is not None and node["writes"] > node["free"]
    ]


def plan_text(images: Mapping[str, Any] | None, nodes: Sequence[Mapping[str, Any]]) -> str:
    """Write the whole plan for people.

    :param images: what ``appliance plan --json``, or ``appliance rollback --plan --json``, printed; None where there is
        nothing to import.
    :param nodes: what :func:`plan_nodes` returned.
    """
    images, nodes = each(images), each(nodes)
    if plan_is_empty(images, nodes):
        return _nothing(images)
    return "\n".join(["This run would change the following.", "", *image_lines(images), "", *node_lines(nodes)])


def plan_screen(
    images: Mapping[str, Any] | None, nodes: Sequence[Mapping[str, Any]], seconds: float = 0, path: str = ""
) -> str:
    """Write the plan for a terminal: what is long is counted, and a summary stands last, directly above the question.

    :param seconds: how long the medium was read for this plan; 0 where that is not known.
    :param path: file with the whole plan; empty where there is none.
    """
    images, nodes = each(images), each(nodes)
    if plan_is_empty(images, nodes):
        return _nothing(images)
    summary = summary_lines(images, nodes, columns=_SCREEN_COLUMNS, seconds=float(seconds), path=path)
    for limit in (None, 10, 8, 6, 5, 4, 3, 2):
        lines = [*image_lines(images, limit), *node_lines(nodes, limit)]
        if len(lines) + len(summary) <= _SCREEN_LINES:
            break
    short = [line if len(line) <= _SCREEN_COLUMNS else f"{line[: _SCREEN_COLUMNS - 3]}..." for line in lines]
    return "\n".join([*short, *summary])


def _nothing(images: Mapping[str, Any] | None) -> str:
    if images and "target" in images:
        return f"Nothing to do: {served(images)} is served, with what generation {images['target']['number']} had."
    what = f" {served(images).capitalize()} is served." if images else ""
    return "\n".join(
        [
            f"Nothing to do: the site is as the inventory and the medium want it.{what}",
            *note_lines(images),
            *source_lines(images),
        ]
    )


def _share(size: int, copies: Any, nodes: int) -> int:
    """Bytes that a node other than the importing one takes over, on average."""
    if copies == "all":
        return size
    others = min(int(copies), nodes) - 1
    return size * others // (nodes - 1) if nodes > 1 else 0


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {
            "plan_stale_checksums": plan_stale_checksums,
            "plan_error": plan_error,
            "plan_is_empty": plan_is_empty,
            "plan_k3s_archives": plan_k3s_archives,
            "plan_k3s_notes": plan_k3s_notes,
            "plan_kept": plan_kept,
            "plan_machines": plan_machines,
            "plan_nodes": plan_nodes,
            "plan_options": plan_options,
            "plan_platforms": plan_platforms,
            "plan_publishes": plan_publishes,
            "plan_refusal": plan_refusal,
            "plan_roles": plan_roles,
            "plan_screen": plan_screen,
            "plan_stops": plan_stops,
            "plan_text": plan_text,
            "plan_too_small": plan_too_small,
            "rollback_options": rollback_options,
        }
