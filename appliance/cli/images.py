"""Commands ``images``, ``pin`` and ``unpin``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.common import CONFIG, JSON, STORE, open_as_publisher, open_store, show

if TYPE_CHECKING:
    from appliance.store.pins import Pins


@click.command()
@STORE
@JSON
def images(directory: Path, as_json: bool) -> None:
    """List the names that the store serves."""
    store = open_store(directory, None)
    store.blobs.require()
    current, pushed, pinned = store.generations.current(), store.pushes.current(), store.pins.current()
    pins = set(pinned.names) if pinned else set()
    seeded = current.names if current else {}
    # What the generation covers is not served, and what has no tag has no name that anybody would list.
    own = {name: entry for name, entry in pushed.names.items() if "@" not in name} if pushed else {}
    rows = [
        {
            "name": name,
            "digest": entry.descriptor.digest,
            "mediaType": entry.descriptor.media_type,
            "pushed": name not in seeded,
            "pinned": name in pins,
        }
        for name, entry in {**own, **seeded}.items()
    ]
    shown = {
        "generation": current.number if current else None,
        "pushes": pushed.number if pushed else None,
        "images": sorted(rows, key=lambda row: str(row["name"])),
    }
    show(shown, as_json, _images_text)


@click.command()
@STORE
@CONFIG
@JSON
@click.argument("names", nargs=-1, required=True)
def pin(directory: Path, config_file: Path | None, as_json: bool, names: tuple[str, ...]) -> None:
    """Pin NAMES: a medium moves them only with --move-pinned, and their images are always kept."""
    from appliance.store.pins import pin as run

    store = open_as_publisher(directory, config_file, "only the publisher keeps pins")
    _show_pins("pinned", run(store.blobs, store.generations, store.pins, names), store.pins, as_json)


@click.command()
@STORE
@CONFIG
@JSON
@click.argument("names", nargs=-1, required=True)
def unpin(directory: Path, config_file: Path | None, as_json: bool, names: tuple[str, ...]) -> None:
    """Unpin NAMES. Their images are still served."""
    from appliance.store.pins import unpin as run

    store = open_as_publisher(directory, config_file, "only the publisher keeps pins")
    _show_pins("unpinned", run(store.blobs, store.pins, names), store.pins, as_json)


COMMANDS = (images, pin, unpin)


def _show_pins(verb: str, changed: list[str], pins: Pins, as_json: bool) -> None:
    current = pins.current()
    shown = {"changed": changed, "pinned": list(current.names) if current else []}
    show(shown, as_json, lambda shown: "\n".join(f"{verb} {name}" for name in shown["changed"]) or "nothing changed")


def _images_text(shown: dict[str, Any]) -> str:
    rows = [
        f"{row['digest']}  {row['name']}{'  (pushed)' if row['pushed'] else ''}{'  (pinned)' if row['pinned'] else ''}"
        for row in shown["images"]
    ]
    return "\n".join(rows) or "no images"
