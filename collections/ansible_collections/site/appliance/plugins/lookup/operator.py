# SPDX-License-Identifier: Apache-2.0
"""Who runs this playbook, for the audit log of the site."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Mapping
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: operator
short_description: Who runs this playbook
description:
  - The environment variable E(APPLIANCE_BY) of the controller, else who called C(sudo) there, else whose process it is; with the controller's name.
author: The K3s air-gap appliance's authors
options: {}
"""

EXAMPLES = r"""
- name: Publish, and let the audit log know who it was
  ansible.builtin.command:
    argv: [appliance, seed, --store, /var/lib/appliance, /media/stick]
  environment:
    APPLIANCE_BY: "{{ lookup('site.appliance.operator') }}"
"""

RETURN = r"""
_raw:
  description: One text.
  type: list
  elements: str
"""


def operator(environ: Mapping[str, str], user: str, host: str) -> str:
    """Return who it is.

    :param environ: environment of the controller's process.
    :param user: whose process it is.
    :param host: name of the controller.
    """
    return environ.get("APPLIANCE_BY") or f"{environ.get('SUDO_USER') or user}@{host}"


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup under the name that roles call it by."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return the one text."""
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = str(os.getuid())
        return [operator(os.environ, user, socket.gethostname())]
