"""Command ``prove``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from appliance.cli.common import CONFIG, JSON, open_store, show
from appliance.config import DEFAULT_PATH, load
from appliance.sizes import size_words

_TRIES = 3


@click.command()
@CONFIG
@click.option("--sample", is_flag=True, help="Pull a sample of the names whole, with their layers.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Most MiB of layers that a sample pulls.",
)
@click.option("--seed", default="", help="Word that selects the sample. Another word selects other names.")
@JSON
def prove(config_file: Path | None, sample: bool, limit: int, seed: str, as_json: bool) -> None:
    """Pull the manifest of every name from this node's mirror, and compare its digest with the published one."""
    from appliance.registry.selfcheck import prove as run
    from appliance.registry.selfcheck import prove_sample
    from appliance.store.index import summary

    config = load(config_file or DEFAULT_PATH)
    store = open_store(config.store, config_file)
    store.blobs.require()
    shown: dict[str, Any] = {}
    for _ in range(_TRIES):
        generation, pushed = store.generations.current(), store.pushes.current()
        names = {**(pushed.names if pushed else {}), **(generation.names if generation else {})}
        if sample:
            found = prove_sample(names, config.mirror_listen, limit << 20, seed)
            wrong = found.wrong
            shown = {"names": len(found.names), "blobs": found.blobs, "bytes": found.bytes, "pull": found.pull}
        else:
            wrong = run(names, config.mirror_listen)
            shown = {"names": len(names)}
        if not wrong or (generation, pushed) == (store.generations.current(), store.pushes.current()):
            break
        # Published anew while they were asked for: what is wrong by the old list may be right by the new one.
    shown = {"generation": summary(generation), **shown, "wrong": [vars(item) for item in wrong]}
    show(shown, as_json, _text)
    if wrong:
        sys.exit(1)


COMMANDS = (prove,)


def _text(shown: dict[str, Any]) -> str:
    lines = [f"{item['name']}: {item['answered']}, not {item['expected']}" for item in shown["wrong"]]
    number = shown["generation"]["number"] if shown["generation"] else "none"
    if "blobs" in shown:
        lines.append(f"{shown['blobs']} blobs of them pulled and hashed, {size_words(shown['bytes'])}")
    lines.append(
        f"generation {number}: {shown['names']} names asked for, {len(shown['wrong'])} not answered as they should be"
    )
    return "\n".join(lines)
