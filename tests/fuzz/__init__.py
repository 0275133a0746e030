"""Fuzzing: what comes from strangers, against what has to hold whatever comes.

Every target is a function of bytes that returns where everything holds; state machines read their steps out of the
bytes. So one corpus (``corpus/<target>``) and one list of targets serve two ways to run them:

* ``make test`` replays every file of the corpus under pytest, with a few random inputs besides, in seconds;
* ``make fuzz`` searches on from there.

**The engine is atheris** (libFuzzer with CPython's code instrumented). Its wheel installs from PyPI on Debian 12's
Python 3.11, and it finds a mistake that is put into a parser on purpose within seconds. Random bytes, which is what
hypothesis has for an input without a grammar, end at the first header of a tar; coverage leads past it. It also notices
an input that hangs or eats memory, which a test in the same process cannot, and makes finds small and the corpus minimal.
What speaks against it: a wheel of 35 MB, and few maintainers, so that each Python gets one late. So it is an extra
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
