"""``python -m tests.lab``: boot a lab and leave it running, look at it, take it down."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time

from tests.lab.base import LabError
from tests.lab.root import build_root, remove_old_roots
from tests.lab.site import Site


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0: done, 1: it failed, 2: usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="Three systemd hosts with no way out.")
    parser.add_argument("--id", default="lab", help="name of the lab (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the hosts' tree into the cache and remove older ones")
    commands.add_parser("up", help="boot three fresh hosts and leave them running")
    down = commands.add_parser("down", help="end the lab and leave nothing")
    down.add_argument("--all", action="store_true", help="every lab on this machine, dead ones too")
    commands.add_parser("status", help="what is up, and what tried to leave")
    execute = commands.add_parser("exec", help="run a command on a host, or on the controller with '-'")
    execute.add_argument("host", metavar="HOST", help="a, b, c, or - for the controller's place in the network")
    execute.add_argument("words", metavar="CMD", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    try:
        return _run(args)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    if args.command == "build":
        tree = build_root()
        remove_old_roots()
        print(tree)
        return 0
    if args.command == "down":
        for site_id in Site.ids() if args.all else [args.id]:
            Site(site_id).down()
            print(f"lab {site_id!r} is down")
        return 0
    if args.command == "up":
        began = time.monotonic()
        site = Site(args.id, detached=True)
        site.up()
        print(f"lab {args.id!r} is up after {time.monotonic() - began:.1f} s")
        _print_status(site)
        _print_ways(site)
        return 0
    site = Site.attach(args.id)
    if args.command == "status":
        _print_status(site)
        return 0
    return _exec(site, args.host, args.words)


def _exec(site: Site, host: str, words: list[str]) -> int:
    enter = ["nsenter", f"--net=/proc/{site.keeper.pid}/ns/net"]
    if host == "-":
        os.execvp(enter[0], [*enter, *(words or [os.environ.get("SHELL", "/bin/sh")])])
    if host not in site.hosts:
        raise LabError(f"no host {host!r}; there are {', '.join(site.hosts)}")
    line = words[0] if len(words) == 1 else shlex.join(words)
    os.execvp(enter[0], [*enter, "ssh", "-F", str(site.state / "ssh/config"), host, *([line] if words else [])])


def _print_status(site: Site) -> None:
    for host in site.hosts.values():
        power = "on" if host.is_up() else "off"
        way = "routes into the sink" if host.spec.outward else "no route, no resolver"
        print(f"  {host.name}  {host.address}  {power:3}  {host.spec.firewall:9}  {way}")
    attempts = site.sink_log()
    print(f"  sink: {len(attempts)} attempts to leave" + "".join(f"\n    {line}" for line in attempts[-10:]))


def _print_ways(site: Site) -> None:
    command = "python -m tests.lab" + ("" if site.id == "lab" else f" --id {site.id}")
    print(f"a host:         {command} exec a [COMMAND]")
    print(f"the controller: {command} exec - ansible-playbook ...   (the site's network, this machine's files)")
    print(f"ssh itself:     {command} exec - ssh -F {site.state}/ssh/config a")
    print(f"take it down:   {command} down")


if __name__ == "__main__":
    sys.exit(main())
