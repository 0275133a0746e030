"""Process for reading archives: it runs as the owner of the store, with limits, and cannot gain rights.

The parent opens the sources, starts the child, shows its progress and takes its one result. So whatever an archive does
to the child ends in a result, or in one error.

Decision 45.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from appliance.archives.medium import Medium
from appliance.errors import ApplianceError, fail, make_error
from appliance.sizes import size_words

MEMORY = 1 << 30
"""Bytes of address space beyond what is in use at the start. An import takes some 150 MB beside the window of its
decompressor (128 MiB); what a thread reserves and never touches counts too."""
CPU_SECONDS = 600
"""Seconds on a processor, beside one for each MiB of the sources: bzip2, the slowest, takes a fifth of that."""
_MIB = 1 << 20
_GRACE = 10
_RESULT_LIMIT = 256 << 20
_EVERY = 0.1

Report = Callable[[int, int], None]
"""Called with bytes read and size of the source that is being read."""
Work = Callable[[Report], dict[str, Any]]


def confined(store: Path, medium: Medium, work: Work, report: Report | None = None) -> dict[str, Any]:
    """Run ``work`` in a child and return what it returns (plain JSON).

    :param store: the store's directory; where this is root, its owner is who the child runs as.
    :param medium: the sources; opened here where the child may not.
    :param work: reads them through that; called with what reports progress.
    :param report: gets the progress, in this process, at most ten times a second.
    :raises ApplianceError: what ``work`` raised; APL-0140 for a child that was ended by a limit or a signal.
    """
    owner = _owner(store)
    if owner is not None:
        medium.open_beforehand()
    seconds = CPU_SECONDS + medium.weight // _MIB
    parent = os.getpid()
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        # From Python 3.12 on: threads that the caller has are not in the child. None of them holds a lock it needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(receiver)
        _child(sender, work, owner, seconds, parent)
    os.close(sender)
    ended = False
    try:
        result = _receive(receiver, report)
        ended = True
    finally:
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if result is None:
        _died(status, seconds)
    if "error" in result:
        raise make_error(result["error"].pop("code"), result["error"].pop("what"), **result["error"])
    answer: dict[str, Any] = result["result"]
    return answer


def _receive(receiver: int, report: Report | None) -> dict[str, Any] | None:
    with os.fdopen(receiver, "rb") as lines:
        while line := lines.readline(_RESULT_LIMIT):
            try:
                said = json.loads(line)
            except ValueError:
                return None  # it was ended in the middle of a line
            if "progress" not in said:
                return dict(said)
            if report is not None:
                report(*said["progress"])
    return None


def _died(status: int, seconds: int) -> NoReturn:
    if status == -signal.SIGXCPU:
        why = f"it took more than {seconds} s on a processor"
    elif status < 0:
        why = f"it was ended by {signal.Signals(-status).name}"
    else:
        why = f"it ended with {status} and said nothing"
    fail(
        "APL-0140",
        "the process that reads the sources was killed",
        why=why,
        fix="Nothing was published. Run it again; if it ends the same way, leave out one source after the other",
    )


def _owner(store: Path) -> tuple[int, int] | None:
    """Return the user who reads in place of root: the owner of the store or of its parent directory; None for root."""
    if os.geteuid() != 0:
        return None
    absolute = store.absolute()
    found = next(path for path in (absolute, *absolute.parents) if path.exists()).stat()
    return (found.st_uid, found.st_gid) if found.st_uid != 0 else None


def drop_privileges(store: Path) -> None:
    """Go on as the owner of the store, for good, where root called; what is written there is then the owner's."""
    _become(_owner(store))


def _become(owner: tuple[int, int] | None) -> None:
    if owner is not None:
        os.setgroups([])
        os.setgid(owner[1])
        os.setuid(owner[0])


def _child(sender: int, work: Work, owner: tuple[int, int] | None, seconds: int, parent: int) -> NoReturn:
    code = 1
    try:
        _confine(owner, seconds, parent)
        said = _answer(work, _reporter(sender))
        view = memoryview(json.dumps(said).encode() + b"\n")
        while view:
            view = view[os.write(sender, view) :]
        code = 0
    except (BrokenPipeError, KeyboardInterrupt):
        pass  # nobody waits for it any more
    except BaseException:
        traceback.print_exc()  # a mistake of this program; the parent says that there was one
    finally:
        os._exit(code)


def _answer(work: Work, report: Report) -> dict[str, Any]:
    try:
        return {"result": work(report)}
    except ApplianceError as error:
        return {"error": error.as_dict()}
    except MemoryError:
        why = f"it needs more than {size_words(MEMORY)} of memory"
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        where = "" if error.filename is None else str(error.filename)
        return {
            "error": make_error(
                "APL-0311", "the operating system refused", where=where, why=error.strerror or str(error)
            ).as_dict()
        }
    fix = "Nothing was published. Leave out one source after the other to find the one that does this"
    return {
        "error": make_error("APL-0140", "the process that reads the sources was killed", why=why, fix=fix).as_dict()
    }


def _reporter(sender: int) -> Report:
    last = [0.0]

    def report(done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] >= _EVERY or done == total:
            last[0] = now
            os.write(sender, json.dumps({"progress": [done, total]}).encode() + b"\n")

    return report


def _confine(owner: tuple[int, int] | None, seconds: int, parent: int) -> None:
    """Give up rights, then take limits: from here on bytes of strangers are looked at."""
    _become(owner)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY)
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_CORE, 0)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # After the change of user, which would forget it. Whoever kills the command kills its child.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    if hasattr(libc, "mallopt"):
        # glibc gives big buffers back to the kernel at once; the pages of fresh ones cost as much as hashing them.
        for option, value in ((_M_MMAP_THRESHOLD, 32 * _MIB), (_M_TRIM_THRESHOLD, 64 * _MIB), (_M_ARENA_MAX, 2)):
            libc.mallopt(option, value)


_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # prctl(2)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    # Time beyond the first limit is a signal that says so; at the second it would be SIGKILL at once.
    resource.setrlimit(what, (most, most + _GRACE if hard == resource.RLIM_INFINITY else hard))
