# SPDX-License-Identifier: Apache-2.0
"""What all nodes run, and the site's plan for its room, as pure functions from data to text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.site.appliance.plugins.filter.plan import plan_error
from ansible_collections.site.appliance.plugins.plugin_utils.plan_lines import short
from ansible_collections.site.appliance.plugins.plugin_utils.problems import Problems, plain
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words
from ansible_collections.site.appliance.plugins.plugin_utils.words import read_document

_SHOWN = 20


def gc_running(
    hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], without: Iterable[str]
) -> dict[str, Any]:
    """Return ``lists`` (what each node said it runs) and ``problems`` (one line for each node that did not).

    :param hostvars: with the fact ``__gc_running``: result of ``appliance running --json``.
    :param hosts: every node of the site, whether this run asked it or not.
    :param without: nodes that are left out.
    """
    problems, lists, without = Problems(), [], list(without)
    for host in without:
        if host not in hosts:
            problems.add(
                "APL-0776", "gc_without names no node of the site", where=host, fix="Correct it; nothing was removed"
            )
    for host in hosts:
        if host in without:
            continue
        result = hostvars[host].get("__gc_running") if host in hostvars else None
        document = _document(result)
        if document is not None:
            lists.append(document)
            continue
        problems.add(
            "APL-0776",
            "it is not known what this node runs",
            where=host,
            why=plan_error(result) if result else "it was not asked (--limit)",
            fix='Mend it, or leave it out with -e \'{"gc_without": ["' + host + "\"]}'; nothing was removed",
        )
    return plain({"lists": lists, "problems": problems.lines})


def gc_plan(hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str]) -> dict[str, Any]:
    """Return the site's plan: ``text`` for people, ``bytes`` to free, ``problems``.

    :param hostvars: with ``__gc_plan`` (result of ``appliance gc --plan --json``) and ``__gc_running``.
    :param hosts: the nodes that take part.
    """
    problems = Problems()
    plans: dict[str, Any] = {}
    for host in hosts:
        document = _document(hostvars[host].get("__gc_plan"))
        if document is None:
            problems.lines.append(f"{host}: {plan_error(hostvars[host].get('__gc_plan') or {})}")
        else:
            plans[host] = document
    served = {host: _generation(plan) for host, plan in plans.items()}
    if len(set(served.values())) > 1:
        problems.add(
            "APL-0777",
            "the nodes serve different generations",
            why="; ".join(f"{host}: {generation}" for host, generation in served.items()),
            fix="They follow within a minute; run it again",
        )
    images = {
        (image["name"], image["digest"])
        for host in hosts
        for image in (_document(hostvars[host].get("__gc_running")) or {}).get("running", [])
    }
    size = sum(plan["bytes"] for plan in plans.values())
    return plain({"text": _text(plans, len(images)), "bytes": size, "problems": problems.lines})


def gc_freed(hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str]) -> dict[str, Any]:
    """Return what was freed: ``text`` for people, and ``problems``.

    :param hostvars: with ``__gc_result`` (result of ``appliance gc --json``, skipped where there was nothing to do).
    """
    lines, problems = [], []
    for host in hosts:
        result = hostvars[host].get("__gc_result") or {}
        if result.get("skipped"):
            lines.append(f"  {host}: there was nothing to free")
            continue
        document = _document(result)
        if document is None:
            problems.append(f"{host}: {plan_error(result)}")
            lines.append(f"  {host}: not finished")
            continue
        lines.append(f"  {host}: {size_words(document['freed_bytes'])} in {document['freed_blobs']} blobs")
        lines += [f"    note: {note}" for note in document["notes"]]
    return plain({"text": "\n".join(["Freed:", *lines]), "problems": problems})


def _text(plans: Mapping[str, Mapping[str, Any]], images: int) -> str:
    size = sum(plan["bytes"] for plan in plans.values())
    nodes = sum(1 for plan in plans.values() if plan["bytes"])
    if not size:
        head = "There is nothing to free: something needs every blob of the site, or it came just now."
    else:
        head = f"Nothing needs these any more: {size_words(size)} on {nodes} node{'' if nodes == 1 else 's'}."
    lines = [head, ""]
    for host, plan in plans.items():
        goes = f"{size_words(plan['bytes'])} in {plan['blobs']} blobs" if plan["bytes"] else "nothing"
        recent = plan["kept_for"].get("recent", {}).get("bytes", 0)
        young = f", {size_words(recent)} are too young to judge" if recent else ""
        lines.append(f"  {host}: {goes}; {size_words(plan['kept_bytes'])} stay{young}")
        lines += [f"    note: {note}" for note in plan["notes"]]
    names = _names(plans)
    if names:
        lines += ["", "Names that are not served any more and whose layers go:"]
        lines += [
            f"  {name}  {short(digest)}  generation {generation}  {size_words(freed)}"
            for freed, name, digest, generation in names[:_SHOWN]
        ]
        lines += [f"  and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    numbers = sorted({number for plan in plans.values() for number in plan["generations"]})
    kept = f"generation{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}, " if numbers else ""
    return "\n".join(
        [*lines, "", f"Kept for {kept}what was pushed, pins, and {images} image{'' if images == 1 else 's'} that run."]
    )


def _names(plans: Mapping[str, Mapping[str, Any]]) -> list[tuple[int, str, str, int]]:
    """Each name once, with the most bytes that a node frees for it, the largest first."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for plan in plans.values():
        for item in plan["names"]:
            key = (item["name"], item["digest"])
            found[key] = max(found.get(key, (0, 0)), (item["bytes"], item["generation"]))
    rows = [(size, name, digest, generation) for (name, digest), (size, generation) in found.items()]
    return sorted(rows, key=lambda row: (-row[0], row[1], row[2]))


def _generation(plan: Mapping[str, Any]) -> str:
    generation = plan["generation"]
    return f"{generation['number']} {generation['digest']}" if generation else "none"


def _document(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The JSON that a command of the appliance printed; None where it failed or was not run."""
    if not result or result.get("rc", 1) != 0:
        return None
    return read_document(result.get("stdout"))


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {"gc_freed": gc_freed, "gc_plan": gc_plan, "gc_running": gc_running}
