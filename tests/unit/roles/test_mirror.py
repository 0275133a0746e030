"""Role mirror: the configuration it writes, what it plans, and releases on a host."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleActionFail, AnsibleFilterError
from ansible_collections.site.appliance.plugins.action import release as action
from ansible_collections.site.appliance.plugins.filter import mirror
from ansible_collections.site.appliance.plugins.module_utils import releases
from ansible_collections.site.appliance.plugins.plugin_utils import wheels

from appliance import config
from appliance.web import auth

SPEC: dict[str, Any] = {
    "node": "b",
    "addresses": {"a": "10.77.0.11", "b": "10.77.0.12", "c": "fd00::c"},
    "zones": {"a": "default", "b": "hall-2"},
    "seeds": ["a", "c"],
    "copies": 2,
    "keep_generations": 3,
    "free_percent": 15,
    "store_limit": "",
    "scrub_rate": "8M",
    "workers": 2,
    "peer_workers": 1,
    "store": "/var/lib/appliance",
    "pki": "/etc/appliance/pki",
    "site": "harbour",
}


def _loaded(spec: dict[str, Any]) -> config.Config:
    return config.from_mapping(yaml.safe_load(mirror.mirror_config(spec)), "test")


def test_the_appliance_reads_what_the_role_writes() -> None:
    loaded = _loaded(SPEC)
    assert (loaded.node, loaded.publisher, loaded.seeds) == ("b", "a", ("a", "c"))
    assert (loaded.mirror_copies, loaded.site) == (2, "harbour")
    assert loaded.peer_listen == "10.77.0.12:5443"
    assert [(peer.id, peer.address, peer.zone, peer.seed) for peer in loaded.peers] == [
        ("a", "10.77.0.11", "default", True),
        ("b", "10.77.0.12", "hall-2", False),
        ("c", "fd00::c", "default", True),
    ]


def test_the_same_inventory_gives_the_same_bytes() -> None:
    assert mirror.mirror_config(SPEC) == mirror.mirror_config(json.loads(json.dumps(SPEC)))


@pytest.mark.parametrize(
    ("text", "size"),
    [("200G", 200 << 30), ("1 GiB", 1 << 30), (4096, 4096), ("5k", 5120), ("2T", 2 << 40), ("300MB", 300 << 20)],
)
def test_a_limit_is_bytes_or_a_number_with_a_unit(text: Any, size: int) -> None:
    assert _loaded({**SPEC, "store_limit": text}).store_limit == size
    assert _loaded({**SPEC, "scrub_rate": text}).scrub_rate == size


def test_no_limit_and_no_scrubbing_can_be_said() -> None:
    loaded = _loaded({**SPEC, "store_limit": "", "scrub_rate": 0})
    assert (loaded.store_limit, loaded.scrub_rate) == (None, 0)


@pytest.mark.parametrize("text", ["many", "-1", "1.5G", "G", "10X", [], "1" * 20])
def test_a_limit_that_is_none_is_refused(text: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="APL-0778"):
        mirror.mirror_bytes(text, "mirror_store_limit")


def test_copies_may_be_all_or_a_number_from_the_command_line() -> None:
    assert _loaded({**SPEC, "copies": "all"}).mirror_copies is None
    assert _loaded({**SPEC, "copies": "3"}).mirror_copies == 3


@pytest.mark.parametrize("wrong", [0, -1, "some", None, ""])
def test_other_copies_are_refused(wrong: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="APL-0764"):
        mirror.mirror_config({**SPEC, "copies": wrong})


def test_names_that_yaml_would_take_for_something_else_stay_names() -> None:
    spec = {
        **SPEC,
        "node": "no",
        "addresses": {"no": "10.0.0.1", "1e3": "10.0.0.2"},
        "seeds": ["no"],
        "zones": {"no": 7},
    }
    loaded = _loaded(spec)
    assert [peer.id for peer in loaded.peers] == ["no", "1e3"]
    assert loaded.peers[0].zone == "7"


LINE = "ops:scrypt$15$8$1$c2FsdHNhbHQ=$aGFzaGhhc2hoYXNoaGFzaA=="


def test_pushing_is_off_unless_operators_are_named() -> None:
    assert _loaded(SPEC).push_users is None
    assert _loaded({**SPEC, "push_users": ""}).push_users is None
    assert _loaded({**SPEC, "push_users": "/etc/appliance/push-users"}).push_users == Path("/etc/appliance/push-users")


def test_the_appliance_reads_the_operators_that_the_role_writes() -> None:
    text = mirror.mirror_push_lines([LINE, LINE.replace("ops", "ci@site")])
    assert set(auth.parse_lines(text, "test")) == {"ops", "ci@site"}
    made_now = auth.line_for("ops", "a password of some length")
    assert set(auth.parse_lines(mirror.mirror_push_lines([made_now]), "test")) == {"ops"}


@pytest.mark.parametrize(
    "users", [["ops:secret"], ["ops"], [""], [5], [LINE, LINE], [f"{LINE}\nroot:x"], [f" : {LINE}"]]
)
def test_operators_that_are_none_are_refused(users: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="APL-0768") as caught:
        mirror.mirror_push_lines(users)
    assert "secret" not in str(caught.value)


def test_the_listener_binds_the_nodes_own_address() -> None:
    assert mirror.mirror_listen("fd00::c") == "[fd00::c]:5443"
    assert mirror.mirror_listen("node-a.site") == "0.0.0.0:5443"


def test_seeds_are_those_of_the_group_in_its_order_else_the_first_server() -> None:
    groups = {"k3s_servers": ["a", "b"], "k3s_cluster": ["a", "b", "c"]}
    assert mirror.mirror_seeds({**groups, "mirror_seeds": ["c", "elsewhere", "a"]}) == ["c", "a"]
    assert mirror.mirror_seeds(groups) == ["a"]
    assert mirror.mirror_seeds({**groups, "mirror_seeds": []}) == ["a"]


def _sum(text: str, path: str) -> str:
    return f"{hashlib.sha256(text.encode()).hexdigest()}  {path}"


CERTIFICATE, RECORD, FILE = "/etc/appliance/pki/node.crt", "/etc/appliance/services.applied", "/etc/x.service"


CONFIG = "/etc/appliance/config.yaml"


def _record(sums: list[str], start: str = "listen: x") -> str:
    return mirror.mirror_record("\n".join(sums), "0.1.0", [CERTIFICATE], {FILE: "wanted", CONFIG: start})


def _planned(sums: list[str], current: bool = True) -> dict[str, Any]:
    release, wanted = {"current": current, "name": "0.1.0"}, {FILE: "wanted", CONFIG: "listen: x, peers: new"}
    now = {"path": RECORD, "text": _record(sums)}
    return mirror.mirror_changes("\n".join(sums), wanted, release, CERTIFICATE, now)


def test_a_new_host_gets_everything() -> None:
    assert _planned([], current=False) == {
        "changes": [
            "release 0.1.0 is installed",
            "a key and a certificate are made",
            f"{FILE} is written",
            f"{CONFIG} is written",
        ],
        "due": True,
    }


def test_a_converged_host_gets_nothing() -> None:
    inputs = [_sum("wanted", FILE), _sum("cert", CERTIFICATE), _sum("listen: x, peers: new", CONFIG)]
    assert _planned([*inputs, _sum(_record(inputs), RECORD)]) == {"changes": [], "due": False}


def test_a_changed_file_is_named_and_a_broken_off_run_restarts_without_any_change() -> None:
    inputs = [_sum("other", FILE), _sum("cert", CERTIFICATE), _sum("listen: x, peers: new", CONFIG)]
    assert _planned(inputs) == {"changes": [f"{FILE} changes"], "due": True}
    inputs[0] = _sum("wanted", FILE)
    assert _planned([*inputs, _sum("of an earlier restart", RECORD)]) == {"changes": [], "due": True}


def test_a_certificate_that_was_signed_anew_restarts() -> None:
    inputs = [_sum("wanted", FILE), _sum("cert", CERTIFICATE), _sum("listen: x, peers: new", CONFIG)]
    record = _sum(_record(inputs), RECORD)
    inputs[1] = _sum("another", CERTIFICATE)
    assert _planned([*inputs, record]) == {"changes": [], "due": True}


def test_another_list_of_nodes_is_written_without_a_restart() -> None:
    inputs = [_sum("wanted", FILE), _sum("cert", CERTIFICATE), _sum("listen: x, peers: old", CONFIG)]
    assert _planned([*inputs, _sum(_record(inputs), RECORD)]) == {
        "changes": [f"{CONFIG} changes, without a restart"],
        "due": False,
    }


def test_only_the_list_of_nodes_leaves_what_the_services_start_from_as_it_is() -> None:
    more = {**SPEC, "addresses": SPEC["addresses"] | {"d": "10.77.0.14"}, "zones": {}, "seeds": ["c"], "copies": 3}
    assert mirror.mirror_start(more) == mirror.mirror_start(SPEC)
    assert mirror.mirror_config(more) != mirror.mirror_config(SPEC)
    for key, value in {"workers": 3, "keep_generations": 4, "free_percent": 7, "push_users": "/x"}.items():
        assert mirror.mirror_start({**SPEC, key: value}) != mirror.mirror_start(SPEC), key
    moved = {**SPEC, "addresses": SPEC["addresses"] | {"b": "10.77.0.99"}}
    assert mirror.mirror_start(moved) != mirror.mirror_start(SPEC), "it listens on its own address"


def test_role_and_services_agree_on_what_counts_at_once() -> None:
    written, started = (yaml.safe_load(make(SPEC)) for make in (mirror.mirror_config, mirror.mirror_start))
    assert set(written) - set(started) == {"publisher", *config.LIVE}


BEFORE = mirror.mirror_config(SPEC)


def test_who_leaves_is_in_the_list_of_before_and_not_in_the_inventory() -> None:
    assert mirror.mirror_leaving(BEFORE, ["a", "b", "c", "d"]) == []
    assert mirror.mirror_leaving(BEFORE, ["b"]) == ["a", "c"]
    for text in ("", "[", "peers: 5", "peers: [5]"):
        assert mirror.mirror_leaving(text, ["a"]) == []


def test_the_plan_names_the_new_publisher_and_what_leaving_nodes_hold() -> None:
    assert mirror.mirror_departures(BEFORE, ["a", "b"], None) == []
    assert mirror.mirror_departures("", ["a"], None) == []
    blobs = [
        {"digest": "sha256:1", "size": 5, "names": ["x:1", "y:1"]},
        {"digest": "sha256:2", "size": 6, "names": ["x:1"]},
    ]
    said = {"leaving": ["a", "b"], "silent": ["a"], "only_there": blobs, "at_risk": []}
    assert mirror.mirror_departures(BEFORE, ["c"], said) == [
        "c publishes from now on; it was a",
        "a is a node of the site no more, and does not answer",
        "b is a node of the site no more",
        "2 blobs (11 bytes) of x:1, y:1: fetched here first, since only a node that leaves holds it",
    ]
    assert mirror.mirror_departures(BEFORE, ["a"], {**said, "only_there": [], "at_risk": blobs})[-1].endswith(
        "y:1: GIVEN UP"
    )
    older = {**said, "at_risk": [{**blob, "served": False} for blob in blobs]}
    assert mirror.mirror_departures(BEFORE, ["a"], older)[-1].endswith("y:1 in older generations alone: GIVEN UP")


SHOWN = """\
Id=appliance-a.service
ActiveState=active
UnitFileState=enabled
ProtectSystem=strict

Id=appliance-b.service
ActiveState=active
UnitFileState=disabled
ProtectSystem=no
"""
UNITS = ["appliance-a.service", "appliance-b.service", "appliance-c.service"]


def test_units_that_do_not_run_or_would_not_after_a_boot_are_found() -> None:
    assert mirror.mirror_stopped(SHOWN, UNITS) == ["appliance-b.service", "appliance-c.service"]


def test_a_property_that_is_not_as_wanted_is_named_and_one_that_systemd_does_not_know_is_not() -> None:
    wanted = {"ProtectSystem": "strict", "ProtectNothing": "yes"}
    assert mirror.mirror_properties(SHOWN, UNITS, wanted) == ["appliance-b.service: ProtectSystem is no, not strict"]


# Releases


def _make(root: Path, name: str, says: dict[str, str] | None) -> None:
    (root / "releases" / name / "venv/bin").mkdir(parents=True)
    (root / "releases" / name / "venv/bin/python").symlink_to(sys.executable)
    if says is not None:
        (root / "releases" / name / releases.MARKER).write_text(json.dumps(says))


ONE = {"digest": "1" * 64, "python": "/usr/bin/python3", "minor": "3.11"}
TWO = {**ONE, "digest": "2" * 64}


def test_a_release_counts_only_when_it_is_complete_and_current(tmp_path: Path) -> None:
    assert not releases.installed(tmp_path, "1.0", ONE)
    _make(tmp_path, "1.0", None)
    releases.flip(tmp_path, "1.0")
    assert not releases.installed(tmp_path, "1.0", ONE)
    (tmp_path / "releases/1.0" / releases.MARKER).write_text(json.dumps(ONE))
    assert releases.installed(tmp_path, "1.0", ONE)
    assert not releases.installed(tmp_path, "1.0", TWO)
    assert os.readlink(tmp_path / "current") == "releases/1.0"


def test_a_release_whose_interpreter_is_gone_does_not_count(tmp_path: Path) -> None:
    _make(tmp_path, "1.0", ONE)
    releases.flip(tmp_path, "1.0")
    python = tmp_path / "releases/1.0/venv/bin/python"
    python.unlink()
    python.symlink_to("/nonexistent/python3")
    assert not releases.installed(tmp_path, "1.0", ONE)


def test_another_build_of_the_running_version_goes_beside_it_and_stays_known(tmp_path: Path) -> None:
    _make(tmp_path, "1.0", ONE)
    releases.flip(tmp_path, "1.0")
    assert releases.name_for(tmp_path, "1.0", TWO) == "1.0+22222222"
    _make(tmp_path, "1.0+22222222", TWO)
    releases.flip(tmp_path, "1.0+22222222")
    assert releases.installed(tmp_path, "1.0", TWO)
    # Also once the older build was pruned away, which frees the plain name.
    assert releases.prune(tmp_path, 1) == ["1.0"]
    assert releases.installed(tmp_path, "1.0", TWO)


def test_pruning_keeps_the_current_and_the_newest(tmp_path: Path) -> None:
    for age, name in enumerate(["1.0", "1.1", "1.2"]):
        _make(tmp_path, name, ONE)
        os.utime(tmp_path / "releases" / name, (age, age))
    releases.flip(tmp_path, "1.0")
    assert releases.prune(tmp_path, 2) == ["1.1"]
    assert sorted(path.name for path in (tmp_path / "releases").iterdir()) == ["1.0", "1.2"]


def test_pruning_spares_the_one_that_is_about_to_be_current(tmp_path: Path) -> None:
    for age, name in enumerate(["1.0", "1.1", "1.2"]):
        _make(tmp_path, name, ONE)
        os.utime(tmp_path / "releases" / name, (age, age))
    releases.flip(tmp_path, "1.1")
    assert releases.prune(tmp_path, 1, also=["1.0"]) == ["1.2"]


def _state(root: Path) -> dict[str, Any]:
    files = {path.name: (path.read_text(), path.stat().st_mode & 0o777) for path in (root / "etc").iterdir()}
    return {"release": releases.current(root), "files": files}


def test_what_ran_well_is_kept_and_gone_back_to(tmp_path: Path) -> None:
    for name in ("1.0", "1.1"):
        _make(tmp_path, name, ONE)
    releases.flip(tmp_path, "1.0")
    etc = tmp_path / "etc"
    etc.mkdir()
    names = [str(etc / name) for name in ("config", "push-users", "unit")]
    (etc / "config").write_text("old")
    (etc / "config").chmod(0o640)
    (etc / "unit").write_text("unit")
    before = _state(tmp_path)
    assert releases.kept(tmp_path) is None
    releases.keep(tmp_path, releases.snapshot(tmp_path, names))
    assert (tmp_path / releases.FALLBACK).stat().st_mode & 0o777 == 0o600
    (etc / "config").write_text("new")
    (etc / "push-users").write_text("secret")
    (etc / "unit").unlink()
    releases.flip(tmp_path, "1.1")
    for _ in range(2):
        state = releases.kept(tmp_path)
        assert state is not None
        releases.go_back(tmp_path, state)
        assert _state(tmp_path) == before
    assert releases.snapshot(tmp_path, names) == state


def test_nothing_is_gone_back_to_whose_release_is_not_there_any_more(tmp_path: Path) -> None:
    _make(tmp_path, "1.0", ONE)
    releases.flip(tmp_path, "1.0")
    releases.keep(tmp_path, releases.snapshot(tmp_path, []))
    assert releases.kept(tmp_path) == {"release": "1.0", "files": {}}
    (tmp_path / "releases/1.0" / releases.MARKER).unlink()
    assert releases.kept(tmp_path) is None
    (tmp_path / releases.FALLBACK).write_text("[cut")
    assert releases.kept(tmp_path) is None


def _wheelhouse(directory: Path, requirements: str) -> Path:
    (directory / "wheelhouse").mkdir(parents=True)
    (directory / "wheelhouse/pip-1-py3-none-any.whl").write_bytes(b"no wheel")
    (directory / "requirements.txt").write_text(requirements)
    return directory


def test_a_failed_installation_leaves_current_alone_and_says_why(tmp_path: Path) -> None:
    root = tmp_path / "root"
    _make(root, "1.0", ONE)
    releases.flip(root, "1.0")
    house = _wheelhouse(tmp_path / "house", "k3s-airgap-appliance==1.1 --hash=sha256:00\n")
    action.pack(house, tmp_path / "archive.tar")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(releases.ReleaseError, match="APL-0763"):
        releases.install(root, "1.1", {**TWO, "python": sys.executable}, tmp_path / "archive.tar", work)
    assert releases.current(root) == "1.0"
    assert releases.marker(root / "releases/1.1") is None


def test_the_archive_is_unpacked_by_plain_names_only(tmp_path: Path) -> None:
    for name, kind in (("../escape", tarfile.REGTYPE), ("a/b", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        with tarfile.open(tmp_path / "bad.tar", "w") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        with pytest.raises(releases.ReleaseError, match="APL-0762"):
            releases.unpack(tmp_path / "bad.tar", tmp_path)
    assert not (tmp_path.parent / "escape").exists()


def test_a_wheelhouse_without_pip_is_named(tmp_path: Path) -> None:
    with pytest.raises(releases.ReleaseError, match="APL-0762"):
        releases.commands(tmp_path, tmp_path, "/usr/bin/python3")


def test_nothing_is_installed_but_by_hash_and_without_an_index(tmp_path: Path) -> None:
    (tmp_path / "pip-1-py3-none-any.whl").touch()
    venv, install = releases.commands(tmp_path / "release", tmp_path, "/usr/bin/python3")
    assert venv[1:5] == ["-I", "-m", "venv", "--without-pip"]
    assert {"--no-index", "--require-hashes", "--only-binary=:all:", "--isolated", "--no-deps"} <= set(install)


def test_the_controller_reads_version_and_digest(tmp_path: Path) -> None:
    text = "click==8.1 --hash=sha256:00\nk3s-airgap-appliance==0.3.0 --hash=sha256:11\n"
    house = _wheelhouse(tmp_path / "house", text)
    assert action.describe(house) == ("0.3.0", hashlib.sha256(text.encode()).hexdigest())


def test_a_host_gets_the_wheels_that_fit_it_and_no_others(tmp_path: Path) -> None:
    digest = "0" * 64
    house = _wheelhouse(
        tmp_path / "house",
        f"cffi==2.1 --hash=sha256:{digest} --hash=sha256:{digest}\nclick==8.1 --hash=sha256:{digest}\n",
    )
    names = {
        (3, 11): "cffi-2.1-cp311-cp311-manylinux_2_17_x86_64.whl",
        (3, 13): "cffi-2.1-cp313-cp313-manylinux_2_17_x86_64.whl",
    }
    for name in (*names.values(), "click-8.1-py3-none-any.whl"):
        (house / "wheelhouse" / name).touch()
    for python, name in names.items():
        action.pack(house, tmp_path / "archive.tar", wheels.Target(python, "x86_64"))
        with tarfile.open(tmp_path / "archive.tar") as tar:
            assert sorted(tar.getnames()) == [
                name,
                "click-8.1-py3-none-any.whl",
                "pip-1-py3-none-any.whl",
                "requirements.txt",
            ]
    with pytest.raises(AnsibleActionFail, match=r"APL-0713: .*no wheels for Python 3\.12 on x86_64 .*cffi missing"):
        action.pack(house, tmp_path / "archive.tar", wheels.Target((3, 12), "x86_64"))


def test_no_wheelhouse_and_one_without_the_appliance_are_errors(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"APL-0760.*appliance\.release\.wheelhouse"):
        action.describe(tmp_path)
    with pytest.raises(AnsibleActionFail, match="APL-0760"):
        action.describe(_wheelhouse(tmp_path / "house", "click==8.1 --hash=sha256:00\n"))


def test_the_controllers_commands_have_the_options_that_the_role_uses() -> None:
    """The role calls the appliance by these words on the controller and on the nodes."""
    for words, options in (
        (["pki", "init-ca"], ["--site"]),
        (["pki", "request"], ["--node", "--address", "--dir"]),
        (["pki", "sign"], ["--ca", "--csr", "--out", "--node", "--address"]),
        (["plan"], ["--store", "--platform", "--name", "--json"]),
        (["seed"], ["--store", "--platform", "--name", "--expect", "--json"]),
        (["status"], ["--json"]),
        (["leaving"], ["--stay", "--fetch", "--anyway", "--json"]),
    ):
        shown = subprocess.run(
            [sys.executable, "-m", "appliance", *words, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert all(option in shown for option in options), words


def test_a_store_that_root_made_changes_hands_from_the_inside() -> None:
    """Broken off in between, the directory is still root's, and the next run begins anew."""
    tasks = yaml.safe_load((Path(__file__).parents[3] / "roles/mirror/tasks/store.yml").read_text(encoding="utf-8"))
    hand_over, directory = tasks[1], tasks[2]
    assert "-mindepth" in hand_over["ansible.builtin.command"]["argv"]
    assert "__mirror_store_now.stat.pw_name" in hand_over["when"]
    assert directory["ansible.builtin.file"]["owner"] == "{{ __mirror_user }}"
    for role, file in (("mirror", "services"), ("restore", "names")):
        assert "store" in (Path(__file__).parents[3] / f"roles/{role}/tasks/{file}.yml").read_text(encoding="utf-8")
