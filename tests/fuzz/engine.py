"""One target under atheris, in a process of its own: ``python -m tests.fuzz.engine TARGET [libFuzzer options]``.

The package is instrumented as it is imported, so nothing of it may be imported before.
"""

from __future__ import annotations

import sys
import warnings

from tests.fuzz import wait_for_no_disk


def main(arguments: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    target, *options = arguments
    wait_for_no_disk()
    warnings.simplefilter("error")
    with atheris.instrument_imports(include=["appliance"]):
        from tests.fuzz import targets

        run = targets.load(target)
    # To merge and to minimise, libFuzzer starts itself again by its first argument, through a shell.
    atheris.Setup([f"{sys.executable} -m tests.fuzz.engine {target}", *options], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
