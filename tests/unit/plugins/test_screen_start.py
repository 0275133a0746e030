"""Start of a run: what each fork of Ansible would load again is loaded before the first one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COLLECTIONS = Path(__file__).resolve().parents[3] / "collections"
# In a process of its own, whose collections Ansible finds and imports as in a run.
LOADED = """
import sys
from pathlib import Path
from ansible.plugins.callback.default import CallbackModule
from ansible.plugins.loader import filter_loader, init_plugin_loader

init_plugin_loader([sys.argv[1]])
from ansible_collections.site.appliance.plugins.callback import screen

CallbackModule.v2_playbook_on_start = lambda *_: None
screen.CallbackModule().v2_playbook_on_start(None)
print(*sorted(Path(path).name for path in filter_loader._module_cache if "site/appliance" in path))
"""


def test_the_filters_are_loaded_before_the_first_fork() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, COLLECTIONS],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)},
        capture_output=True,
        text=True,
        check=False,
    )
    files = {path.name for path in COLLECTIONS.glob("ansible_collections/site/appliance/plugins/filter/*.py")}
    assert set(done.stdout.split()) == files - {"__init__.py"}, done.stderr
