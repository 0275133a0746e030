"""``make demo``: the main job told on three real hosts with no way out, step by step, with the site's table at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lab.base import LabError
from tests.lab.images import NGINX as NGINX_IMAGE
from tests.lab.scenario import inventory, pack
from tests.lab.site import Host, Site
from tests.lab.story import (
    EXTRA,
    IMPORTED,
    MOVED,
    NGINX,
    STICK,
    TOOL,
    StoryError,
    command_to_share,
    import_by_hand,
    mirrors_stopped,
    move_into_images,
    must_pull,
    playbook,
    plug_extra,
    pull,
    pull_and_run,
    serve_pod,
    status,
    table,
    until,
    wait_ready,
)


def main() -> int:
    """Tell the story; 0 when every step came true."""
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.1f} s] {text}", flush=True)

    site = Site("demo", detached=bool(os.environ.get("KEEP")))
    try:
        _tell(site, say)
    except (StoryError, LabError) as error:
        say(f"FAILED: {error}")
        return 1
    finally:
        if os.environ.get("KEEP"):
            say(f"the lab stays up; its inventory is {_controller(site) / 'inventory/hosts.yml'}")
            say(
                "look: .venv/bin/python -m tests.lab --id demo status; end it: .venv/bin/python -m tests.lab --id demo down"
            )
        else:
            site.down()
    say("done")
    return 0


def _controller(site: Site) -> Path:
    """Where what the operator brings lies: it goes with the lab."""
    return site.state / "controller"


def _tell(site: Site, say: Callable[[str], None]) -> None:
    say("booting hosts a (nftables), b (firewalld), c (ufw) on a bridge with no way out")
    site.up()
    say("packing: K3s, wheelhouse, and a stick with a docker-archive and an OCI archive compressed with zstd")
    directory = _controller(site)
    luggage = pack(directory)
    if luggage.real:
        say("K3s is the real one from K3S_BINARY")
    else:
        say(
            "K3s is a STAND-IN (no release at hand): it renders registries.yaml as K3s does and runs Debian's containerd"
        )
    a, b, c = (site.hosts[name] for name in "abc")
    hosts = inventory(site, luggage, directory / "inventory")
    say("plugging the stick into a, read-only")
    a.attach_stick(luggage.stick, STICK)
    say("ansible-playbook site.yml -e confirm=yes -e agents_at_once=2")
    run = playbook(site, "site.yml", hosts, "-e", "confirm=yes", "-e", "agents_at_once=2")
    say(f"installed: {run.changed} tasks changed something")
    a.detach_stick(STICK)
    say("the stick is gone; b and c never saw it")
    for host in (b, c):
        result = pull_and_run(host, NGINX_IMAGE, real=luggage.real)
        say(f"{host.name}: pulled {NGINX} by tag ({result.seconds:.1f} s) and by digest; its container answers HTTP")
    if luggage.real:
        _pods(a, (b, c), say)
    plug_extra(a, directory)
    move_into_images(a)
    until(lambda: pull(b, MOVED.name, real=luggage.real).ok, f"{MOVED.name} on b")
    with mirrors_stopped([a, b, c]):
        result = must_pull(c, MOVED.name, real=luggage.real)
    say(
        f"{MOVED.name}, in a's agent/images alone: pulled by b, and by c with every mirror stopped ({result.seconds:.1f} s):"
        " the embedded registry's work"
    )
    import_by_hand(a)
    command = command_to_share(playbook(site, "playbooks/verify.yml", hosts).output)
    a.run(command)
    until(lambda: pull(b, IMPORTED.name, real=luggage.real).ok, f"{IMPORTED.name} on b")
    say(f"{IMPORTED.name}, imported on a by ctr alone: named by verify; pulled by b after the command that it gave")
    a.detach_stick(EXTRA)
    until(lambda: all(status(host)["wanted_missing"] == 0 for host in (a, b, c)), "two copies of every blob")
    say("a loses power")
    a.power_off()
    for host in (b, c):
        result = must_pull(host, TOOL, real=luggage.real)
        say(f"{host.name}: pulled {TOOL} with a off ({result.seconds:.1f} s)")
    a.boot()
    wait_ready([a])
    again = playbook(site, "site.yml", hosts, "-e", "agents_at_once=2")
    if again.changed:
        raise StoryError(f"a second run without the stick changed {again.changed} tasks:\n{again.output[-4000:]}")
    say("site.yml again, without the stick: changed=0")
    say("all three lose power; the appliance's clocks come back at 1970, with nobody there")
    site.power_off_all()
    site.boot_all(clock="1970-01-01 00:10:00")
    wait_ready([a, b, c], 1, 120)
    for host in (a, b, c):
        result = must_pull(host, NGINX, real=luggage.real)
        say(f"{host.name}: pulled {NGINX} ({result.seconds:.1f} s)")
    if luggage.real:
        _pods(a, (b, c), say)
    print(table(playbook(site, "playbooks/verify.yml", hosts).output), flush=True)
    attempts = site.sink_log()
    if attempts:
        raise StoryError("something tried to leave the site:\n" + "\n".join(attempts[:20]))
    say("nothing tried to leave the site: the sink's log is empty")


def _pods(server: Host, hosts: Sequence[Host], say: Callable[[str], None]) -> None:
    for host in hosts:
        page = serve_pod(server, host, NGINX)
        if page != NGINX_IMAGE.text():
            raise StoryError(f"the pod on {host.name} answered {page!r}")
    say(f"a pod of {NGINX} runs on {' and on '.join(host.name for host in hosts)} and answers the server")


if __name__ == "__main__":
    sys.exit(main())
