# SPDX-License-Identifier: Apache-2.0
"""The checksum files that lie beside archives on the controller."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.site.appliance.plugins.plugin_utils.checksum_names import checksum_paths

DOCUMENTATION = r"""
name: checksums
short_description: The checksum files that lie beside archives on the controller
description:
  - Looks for every name that C(appliance seed) takes for the checksum of a file, except the lists of a directory (C(SHA256SUMS)).
author: The K3s air-gap appliance's authors
options:
  _terms:
    description: Paths of the archives.
    required: true
"""

EXAMPLES = r"""
- name: Copy an archive and its checksum
  ansible.builtin.copy:
    src: "{{ item }}"
    dest: /srv/staging/
    mode: "0644"
  loop: "{{ ['/srv/app.tar'] + query('site.appliance.checksums', '/srv/app.tar') }}"
"""

RETURN = r"""
_raw:
  description: The paths that are files.
  type: list
  elements: str
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup under the name that roles call it by."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return the paths that are files."""
        return [path for path in checksum_paths([str(term) for term in terms]) if os.path.isfile(path)]
