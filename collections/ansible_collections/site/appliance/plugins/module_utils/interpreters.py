# SPDX-License-Identifier: Apache-2.0
"""Python interpreters of a host: what one says of itself. Runs on the targets' Python 3.9."""

from __future__ import annotations

import json
import shutil
from typing import Any, Callable, Dict, List, Tuple

#: Modules of the standard library that the services import and that some distributions leave out or pack apart.
NEEDED = ("bz2", "ctypes", "fcntl", "hashlib", "lzma", "ssl", "venv", "zlib")

_PROBE = """
import json, os, sys
missing = []
for name in sys.argv[1:]:
    try:
        __import__(name)
    except ImportError:
        missing.append(name)
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except (AttributeError, ValueError, OSError):
    libc = ""
machine = os.uname()[4]
if sys.maxsize < 2 ** 32:
    machine = {"x86_64": "i686", "aarch64": "armv7l"}.get(machine, machine)
number = libc.split(" ")[-1].split(".")[:2]
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "machine": machine,
    "glibc": [int(part) for part in number] if len(number) == 2 else [],
    "missing": missing,
}))
"""

#: ``AnsibleModule.run_command``: exit code, output and error output of a command.
Runner = Callable[[List[str]], Tuple[int, str, str]]


def probe(path: str, run: Runner) -> Dict[str, Any]:
    """Ask an interpreter for its version, machine, glibc and missing modules.

    It runs isolated: PYTHON* variables of the caller change neither the answer nor the installation.

    :return: ``version`` is None, and ``error`` says why, where it does not run.
    """
    if shutil.which(path) is None:
        return {"path": path, "version": None, "error": "it is not there"}
    try:
        code, out, err = run([path, "-I", "-c", _PROBE, *NEEDED])
        answer = json.loads(out) if code == 0 else None
    except (OSError, ValueError) as error:
        code, err, answer = 1, str(error), None
    if not isinstance(answer, dict):
        words = err.strip().splitlines()
        return {"path": path, "version": None, "error": words[-1] if words else f"it ended with exit code {code}"}
    return {"path": path, **answer}
