# SPDX-License-Identifier: Apache-2.0
"""The controller's part of ``site.appliance.release``: send the wheelhouse, in one file, to hosts that need it."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.site.appliance.plugins.plugin_utils import wheels

_OWN = re.compile(r"^k3s[_-]airgap[_-]appliance==(?P<version>[A-Za-z0-9.+!_-]+) ", re.MULTILINE)
_BUILD = (
    "Build it on a connected machine: python3 -m appliance.release.wheelhouse build/wheelhouse, and set mirror_wheelhouse"
    " where it is somewhere else"
)


def describe(wheelhouse: Path) -> tuple[str, str]:
    """Return the appliance's version in a wheelhouse, and the digest that stands for all its packages.

    :raises AnsibleActionFail: APL-0760 where it is no wheelhouse.
    """
    file = wheelhouse / "requirements.txt"
    try:
        content = file.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise AnsibleActionFail(f"APL-0760: there is no wheelhouse [{file}]: {reason}. {_BUILD}") from error
    own = _OWN.search(content.decode("utf-8", "replace"))
    if own is None:
        raise AnsibleActionFail(f"APL-0760: the wheelhouse does not hold the appliance [{file}]. {_BUILD}")
    return own["version"], hashlib.sha256(content).hexdigest()


def pack(wheelhouse: Path, target: Path, host: wheels.Target | None = None) -> None:
    """Write the wheels and the requirements file into one uncompressed tar, flat: one transfer and not thirty.

    :param host: what the wheels are for; those that it does not take stay here. None for all of them.
    :raises AnsibleActionFail: APL-0713 where a package has no wheel for that host.
    """
    files = {path.name: path for path in sorted((wheelhouse / "wheelhouse").glob("*.whl"))}
    chosen = list(files)
    if host is not None:
        requirements = wheels.required((wheelhouse / "requirements.txt").read_text(encoding="utf-8"))
        if absent := wheels.missing(requirements, files, host):
            raise AnsibleActionFail(
                f"APL-0713: the wheelhouse has no wheels for {host} [{wheelhouse}]: {', '.join(absent)} missing."
                f" Build it on a connected machine: {wheels.build_command([host])}"
            )
        chosen = wheels.fitting(files, host)
    with tarfile.open(target, "w:", format=tarfile.GNU_FORMAT) as tar:
        for path in [wheelhouse / "requirements.txt", *(files[name] for name in chosen)]:
            tar.add(path, arcname=path.name)


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core carries no types
    """Ask the host first; send the wheelhouse only where the release is not there."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, and where it would change something, run it again with the packed wheelhouse."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if not arguments.get("wheelhouse"):
            raise AnsibleActionFail("missing required arguments: wheelhouse")
        wheelhouse = Path(str(arguments["wheelhouse"])).expanduser()
        version, digest = describe(wheelhouse)
        arguments.update(version=version, digest=digest, wheelhouse=str(wheelhouse))
        arguments.pop("archive", None)
        try:
            asked: dict[str, Any] = self._execute_module("site.appliance.release", arguments, task_vars=task_vars)
            if asked.get("failed") or not asked.get("changed") or asked.get("complete") or self._task.check_mode:
                return asked
            remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "wheelhouse.tar")
            handle, name = tempfile.mkstemp(suffix=".tar")
            os.close(handle)
            try:
                pack(wheelhouse, Path(name), wheels.Target.of(asked["interpreter"]))
                self._transfer_file(name, remote)
            finally:
                os.unlink(name)
            installed: dict[str, Any] = self._execute_module(
                "site.appliance.release", {**arguments, "archive": remote}, task_vars=task_vars
            )
            return installed
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
