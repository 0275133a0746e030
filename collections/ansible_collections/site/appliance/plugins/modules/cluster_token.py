#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""The site's K3s token, made once on the first server; its content is never part of the result."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_token
short_description: Make the cluster's K3s token once
description:
  - Creates I(path) with 0600 and a random password where it is absent, and leaves an existing one alone.
  - Where K3s has a token already (I(k3s_token)) its password is kept instead of making a new one, so that a lost
    I(path) does not cut off nodes that joined before.
  - The content is never returned.
options:
  path:
    description: The file that C(token-file) in K3s's config.yaml names.
    type: path
    required: true
  k3s_token:
    description: K3s's own token file on a server, of the form C(K10<hash>::server:<password>).
    type: path
    default: /var/lib/rancher/k3s/server/token
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Make the token once
  site.appliance.cluster_token:
    path: /etc/rancher/k3s/cluster-token
"""

RETURN = r"""
origin:
  description: Where the token came from, C(kept), C(k3s) or C(made).
  type: str
  returned: always
"""

import os
import secrets
import tempfile
from pathlib import Path
from typing import Optional

from ansible.module_utils.basic import AnsibleModule


def password_of(text: str) -> Optional[str]:
    """The password in a K3s token file, of the long or the short form; None where there is none."""
    token = text.strip()
    if token.startswith("K10"):
        token = token.partition("::")[2].partition(":")[2]
    return token or None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "k3s_token": {"type": "path", "default": "/var/lib/rancher/k3s/server/token", "no_log": False},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    known = Path(module.params["k3s_token"])
    changed, origin = False, "kept"
    try:
        if not path.exists() or not path.read_text(encoding="ascii").strip():
            found = password_of(known.read_text(encoding="ascii")) if known.exists() else None
            changed, origin = True, "k3s" if found else "made"
            if not module.check_mode:
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                # mkstemp makes the file 0600 from the start; it is complete before it has its name.
                handle, temporary = tempfile.mkstemp(prefix=".token-", dir=path.parent)
                with os.fdopen(handle, "w", encoding="ascii") as stream:
                    stream.write((found or secrets.token_hex(32)) + "\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(temporary).rename(path)
        elif path.stat().st_mode & 0o777 != 0o600:
            changed = True
            if not module.check_mode:
                path.chmod(0o600)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or path}: {error.strerror or error}")
    module.exit_json(changed=changed, origin=origin)


if __name__ == "__main__":
    main()
