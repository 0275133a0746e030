"""``make demo``: the main job told on three real hosts with no way out, step by step, with the site's table at the end."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.lab.base import LabError
from tests.lab.images import NGINX as NGINX_IMAGE
from tests.lab.scenario import inventory, pack
from tests.lab.site import Site
from tests.lab.story import (
    NGINX,
    STICK,
    TOOL,
    StoryError,
    digest_of,
    must_pull,
    playbook,
    serve_http,
    status,
    until,
    wait_ready,
)


def main() -> int:
    """Tell the story; 0 when every step came true."""
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.1f} s] {text}", flush=True)

    site = Site("demo", detached=bool(os.environ.get("KEEP")))
    with tempfile.TemporaryDirectory(prefix="appliance-demo-") as scratch:
        directory = Path(os.environ["KEEP_DIR"]) if os.environ.get("KEEP_DIR") else Path(scratch)
        try:
            _tell(site, directory, say)
        except (StoryError, LabError) as error:
            say(f"FAILED: {error}")
            return 1
        finally:
            if os.environ.get("KEEP"):
                say("the lab stays up: python -m tests.lab --id demo status")
            else:
                site.down()
    say("done")
    return 0


def _tell(site: Site, directory: Path, say: object) -> None:
    assert callable(say)
    say("packing: K3s, wheelhouse, and a stick with a docker-archive and an OCI archive compressed with zstd")
    luggage = pack(directory)
    if luggage.real:
        say("K3s is the real one from K3S_BINARY")
    else:
        say(
            "K3s is a STAND-IN (no release at hand): it renders registries.yaml as K3s does and runs Debian's containerd"
        )
    say("booting hosts a (nftables), b (firewalld), c (ufw) on a bridge with no way out")
    site.up()
    a, b, c = (site.hosts[name] for name in "abc")
    hosts = inventory(site, luggage, directory / "inventory")
    say("plugging the stick into a, read-only")
    a.attach_stick(luggage.stick, STICK)
    say("ansible-playbook site.yml -e confirm=yes")
    run = playbook(site, "site.yml", hosts, "-e", "confirm=yes")
    say(f"installed: {run.changed} tasks changed something")
    a.detach_stick(STICK)
    say("the stick is gone; b and c never saw it")
    for host in (b, c):
        result = must_pull(host, NGINX, real=luggage.real)
        digest = digest_of(host, NGINX)
        must_pull(host, f"{NGINX.rpartition(':')[0]}@{digest}", real=luggage.real)
        must_pull(host, NGINX, real=luggage.real)
        page = serve_http(host, NGINX)
        if page != NGINX_IMAGE.text():
            raise StoryError(f"{host.name} answered {page!r}")
        say(f"{host.name}: pulled {NGINX} by tag ({result.seconds:.1f} s) and by digest; its container answers HTTP")
    until(lambda: all(status(host)["wanted_missing"] == 0 for host in (a, b, c)), "two copies of every blob")
    say("a loses power")
    a.power_off()
    for host in (b, c):
        result = must_pull(host, TOOL, real=luggage.real)
        say(f"{host.name}: pulled {TOOL} with a off ({result.seconds:.1f} s)")
    a.boot()
    wait_ready([a])
    again = playbook(site, "site.yml", hosts)
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
    for host in (a, b, c):
        host.clear_service_clock()
    table = playbook(site, "playbooks/verify.yml", hosts)
    print(_table(table.output), flush=True)
    attempts = site.sink_log()
    if attempts:
        raise StoryError("something tried to leave the site:\n" + "\n".join(attempts[:20]))
    say("nothing tried to leave the site: the sink's log is empty")


def _table(output: str) -> str:
    """The site's table out of Ansible's output."""
    lines = output.splitlines()
    wanted = [line.strip().strip('"') for line in lines if "|" in line]
    return "\n".join(wanted) or output[-3000:]


if __name__ == "__main__":
    sys.exit(main())
