# SPDX-License-Identifier: Apache-2.0
"""Whether the site's nodes follow what was published, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.site.appliance.plugins.filter.plan import plan_error
from ansible_collections.site.appliance.plugins.plugin_utils.ending import hosts_text
from ansible_collections.site.appliance.plugins.plugin_utils.quantities import duration_text, rate_text
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words
from ansible_collections.site.appliance.plugins.plugin_utils.words import read_document

_SHOWN = 10
_PATIENCE = 45
"""Tries after which what every node says to be lost is not waited for any more; agents look again every half-minute."""


def seed_lacks(result: Mapping[str, Any], generation: Mapping[str, Any] | None) -> str:
    """Return what keeps a node from serving a generation whole, empty where nothing does.

    :param result: result of ``appliance status --json`` run by ``ansible.builtin.command``.
    :param generation: ``number`` and ``digest`` of the one that is served by the publisher; None: there is none yet.
    """
    if result.get("rc") != 0:
        return f"its agent does not answer: {_said(result)}"
    status = _document(result)
    if status is None:
        return "its agent's answer is not JSON"
    if not _follows(status, generation):
        return f"it serves {_name(status.get('generation'))}, not {_name(generation)}{_refused(status)}"
    missing = status.get("wanted_missing", 0)
    if missing:
        return f"it still lacks {missing} of the blobs that it is to hold{_lost(status)}"
    return ""


def seed_waited(result: Mapping[str, Any], generation: Mapping[str, Any] | None) -> bool:
    """Whether to wait no longer: the node serves the generation whole, or all that it lacks is on no node any more.

    :param result: as for :func:`seed_lacks`; with ``attempts``, how often it was asked by now.
    """
    if not seed_lacks(result, generation):
        return True
    status = _document(result)
    if status is None or result.get("rc") != 0 or not _follows(status, generation):
        return False
    is_hopeless = status.get("wanted_lost", 0) == status.get("wanted_missing", 0)
    return is_hopeless and int(result.get("attempts") or 0) >= _PATIENCE


def seed_missing_bytes(result: Mapping[str, Any]) -> int:
    """Return how many bytes a node still has to fetch; 0 where it does not say."""
    return int((_document(result) or {}).get("wanted_missing_bytes") or 0)


def seed_behind_text(result: Mapping[str, Any], generation: Mapping[str, Any] | None, pace: float) -> str:
    """Return what a node that is waited for still lacks, for one line of progress.

    :param pace: bytes that it fetched a second lately; 0 where that is not known.
    """
    status, missing = _document(result), seed_missing_bytes(result)
    if status is None or not _follows(status, generation) or not missing:
        return f"following: {seed_lacks(result, generation)}"
    text = f"following: {status['wanted_missing']} blobs ({size_words(missing)}) to fetch"
    return f"{text}, {rate_text(pace)}, {duration_text(missing / pace)} left" if pace > 0 else text


def seed_behind(results: Mapping[str, Mapping[str, Any]], generation: Mapping[str, Any] | None) -> list[str]:
    """Return one line for each node that does not serve the generation whole, in the order given."""
    lacks = {host: seed_lacks(result, generation) for host, result in results.items()}
    return [f"{host}: {lack}" for host, lack in lacks.items() if lack]


def seed_wrong(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one line for each name that a node's mirror does not answer as it was published, a few for each node.

    :param results: host to the result of ``appliance prove --json``.
    """
    lines = []
    for host, result in results.items():
        shown = _document(result)
        if shown is None:
            lines.append(f"{host}: {_said(result)}")
            continue
        wrong = shown["wrong"]
        lines += [f"{host}: {item['name']}: {item['answered']}, not {item['expected']}" for item in wrong[:_SHOWN]]
        if len(wrong) > _SHOWN:
            lines.append(f"{host}: and {len(wrong) - _SHOWN} names more")
    return lines


def seed_proved(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what was proved: how many names of which generation the nodes answered; nodes that answered alike stand together."""
    alike: dict[str, list[str]] = {}
    for host, result in results.items():
        shown = _document(result)
        if shown is not None:
            served = shown["generation"]
            words = f"generation {served['number']} is served" if served else "no generation is served yet"
            text = f"{words}, {shown['names']} names asked for, every one answered as it was published"
            alike.setdefault(text, []).append(host)
    return "\n".join(f"{hosts_text(hosts)}: {text}" for text, hosts in alike.items())


def seed_served(proof: Mapping[str, Any] | None, nodes: Sequence[str], site: Sequence[str]) -> str:
    """Return what the site serves at the end of a run, as a sentence; empty where the run proved nothing.

    :param proof: the publisher's result of ``appliance prove --json``; None where nothing was proved.
    :param nodes: nodes that were asked for every name.
    :param site: every node of the site.
    """
    shown = _document(proof or {})
    if shown is None:
        return ""
    if not shown["generation"]:
        return "No images are served yet."
    names = "1 name" if shown["names"] == 1 else f"{shown['names']} names"
    return f"{_subject(nodes, site)} serves generation {shown['generation']['number']} with {names}."


def seed_claim(claim: str, nodes: Sequence[str], site: Sequence[str]) -> str:
    """Return what was proved of nodes, as a sentence that names those that ``--limit`` left out.

    :param claim: what each of them does, as a predicate: ``pulls``.
    :param nodes: the nodes of this run.
    :param site: every node of the site.
    """
    left_out = [node for node in site if node not in nodes]
    others = f" Not in this run: {hosts_text(left_out)}." if left_out else ""
    return f"{_subject(nodes, site)} {claim}.{others}"


def seed_ended(proof: Mapping[str, Any] | None, nodes: Sequence[str], site: Sequence[str], is_verified: bool) -> str:
    """Return the end of a run of site.yml: what is served, what is proved, what comes next.

    :param proof: the publisher's result of ``appliance prove --json``; None where a choice of tags left it out.
    :param nodes: the nodes of this run.
    :param site: every node of the site.
    :param is_verified: whether the role verify ran.
    """
    served = seed_served(proof, nodes, site)
    if not is_verified:
        return f"{served} The chosen tags left the proof out. Next: ansible-playbook playbooks/verify.yml".strip()
    left_out = set(site).difference(nodes)
    following = (
        "run it again without --limit"
        if left_out
        else "take the medium out, and back up what cannot be made again with ansible-playbook playbooks/backup.yml"
    )
    return f"{served} {seed_claim('pulls', nodes, site)} Next: {following}".strip()


def _subject(nodes: Sequence[str], site: Sequence[str]) -> str:
    if len(nodes) == 1:
        return nodes[0]
    return "Every node of this run" if set(site).difference(nodes) else "Every node"


def _said(result: Mapping[str, Any]) -> str:
    """The one line of a failed command that says why: the appliance's own, else the last one."""
    said = plan_error({**result, "stdout": ""}) or "no reason given"
    return said.split("\n")[0 if said.startswith("APL-") else -1]


def _document(result: Mapping[str, Any]) -> dict[str, Any] | None:
    return read_document(result.get("stdout"))


def _follows(status: Mapping[str, Any], generation: Mapping[str, Any] | None) -> bool:
    """Whether a node serves a generation; a newer one counts too, since somebody published again meanwhile."""
    own = status.get("generation") or {}
    if generation is None or own.get("digest") == generation["digest"]:
        return True
    return bool(own) and own["number"] > generation["number"]


def _lost(status: Mapping[str, Any]) -> str:
    """What no node has any more, with the names that need it and the media that brought it; empty where that is nothing."""
    lost = (status.get("health") or {}).get("lost") or []
    if not lost:
        return ""
    names = sorted({name for item in lost for name in item["images"]})
    media = sorted({item["medium"] for item in lost})
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"; {len(lost)} are on no node any more, of {', '.join(names[:_SHOWN])}{more}: bring {'; '.join(media[:_SHOWN])}"


def _refused(status: Mapping[str, Any]) -> str:
    """Why it follows nothing newer, in the words of its agent; empty where it refused nothing."""
    problems = [item["problem"] for item in (status.get("standing") or {}).get("refused") or []]
    return "".join(f"; {problem['code']}: {problem['what']}: {problem['why']}" for problem in problems[:1])


def _name(generation: Mapping[str, Any] | None) -> str:
    return f"generation {generation['number']} ({generation['digest'][:19]})" if generation else "no generation"


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {
            "seed_behind": seed_behind,
            "seed_claim": seed_claim,
            "seed_ended": seed_ended,
            "seed_lacks": seed_lacks,
            "seed_proved": seed_proved,
            "seed_served": seed_served,
            "seed_waited": seed_waited,
            "seed_wrong": seed_wrong,
        }
