"""One target under atheris, in a process of its own: ``python -m tests.fuzz.engine TARGET [libFuzzer options]``.

The package is instrumented as it is imported, so nothing of it may be imported before.
"""

from __future__ import annotations

import os
import sys
import warnings


def main(arguments: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    target, *options = arguments
    # Nobody waits for the disk: what is synced, and when, is a matter of other tests.
    os.fsync = lambda _: None
    warnings.simplefilter("error")
    with atheris.instrument_imports(include=["appliance"]):
        from tests.fuzz import targets

        run = targets.load(target)
    atheris.Setup([f"{target}", *options], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
