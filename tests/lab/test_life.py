"""The life of a site, in order: each test goes on from where the one before left it.

Images come, move and are taken back while a container (with a real K3s: a pod) runs on b throughout; hosts are lost and made
anew; at last the appliance goes, and comes back from its backup. No clock is moved.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import releases
from tests.lab.host import Host
from tests.lab.images import NGINX, TOOL, ImageSpec
from tests.lab.life import (
    LIVING,
    NOBODY_HAS,
    STORE,
    Life,
    add_pod,
    appliance,
    begun,
    pulling,
    remove_pod,
    start_container,
)
from tests.lab.scenario import PAUSE
from tests.lab.story import KUBECTL, STICK, UNITS, Run, digest_of, must_pull, status, wait_ready
from tests.lab.trace import differences, look, look_at

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

# The next quarter's stick: an image of a registry that is new to the site, and a tag that moves.
FRESH = ImageSpec("fresh.test/new/app:1", page="hello from what is new", payload_mib=1)
MOVED_TOOL = ImageSpec(TOOL.name, page="hello from the tool that moved", payload_mib=1)
# What is served when the backup is taken.
KEPT = tuple(ImageSpec(name, page=f"{name} as it is kept", payload_mib=1) for name in (TOOL.name, FRESH.name))
TOKEN, AGENT_TOKEN = "/etc/rancher/k3s/cluster-token", "/etc/rancher/k3s/agent-token"
# What a backup brings back, and where it lies: on the publisher, and on K3s's server.
KEPT_FILES = {
    **{f"{STORE}/{name}": "a" for name in ("index.json", "pins.json", "journal.jsonl")},
    TOKEN: "b",
    AGENT_TOKEN: "b",
}
# What passwd's tools keep of the files before, the directory that Debian's containerd makes for itself (the stand-in runs that one), what
# Python and ldconfig remember, what systemd mounts for a unit of its own while that runs, and what belongs to kernel modules, which stay
# until the next boot.
LEFT = (
    r"file /etc/((g?shadow|group|passwd|subuid|subgid)-|cni|\.pwd\.lock)|file /var/cache/ldconfig|file \S+/__pycache__"
    r"|mount /(media|run/credentials)/|sysctl net\.(bridge|netfilter)\."
)


def changed(
    before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]], allowed: str
) -> dict[str, list[str]]:
    """What differs on each host; nothing of a host that is the same."""
    found = {name: differences(before[name], after[name], allowed) for name in after}
    return {name: lines for name, lines in found.items() if lines}


def had_before(host: Host) -> None:
    """Give a host what the appliance will write over: a registries.yaml on b, and a kernel that forwards nothing on c."""
    if host.name == "b":
        host.write("/etc/rancher/k3s/registries.yaml", "# the site's own\nmirrors: {}\n", 0o640)
    if host.name == "c":
        host.run("sysctl -w net.ipv4.ip_forward=0")


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with begun(tmp_path_factory.mktemp("life"), "life") as life:
        yield life


def test_the_site_is_installed(life: Life) -> None:
    hosts = list(life.site.hosts.values())
    for host in hosts:
        had_before(host)
    life.before = look_at(hosts)
    life.plug("a", NGINX, TOOL)
    brought = life.luggage
    life.luggage = replace(brought, airgap_images=())
    refused = life.start("site.yml", expect=2)
    life.luggage = brought
    assert refused.changed == 0 and "APL-0839" in refused.output, refused.output[-4000:]
    assert f"{PAUSE} (for every pod, on " in refused.output, refused.output[-4000:]
    life.run("site.yml", "-e", "agents_at_once=2")
    assert life.generation() == 1
    for host in life.up:
        assert PAUSE in [row["name"] for row in appliance(host, "images")["images"]]
    start_container(life)


def test_a_pod_whose_image_nobody_has_ends_verify_in_red(life: Life) -> None:
    add_pod(life["b"], "bad", NOBODY_HAS)
    life.variables["verify_pods_timeout"] = 20
    said = " ".join(life.start("playbooks/verify.yml", expect=2).output.split())
    del life.variables["verify_pods_timeout"]
    assert re.search(r"APL-0912: the pod default/bad does not start \[b\]: (ImagePullBackOff|ErrImagePull)", said), (
        said[-6000:]
    )
    assert f"APL-0913: nobody at this site has the image {NOBODY_HAS}" in said, said[-6000:]
    remove_pod(life["b"], "bad", life.luggage.real)


def test_an_update_adds_an_image_of_a_new_registry_and_moves_a_tag(life: Life) -> None:
    life.plug("a", NGINX, MOVED_TOOL, FRESH)
    seen = life.run("playbooks/update.yml", "--check")
    assert life.generation() == 1
    done = life.run("playbooks/update.yml")
    for run in (seen, done):
        assert f"add   {FRESH.name}" in run.output and f"move  {TOOL.name}" in run.output, run.output[-6000:]
        assert "restart" not in run.output.partition("Nodes:")[2].partition("In short:")[0], (
            "nothing restarts for images"
        )
    # The stick's three, and K3s's pause image, which came with K3s.
    assert done.output.count("4 names asked for, every one answered as it was published") == 1, "both nodes alike"
    assert life.generation() == 2
    life.serves(MOVED_TOOL, FRESH)


def test_a_rollback_takes_it_back_and_the_stick_brings_it_again(life: Life) -> None:
    before = digest_of(life["b"], TOOL.name)
    with pulling(life, "b", TOOL.name) as came:
        shown = life.run("playbooks/rollback.yml", "-e", "rollback_to=1", "--check")
        back = life.run("playbooks/rollback.yml", "-e", "rollback_to=1")
    assert life.generation() == 3
    after = digest_of(life["b"], TOOL.name)
    assert after != before and set(came) <= {before, after}, "every pull gave what one of the generations serves"
    for said in (shown.output, back.output):
        assert f"move    {TOOL.name}" in said and f"remove  {FRESH.name}" in said, said[-6000:]
    life.serves(NGINX, TOOL)
    # Not by a pull: a containerd that has it shares it by the embedded registry.
    for host in life.up:
        assert FRESH.name not in [row["name"] for row in appliance(host, "images")["images"]]
    # The way forward again: not a step back, so nothing more is asked.
    with pulling(life, "b", TOOL.name) as came:
        life.run("playbooks/update.yml")
    assert life.generation() == 4
    assert set(came) <= {before, after}
    life.serves(MOVED_TOOL, FRESH)


def test_the_history_says_what_came_from_where(life: Life) -> None:
    rows = appliance(life["a"], "history")["generations"]
    assert [(row["number"], row["cause"]) for row in rows] == [
        (1, "seeding"),
        (2, "seeding"),
        (3, "rollback"),
        (4, "seeding"),
    ]
    assert appliance(life["a"], "audit")["broken"] is None
    said = appliance(life["a"], "diff", "1", "2")
    assert list(said["added"]) == [FRESH.name] and list(said["moved"]) == [TOOL.name]


def test_mistakes_of_an_operator_are_refused_with_one_error_and_change_nothing(
    life: Life, sampled: random.Random, whole_series: bool
) -> None:
    a = life["a"]
    before = a.run(f"cat {STORE}/index.json").stdout

    def refused(command: str, *words: str) -> None:
        name, *arguments = command.split()
        done = life.start(name, *arguments, expect=None)
        said = " ".join(done.output.split())
        assert done.code not in (0, None) and done.changed == 0, done.output[-4000:]
        assert [word for word in words if word not in said] == [], done.output[-6000:]

    def no_such_generation() -> None:
        refused("playbooks/rollback.yml -e rollback_to=99", "APL-0352", "4 of ")

    def another_site() -> None:
        life.plug("a", FRESH, says={"site": "south", "id": "south-1", "created": "2026-01-01T00:00:00Z"})
        refused("playbooks/update.yml", "APL-0151", "south-1")

    def an_older_stick() -> None:
        life.plug("a", TOOL)
        refused("playbooks/update.yml", "APL-0152", TOOL.name)

    def a_pinned_name() -> None:
        appliance(a, "pin", TOOL.name)
        life.plug("a", ImageSpec(TOOL.name, page="not asked for", payload_mib=1))
        refused("playbooks/update.yml", "APL-0141", TOOL.name)
        appliance(a, "unpin", TOOL.name)

    def another_update() -> None:
        life.plug("a", ImageSpec(TOOL.name, page="at the same time", payload_mib=1))
        a.run(f"systemd-run --unit=another-update flock {STORE}/lock sleep 600")
        refused("playbooks/update.yml", "APL-0307")
        a.run("systemctl stop another-update")

    series = [no_such_generation, another_site, an_older_stick, a_pinned_name, another_update]
    for mistake in series if whole_series else sampled.sample(series, 2):
        mistake()
    assert a.run(f"cat {STORE}/index.json").stdout == before
    assert life.generation() == 4


_PUBLISHES = "[a]ppliance (seed|rollback) .*--expect"


# A hundred of them take an hour.
@pytest.mark.timeout(3 * 3600)
def test_cut_short_anywhere_it_ends_in_one_of_two_generations_and_a_rerun_finishes_it(
    life: Life, sampled: random.Random, whole_series: bool
) -> None:
    """At points of the seed, its process is killed, or its host loses the power; the other nodes pull on."""
    for number in range(100 if whole_series else 1):
        way = sampled.choice(("update", "rollback"))
        before, a = life.generation(), life["a"]
        if way == "update":
            life.plug("a", ImageSpec(TOOL.name, page=f"hello from tool {before}", payload_mib=8))
            words = ["playbooks/update.yml"]
        else:
            words = ["playbooks/rollback.yml", "-e", f"rollback_to={before - 1}"]
        power, delay = sampled.random() < 0.5, sampled.uniform(0, 1)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(life.start, *words, expect=None)
            # The delay is the point that is tried; where the run is over by then, that is one too.
            a.run(
                f"for i in $(seq 600); do pgrep -f '{_PUBLISHES}' && break; sleep 0.1; done; sleep {delay:.3f}"
                + ("" if power else f"; pkill -9 -f '{_PUBLISHES}'; true"),
                check=False,
            )
            if power:
                a.power_off()
                running.result()
                a.boot()
            else:
                running.result()
        wait_ready(life.up, before)
        life.agrees()
        cut = life.generation()
        assert cut in (before, before + 1), f"{number}: {way}, {'power' if power else 'kill'} after {delay:.3f} s"
        for host in life.up:
            assert appliance(host, "prove", store=False)["wrong"] == []
        assert appliance(a, "fsck")["problems"] == []
        life.run(*words)
        assert life.generation() == before + 1
        assert life.run(*words).changed == 0
        assert appliance(a, "audit")["broken"] is None


def test_garbage_is_collected_and_what_runs_is_not(life: Life) -> None:
    """The container's image leaves every generation that is kept; its layers stay, since b runs it.

    Seeded by hand, as an operator on the node does it.
    """
    a = life["a"]
    manifest = digest_of(a, NGINX.name).partition(":")[2]
    listed = json.loads(a.run(f"cat {STORE}/blobs/sha256/{manifest}").stdout)
    runs = [manifest, *(item["digest"].partition(":")[2] for item in (listed["config"], *listed["layers"]))]
    life.variables["verify_image"] = TOOL.name
    for number in range(3):
        life.plug("a", ImageSpec(FRESH.name, page=f"fresh {number}", payload_mib=1))
        removed = [f"--remove={NGINX.name}"] if number == 0 else []
        assert appliance(a, "seed", *removed, STICK)["published"]
    life.agrees()
    life.lives()
    before = {host.name: status(host)["room"]["used_bytes"] for host in life.up}
    with pulling(life, "b", TOOL.name):
        run = life.run("playbooks/gc.yml", "-e", "gc_grace=0")
    assert run.changed > 0, run.output[-4000:]
    assert status(a)["room"]["used_bytes"] < before["a"] - (1 << 20), "a payload of what is not kept, at least"
    # The publisher's copy too: b may have to be built anew.
    a.run(f"cd {STORE}/blobs/sha256 && ls {' '.join(runs)}")
    for host in life.up:
        assert appliance(host, "fsck")["problems"] == []
    assert life.run("playbooks/gc.yml", "-e", "gc_grace=0").changed == 0


@pytest.mark.whole
def test_a_node_more_restarts_nobody(life: Life) -> None:
    """Of the mirror alone; K3s comes to it in the next step."""

    def processes() -> list[str]:
        return [life[name].run(f"systemctl show {' '.join(UNITS)} -p MainPID --value").stdout for name in "ab"]

    before = processes()
    life.nodes = ("b", "a", "c")
    assert "changes, without a restart" in life.run("site.yml", "--tags", "firewall,mirror,seed").output
    assert processes() == before
    for host in life.up:
        assert {peer["state"] for peer in status(host)["peers"]} == {"up"}, host.name
    life.generation()


def test_a_node_that_is_built_from_nothing_serves_what_the_site_serves(life: Life) -> None:
    """In the whole series it was a node before, and comes back under its old name."""
    before = life.generation()
    if "c" in life.nodes:
        life["c"].replace()
        life["c"].boot()
        had_before(life["c"])
        life.before["c"] = look(life["c"])
    life.nodes = ("b", "a", "c")
    with pulling(life, "b", TOOL.name):
        life.run("site.yml", "-e", "agents_at_once=2")
    assert life.generation() == before
    must_pull(life["c"], TOOL.name, real=life.luggage.real)
    # Root there is no administrator of the cluster.
    assert life["c"].run(f"ls {TOKEN} {AGENT_TOKEN}", check=False).stdout.split() == [AGENT_TOKEN]


@pytest.mark.sample(1)
def test_agents_of_a_site_from_before_get_a_token_of_their_own(life: Life) -> None:
    """As 0.1.0 left it: one token for all, in its file and in K3s's configuration, on the server and on the agent."""
    b, c = life["b"], life["c"]
    token = b.run(f"cat {TOKEN}").stdout
    b.run(f"sed -i /^agent-token-file/d /etc/rancher/k3s/config.yaml; rm {AGENT_TOKEN}; systemctl restart k3s")
    c.write(TOKEN, token, 0o600)
    c.run(
        f"sed -i 's,^token-file: .*,token-file: {TOKEN},' /etc/rancher/k3s/config.yaml; rm {AGENT_TOKEN};"
        " systemctl restart k3s-agent"
    )
    run = life.run("site.yml", "--tags", "k3s")
    said = " ".join(run.output.split())
    assert f"{AGENT_TOKEN} is written: agents get a token of their own" in said, run.output[-4000:]
    assert f"{TOKEN} is removed: it is the servers' token" in said
    assert c.run(f"ls {TOKEN} {AGENT_TOKEN}", check=False).stdout.split() == [AGENT_TOKEN]
    own = c.run(f"cat {AGENT_TOKEN}").stdout
    assert own == b.run(f"cat {AGENT_TOKEN}").stdout != token == b.run(f"cat {TOKEN}").stdout
    assert life.run("site.yml", "--tags", "k3s").changed == 0


@pytest.mark.whole
def test_a_node_that_is_taken_out_hands_over_what_only_it_holds(life: Life) -> None:
    """Its store goes with it, and the site goes on; then it comes back."""
    words = ("playbooks/uninstall.yml", "--limit", "c", "-e", '{"uninstall_data": true}')
    a, c = life["a"], life["c"]
    listed = json.loads(a.run(f"cat {STORE}/blobs/sha256/{digest_of(a, TOOL.name).partition(':')[2]}").stdout)
    layer = listed["layers"][0]["digest"]
    file = f"{STORE}/blobs/sha256/{layer.partition(':')[2]}"
    c.run(f"curl -sf 'http://127.0.0.1:5000/v2/team/tool/blobs/{layer}?ns=quay.io' > /dev/null && ls {file}")
    c.run("systemctl stop appliance-peer appliance-agent")
    for name in ("a", "b"):
        life[name].run(f"rm -f {file}")
    refused = life.start(*words, expect=2)
    assert refused.changed == 0 and "APL-0411" in refused.output and TOOL.name in refused.output, refused.output[-4000:]
    c.run("systemctl start appliance-peer appliance-agent")
    # Whoever is first: the publisher that wants it back, or the run that asks for it before the store goes.
    life.run(*words)
    assert a.run(f"sha256sum {file}").stdout.split()[0] == layer.partition(":")[2]
    assert c.run(f"ls -d {STORE}", check=False).stdout == ""
    life.run("site.yml", "-e", "agents_at_once=2")
    must_pull(c, TOOL.name, real=life.luggage.real)


@pytest.mark.whole
def test_a_backup_is_taken(life: Life) -> None:
    """Kept for the end: what it holds is what the site was at this point of its life."""
    a, backups = life["a"], life.directory / "backups"
    life.variables["backup_dir"] = str(backups)
    life.plug("a", *KEPT)
    life.run("playbooks/update.yml", "--tags", "plan,seed")
    appliance(a, "pin", TOOL.name)
    if life.luggage.real:
        life["b"].run(f"{KUBECTL} create configmap {LIVING} --from-literal=page=old")
    assert life.run("playbooks/backup.yml", "--check").changed == 0
    assert not backups.exists()
    said = life.run("playbooks/backup.yml").output
    (archive,) = backups.iterdir()
    assert archive.stat().st_mode & 0o777 == 0o600
    assert "K3s's token of servers: in it" in said and "K3s's token of agents: in it" in said
    assert ("a copy of its sqlite database" if life.luggage.real else "the lab's stand-in") in said, said[-3000:]
    for host in life.up:
        assert host.run("ls -A /var/tmp | grep backup", check=False).stdout == "", "something was left behind"
    life.backup = archive, {path: life[where].run(f"cat {path}").stdout for path, where in KEPT_FILES.items()}


def test_the_publisher_is_lost_for_good_and_the_next_seed_goes_on(life: Life) -> None:
    """With pulls and an update going on: the next medium is in the heir already."""
    before, last = life.generation(), life["a"]
    last.power_off()
    life.nodes, life.seeds = ("b", "c"), ("b",)
    life.plug("b", ImageSpec(FRESH.name, page="from the heir", payload_mib=1))
    with pulling(life, "c", TOOL.name):
        # What it alone has of older generations is given up: it does not come back.
        life.run("site.yml", "--tags", "firewall,mirror,seed", "-e", "mirror_remove_anyway=yes")
    assert life.generation() == before + 1
    assert {status(host)["publisher"] for host in life.up} == {"b"}
    assert life["c"].run("grep -c 10.77.0.11 /etc/appliance/config.yaml", check=False).stdout.strip() == "0"
    assert appliance(life["b"], "audit")["broken"] is None
    life.serves(ImageSpec(FRESH.name, page="from the heir"))


@pytest.mark.whole
def test_a_release_that_does_not_come_up_is_taken_back(life: Life, tmp_path: Path) -> None:
    def now() -> dict[str, str]:
        show = f"readlink /opt/appliance/current; systemctl show {' '.join(UNITS)} -p MainPID --value"
        return {host.name: host.run(show).stdout for host in life.up}

    broken = releases.wheelhouse(releases.this_release(tmp_path / "broken", "9.9.9", broken=True))
    before, good = now(), life.variables.get("mirror_wheelhouse", life.luggage.wheelhouse)
    life.variables |= {"mirror_wheelhouse": str(broken), "mirror_start_timeout": 5}
    with pulling(life, "c", TOOL.name):
        run = life.start("site.yml", "--tags", "mirror", expect=2)
    life.variables["mirror_wheelhouse"] = str(good)
    del life.variables["mirror_start_timeout"]
    said = " ".join(run.output.split())
    assert "did not come up with release 9.9.9" in said and "APL-0769" in said, run.output[-4000:]
    assert "broken on purpose" in said
    after = now()
    assert {name: seen.split()[0] for name, seen in after.items()} == {
        name: seen.split()[0] for name, seen in before.items()
    }
    assert len([name for name in after if after[name] != before[name]]) == 1, "one node was tried, the other one not"


@pytest.mark.sample(1)
def test_a_newer_release_replaces_this_one_node_by_node(life: Life, tmp_path: Path) -> None:
    before = life.generation()
    life.variables["mirror_wheelhouse"] = str(releases.wheelhouse(releases.this_release(tmp_path / "next", "9.0.0")))
    with pulling(life, "c", TOOL.name):
        run = life.run("site.yml", "--tags", "mirror", tree=tmp_path / "next")
    assert "restarts (or starts)" in run.output, "the plan says so"
    for host in life.up:
        assert "9.0.0" in host.run("readlink /opt/appliance/current").stdout
    assert life.generation() == before


def _nothing_goes_unasked(life: Life, data: Sequence[str]) -> None:
    whole = [life["a"], life["b"]]
    installed = look_at(whole)
    # Without a terminal and without a yes beforehand, nothing happens.
    refused = life.start("playbooks/uninstall.yml", *data, "-e", "confirm=no", expect=2)
    assert refused.changed == 0 and "APL-0770" in refused.output, refused.output[-4000:]
    assert changed(installed, look_at(whole), "process |mount ") == {}
    for words in (
        "DATA GOES",
        f"a: {STORE} (",
        "processes of containers",
        "as it was before: /etc/rancher/k3s/registries.yaml",
    ):
        assert words in refused.output, refused.output[-4000:]


def test_it_is_taken_away_and_each_host_is_what_it_was(life: Life, whole_series: bool) -> None:
    """a comes back for it, with the release and the names that it had; of c only half is left."""
    life["a"].boot()
    life.nodes, life.seeds = ("b", "a", "c"), ("b",)
    life["c"].run(
        "systemctl kill --signal=KILL appliance-agent appliance-mirror; systemctl stop k3s-agent; "
        "rm -rf /opt/appliance/current /usr/local/bin/k3s /etc/appliance/config.yaml; systemctl restart --no-block appliance-peer"
    )
    data = ("-e", '{"uninstall_data": true}')
    if whole_series:
        _nothing_goes_unasked(life, data)
    life.born = ""
    life.run("playbooks/uninstall.yml", *data)
    left = changed(life.before, look_at(life.up), LEFT)
    assert not left, json.dumps(left, indent=1)
    assert life.run("playbooks/uninstall.yml", *data).changed == 0


@pytest.mark.whole
def test_a_site_that_burnt_down_comes_back_from_its_backup(life: Life) -> None:
    """The hosts are lost, and the controller's authority: the same names, history and token on fresh ones."""
    (archive, kept), pki = life.backup, life.inventory / "pki"
    raw, authority = archive.read_bytes(), {name: (pki / name).read_bytes() for name in ("ca.key", "ca.crt")}
    shutil.rmtree(life.inventory)
    life.nodes, life.seeds, life.born = ("b", "a"), ("a", "b"), ""
    for name in life.nodes:
        life[name].replace()
        life[name].boot()
    life.variables["mirror_wheelhouse"] = str(life.luggage.wheelhouse)
    life.plug("a", *KEPT)

    def restore(*arguments: str, of: Path = archive, expect: int = 0) -> Run:
        return life.start("playbooks/restore.yml", "-e", f"restore_archive={of}", *arguments, expect=expect)

    damaged = life.directory / "damaged.tar"
    damaged.write_bytes(raw.replace(b"PRIVATE KEY", b"PRIVATE KEy", 1))
    assert "APL-0870" in restore(of=damaged, expect=2).output
    assert "APL-0872" in restore("-e", "mirror_site=south", expect=2).output
    assert "APL-0770" in restore("-e", "confirm=no", expect=2).output
    assert not pki.exists()
    for host in life.up:
        assert host.run(f"ls -d /opt/appliance {STORE} {TOKEN}", check=False).stdout == ""

    done = restore()
    assert f"in it. They come back from the media that brought them: {STICK}" in done.output and done.changed > 0
    assert restore().changed == 0
    assert {name: (pki / name).read_bytes() for name in authority} == authority

    life.run("site.yml", "-e", "agents_at_once=2")
    a = life["a"]
    now = {path: life[where].run(f"cat {path}").stdout for path, where in KEPT_FILES.items()}
    journal = f"{STORE}/journal.jsonl"
    assert now[journal].startswith(kept[journal])
    assert {**now, journal: ""} == {**kept, journal: ""}
    digest = hashlib.sha256(kept[f"{STORE}/index.json"].encode()).hexdigest()
    for host in life.up:
        assert status(host)["generation"]["digest"] == f"sha256:{digest}", host.name
    assert appliance(a, "fsck")["problems"] == [] and appliance(a, "audit")["broken"] is None
    life.serves(*KEPT)
    if life.luggage.real:
        page = life["b"].run(f"{KUBECTL} get configmap {LIVING} -o jsonpath='{{.data.page}}'").stdout
        assert page == "old"
    assert archive.read_bytes() == raw
