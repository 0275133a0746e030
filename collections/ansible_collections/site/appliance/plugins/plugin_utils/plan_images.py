# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""The plan's section on images: names that are added, moved and removed, and what was read for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils.plan_lines import (
    limited,
    names_change,
    next_number,
    served,
    short,
)
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words

_LISTED_OF_A_KIND = 5
_STATES = {
    "verified-before": "verified by an earlier run, not read again",
    "absent-published": "not there, but published before",
}
LEGEND = {
    "fill": "gets more platforms",
    "sign": "gets signatures or attestations",
    "cover": "hides what an operator pushed",
}
"""Words of the plan that do not explain themselves; ``appliance plan`` explains them in the same way."""


def image_lines(images: Mapping[str, Any] | None, limit: int | None = None) -> list[str]:
    """Return the section.

    :param images: output of ``appliance plan --json``; None where there is nothing to import.
    :param limit: lines of each kind at the most; None for all.
    """
    if images is None:
        return ["Images: no source is configured (seed_sources); what is served stays."]
    head = f"Images: {served(images)} is served now"
    if names_change(images):
        head += f"; generation {next_number(images)} will be published"
    target = images.get("target")
    if target:
        origin = ", ".join(target["sources"]) or "no medium"
        head += f", with what generation {target['number']} of {target['created']} had ({origin})"
    lines = [f"{head}.", *_name_lines(images, limit), *_legend(images)]
    count = len(images["unchanged"])
    stay = "1 name stays as it is" if count == 1 else f"{count} names stay as they are"
    lines.append(f"  {stay}." if images.get("removed") else f"  {stay}; none is removed.")
    missing = [
        f"  cannot be brought back: {item['name']} lacks {', '.join(map(short, item['blobs']))}"
        for item in images.get("missing") or []
    ]
    lines += limited(missing, limit, "  ", "that cannot be brought back")
    lines += limited(_media(images), limit, "  ", "media")
    return [*lines, *note_lines(images, limit), *source_lines(images, limit)]


def note_lines(images: Mapping[str, Any] | None, limit: int | None = None) -> list[str]:
    """Return what is worth knowing of the images, one line a note."""
    return limited([f"  note: {note}" for note in (images or {}).get("notes") or []], limit, "  ", "notes")


def source_lines(images: Mapping[str, Any] | None, limit: int | None = None) -> list[str]:
    """Return where the images come from, one line a source, and what of the media is not read."""
    lines = []
    for source in (images or {}).get("sources", []):
        medium = f", from {source['medium']}" if "medium" in source else ""
        if source["state"] in _STATES:
            lines.append(f"  {_STATES[source['state']]}: {source['path']}{medium}")
        else:
            lines.append(f"  read and verified: {source['path']} ({size_words(source['bytes'])}){medium}")
    left_out = _left_out_lines(images or {})
    return [*limited(lines, limit, "  ", "sources"), *limited(left_out, limit, "  ", "lines on what is left out")]


def _left_out_lines(images: Mapping[str, Any]) -> list[str]:
    """Return a line for each file on the media that is not read; the first few by name where many have one reason."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for item in images.get("left_out") or []:
        by_kind.setdefault(item["kind"], []).append(item)
    lines = []
    for items in by_kind.values():
        lines += [
            f"  left out: {item['path']} ({size_words(item['size'])}): {item['reason']}"
            for item in items[:_LISTED_OF_A_KIND]
        ]
        if len(items) > _LISTED_OF_A_KIND:
            lines.append(f"  left out: {len(items) - _LISTED_OF_A_KIND} more like the last one")
    if images.get("left_out_more"):
        lines.append(f"  left out: {images['left_out_more']} more, which are not listed")
    if images.get("passed_over"):
        lines.append(
            f"  passed over: checksums, signatures and leftovers of operating systems ({images['passed_over']})"
        )
    return lines


def _signatures(count: int) -> str:
    return "1 signature or attestation" if count == 1 else f"{count} signatures and attestations"


def _name_lines(images: Mapping[str, Any], limit: int | None) -> list[str]:
    removed = images.get("removed") or []
    back = {item["name"]: item["number"] for item in images.get("steps_back") or []}
    # One column for what happens, as wide as the longest word that is there.
    verb = len("remove") + 1 if removed else len("cover")
    shown = [item for kind in (images["added"], images["moved"], removed) for item in list(kind)[:limit]]
    width = max((len(item["name"]) for item in shown), default=0)
    added = [
        f"  {'add':<{verb}} {item['name']:<{width}}  {short(item['digest'])}  {size_words(item['size'])}"
        for item in images["added"]
    ]
    moved = [
        f"  {'move':<{verb}} {item['name']:<{width}}  {short(item['old'])} -> {short(item['new'])}"
        f"{'  (pinned)' if item.get('pinned') else ''}"
        f"{'  (back to what generation {} had)'.format(back[item['name']]) if item['name'] in back else ''}"
        for item in images["moved"]
    ]
    gone = [
        f"  {'remove':<{verb}} {item['name']:<{width}}  {short(item['digest'])}{'  (pinned)' if item.get('pinned') else ''}"
        for item in removed
    ]
    filled = [f"  {'fill':<{verb}} {name}  (platforms that were left out before)" for name in images["completed"]]
    signed = [
        f"  {'sign':<{verb}} {item['name']}{' and {} more names'.format(item['other_names']) if item['other_names'] else ''}"
        f"  ({_signatures(len(item['digests']))})"
        for item in images.get("referrers") or []
    ]
    covers = [
        f"  {'cover':<{verb}} {item['name']:<{width}}  {short(item['old'])} (pushed by an operator) -> {short(item['new'])}"
        for item in images.get("covers_pushed") or []
    ]
    uncovers = [
        f"  then what an operator pushed is served: {item['name']}  {short(item['new'])}"
        for item in images.get("uncovers_pushed") or []
    ]
    return [
        *limited(added, limit, "  ", "to add"),
        *limited(moved, limit, "  ", "to move"),
        *limited(gone, limit, "  ", "to remove"),
        *limited(filled, limit, "  ", "to fill"),
        *limited(signed, limit, "  ", "to sign"),
        *limited(covers, limit, "  ", "to cover"),
        *limited(uncovers, limit, "  "),
    ]


def _legend(images: Mapping[str, Any]) -> list[str]:
    """Return one line that explains the words for what happens, where there is one that needs it."""
    kinds = {"fill": "completed", "sign": "referrers", "cover": "covers_pushed"}
    words = [f"{word}: {LEGEND[word]}" for word, kind in kinds.items() if images.get(kind)]
    return [f"  ({'; '.join(words)})"] if words else []


def _media(images: Mapping[str, Any]) -> list[str]:
    older = images.get("older_media") or {}
    return [
        f"  medium: {label['id']}, for {label['site']}, made {label['created']}"
        f"{' (' + label['note'] + ')' if label.get('note') else ''}"
        f"{', older than one of {} that was published'.format(older[source]['newest']) if source in older else ''}"
        for source, label in (images.get("medium") or {}).items()
    ]
