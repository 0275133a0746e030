from __future__ import annotations

import json

import pytest

from tests.lab.images import NGINX, TOOL
from tests.lab.story import playbook
from tests.lab.test_life import FRESH, MOVED_TOOL, Life, life, nothing_leaves_in_life  # noqa

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]
A = "/opt/appliance/current/venv/bin/appliance"


def show(run, name):
    from pathlib import Path

    Path("/var/tmp/scratch-hist/lab-" + name).write_text(run.output)


def label(created, site="site"):
    return {"site": site, "id": "of-" + created, "created": created}


def test_all(life: Life) -> None:
    life.plug("a", NGINX, TOOL, notes=label("2026-01-01"))
    show(life.run("site.yml", "-e", "agents_at_once=2"), "site")
    assert life.generation() == 1
    life.plug("a", NGINX, MOVED_TOOL, FRESH, notes=label("2026-04-01"))
    show(life.run("playbooks/update.yml"), "update")
    assert life.generation() == 2
    none = playbook(life.site, "playbooks/rollback.yml", life.inventory, expect=None)
    show(none, "none")
    assert "APL-0785" in none.output
    gone = playbook(life.site, "playbooks/rollback.yml", life.inventory, "-e", "rollback_to=9", expect=None)
    show(gone, "gone")
    assert "APL-0352" in gone.output
    asked = playbook(life.site, "playbooks/rollback.yml", life.inventory, "-e", "rollback_to=1", expect=None)
    show(asked, "asked")
    assert "APL-0770" in asked.output and life.generation() == 2
    check = life.run("playbooks/rollback.yml", "-e", "rollback_to=1", "--check", "--diff")
    show(check, "check")
    assert life.generation() == 2
    back = life.run("playbooks/rollback.yml", "-e", "rollback_to=1")
    show(back, "back")
    assert life.generation() == 3
    life.serves(TOOL)
    assert "remove" in back.output
    again = life.run("playbooks/rollback.yml", "-e", "rollback_to=1")
    show(again, "again")
    assert again.changed == 0
    other = life.run("playbooks/rollback.yml", "-e", "rollback_medium=of-2026-04-01")
    show(other, "forward")
    assert life.generation() == 4
    life.serves(MOVED_TOOL, FRESH)
    life.plug("a", NGINX, TOOL, notes=label("2026-01-01"))
    old = playbook(life.site, "playbooks/update.yml", life.inventory, "-e", "confirm=yes", expect=None)
    show(old, "old")
    assert "APL-0152" in old.output
    life.plug("a", NGINX, TOOL, notes=label("2026-07-01", "clinic"))
    strange = playbook(life.site, "playbooks/update.yml", life.inventory, "-e", "confirm=yes", expect=None)
    show(strange, "strange")
    assert "APL-0151" in strange.output
    assert life.generation() == 4
    life.plug("a", NGINX, MOVED_TOOL, FRESH, notes=label("2026-04-01"))
    less = life.run("playbooks/update.yml", "-e", json.dumps({"seed_remove": [FRESH.name]}))
    show(less, "less")
    assert life.generation() == 5
    same = life.run("playbooks/update.yml", "-e", json.dumps({"seed_remove": [FRESH.name]}))
    show(same, "same")
    assert same.changed == 0
    text = ""
    for command in ("history", "audit", "diff", "fsck"):
        words = " 1 2" if command == "diff" else ""
        text += life["a"].run(f"{A} {command} --store /var/lib/appliance{words}").stdout + "\n----\n"
    text += life["b"].run(f"{A} history --store /var/lib/appliance").stdout
    text += life["a"].run("cat /var/lib/appliance/journal.jsonl; ls -l /var/lib/appliance").stdout
    from pathlib import Path

    Path("/var/tmp/scratch-hist/lab-history").write_text(text)
