#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""A consistent copy of K3s's datastore while K3s runs: a fresh snapshot of etcd, or a copy of the sqlite database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_datastore
short_description: Copy K3s's datastore while it runs
description:
  - With etcd, asks K3s for a fresh snapshot. With sqlite, copies the database page by page in one transaction that readers
    and writers do not wait for, and checks the copy.
  - A server that has neither, such as one with an external database, is reported as C(none); nothing is written.
options:
  dest:
    description: Directory that gets the file I(dest)/C(state.db) or I(dest)/C(snapshot), 0600.
    type: path
    required: true
  data_dir:
    description: Directory of K3s's data.
    type: path
    default: /var/lib/rancher/k3s
  k3s:
    description: The K3s binary.
    type: path
    default: /usr/local/bin/k3s
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Copy K3s's datastore
  site.appliance.k3s_datastore:
    dest: /var/tmp/backup
"""

RETURN = r"""
kind:
  description: C(etcd), C(sqlite) or C(none).
  type: str
  returned: always
file:
  description: Name of the copy below I(dest); empty where there is none.
  type: str
  returned: always
"""

import contextlib
import os
import sqlite3
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

_NAME = "appliance-backup"


class DatastoreError(Exception):
    """Why there is no copy."""


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database that is in use; one file, whatever lies in its log.

    :raises DatastoreError: for a copy that SQLite itself finds damaged.
    """
    os.close(os.open(str(target), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    # Read-only, so that nothing of K3s's is changed; a lock of a writer is waited for.
    uri = source.resolve().as_uri() + "?mode=ro"
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(contextlib.closing(sqlite3.connect(uri, uri=True, timeout=60)))
        copy = stack.enter_context(contextlib.closing(sqlite3.connect(str(target))))
        live.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
        found = [row[0] for row in copy.execute("PRAGMA integrity_check(5)")]
    if found != ["ok"]:
        raise DatastoreError("the copy of %s is damaged: %s" % (source, "; ".join(map(str, found))))


def copy_etcd(module: AnsibleModule, k3s: str, dest: Path) -> None:
    """Let K3s write a snapshot.

    :raises DatastoreError: where it does not.
    """
    code, out, err = module.run_command([k3s, "etcd-snapshot", "save", "--name", _NAME, "--dir", str(dest)])
    made = sorted(dest.glob(_NAME + "-*"))
    if code != 0 or len(made) != 1:
        raise DatastoreError("k3s etcd-snapshot save ended with %d: %s" % (code, (err or out).strip()[-2000:]))
    made[0].chmod(0o600)
    made[0].rename(dest / "snapshot")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path", "required": True},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "k3s": {"type": "path", "default": "/usr/local/bin/k3s"},
        },
        supports_check_mode=True,
    )
    dest = Path(module.params["dest"])
    db = Path(module.params["data_dir"]) / "server" / "db"
    # A server that went from sqlite to etcd has kept the old database.
    kind = "etcd" if (db / "etcd").is_dir() else "sqlite" if (db / "state.db").is_file() else "none"
    file = {"etcd": "snapshot", "sqlite": "state.db", "none": ""}[kind]
    if not module.check_mode:
        try:
            if kind == "etcd":
                copy_etcd(module, module.params["k3s"], dest)
            elif kind == "sqlite":
                copy_sqlite(db / file, dest / file)
        except (DatastoreError, OSError, sqlite3.Error) as error:
            module.fail_json(
                msg="APL-0877: K3s's datastore cannot be copied [%s]: %s. See that K3s runs and that there is room, then run it again"
                % (db, error)
            )
    module.exit_json(changed=False, kind=kind, file=file)


if __name__ == "__main__":
    main()
