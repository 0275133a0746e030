"""Commands on backups; the playbooks ``backup.yml`` and ``restore.yml`` call them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import click

from appliance.cli.common import CONFIG, JSON, STORE, open_store, show
from appliance.sizes import size_words
from appliance.times import now

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_ARCHIVE = click.argument("archive", type=_FILE)


@click.group("backup")
def group() -> None:
    """Back up and restore the site's names, keys and pushed images."""


@group.command("store")
@STORE
@CONFIG
@click.option(
    "--pushed-blobs/--no-pushed-blobs", default=True, show_default=True, help="Include the layers of pushed images."
)
@JSON
@click.argument("out", type=_FILE)
def store_(directory: Path, config_file: Path | None, pushed_blobs: bool, as_json: bool, out: Path) -> None:
    """Write the names of this store with their signatures, manifests and history to OUT. The store may serve meanwhile."""
    from appliance.backup import container
    from appliance.backup import contents as names
    from appliance.lease import under_lease

    store = open_store(directory, config_file)
    store.blobs.require()
    # What was found here is read a moment later: garbage collection waits, and nobody else does.
    with under_lease(), store.blobs.gc_lock_shared():
        contents, about = names.collect(store, pushed_blobs=pushed_blobs)
        backup = container.write(out, names.KIND, now(), about, contents)
    show({"archive": str(out), "bytes": backup.size, **about}, as_json, _store_text)


@group.command()
@STORE
@CONFIG
@click.option("--over", is_flag=True, help="Also replace names that the backup does not contain.")
@JSON
@_ARCHIVE
def restore(directory: Path, config_file: Path | None, over: bool, as_json: bool, archive: Path) -> None:
    """Restore the names of ARCHIVE ('appliance backup store') into this store. Layers come from media and peers."""
    from appliance.archives.sandbox import drop_privileges
    from appliance.backup import container
    from appliance.backup import contents as names
    from appliance.errors import fail
    from appliance.lease import under_lease

    with under_lease() as lease, container.open_backup(archive) as file:
        drop_privileges(directory)
        store = open_store(directory, config_file)
        if not store.config.is_publisher:
            fail(
                "APL-0312",
                "names are restored on the publisher",
                where=store.config.node,
                why=f"the publisher of this site is {store.config.publisher}",
                fix=f"Run the same on {store.config.publisher}",
            )
        if lease is not None:
            lease.await_sign()
        shown = names.restore(store, file, str(archive), over=over)
    show(shown, as_json, lambda said: "restored" if said["changed"] else "nothing to restore: all of it is here")


@group.command()
@click.option("--ca", required=True, type=_DIRECTORY, help="Directory of the site's certificate authority.")
@click.option("--store-part", "store", required=True, type=_FILE, help="File that 'appliance backup store' wrote.")
@click.option("--out", "directory", required=True, type=_DIRECTORY, help="Directory for backups.")
@click.option("--about", default="{}", help="JSON object with more facts for the list of contents.")
@click.option("--file", "files", multiple=True, metavar="NAME=PATH", help="Further file; may be repeated.")
@JSON
def pack(ca: Path, store: Path, directory: Path, about: str, files: tuple[str, ...], as_json: bool) -> None:
    """Write the site's backup to a dated file (mode 0600) on the controller, and read it back."""
    from appliance.backup import site
    from appliance.pki import site_of

    more = {name: Path(path) for name, _, path in (text.partition("=") for text in files)}
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    stamp = datetime.datetime.now(datetime.timezone.utc)
    safe = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in site_of(ca))
    out = directory / f"{safe}-{stamp:%Y%m%dT%H%M%SZ}.tar"
    backup = site.pack(out, stamp.isoformat(timespec="seconds"), ca, store, more, json.loads(about))
    show({"archive": str(out), "bytes": out.stat().st_size, **backup.as_dict()}, as_json, _site_text)


@group.command("show")
@click.option("--site", help="Name that the site must have.")
@click.option("--ca", type=_DIRECTORY, help="Directory of this controller's certificate authority, which is compared.")
@JSON
@_ARCHIVE
def show_(site: str | None, ca: Path | None, as_json: bool, archive: Path) -> None:
    """Verify a whole backup of a site and show what it contains. Nothing is changed."""
    from appliance.backup import container
    from appliance.backup.site import check

    with container.open_backup(archive) as file:
        backup, authority = check(file, str(archive), site=site, ca=ca)
    show({"archive": str(archive), "authority": authority, **backup.as_dict()}, as_json, _site_text)


@group.command()
@_ARCHIVE
@click.argument("directory", type=_DIRECTORY)
def unpack(archive: Path, directory: Path) -> None:
    """Verify a whole backup of a site and write its files to DIRECTORY, which must not exist."""
    from appliance.backup import container, site

    with container.open_backup(archive) as file:
        container.unpack(file, site.KIND, str(archive), directory)


COMMANDS = (group,)


def _store_text(shown: dict[str, Any]) -> str:
    generation = shown["generation"]
    served = f"generation {generation['number']}" if generation else "nothing"
    lines = [f"{shown['archive']}: {served}, {shown['names']} names, {size_words(shown['bytes'])}"]
    if shown["missing"]:
        lines.append(f"not in this store, or damaged there, and so not in it: {' '.join(shown['missing'])}")
    return "\n".join(lines)


def _site_text(shown: dict[str, Any]) -> str:
    about = shown["about"]
    lines = [f"{shown['archive']}: site {about['site']}, made {shown['created']} by release {shown['release']}"]
    lines += [f"  {item['name']}  {size_words(item['size'])}" for item in shown["files"]]
    return "\n".join(lines)
