"""The plan that an operator sees: the text, what counts as empty, what does not fit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.site.appliance.plugins.filter import plan
from ansible_collections.site.appliance.plugins.lookup.checksums import LookupModule
from ansible_collections.site.appliance.plugins.lookup.operator import operator
from ansible_collections.site.appliance.plugins.plugin_utils.checksum_names import checksum_paths
from click.testing import CliRunner

from appliance.archives.checksums import checksum_files
from appliance.cli import seeding
from appliance.cli.main import main

ROOT = Path(__file__).resolve().parents[3]
OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
IMAGES: dict[str, Any] = {
    "plan_id": "0123",
    "generation": {"number": 3, "digest": OLD},
    "added": [{"name": "ksd.test.com/ksd/nginx:1.27", "digest": NEW, "size": 12_900_000}],
    "moved": [{"name": "docker.io/library/redis:7", "old": OLD, "new": NEW}],
    "completed": [],
    "unchanged": ["quay.io/x/y:1"],
    "bytes_to_write": 9_000_000,
    "sources": [
        {"path": "/media/stick/a.tar", "state": "read", "bytes": 13_000_000},
        {"path": "/media/stick/b.tar", "state": "absent-published", "bytes": 0},
    ],
    "registries": ["docker.io", "ksd.test.com", "quay.io"],
    "notes": ["a.tar: a remark"],
}
EMPTY = {**IMAGES, "added": [], "moved": [], "bytes_to_write": 0, "notes": []}
REPORT = {"report": {"filesystems": {"/var/lib/appliance": {"mount": "/var", "available": 42_949_672_960}}}}
SETTINGS = {"seed_host": "a", "copies": 2, "store": "/var/lib/appliance"}
HOSTVARS: dict[str, dict[str, Any]] = {
    "a": {
        "__mirror_plan": ["release 0.2.0 is installed"],
        "__mirror_restarts": ["appliance-agent.service"],
        "__k3s_plan": ["/etc/rancher/k3s/config.yaml is written", "k3s.service restarts"],
        "__k3s_restart": True,
        "__plan_report": REPORT,
    },
    "b": {"__registries_plan": ["the mirror is asked first for ksd.test.com"], "__plan_report": REPORT},
    "c": {},
}

COVERED = {
    **IMAGES,
    "covers_pushed": [{"name": "ksd.test.com/ksd/nginx:1.27", "old": OLD, "new": NEW}],
}

GOLDEN = """\
This run would change the following.

Images: generation 3 is served now; generation 4 will be published.
  add   ksd.test.com/ksd/nginx:1.27  sha256:bbbbbbbbbbbb  12.3 MiB
  move  docker.io/library/redis:7    sha256:aaaaaaaaaaaa -> sha256:bbbbbbbbbbbb
  1 name stays as it is; none is removed.
  note: a.tar: a remark
  read and verified: /media/stick/a.tar (12.4 MiB)
  not there, but published before: /media/stick/b.tar

Nodes:
  a: 8.6 MiB to write to the store, 40.0 GiB free at /var
    release 0.2.0 is installed
    /etc/rancher/k3s/config.yaml is written
    k3s.service restarts
    restarts (or starts): appliance-agent.service, K3s
  b: about 4.3 MiB to write to the store, 40.0 GiB free at /var
    the mirror is asked first for ksd.test.com
  c: about 4.3 MiB to write to the store
    nothing changes in its configuration"""


def test_what_an_interrupted_import_left_to_publish_is_no_empty_plan() -> None:
    # Every blob is in the store already, and only the switch is missing.
    filled = {**EMPTY, "completed": ["quay.io/x/y:1"], "unchanged": []}
    assert plan.plan_publishes(filled) and not plan.plan_is_empty(filled, [])
    text = plan.plan_text(filled, [])
    assert "generation 4 will be published" in text
    assert "\n  fill  quay.io/x/y:1  (platforms that were left out before)\n" in text


def test_the_whole_plan_as_text() -> None:
    nodes = plan.plan_nodes(HOSTVARS, ["a", "b", "c"], IMAGES, SETTINGS)
    assert plan.plan_text(IMAGES, nodes) == GOLDEN


def test_a_site_that_serves_nothing_yet() -> None:
    text = plan.plan_text({**IMAGES, "generation": None, "unchanged": []}, [])
    assert "Images: nothing is served now; generation 1 will be published." in text
    assert "  0 names stay as they are; none is removed." in text


def test_without_sources_the_plan_says_so() -> None:
    nodes = plan.plan_nodes({"a": HOSTVARS["a"]}, ["a"], None, SETTINGS)
    assert "no source is configured" in plan.plan_text(None, nodes)


def test_an_empty_plan_says_what_is_served_and_which_medium_is_gone() -> None:
    nodes = plan.plan_nodes({"c": {}}, ["c"], EMPTY, SETTINGS)
    assert plan.plan_is_empty(EMPTY, nodes)
    assert plan.plan_text(EMPTY, nodes).splitlines() == [
        "Nothing to do: the site is as the inventory and the medium want it. Generation 3 is served.",
        "  read and verified: /media/stick/a.tar (12.4 MiB)",
        "  not there, but published before: /media/stick/b.tar",
    ]


def test_each_kind_of_change_makes_the_plan_not_empty() -> None:
    quiet: list[dict[str, Any]] = [{"changes": [], "restarts": []}]
    assert plan.plan_is_empty(EMPTY, quiet)
    assert plan.plan_is_empty(None, quiet)
    signed = {**EMPTY, "referrers": [{"name": "a:1", "other_names": 0, "digests": [NEW]}]}
    assert not plan.plan_is_empty(signed, quiet)
    assert plan.plan_publishes(signed)
    for key in ("added", "moved", "bytes_to_write"):
        assert not plan.plan_is_empty({**EMPTY, key: IMAGES[key]}, quiet), key
        assert plan.plan_publishes({**EMPTY, key: IMAGES[key]}), key
    assert not plan.plan_is_empty(EMPTY, [{"changes": ["x"], "restarts": []}])
    assert not plan.plan_is_empty(None, [{"changes": [], "restarts": ["K3s"]}])


def test_bytes_for_each_node_follow_the_number_of_copies() -> None:
    def writes(copies: Any) -> list[tuple[int, bool]]:
        nodes = plan.plan_nodes({host: {} for host in "abc"}, ["a", "b", "c"], IMAGES, {**SETTINGS, "copies": copies})
        return [(node["writes"], node["exact"]) for node in nodes]

    assert writes(1) == [(9_000_000, True), (0, False), (0, False)]
    assert writes(2) == [(9_000_000, True), (4_500_000, False), (4_500_000, False)]
    assert writes(9) == [(9_000_000, True), (9_000_000, False), (9_000_000, False)]
    assert writes("all") == [(9_000_000, True)] * 3


def test_what_does_not_fit_is_named_with_both_numbers_and_what_is_only_likely_is_not() -> None:
    tight = {"report": {"filesystems": {"/var/lib/appliance": {"mount": "/var", "available": 1_000_000}}}}
    hostvars = {"a": {"__plan_report": tight}, "b": {"__plan_report": tight}}
    lines = plan.plan_too_small(plan.plan_nodes(hostvars, ["a", "b"], IMAGES, SETTINGS))
    assert len(lines) == 1
    assert lines[0].startswith("APL-0771: a: the file system at /var is too small: 8.6 MiB needed (9000000 bytes")
    assert "(1000000 bytes)" in lines[0]
    everywhere = plan.plan_nodes(hostvars, ["a", "b"], IMAGES, {**SETTINGS, "copies": "all"})
    assert [line.split(": ")[1] for line in plan.plan_too_small(everywhere)] == ["a", "b"]


def test_the_error_of_a_command_is_its_own_line_and_never_a_traceback_with_it() -> None:
    stderr = 'warning\nAPL-0107: the file is not what it says [x.tar]\n{"code": "APL-0107"}\n'
    assert plan.plan_error({"stderr": stderr}) == "APL-0107: the file is not what it says [x.tar]"
    assert plan.plan_error({"stderr": "", "stdout": "", "msg": "no such file"}) == "no such file"


@pytest.mark.parametrize("words", [["prove-it"], ["gc", "--without-an-end"]])
def test_a_command_that_the_release_on_a_node_does_not_know_says_what_brings_it(words: list[str]) -> None:
    said = CliRunner().invoke(main, words, prog_name="appliance")
    line = plan.plan_error({"rc": said.exit_code, "stderr": said.output})
    assert (
        line.startswith("APL-0773: the release on the node is older than this checkout: No such ") and words[-1] in line
    )
    assert "site.yml" in line and "\n" not in line
    # Of another program, or with another end, it says nothing about releases.
    for result in ({"rc": 1, "stderr": said.output}, {"rc": 2, "stderr": "Error: No such command 'x'."}):
        assert "APL-0773" not in plan.plan_error(result)


def test_what_is_staged_already_needs_no_room_any_more() -> None:
    tight = {"report": {"filesystems": {"/var/lib/appliance": {"mount": "/var", "available": 1_000_000}}}}
    staged = {**IMAGES, "bytes_staged": 8_500_000}
    nodes = plan.plan_nodes({"a": {"__plan_report": tight}}, ["a"], staged, SETTINGS)
    assert plan.plan_too_small(nodes) == [] and nodes[0]["writes"] == 500_000
    assert "  a: 8.1 MiB verified and kept in its store already, 488.3 KiB to write to the store" in plan.plan_text(
        staged, nodes
    )
    whole = plan.plan_nodes({"a": {}}, ["a"], {**IMAGES, "bytes_staged": 9_000_000}, SETTINGS)
    assert "  a: 8.6 MiB verified and kept in its store already\n" in plan.plan_text(IMAGES, whole)


def test_platforms_are_those_of_the_nodes_once_each() -> None:
    assert plan.plan_platforms(["x86_64", "aarch64", "x86_64"]) == ["linux/amd64", "linux/arm64"]


def test_the_checksums_that_go_with_sources_are_those_that_are_looked_for() -> None:
    sources = [
        "/srv/k3s/k3s-airgap-images-amd64.tar.zst",
        "/srv/layout/",
        "a.tar",
        "/srv/k3s/rke2-images.linux-amd64.tar",
    ]
    found = checksum_paths(sources)
    looked_for = {str(path) for source in sources for path in checksum_files([Path(source)])}
    of_directories = {
        os.path.join(os.path.dirname(source.rstrip("/")), name.name)
        for source in sources
        for name in checksum_files([Path("x")])
        if not name.name.startswith("x")
    }
    assert sorted(found) == sorted(looked_for - of_directories)
    assert "/srv/k3s/sha256sum-amd64.txt" in found


def test_a_checksum_file_whose_name_would_be_too_long_is_not_looked_for() -> None:
    ends = [path.removeprefix("/srv/" + "a" * 244) for path in checksum_paths(["/srv/" + "a" * 244 + ".tar"])]
    assert set(ends[:3]) == {".tar.sha256", ".tar.SHA256", ".tar.Sha256"}
    assert all(len(end) <= 11 for end in ends)


def test_only_checksums_that_lie_there_are_carried(tmp_path: Path) -> None:
    archive = tmp_path / "a[1].tar"
    (tmp_path / "a[1].tar.SHA256SUM").touch()
    (tmp_path / "a[1].tar.sha256").mkdir()
    (tmp_path / "SHA256SUMS").touch()
    assert LookupModule().run([str(archive)]) == [str(tmp_path / "a[1].tar.SHA256SUM")]


def test_a_checksum_that_is_gone_from_the_controller_is_gone_from_the_node() -> None:
    staged = ["a.tar", "a.tar.sha256", "a.tar.SHA256SUM", "b.tar.sha256", "layout"]
    assert plan.plan_stale_checksums(staged, ["/srv/a.tar"], ["/srv/a.tar.sha256"]) == ["a.tar.SHA256SUM"]


def test_the_plan_has_every_file_that_is_left_out() -> None:
    out = [{"path": f"/media/stick/{n}.iso", "kind": "other", "reason": "no archive", "size": 2048} for n in range(7)]
    link = {"path": "/media/stick/l.tar", "kind": "link", "reason": "symbolic link", "size": 0}
    images = {**EMPTY, "left_out": [*out, link], "left_out_more": 3, "passed_over": 4}
    lines = plan.plan_text(images, []).splitlines()
    assert [line for line in lines if "left out" in line or "passed over" in line] == [
        *[f"  left out: /media/stick/{n}.iso (2.0 KiB): no archive" for n in range(5)],
        "  left out: 2 more like the last one",
        "  left out: /media/stick/l.tar (0 B): symbolic link",
        "  left out: 3 more, which are not listed",
        "  passed over: checksums, signatures and leftovers of operating systems (4)",
    ]


def test_roles_are_asked_in_the_order_in_which_they_act(tmp_path: Path) -> None:
    for role in ("k3s", "mirror", "verify"):
        (tmp_path / role / "tasks").mkdir(parents=True)
        (tmp_path / role / "tasks/plan.yml").touch()
    assert plan.plan_roles(str(tmp_path)) == ["mirror", "k3s"]


def test_nothing_in_the_role_changes_a_node() -> None:
    """Each task that could either is only looking, or works on the scratch copy that the role removes again."""
    scratch = {
        "medium | Make a place for a copy of the tools",
        "medium | Let the store's owner run what is there",
        "medium | Copy the tools there",
        "medium | Remove the copy of the tools",
        "stage | Make the place for them",
        "stage | Take them from there",
        "stage | Copy them to the node that imports",
        "stage | Remove checksums that are not beside their files any more",
        "keep | Make the directory of plans",
        "keep | Write the plan, for people and for programs",
    }
    changing = {
        "ansible.builtin.file",
        "ansible.builtin.copy",
        "ansible.builtin.tempfile",
        "site.appliance.carry",
        "site.appliance.release",
    }
    seen = set()
    for path in (ROOT / "roles/plan/tasks").glob("*.yml"):
        for task in _tasks(yaml.safe_load(path.read_text(encoding="utf-8"))):
            if changing & set(task):
                assert task.get("changed_when") is False, task["name"]
                if task.get("check_mode") is not True:
                    seen.add(task["name"])
            if "keep |" in task.get("name", ""):
                assert task.get("delegate_to", "localhost") == "localhost"
            if {"ansible.builtin.command", "site.appliance.job"} & set(task):
                assert task["changed_when"] is False
                assert task["check_mode"] is False
    assert seen == scratch


def _tasks(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for task in tasks:
        parts = [task.get(key, []) for key in ("block", "rescue", "always")]
        found += [task] if not any(parts) else [inner for part in parts for inner in _tasks(part)]
    return found


def test_a_pushed_name_that_a_medium_covers_is_shown() -> None:
    lines = plan.plan_text(COVERED, []).splitlines()
    assert (
        "  cover ksd.test.com/ksd/nginx:1.27  sha256:aaaaaaaaaaaa (pushed by an operator) -> sha256:bbbbbbbbbbbb"
        in lines
    )


def test_signatures_are_counted_by_name() -> None:
    images = {
        **EMPTY,
        "referrers": [
            {"name": "quay.io/x/y:1", "other_names": 0, "digests": [NEW]},
            {"name": "quay.io/x/z:1", "other_names": 2, "digests": [OLD, NEW]},
        ],
    }
    lines = plan.plan_text(images, []).splitlines()
    assert "Images: generation 3 is served now; generation 4 will be published." in lines
    assert "  sign  quay.io/x/y:1  (1 signature or attestation)" in lines
    assert "  sign  quay.io/x/z:1 and 2 more names  (2 signatures and attestations)" in lines


def test_words_that_do_not_explain_themselves_are_explained_where_they_stand() -> None:
    rest: dict[str, list[Any]] = {
        kind: [] for kind in ("removed", "referrers", "covers_pushed", "uncovers_pushed", "steps_back", "left_out")
    }
    empty = {**EMPTY, **rest, "medium": {}, "older_media": {}, "left_out_more": 0, "passed_over": 0}

    def legend(**kinds: Any) -> list[str]:
        by_playbook, by_command = plan.plan_text(empty | kinds, []), seeding.plan_text(empty | kinds)
        found = [
            [line for line in text.splitlines() if line.startswith("  (") and line.endswith(")")]
            for text in (by_playbook, by_command)
        ]
        assert found[0] == found[1], "the command explains them in the same way"
        return found[0]

    signed = {"name": "quay.io/x/y:1", "other_names": 0, "digests": [NEW]}
    covered = {"name": "quay.io/x/y:1", "old": OLD, "new": NEW}
    assert legend(removed=[{"name": "quay.io/x/y:1", "digest": OLD, "pinned": False}]) == []
    assert legend(completed=["quay.io/x/y:1"]) == ["  (fill: gets more platforms)"]
    (line,) = legend(completed=["quay.io/x/y:1"], referrers=[signed], covers_pushed=[covered])
    assert (
        line
        == "  (fill: gets more platforms; sign: gets signatures or attestations; cover: hides what an operator pushed)"
    )
    assert len(line) <= 116, "a longer line is cut on a screen"


def test_an_empty_plan_says_what_was_left_out() -> None:
    assert "  note: x.tar: left out" in plan.plan_text({**EMPTY, "notes": ["x.tar: left out"]}, []).splitlines()


def test_a_pinned_name_that_would_move_is_marked_and_the_refusal_shows_the_plan() -> None:
    images = {**IMAGES, "moved": [{**IMAGES["moved"][0], "pinned": True}]}
    line = "  move  docker.io/library/redis:7    sha256:aaaaaaaaaaaa -> sha256:bbbbbbbbbbbb  (pinned)"
    assert line in plan.plan_text(images, []).splitlines()
    refused = {"rc": 1, "stdout": json.dumps(images), "stderr": "APL-0141: the sources would move pinned names\n{}"}
    shown = plan.plan_refusal(refused).splitlines()
    assert line in shown
    assert shown[-1] == "APL-0141: the sources would move pinned names"
    failed = {"rc": 1, "stdout": "", "stderr": "APL-0107: the file is not what it says [x.tar]"}
    assert plan.plan_refusal(failed) == "APL-0107: the file is not what it says [x.tar]"


OPTIONS: dict[str, Any] = {
    "sources": ["/media/stick/", "/srv/more.tar"],
    "names": ["app:1"],
    "allow": {},
    "remove": [],
    "move_pinned": ["docker.io/library/redis:7"],
    "older": False,
    "other_site": False,
    "platforms": [],
    "any_platform": False,
    "machines": ["x86_64", "x86_64"],
    "staging": "",
    "controller_sources": [],
    "controller_staging": "/var/carried",
}


def test_the_options_of_plan_and_seed() -> None:
    assert plan.plan_options(OPTIONS) == [
        "--platform=linux/amd64",
        "--name=app:1",
        "--move-pinned=docker.io/library/redis:7",
        "--json",
        "--",
        "/media/stick/",
        "/srv/more.tar",
    ]
    allow = {"/media/stick/": ["docker.io/rancher/*", "nginx"], "*": "ksd.test.com/*"}
    more = {**OPTIONS, "platforms": ["linux/arm64"], "any_platform": True, "allow": allow}
    words = plan.plan_options(more)
    assert words[:2] == ["--platform=linux/arm64", "--any-platform"]
    allowed = [word for word in words if word.startswith("--allow")]
    assert allowed == [
        "--allow=/media/stick/=docker.io/rancher/*",
        "--allow=/media/stick/=nginx",
        "--allow=ksd.test.com/*",
    ]


def test_what_leaves_and_what_is_agreed_to_are_options_too() -> None:
    words = plan.plan_options(
        {**OPTIONS, "sources": [], "remove": ["app:1", "web:2"], "older": True, "other_site": True}
    )
    assert words == [
        "--platform=linux/amd64",
        "--name=app:1",
        "--remove=app:1",
        "--remove=web:2",
        "--move-pinned=docker.io/library/redis:7",
        "--allow-downgrade",
        "--allow-other-site",
        "--json",
        "--",
    ]


def test_what_is_carried_from_the_controller_keeps_its_allow_list() -> None:
    words = plan.plan_options({**OPTIONS, "staging": "/var/staging", "allow": {"/media/stick": ["nginx"]}})
    assert "--allow=/var/staging/stick=nginx" in words
    assert words[-2:] == ["/var/staging/stick", "/var/staging/more.tar"]


def test_archives_of_k3s_come_from_the_controller_wherever_the_medium_is() -> None:
    files = ["/srv/k3s/pause.tar", "/srv/more.tar"]
    words = plan.plan_options({**OPTIONS, "controller_sources": files})
    assert words[-4:] == ["/media/stick/", "/srv/more.tar", "/var/carried/pause.tar", "/var/carried/more.tar"]
    # Allow-lists are for media: these files may come with any.
    words = plan.plan_options({**OPTIONS, "controller_sources": files, "allow": {"*": "nginx"}})
    assert "--allow=/var/carried/pause.tar=*" in words and "--allow=nginx" in words
    # One that is a source of its own as well is read once.
    both = plan.plan_options({**OPTIONS, "controller_sources": files, "staging": "/var/carried"})
    assert both[-3:] == ["/var/carried/stick", "/var/carried/more.tar", "/var/carried/pause.tar"]


def test_archives_of_k3s_for_the_sites_architecture_are_taken() -> None:
    release = "/srv/k3s-airgap-images-{}.tar.zst"
    every = [release.format("amd64"), release.format("arm64"), "/srv/own.tar", "/srv/list.txt"]
    hostvars: dict[str, dict[str, Any]] = {
        "a": {"k3s_airgap_images": every, "ansible_facts": {"architecture": "x86_64"}},
        "b": {"k3s_airgap_images": every, "ansible_facts": {"architecture": "x86_64"}},
        "c": {},
    }
    assert plan.plan_k3s_archives(hostvars, "abc") == [release.format("amd64"), "/srv/own.tar"]
    assert plan.plan_k3s_notes(plan.plan_k3s_archives(hostvars, "abc"), hostvars, "abc") == []
    hostvars["c"]["ansible_facts"] = {"architecture": "aarch64"}
    # Two architectures have two images under each name, and a registry has one.
    assert plan.plan_k3s_archives(hostvars, "abc") == ["/srv/own.tar"]
    (note,) = plan.plan_k3s_notes(["/srv/own.tar"], hostvars, "abc")
    assert "k3s-airgap-images-amd64.tar.zst, k3s-airgap-images-arm64.tar.zst: they have the same names" in note
    assert plan.plan_k3s_archives({"a": {"k3s_airgap_images": every[1:]}}, "a") == every[1:3]
    assert plan.plan_k3s_archives({"a": {}}, "a") == []


@pytest.mark.parametrize("nothing", [[], None, ""])
def test_an_allow_list_without_patterns_does_not_mean_everything(nothing: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="APL-0143"):
        plan.plan_options({**OPTIONS, "allow": {"/media/stick": nothing}})


def test_machines_are_those_of_the_nodes_that_were_asked() -> None:
    hostvars: dict[str, dict[str, Any]] = {"a": {"ansible_facts": {"architecture": "aarch64"}}, "b": {}}
    assert plan.plan_machines(hostvars, ["a", "b"]) == ["aarch64"]


LEAVING = {
    **IMAGES,
    "removed": [{"name": "docker.io/library/old:1", "digest": OLD, "pinned": True}],
    "steps_back": [{"name": "docker.io/library/redis:7", "old": OLD, "new": NEW, "number": 2}],
    "medium": {"/media/stick": {"site": "harbour", "id": "q1", "created": "2026-01-01", "note": "K3s"}},
    "uncovers_pushed": [{"name": "docker.io/library/old:1", "old": OLD, "new": NEW}],
    "older_media": {"/media/stick": {"id": "q1", "created": "2026-01-01", "newest": "2026-04-01"}},
}


def test_names_that_leave_steps_back_and_the_medium_are_shown() -> None:
    assert plan.plan_text(LEAVING, []).splitlines()[2:9] == [
        "Images: generation 3 is served now; generation 4 will be published.",
        "  add     ksd.test.com/ksd/nginx:1.27  sha256:bbbbbbbbbbbb  12.3 MiB",
        "  move    docker.io/library/redis:7    sha256:aaaaaaaaaaaa -> sha256:bbbbbbbbbbbb  (back to what generation 2 had)",
        "  remove  docker.io/library/old:1      sha256:aaaaaaaaaaaa  (pinned)",
        "  then what an operator pushed is served: docker.io/library/old:1  sha256:bbbbbbbbbbbb",
        "  1 name stays as it is.",
        "  medium: q1, for harbour, made 2026-01-01 (K3s), older than one of 2026-04-01 that was published",
    ]


def test_a_plan_that_only_takes_names_away_is_not_empty() -> None:
    gone = {**EMPTY, "removed": LEAVING["removed"]}
    assert plan.plan_publishes(gone) and not plan.plan_is_empty(gone, [])
    assert "generation 4 will be published" in plan.plan_text(gone, [])


BACK = {
    **EMPTY,
    "moved": IMAGES["moved"],
    "sources": [],
    "target": {"number": 2, "created": "2026-01-01T00:00:00+00:00", "sources": ["/media/q1"]},
    "missing": [{"name": "docker.io/library/redis:7", "blobs": [OLD]}],
}


def test_a_rollback_says_to_what_and_what_it_cannot_bring_back() -> None:
    lines = plan.plan_text(BACK, []).splitlines()
    assert lines[2] == (
        "Images: generation 3 is served now; generation 4 will be published, "
        "with what generation 2 of 2026-01-01T00:00:00+00:00 had (/media/q1)."
    )
    assert "  cannot be brought back: docker.io/library/redis:7 lacks sha256:aaaaaaaaaaaa" in lines
    refused = {"rc": 1, "stdout": json.dumps(BACK), "stderr": "APL-0354: generation 2 cannot be brought back\n{}"}
    assert plan.plan_refusal(refused).splitlines()[-1].startswith("APL-0354")
    done = {**BACK, "moved": [], "missing": []}
    assert plan.plan_text(done, []) == "Nothing to do: generation 3 is served, with what generation 2 had."


def test_the_options_of_rollback() -> None:
    given = {"to": "", "at": "2026-04-01T08:00", "medium": ""}
    assert plan.rollback_options(given, ["app:1"]) == ["--at=2026-04-01T08:00", "--move-pinned=app:1"]
    assert plan.rollback_options({"to": "41", "at": "", "medium": ""}, []) == ["--to=41"]


def test_who_runs_a_playbook() -> None:
    assert operator({}, "jo", "controller") == "jo@controller"
    assert operator({"SUDO_USER": "jo"}, "root", "controller") == "jo@controller"
    assert operator({"SUDO_USER": "jo", "APPLIANCE_BY": "Jo, change 4711"}, "root", "c") == "Jo, change 4711"


def test_the_plan_names_the_medium_of_each_source() -> None:
    names = ["STICK (UUID 1B2C-3D4F)", "q1"]
    sources = [{**source, "medium": name} for source, name in zip(IMAGES["sources"], names, strict=True)]
    text = plan.plan_text({**IMAGES, "sources": sources}, [])
    assert "  read and verified: /media/stick/a.tar (12.4 MiB), from STICK (UUID 1B2C-3D4F)\n" in text + "\n"
    assert "  not there, but published before: /media/stick/b.tar, from q1\n" in text + "\n"


# -- on the screen ---------------------------------------------------------------------------------------------------


def _site(count: int, names: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A plan that changes much: many names of each kind, and nodes that are alike but for their role."""
    added = [{"name": f"ksd.test.com/team/service-{n}:1", "digest": NEW, "size": 5_000_000} for n in range(names)]
    moved = [{"name": f"docker.io/library/base-{n}:7", "old": OLD, "new": NEW} for n in range(names)]
    removed = [{"name": f"quay.io/old/thing-{n}:1", "digest": OLD} for n in range(names)]
    sources = [{"path": f"/media/stick/{n}.tar", "state": "read", "bytes": 1} for n in range(names)]
    images = {**IMAGES, "added": added, "moved": moved, "removed": removed, "sources": sources}
    changes = [f"/etc/appliance/file-{n} is written" for n in range(14)]
    hostvars = {
        f"n{n}": {
            "__mirror_plan": changes,
            "__mirror_restarts": ["appliance-agent.service", "appliance-mirror.service"],
            "__k3s_plan": [f"/etc/rancher/k3s/only-{n} is written"] * 3,
            "__k3s_restart": n == 0,
            "__plan_report": REPORT,
        }
        for n in range(count)
    }
    return images, plan.plan_nodes(hostvars, list(hostvars), images, {**SETTINGS, "seed_host": "n0"})


def test_at_three_nodes_all_from_the_images_to_the_question_fits_a_terminal() -> None:
    images, nodes = _site(3, 300)
    shown = plan.plan_screen(images, nodes, 300, "/srv/site/inventory/plan/latest.txt").splitlines()
    # The banner of the task, the host's name, and the question with its banner take six lines.
    assert len(shown) + 6 <= 40
    assert all(len(line) <= 118 for line in shown), "two columns are the indent of the screen"
    noted = plan.plan_screen({**images, "notes": ["x" * 200]}, nodes).splitlines()
    assert all(len(line) <= 118 for line in noted) and "x" * 200 in plan.plan_text(
        {**images, "notes": ["x" * 200]}, nodes
    )
    for word in ("299 more to add", "299 more to move", "299 more to remove", "299 more sources"):
        assert any(word in line for line in shown), word


def test_the_summary_stands_last_and_has_five_lines() -> None:
    images, nodes = _site(3, 2)
    staged = {**images, "bytes_staged": 9_000_000, "staged_until": "2026-11-30T20:15:00Z"}
    head, *lines = plan.plan_screen(staged, nodes, 300, "/srv/plan/latest.txt").splitlines()[-6:]
    assert head == "In short:"
    assert lines == [
        "  images     generation 4: 2 added, 2 moved, 2 removed, 1 stay; 8.6 MiB new, kept already",
        "  nodes      the configuration of 3 of 3 changes: n0, n1, n2",
        "  restarts   appliance-agent, appliance-mirror on n0, n1, n2; K3s on n0",
        "  duration   publishing takes seconds, because the medium is not read again; K3s takes up to some minutes a node",
        "  all of it  /srv/plan/latest.txt",
    ]


def test_no_line_of_the_summary_is_wider_than_the_screen() -> None:
    images, nodes = _site(3, 2)
    images |= {
        "completed": ["x"],
        "referrers": [{"name": "y", "digests": ["d"], "other_names": 0}],
        "left_out_more": 1,
        "bytes_staged": 1,
        "staged_until": None,
    }
    images |= {"added": images["added"] * 90, "moved": images["moved"] * 90, "unchanged": images["unchanged"] * 9000}
    shown = plan.plan_screen(
        images, [{**node, "host": f"{'long-' * 9}{node['host']}"} for node in nodes], 300, ""
    ).splitlines()
    summary = shown[shown.index("In short:") + 1 :]
    assert len(summary) == 5 and all(len(line) <= 118 for line in summary)
    assert summary[0].endswith("...") and "1 file is left out" in summary[0]


def test_a_first_start_of_k3s_counts_among_the_restarts() -> None:
    nodes = [{**_site(1, 1)[1][0], "changes": ["k3s-agent.service starts"], "restarts": []}]
    shown = plan.plan_screen(IMAGES, nodes).splitlines()
    assert "  restarts   K3s (starts) on n0" in shown and any(
        "K3s takes up to some minutes a node" in line for line in shown
    )


def test_a_medium_that_found_no_room_is_said_to_be_read_again() -> None:
    images, nodes = _site(1, 1)
    shown = plan.plan_screen({**images, "staged_until": None}, nodes, 240, "").splitlines()
    assert "  duration   the medium is read again, about 4 min; K3s takes up to some minutes a node" in shown
    assert shown[-1] == "  all of it  stands above"


def test_what_holds_for_every_node_is_said_once() -> None:
    images, nodes = _site(12, 1)
    text = plan.plan_text(images, nodes)
    assert text.count("/etc/appliance/file-3 is written") == 1
    assert text.count("/etc/rancher/k3s/only-3 is written") == 3
    alike = [{**node, "changes": ["x"], "restarts": [], "writes": 1, "exact": False} for node in nodes]
    assert "  n0, n1, n2, n3, n4, n5, n6, n7 and 4 more: about 1 B to write to the store, at least 40.0 GiB free" in (
        plan.plan_text(images, alike)
    )


def test_what_was_verified_before_is_not_said_to_be_read() -> None:
    images = {**IMAGES, "sources": [{"path": "/media/stick/a.tar", "state": "verified-before", "bytes": 7}]}
    assert "  verified by an earlier run, not read again: /media/stick/a.tar" in plan.plan_text(images, []).splitlines()


def test_a_no_says_until_when_it_is_kept() -> None:
    kept = plan.plan_kept({"staged_until": "2026-11-30T20:15:59.123Z"}, "a")
    assert kept == "What was verified is kept on a until 2026-11-30 20:15 UTC: run it again and it asks at once."
    assert plan.plan_kept({"staged_until": None}, "a") == plan.plan_kept(None, "a") == ""


def test_a_stop_while_publishing_says_which_generation_is_served() -> None:
    stops = plan.plan_stops(IMAGES, "a")
    assert stops["stopped"] == "Nothing was published: a serves generation 3 as before."
    assert stops["switched"].startswith("Generation 4 was published before the run stopped")
    assert plan.plan_stops({**IMAGES, "generation": None}, "a")["stopped"] == (
        "Nothing was published: nothing is served yet."
    )
