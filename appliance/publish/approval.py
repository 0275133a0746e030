"""Approval: the changes that a plan may make only where the operator agreed to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.errors import fail
from appliance.oci.reference import parse_reference


@dataclass(frozen=True)
class Consent:
    """Changes that the operator agreed to.

    :param move_pinned: pinned names that may move; ``NAME@sha256:...`` agrees to a move to that digest alone.
    :param older: whether names may go back to what they were, and a medium may be older than one that was published.
    :param other_site: whether a medium may have been made for another site.
    :param any_platform: whether images that no node can run are taken too.
    """

    move_pinned: Sequence[str] = ()
    older: bool = False
    other_site: bool = False
    any_platform: bool = False

    def check(self, shown: Mapping[str, Any]) -> None:
        """Refuse a plan, as it is shown, that does what was not agreed to; each with every name that it is about.

        :raises ApplianceError: APL-0141 for pinned names that would move, APL-0154 for those that would be removed,
            APL-0152 for steps back; APL-0202 and APL-0201 for what is no name.
        """
        self._check_pins(shown)
        self._check_age(shown)

    def used(self, shown: Mapping[str, Any]) -> dict[str, Any]:
        """Return the agreements that a plan needed, for the audit log."""
        moved = [item["name"] for item in shown["moved"] if item["pinned"]]
        steps = [item["name"] for item in shown["steps_back"]]
        used: dict[str, Any] = {}
        if moved:
            used["move_pinned"] = moved
        if steps or shown["older_media"]:
            used["older"] = [*steps, *shown["older_media"]]
        if shown["other_site"]:
            used["other_site"] = shown["other_site"]
        if shown["foreign"]:
            used["any_platform"] = shown["foreign"]
        return used

    def _check_pins(self, shown: Mapping[str, Any]) -> None:
        agreed = {
            (item.key, item.digest)
            for item in (parse_reference(text, where="--move-pinned") for text in self.move_pinned)
        }
        refused = [
            f"{item['name']} from {item['old']} to {item['new']}"
            for item in shown["moved"]
            if item["pinned"] and not agreed & {(item["name"], None), (item["name"], item["new"])}
        ]
        if refused:
            fail(
                "APL-0141",
                "pinned names would move",
                why="; ".join(refused),
                fix="Nothing was published. Agree to each move with --move-pinned NAME, or do without what moves them",
            )
        gone = [item["name"] for item in shown["removed"] if item["pinned"]]
        if gone:
            fail(
                "APL-0154",
                "pinned names would be removed",
                why=", ".join(gone),
                fix="Nothing was published. Take their pins away first: appliance unpin NAME",
            )

    def _check_age(self, shown: Mapping[str, Any]) -> None:
        if self.older:
            return
        steps = [
            f"{item['name']} back from {item['old']} to {item['new']}, as generation {item['number']} had it"
            for item in shown["steps_back"]
        ]
        media = [
            f"{source} ({label['id']}) was made at {label['created']}, and one of {label['newest']} was published"
            for source, label in shown["older_media"].items()
        ]
        if steps or media:
            fail(
                "APL-0152",
                "this would take the site back to something older",
                why="; ".join([*media, *steps]),
                fix="Nothing was published. Is it the right stick? To take it all the same: --allow-downgrade (seed_older); to go back "
                "to an older generation as a whole: appliance rollback",
            )
