# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""A long command on a node, detached from the connection: the shell lines that start, watch, collect and stop it.

Only what a POSIX shell and the base system of every supported distribution have is used: no Python starts on the node.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Sequence
from typing import NamedTuple

ROOT = "/run"
_PREFIX = "appliance-job."

_START = r"""set -eu
umask 077
command -v setsid >/dev/null || { echo "there is no setsid on this host" >&2; exit 127; }
# Jobs of controllers that never came back, an hour after they ended.
for old in $(find {root} -maxdepth 1 -name '{prefix}*' -type d -mmin +60); do
  if [ -s "$old/pid" ] && kill -s 0 -- "-$(cat "$old/pid")" 2>/dev/null; then continue; fi
  rm -rf -- "$old"
done
job={job}
mkdir "$job"
: >"$job/lease"
APPLIANCE_LEASE=$job/lease
export APPLIANCE_LEASE
{environment}
printf %s {text} >"$job/stdin"
# On the node: the run may be stopped while the job runs and before the controller has read anything.
{ cksum <{watch} 2>/dev/null || echo none; } >"$job/watched"
setsid sh -c 'job=$1; cleanup=$2; shift 2
echo $$ >"$job/pid"
"$@" >"$job/stdout" 2>"$job/stderr"
code=$?
# Nobody waits for this any more: take away what the controller would have removed.
[ $code -ne {lease_over} ] || eval "rm -rf -- $cleanup"
echo $code >"$job/code.new"
mv "$job/code.new" "$job/code"' appliance-job "$job" {cleanup} {argv} <"$job/stdin" >/dev/null 2>&1 &
echo started
"""

_POLL = r"""job={job}
[ -d "$job" ] || { echo gone; exit 0; }
touch "$job/lease"
alive=no
if [ ! -s "$job/pid" ] || kill -0 "$(cat "$job/pid")" 2>/dev/null; then alive=yes; fi
if [ -e "$job/code" ]; then echo "ended $(cat "$job/code")"; elif [ $alive = yes ]; then echo running; else echo lost; fi
tail -c 8192 "$job/stderr" 2>/dev/null | grep -a progress | tail -n 1
exit 0
"""

_STOP = r"""job={job}
tries=0
# The run may be stopped in the moment in which the job is started.
while [ ! -e "$job/lease" ] && [ $tries -lt 3 ]; do sleep 0.2; tries=$((tries + 1)); done
# It was not started yet, or the node restarted since. A directory in its place keeps it from being started later.
if mkdir "$job" 2>/dev/null; then echo "changed unknown"; exit 0; fi
rm -f -- "$job/lease"
while [ -e "$job/watched" ] && [ ! -e "$job/code" ] && [ $tries -lt {tries} ]; do sleep 0.2; tries=$((tries + 1)); done
if [ -d "$job" ] && [ ! -e "$job/code" ] && [ -s "$job/pid" ]; then
  group=$(cat "$job/pid")
  kill -s TERM -- "-$group" 2>/dev/null
  sleep 0.5
  kill -s KILL -- "-$group" 2>/dev/null
fi
if [ ! -e "$job/watched" ] || [ "$(cksum <{watch} 2>/dev/null || echo none)" = "$(cat "$job/watched")" ]
then echo "changed no"; else echo "changed yes"; fi
rm -rf -- "$job" {cleanup}
"""

LEASE_OVER = 75
"""Exit code of a command that ended itself because the controller gave no sign of life."""
STOP_TRIES = 13
"""Times that the node waits 0.2 s for a job to end by itself before it is killed."""


class State(NamedTuple):
    """State of a job.

    :param word: ``running``, ``ended``, ``lost`` (it was killed and left no exit code) or ``gone`` (so is its directory).
    :param code: its exit code, where it ended.
    :param line: the newest line of progress that it reported; may be empty.
    """

    word: str
    code: int
    line: str


def new_directory(root: str = ROOT) -> str:
    """Return a name for the directory of a job, which the controller knows before the job is started.

    :param root: directory that holds the jobs' directories.
    """
    return f"{root}/{_PREFIX}{secrets.token_hex(8)}"


def start_script(
    directory: str,
    argv: Sequence[str],
    *,
    environment: str = "",
    stdin: str = "",
    watch: str = "",
    cleanup: Sequence[str] = (),
) -> str:
    """Return the lines that start a command in a session of its own.

    :param directory: what :func:`new_directory` returned.
    :param environment: assignments as Ansible's shell plugin writes them.
    :param stdin: what the command reads from its standard input.
    :param watch: file whose change is to be told; empty for none.
    :param cleanup: paths that go once the job was left alone.
    """
    return _filled(
        _START,
        job=shlex.quote(directory),
        root=shlex.quote(os.path.dirname(directory)),
        prefix=_PREFIX,
        environment=f"export {environment}" if environment.strip() else ":",
        lease_over=str(LEASE_OVER),
        cleanup=shlex.quote(" ".join(map(shlex.quote, cleanup))),
        argv=" ".join(map(shlex.quote, argv)),
        text=shlex.quote(stdin),
        watch=shlex.quote(watch or "/dev/null"),
    )


def check_started(output: str) -> None:
    """Check what the lines of :func:`start_script` printed.

    :raises ValueError: the job was not started.
    """
    if output.split() != ["started"]:
        raise ValueError(output.strip() or "no output")


def poll_script(directory: str) -> str:
    """Return the lines that renew the lease and read the newest progress."""
    return _filled(_POLL, job=shlex.quote(directory))


def state(output: str) -> State:
    """Return what the lines of :func:`poll_script` printed."""
    first, _, rest = output.lstrip().partition("\n")
    word, _, code = first.strip().partition(" ")
    return State(word, int(code) if code.isdigit() else -1, rest.strip())


def read_script(directory: str, name: str) -> str:
    """Return the line that prints what the job wrote.

    :param name: ``stdout`` or ``stderr``.
    """
    return f"cat {shlex.quote(directory)}/{name}\n"


def remove_script(directory: str) -> str:
    """Return the line that removes the directory of a job."""
    return f"rm -rf -- {shlex.quote(directory)}\n"


def stop_script(directory: str, *, watch: str = "", cleanup: Sequence[str] = ()) -> str:
    """Return the lines that take the lease away, wait for the job to end, kill what does not, and remove its directory."""
    return _filled(
        _STOP,
        job=shlex.quote(directory),
        tries=str(STOP_TRIES),
        watch=shlex.quote(watch or "/dev/null"),
        cleanup=" ".join(map(shlex.quote, cleanup)),
    )


def stopped(output: str) -> bool | None:
    """Return whether the watched file changed while the job ran; None where the node cannot say, as it has no such job.

    :param output: what the lines of :func:`stop_script` printed.
    """
    return {"changed yes": True, "changed no": False}.get(output.strip())


def _filled(lines: str, **values: str) -> str:
    # Not str.format: the shell's own braces would have to be doubled. In one pass: a value may hold such a name itself.
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], lines)
