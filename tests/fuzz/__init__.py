"""Fuzzing: what comes from strangers, against what has to hold whatever comes.

Every target is a function of bytes that returns where everything holds; state machines read their steps out of the
bytes. So one corpus (``corpus/<target>``) and one list of targets serve two ways to run them:

* ``make test`` replays every file of the corpus under pytest, with a few random inputs besides, in seconds;
* ``make fuzz`` searches on from there.

**The engine is atheris** (libFuzzer with CPython's code instrumented). It was tried beside hypothesis, which the unit
tests use: on Debian 12's Python 3.11 its wheel installs from PyPI alone. From the same start, hypothesis's random bytes
do not get past a tar's or a compressed stream's header, while coverage leads atheris through them; it notices an input
that hangs or eats memory, which a test in the same process cannot; and it makes its finds small and its corpus minimal.
What speaks against it: a wheel of 35 MB for x86-64 (and each Python gets one late), one maintainer. So it is an extra
of ``make fuzz`` alone (``requirements/fuzz.txt``, hash-locked), and no target imports it: without it everything but the
search still works.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).resolve().parent / "corpus"
OUTPUT = ROOT / "build" / "fuzz"


def wait_for_no_disk() -> None:
    """Inputs outlive no power loss: what is synced, and when, is a matter of other tests."""

    def fsync(fd: object) -> None:
        pass

    os.fsync = fsync
