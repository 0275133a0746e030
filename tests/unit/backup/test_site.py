"""The backup of a site by the commands that the playbooks call: packed, shown, held against the controller, unpacked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from appliance import pki
from appliance.backup import container
from appliance.cli.main import main
from tests.unit.store import made

A = "docker.io/library/a:1"


def run(*words: object, fails: str = "") -> Any:
    result = CliRunner().invoke(main, ["backup", *map(str, words)])
    assert (result.exit_code == 0) is not bool(fails), result.output
    if fails:
        assert result.stderr.startswith(fails), result.stderr
        return None
    return json.loads(result.stdout) if "--json" in words else result.stdout


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A controller's directory with an authority, a publisher's store, and a token."""
    pki.init_ca(tmp_path / "pki", "north/1")
    made.publish(made.open_store(tmp_path / "store"), {A: made.image(1)})
    (tmp_path / "token").write_text("secret")
    return tmp_path


def pack(site: Path, *more: object) -> Any:
    part = site / "store.tar"
    part.unlink(missing_ok=True)
    run("store", "--store", site / "store", part)
    words = ["--ca", site / "pki", "--store-part", part, "--out", site / "backups", "--about", '{"publisher": "a"}']
    return run("pack", *words, "--file", f"k3s/token={site / 'token'}", *more, "--json")


def test_packed_shown_and_unpacked(site: Path) -> None:
    packed = pack(site)
    archive = Path(packed["archive"])
    assert archive.name.startswith("north-1-2") and archive.name.endswith("Z.tar")
    assert archive.stat().st_mode & 0o777 == 0o600 and archive.parent.stat().st_mode & 0o777 == 0o700
    assert packed["about"]["publisher"] == "a" and packed["about"]["store"]["names"] == 1
    assert "secret" not in json.dumps(packed)
    shown = run("show", "--site", "north/1", "--ca", site / "pki", "--json", archive)
    assert shown["authority"] == "same" and shown["files"] == packed["files"]
    assert "k3s/token  6 B" in run("show", archive)
    run("unpack", archive, site / "out")
    for name in ("ca.key", "ca.crt"):
        assert (site / "out/pki" / name).read_bytes() == (site / "pki" / name).read_bytes()
    said = run("restore", "--store", site / "new", "--json", site / "out/store.tar")
    assert said["changed"]
    assert made.generations(made.open_store(site / "new")).current() is not None


def test_of_another_site_it_is_refused(site: Path) -> None:
    archive = pack(site)["archive"]
    run("show", "--site", "south", archive, fails="APL-0872")


def test_another_authority_on_the_controller_is_never_replaced(site: Path) -> None:
    archive = pack(site)["archive"]
    pki.init_ca(site / "other", "north/1")
    run("show", "--ca", site / "other", archive, fails="APL-0874")
    assert run("show", "--ca", site / "none", "--json", archive)["authority"] == "absent"
    # Half of its own is made whole; half of another one is not.
    (site / "pki/ca.crt").unlink()
    assert run("show", "--ca", site / "pki", "--json", archive)["authority"] == "absent"
    (site / "other/ca.key").unlink()
    run("show", "--ca", site / "other", archive, fails="APL-0874")


def test_an_authority_whose_halves_do_not_fit_is_not_backed_up(site: Path) -> None:
    pki.init_ca(site / "other")
    shutil.copy(site / "other/ca.key", site / "pki/ca.key")
    run("store", "--store", site / "store", site / "store.tar")
    words = ["--ca", site / "pki", "--store-part", site / "store.tar", "--out", site / "backups"]
    run("pack", *words, fails="APL-0607")


def test_a_part_for_the_whole_and_the_whole_for_a_part_are_refused(site: Path) -> None:
    archive = pack(site)["archive"]
    run("show", site / "store.tar", fails="APL-0870")
    run("restore", "--store", site / "new", archive, fails="APL-0870")
    container.write(site / "poor.tar", "site", made.CREATED, {"site": "north"}, {"k3s/token": b"1"})
    run("show", site / "poor.tar", fails="APL-0870")
    assert not (site / "new").exists()


def test_only_a_store_is_backed_up_and_only_the_publishers_restored(site: Path) -> None:
    run("store", "--store", site / "none", site / "x.tar", fails="APL-0301")
    pack(site)
    config = site / "config.yaml"
    config.write_text(
        f"node: b\nstore: {site / 'new'}\nseeds: [a]\npeers: [{{id: a, address: 10.0.0.1}}, {{id: b, address: 10.0.0.2}}]\n"
    )
    run("restore", "--store", site / "new", "--config", config, site / "store.tar", fails="APL-0312")
