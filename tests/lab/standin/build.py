"""Builds the stand-in as one executable file named ``k3s``, with K3s's kind of checksum file beside it.

The file is a zip archive that the host's own python3 runs: the stand-in and PyYAML's Python half, nothing compiled.
The same sources give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import zipfile
from pathlib import Path

import yaml

SHEBANG = b"#!/usr/bin/python3 -IB\n"
MAIN = "import sys\nfrom standin.k3s import main\nsys.exit(main(sys.argv))\n"
EPOCH = (1980, 1, 1, 0, 0, 0)


def build(path: Path) -> Path:
    """Write ``k3s`` and ``sha256sum-amd64.txt`` into a directory.

    :param path: the directory; made where it is missing.
    :returns: the executable.
    """
    path.mkdir(parents=True, exist_ok=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in sorted(_members().items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            target.writestr(entry, data)
    content = SHEBANG + archive.getvalue()
    executable = path / "k3s"
    fresh = path / f".k3s.{os.getpid()}"
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.replace(executable)
    (path / "sha256sum-amd64.txt").write_text(f"{hashlib.sha256(content).hexdigest()}  k3s\n")
    return executable


def _members() -> dict[str, bytes]:
    here, parser = Path(__file__).parent, Path(yaml.__file__).parent
    members = {"__main__.py": MAIN.encode()}
    members.update({f"standin/{item.name}": item.read_bytes() for item in here.glob("*.py") if item.name != "build.py"})
    members.update({f"yaml/{item.name}": item.read_bytes() for item in parser.glob("*.py")})
    return members


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("directory", type=Path)
    print(build(arguments.parse_args().directory))
