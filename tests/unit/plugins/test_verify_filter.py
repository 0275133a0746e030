"""containerd's lookup, images that nobody else can pull, and the site's table."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "collections"))
verify: Any = importlib.import_module("ansible_collections.site.appliance.plugins.filter.verify")
registries: Any = importlib.import_module("ansible_collections.site.appliance.plugins.filter.registries")
GOLDEN = Path(__file__).parent / "golden"
OURS = registries.CERTS_DIR
K3S = registries.K3S_CERTS_DIR
CONFIG = "/var/lib/rancher/k3s/agent/etc/containerd"
MIRROR = "http://127.0.0.1:5000/v2"
EMBEDDED = "https://127.0.0.1:6443/v2"
K3S_FILE = (GOLDEN / "k3s-hosts.toml").read_text(encoding="utf-8")
OUR_FILE = registries.hosts_toml(MIRROR, True)
DIGEST = "sha256:" + "ab" * 32

MAIN = f"""version = 3
imports = ["{CONFIG}/config-v3.toml.d/*.toml"]
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "{K3S}"
"""


def files(dropin: bool = True) -> dict[str, str]:
    result = {f"{CONFIG}/config.toml": MAIN, f"{CONFIG}/config.toml.d/10-old.toml": "not = [ toml"}
    if dropin:
        result[f"{CONFIG}/config-v3.toml.d/20-appliance.toml"] = registries.dropin_toml()
    return result


# --------------------------------------------------------------------------------------------------- lookup


def test_the_dropin_puts_our_directory_first() -> None:
    assert verify.containerd_roots(files()) == [OURS, K3S]
    assert verify.containerd_roots(files(dropin=False)) == [K3S]
    assert verify.containerd_roots({}) == []


def test_a_later_dropin_wins_and_one_that_is_not_imported_does_not_count() -> None:
    given = files()
    given[f"{CONFIG}/config-v3.toml.d/90-other.toml"] = (
        "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/other'\n"
    )
    assert verify.containerd_roots(given) == ["/other"]


def test_a_configuration_that_cannot_be_read_is_said() -> None:
    given = files()
    given[f"{CONFIG}/config-v3.toml.d/20-appliance.toml"] = "no toml ["
    with pytest.raises(ValueError, match="20-appliance"):
        verify.containerd_roots(given)
    assert "20-appliance" in verify.check_order(given, {}, {"a.example": [MIRROR]}, True)[0]


def lookup(hosts: dict[str, dict[str, str | None]], registry: str) -> tuple[str, list[str], str]:
    found = verify.containerd_lookup([OURS, K3S], hosts, registry)
    return found["directory"], found["urls"], found["default"]


def test_first_directory_first() -> None:
    hosts: dict[str, dict[str, str | None]] = {OURS: {"ksd.test.com": OUR_FILE}, K3S: {"ksd.test.com": K3S_FILE}}
    assert lookup(hosts, "ksd.test.com") == (f"{OURS}/ksd.test.com", [MIRROR, EMBEDDED], "")


def test_a_default_belongs_to_its_own_directory() -> None:
    hosts: dict[str, dict[str, str | None]] = {OURS: {"_default": OUR_FILE}, K3S: {"ksd.test.com": K3S_FILE}}
    assert lookup(hosts, "ksd.test.com")[0] == f"{OURS}/_default"
    hosts = {OURS: {"other.example": OUR_FILE}, K3S: {"_default": K3S_FILE}}
    assert lookup(hosts, "ksd.test.com") == (f"{K3S}/_default", [EMBEDDED, MIRROR], "")


def test_the_underscored_name_shadows_the_one_with_a_colon() -> None:
    hosts: dict[str, dict[str, str | None]] = {
        OURS: {},
        K3S: {"reg.local_5000_": OUR_FILE, "reg.local:5000": K3S_FILE, "_default": K3S_FILE},
    }
    assert lookup(hosts, "reg.local:5000")[0] == f"{K3S}/reg.local_5000_"
    assert verify.directory_names("ksd.test.com") == ["ksd.test.com", "_default"]


def test_nothing_found_goes_out() -> None:
    assert lookup({}, "docker.io") == ("", [], "https://registry-1.docker.io/v2")


def test_a_directory_without_a_file_goes_out() -> None:
    assert lookup({OURS: {"quay.io": None}, K3S: {"_default": K3S_FILE}}, "quay.io") == (
        f"{OURS}/quay.io",
        [],
        "https://quay.io/v2",
    )


def test_server_lines() -> None:
    hosts: dict[str, dict[str, str | None]] = {K3S: {"_default": f'server = ""\n{K3S_FILE}'}}
    assert lookup(hosts, "quay.io")[2] == "https://quay.io/v2"
    hosts = {K3S: {"quay.io": f'server = "https://quay.io"\n{K3S_FILE}'}}
    assert lookup(hosts, "quay.io")[2] == "https://quay.io/v2"
    hosts = {K3S: {"quay.io": "[host]\n"}}
    assert lookup(hosts, "quay.io")[2] == "https://quay.io/v2"


def test_order_as_the_roles_leave_it_is_right() -> None:
    rendered = registries.registries_render(
        {"mirrors": ["ksd.test.com"], "served": ["docker.io"], "seeds": ["10.77.0.11:5443"]}
    )
    hosts: dict[str, dict[str, str | None]] = {
        OURS: {name.split("/")[0]: text for name, text in rendered["hosts"].items()},
        K3S: {"ksd.test.com": K3S_FILE, "_default": K3S_FILE},
    }
    assert verify.check_order(files(), hosts, rendered["expected"], True) == []
    hosts[OURS].pop("docker.io")
    wrong = verify.check_order(files(), hosts, rendered["expected"], True)
    assert len(wrong) == 1
    assert wrong[0].startswith(f"docker.io: asks {EMBEDDED} then {MIRROR}, not {MIRROR} then {EMBEDDED}")


def test_a_default_endpoint_is_wrong_unless_it_is_on_this_host() -> None:
    expected = {"*": [EMBEDDED, MIRROR]}
    out: dict[str, dict[str, str | None]] = {K3S: {"_default": f'server = ""\n{K3S_FILE}'}}
    assert "https://not-listed.invalid/v2" in verify.check_order(files(), out, expected, True)[0]
    here: dict[str, dict[str, str | None]] = {K3S: {"_default": f'server = "http://127.0.0.1:9/v2"\n{K3S_FILE}'}}
    assert verify.check_order(files(), here, expected, True) == []


def test_a_registry_inside_the_site_may_be_its_own_default() -> None:
    text = f'server = "https://reg.site"\n[host."{EMBEDDED}"]\n'
    assert (
        verify.check_order(files(), {K3S: {"reg.site": text}}, {"reg.site": [EMBEDDED, "https://reg.site/v2"]}, True)
        == []
    )


def test_no_configuration_at_all_is_said() -> None:
    assert "config_path" in verify.check_order({}, {}, {"a.example": [MIRROR]}, True)[0]


# --------------------------------------------------------------------------------------------------- images

LISTING = f"""REF                                  TYPE                                                 DIGEST   SIZE     PLATFORMS   LABELS
docker.io/library/alone:1            application/vnd.docker.distribution.manifest.v2+json {DIGEST} 3.6 MiB  linux/amd64 -
docker.io/library/pulled:1           application/vnd.oci.image.index.v1+json              {DIGEST} 3.6 MiB  linux/amd64 io.cri-containerd.image=managed
docker.io/library/pulled@{DIGEST}    application/vnd.oci.image.index.v1+json              {DIGEST} 3.6 MiB  linux/amd64 io.cri-containerd.image=managed
ksd.test.com:5000/ksd/nginx:1.27     application/vnd.oci.image.index.v1+json              {DIGEST} 3.6 MiB  linux/amd64 -
nginx:latest                         application/vnd.oci.image.index.v1+json              {DIGEST} 3.6 MiB  linux/amd64 -
{DIGEST}                             application/vnd.oci.image.index.v1+json              {DIGEST} 3.6 MiB  linux/amd64 -
"""


def test_images_that_nobody_else_can_pull() -> None:
    images = verify.parse_images(LISTING)
    assert len(images) == 6
    found = verify.unshared_images(images, {})
    assert [item["name"] for item in found] == ["docker.io/library/alone:1", "ksd.test.com:5000/ksd/nginx:1.27"]
    assert found[1]["command"] == (
        f"k3s ctr -n k8s.io images tag ksd.test.com:5000/ksd/nginx:1.27 ksd.test.com:5000/ksd/nginx@{DIGEST}"
    )


def test_what_the_mirror_serves_is_no_problem_but_another_content_is() -> None:
    images = {"docker.io/library/alone:1": DIGEST}
    assert verify.unshared_images(images, {"docker.io/library/alone:1": DIGEST}) == []
    assert len(verify.unshared_images(images, {"docker.io/library/alone:1": "sha256:" + "0" * 64})) == 1


@pytest.mark.parametrize("wrapped", [False, True])
def test_mirror_images(wrapped: bool) -> None:
    rows = [{"name": "a.example/b:1", "digest": DIGEST}, {"name": "no digest"}]
    assert verify.mirror_images(json.dumps({"images": rows} if wrapped else rows)) == {"a.example/b:1": DIGEST}
    assert verify.mirror_images("Traceback") == {} and verify.mirror_images('"text"') == {}


# --------------------------------------------------------------------------------------------------- rows and table


def spec(**changes: Any) -> dict[str, Any]:
    status = {
        "node": "a",
        "generation": {"number": 3, "digest": DIGEST},
        "names": 12,
        "registries": ["ksd.test.com"],
        "wanted_missing": 0,
        "peers": [
            {"id": "a", "address": "10.77.0.11", "state": "up"},
            {"id": "b", "address": "10.77.0.12", "state": "up"},
        ],
    }
    base: dict[str, Any] = {
        "name": "a",
        "role": "server",
        "version": "v1.36.3+k3s1",
        "state": {"known": True, "ready": True, "version": "v1.36.3+k3s1", "why": ""},
        "status": json.dumps({**status, **changes.pop("status", {})}),
        "files": files(),
        "hosts": {OURS: {"ksd.test.com": OUR_FILE}, K3S: {"_default": K3S_FILE}},
        "expected": {"ksd.test.com": [MIRROR, EMBEDDED], "*": [EMBEDDED, MIRROR]},
        "wildcard": True,
        "image": "ksd.test.com/ksd/nginx:1.27",
        "pull_rc": 0,
        "pull_time": "0:00:00.314159",
        "images": "",
        "mirror_images": "[]",
    }
    return {**base, **changes}


def test_a_good_node() -> None:
    row = verify.verify_node(spec())
    assert row["problems"] == [] and row["bad"] == [] and row["notes"] == []
    assert row["cells"] == {
        "node": "a",
        "role": "server",
        "K3s": "v1.36.3+k3s1",
        "ready": "yes",
        "generation": "3 abababababab",
        "names": "12",
        "order": "ok",
        "pull": "0.31 s",
        "peers": "1/1",
        "missing": "0",
        "pods": "-",
    }


TROUBLE = {
    "peer": "b",
    "about": "generation",
    "reason": "APL-0430: a peer sent an invalid answer",
    "keeps_back": "generation 7",
    "since": "2026-11-30T05:00:00+00:00",
    "times": 3,
    "ended": None,
}


@pytest.mark.parametrize(
    ("changes", "column", "code", "words"),
    [
        ({"version": ""}, "K3s", "APL-0901", "not installed"),
        ({"version": "v1.36.4+k3s1"}, "K3s", "APL-0901", "another version"),
        ({"state": {"ready": False, "why": "cni missing"}}, "ready", "APL-0902", "cni missing"),
        ({"hosts": {}}, "order", "APL-0904", "any other registry"),
        ({"expected": None}, "order", "APL-0904", "cannot be judged"),
        ({"pull_rc": 1, "pull_error": "a\nnot found\n"}, "pull", "APL-0905", "not found"),
        ({"status": {"wanted_missing": 2}}, "missing", "APL-0908", "2 blobs"),
        (
            {"status": {"foreign_listeners": [{"words": "127.0.0.1:5000 (user 1000, process 7 nc)"}]}},
            "order",
            "APL-0917",
            "process 7 nc",
        ),
        (
            {"status": {"foreign_listeners": [{"service": "peer", "words": "0.0.0.0:5443 (user 1000)"}]}},
            "peers",
            "APL-0917",
            "in place of the peer service",
        ),
        (
            {"status": {"peers": [{"id": "b", "address": "10.77.0.12", "state": "down"}]}},
            "peers",
            "APL-0909",
            "10.77.0.12",
        ),
        ({"status": {"troubles": [TROUBLE]}}, "peers", "APL-0432", "it keeps back generation 7"),
        (
            {"status": {"troubles": [TROUBLE | {"peer": "", "about": "generation in the store"}]}},
            "generation",
            "APL-0432",
            "this node (generation in the store)",
        ),
    ],
)
def test_a_bad_cell(changes: dict[str, Any], column: str, code: str, words: str) -> None:
    row = verify.verify_node(spec(**changes))
    assert set(row["bad"]) == {column}
    assert [line for line in row["problems"] if line.startswith(code) and words in line], row["problems"]


def test_troubles_that_ended_spoil_no_cell() -> None:
    """They are in the status for an hour; a ping that failed is the column's own."""
    over = [TROUBLE | {"ended": "2026-11-30T05:10:00+00:00"}, TROUBLE | {"about": "ping"}]
    row = verify.verify_node(spec(status={"troubles": over}))
    assert not row["bad"]


def test_a_mirror_that_does_not_answer() -> None:
    row = verify.verify_node({**spec(), "status": "", "status_error": "Connection refused"})
    assert row["bad"] == ["generation"]
    assert "Connection refused" in row["problems"][0]


def test_a_site_without_images_is_no_fault() -> None:
    row = verify.verify_node(spec(status={"generation": None, "names": 0}, image="", pull_rc=1))
    assert row["problems"] == [] and row["cells"]["generation"] == "none" and row["cells"]["pull"] == "-"


def test_unshared_images_and_open_names_are_worth_knowing() -> None:
    row = verify.verify_node(spec(images=LISTING, wildcard=False))
    assert row["problems"] == []
    assert any("images tag docker.io/library/alone:1" in line for line in row["notes"])
    (open_line,) = [line for line in row["notes"] if line.startswith("APL-0907")]
    assert "docker.io" in open_line and "registries_wildcard" in open_line


def test_the_sites_table() -> None:
    good = verify.verify_node(spec())
    bad = verify.verify_node({**spec(pull_rc=1, pull_error="not found"), "name": "b", "role": "agent"})
    site = verify.verify_site([bad, good], {"c": "agent"})
    assert site["table"].split("\n") == [
        "node  role    K3s           ready         generation      names  order  pull     peers  missing  pods",
        "----  ------  ------------  ------------  --------------  -----  -----  -------  -----  -------  ----",
        "a     server  v1.36.3+k3s1  yes           3 abababababab  12     ok     0.31 s   1/1    0        -",
        "b     agent   v1.36.3+k3s1  yes           3 abababababab  12     ok     !failed  1/1    0        -",
        "c     agent   -             !unreachable  -               -      -      -        -      -        -",
    ]
    assert [line.split(":")[0] for line in site["problems"]] == ["APL-0905", "APL-0910"]


def test_nodes_that_serve_different_generations() -> None:
    behind = verify.verify_node({**spec(status={"generation": {"number": 2, "digest": DIGEST}}), "name": "b"})
    site = verify.verify_site([verify.verify_node(spec()), behind])
    assert site["problems"][0].startswith("APL-0911") and "2 abababababab: b" in site["problems"][0]
    assert site["table"].count("!") == 2


# ------------------------------------------------------------------------------------------------------------- cluster

PODS = {
    "error": "",
    "absent": [],
    "settled": True,
    "pods": [
        {"pod": "n/good", "node": "node-a", "state": "ok", "reason": "", "message": "", "images": ["good:1"]},
        {"pod": "n/bad", "node": "node-a", "state": "stuck", "reason": "CrashLoopBackOff", "message": "", "images": []},
        {"pod": "n/else", "node": "node-b", "state": "stuck", "reason": "Error", "message": "", "images": []},
    ],
    "workloads": [],
}


def test_the_pods_of_a_node_are_counted_and_those_that_do_not_start_are_named() -> None:
    row = verify.verify_node(spec(cluster=PODS, node_name="node-a"))
    assert row["cells"]["pods"] == "1/2" and row["bad"] == ["pods"]
    (line,) = row["problems"]
    assert line.startswith("APL-0912: the pod n/bad does not start [a]: CrashLoopBackOff")


def test_a_wrong_sample_makes_the_pull_wrong_and_the_answer_is_told() -> None:
    proof = {"wrong": [{"name": "a/b:1", "expected": "sha256:1", "answered": "503 no peer has it"}], "pull": ""}
    row = verify.verify_node(spec(proof=json.dumps(proof)))
    assert row["cells"]["pull"] == "wrong" and row["problems"][0].startswith("APL-0916")
    assert "503 no peer has it" in row["problems"][0]


def test_a_sample_that_was_not_taken_is_no_good_sample() -> None:
    row = verify.verify_node(spec(proof="", proof_error="APL-0404: the mirror of this node does not answer"))
    assert row["cells"]["pull"] == "no sample" and "does not answer" in row["problems"][0]
    # A mirror that does not answer at all is told once.
    down = verify.verify_node({**spec(proof_error="no such file"), "status": ""})
    assert down["bad"] == ["generation"]


def test_containerd_pulls_a_proved_name_and_the_hashed_bytes_are_counted() -> None:
    samples = [{"stdout": json.dumps({"pull": "a/b:1", "blobs": 3, "bytes": 2 << 20})}, {"stdout": "Traceback"}, {}]
    assert verify.verify_sampled(samples[0]["stdout"]) == "a/b:1"
    assert verify.verify_sampled("Traceback") == ""
    assert verify.verify_hashed(samples) == "3, 2.0 MiB on 3 nodes"


def test_the_image_of_every_pod_stands_in_containerds_configuration() -> None:
    new = "[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'rancher/mirrored-pause:3.6'\n"
    old = "[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'rancher/pause:3'\n"
    assert verify.sandbox_image({f"{CONFIG}/config.toml": new}) == "rancher/mirrored-pause:3.6"
    assert verify.sandbox_image({f"{CONFIG}/config.toml": old}) == "rancher/pause:3"
    assert verify.sandbox_image({f"{CONFIG}/config.toml": "no toml ["}) == "" and verify.sandbox_image({}) == ""


def test_an_image_is_there_where_a_mirror_serves_it_or_a_containerd_has_it() -> None:
    def cluster(served: str, held: str) -> list[str]:
        row = verify.verify_node(spec(cluster=PODS, node_name="node-a"))
        given = {"pods": PODS, "served": [served], "held": [held], "expected": spec()["expected"]}
        lines = verify.verify_site([row], None, given)["problems"]
        return [line for line in lines if line.startswith("APL-0913")]

    name = "docker.io/library/good:1"
    assert cluster("", "") and name in cluster("", "")[0]
    assert cluster(json.dumps([{"name": name, "digest": DIGEST}]), "") == []
    assert cluster("", f"REF TYPE DIGEST SIZE\n{name} application/vnd {DIGEST} 1 MiB\n") == []


def test_pods_of_nodes_that_were_not_asked_are_told_for_the_cluster() -> None:
    row = verify.verify_node(spec(cluster=PODS, node_name="node-a"))
    lines = verify.verify_site([row], None, {"pods": PODS, "served": [], "held": [], "expected": None})["problems"]
    assert [line for line in lines if "n/else" in line and "[cluster]" in line]
    silent = verify.verify_site([row], None, {"pods": {}, "served": [], "held": [], "expected": None})["problems"]
    assert [line for line in silent if line.startswith("APL-0914")]
