#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""One of the site's K3s tokens, made once on the first server; its content is never part of the result."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_token
short_description: Make one of the cluster's K3s tokens once
description:
  - Creates I(path) with 0600 and a random password where it is absent, and leaves an existing one alone.
  - Where K3s has a token already (I(k3s_token)) its password is kept instead of making a new one, so that a lost
    I(path) does not cut off nodes that joined before.
  - The content is never returned.
options:
  path:
    description: The file that C(token-file) or C(agent-token-file) in K3s's config.yaml names.
    type: path
    required: true
  k3s_token:
    description: K3s's own token file on a server, of the form C(K10<hash>::server:<password>).
    type: path
    default: /var/lib/rancher/k3s/server/token
  unlike:
    description:
      - Another token, whose password this one must not have. K3s writes the servers' password into its own file of the agents' token
        where agents have no token of their own; it is not taken from there then.
      - Where I(path) has that password already, the module fails.
    type: path
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Make the token once
  site.appliance.cluster_token:
    path: /etc/rancher/k3s/cluster-token

- name: Make the agents' token once
  site.appliance.cluster_token:
    path: /etc/rancher/k3s/agent-token
    k3s_token: /var/lib/rancher/k3s/server/agent-token
    unlike: /etc/rancher/k3s/cluster-token
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


def read_password(path: Path) -> Optional[str]:
    """The password in a token's file; None where there is no such file, or nothing in it."""
    try:
        return password_of(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "k3s_token": {"type": "path", "default": "/var/lib/rancher/k3s/server/token", "no_log": False},
            "unlike": {"type": "path"},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    known = Path(module.params["k3s_token"])
    changed, origin = False, "kept"
    try:
        other = read_password(Path(module.params["unlike"])) if module.params["unlike"] else None
        present = read_password(path)
        if present is not None and present == other:
            module.fail_json(
                msg=f"APL-0881: the agents' token is the servers': {path} has the password of {module.params['unlike']}. With it an agent is"
                f" administrator of the cluster. Remove {path} on this host and run again: a token of their own is made."
            )
        if present is None:
            found = read_password(known)
            if found == other:
                found = None
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
