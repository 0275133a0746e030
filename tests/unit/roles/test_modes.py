"""Modes and owners of everything that the roles write, as one table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
WRITING = {
    "carry",
    "copy",
    "template",
    "file",
    "tempfile",
    "fetch",
    "assemble",
    "lineinfile",
    "blockinfile",
    "unarchive",
    "get_url",
}
PRIVATE = {"tempfile", "fetch"}
"""Modules without a mode: the first makes directories of 0700, and the second writes into those."""
Row = tuple[str, str, str]
TABLE: dict[str, Row] = {
    "backup/k3s.yml: {{ __backup_k3s_part.path }}/{{ __backup_datastore.file }}": (
        "0600",
        "{{ __backup_k3s_part.uid }}",
        "",
    ),
    "backup/pack.yml: {{ __backup_collected.path }}/{{ item.key }}": ("0600", "", ""),
    "backup/place.yml: {{ backup_dir }}": ("0700", "", ""),
    "backup/store.yml: {{ __backup_part.path }}/store.tar": ("0600", "{{ __backup_part.uid }}", ""),
    "firewall/unit.yml: /etc/appliance/firewall.json": ("0644", "root", "root"),
    "firewall/unit.yml: {{ __firewall_unit_path }}": ("0644", "root", "root"),
    "firewall/unit.yml: /etc/appliance": ("0755", "root", "root"),
    "firewall/unit.yml: /usr/local/lib/appliance": ("0755", "root", "root"),
    "firewall/unit.yml: /usr/local/lib/appliance/firewall": ("0755", "root", "root"),
    "host/before.yml: {{ __host_before }}": ("0700", "root", "root"),
    "host/before.yml: {{ __host_before }}/sysctl.conf": ("0600", "root", "root"),
    "host/default_route.yml: {{ __host_route_unit }}": ("0644", "root", "root"),
    "host/default_route.yml: /usr/local/lib/appliance/default-route": ("0755", "root", "root"),
    "host/main.yml: /etc/appliance/managed": ("0644", "root", "root"),
    "host/main.yml: /etc/appliance": ("0755", "root", "root"),
    "host/main.yml: /usr/local/lib/appliance": ("0755", "root", "root"),
    "host/main.yml: /etc/appliance/k3s-resolv.conf": ("0644", "root", "root"),
    "host/sysctl.yml: /etc/sysctl.d/90-appliance.conf": ("0644", "root", "root"),
    "k3s/config.yml: {{ __k3s_config_file | dirname }}": ("0755", "root", "root"),
    "k3s/config.yml: {{ __k3s_config_file }}": ("0600", "root", "root"),
    "k3s/config.yml: {{ __k3s_unit_file }}": ("0644", "root", "root"),
    "k3s/install.yml: {{ __k3s_marker | dirname }}": ("0755", "root", "root"),
    "k3s/install.yml: {{ __k3s_marker }}": ("0644", "root", "root"),
    "k3s/install.yml: {{ __k3s_path | dirname }}": ("0755", "root", "root"),
    "k3s/install.yml: {{ __k3s_staged }}": ("0755", "root", "root"),
    "k3s/install.yml: {{ __k3s_staging }}/{{ item.name }}": ("0600", "root", "root"),
    "k3s/start.yml: {{ k3s_kubeconfig }}": ("0600", "", ""),
    "mirror/files.yml: {{ __mirror_config_file }}": ("0640", "root", "{{ __mirror_user }}"),
    "mirror/files.yml: {{ __mirror_push_file }}": ("0640", "root", "{{ __mirror_user }}"),
    "mirror/install.yml: {{ __mirror_root }}": ("0755", "root", "root"),
    "mirror/install.yml: {{ __mirror_etc }}": ("0755", "root", "root"),
    "mirror/pki.yml: {{ __mirror_issued }}": ("0700", "", ""),
    "mirror/pki.yml: {{ __mirror_issued }}/{{ inventory_hostname }}.csr": ("0600", "", ""),
    "mirror/install.yml: {{ __mirror_pki }}": ("0750", "{{ __mirror_user }}", "{{ __mirror_user }}"),
    "mirror/pki.yml: {{ __mirror_pki }}/ca.crt": ("0640", "root", "{{ __mirror_user }}"),
    "mirror/pki.yml: {{ __mirror_pki }}/node.crt": ("0640", "root", "{{ __mirror_user }}"),
    "mirror/store.yml: {{ __mirror_store }}": ("0750", "{{ __mirror_user }}", "{{ __mirror_user }}"),
    "mirror/switch.yml: {{ __mirror_record }}": ("0644", "root", "root"),
    "plan/keep.yml: {{ plan_dir }}": ("0700", "", ""),
    "plan/keep.yml: {{ plan_dir }}/{{ item.name }}": ("0600", "", ""),
    "plan/medium.yml: {{ __plan_tools.path }}": ("0755", "", ""),
    "plan/stage.yml: {{ __plan_staging }}": ("0755", "root", "root"),
    "plan/stage.yml: {{ __plan_staging }}/": ("0644", "root", "root"),
    "registries/configure.yml: {{ __registries_file | dirname }}": ("0755", "root", "root"),
    "registries/configure.yml: {{ __registries_file }}": ("0600", "root", "root"),
    "restore/k3s.yml: {{ __restore_marker }}": ("0644", "root", "root"),
    "restore/k3s.yml: {{ __restore_password_file }}": ("0600", "root", "root"),
    "restore/k3s.yml: {{ item.path }}": ("0600", "root", "root"),
    "restore/names.yml: {{ __restore_part.path }}/store.tar": ("0600", "root", "root"),
    "restore/unpack.yml: {{ restore_pki_dir }}": ("0700", "", ""),
    "restore/unpack.yml: {{ restore_pki_dir }}/{{ item.name }}": ("{{ item.mode }}", "", ""),
    "seed/main.yml: {{ __seed_platforms_file }}": ("0644", "root", "root"),
    "uninstall/k3s.yml: {{ item.path | regex_replace('^' ~ __uninstall_before, '') }}": (
        "{{ item.mode }}",
        "{{ item.uid }}",
        "{{ item.gid }}",
    ),
}
"""Role, file of tasks and path to mode, owner and group; empty where they are those of who runs the playbook."""


def tasks(items: Any) -> Iterator[dict[str, Any]]:
    for item in items or []:
        yield item
        for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from tasks(item.get(key))


def found() -> dict[str, Row]:
    """Return the table as the roles and playbooks have it."""
    rows: dict[str, Row] = {}
    for file in sorted([*ROOT.glob("roles/*/*/*.yml"), *ROOT.glob("playbooks/*.yml"), ROOT / "site.yml"]):
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        for task in tasks(document if isinstance(document, list) else []):
            for name, options in task.items():
                module = name.rpartition(".")[2]
                if module == "text_files":
                    rows |= _texts(file, options)
                if module not in WRITING - PRIVATE or not isinstance(options, dict):
                    continue
                if options.get("state") in ("absent", "link"):
                    continue
                place = options.get("dest") or options.get("path")
                where = _where(file, place)
                kept = "" if options.get("recurse") is None else " (recursive)"
                mode, owner, group = (str(options.get(key) or "") for key in ("mode", "owner", "group"))
                rows[where + kept] = (mode, owner, group)
    return rows


def _where(file: Path, place: Any) -> str:
    return f"{file.relative_to(ROOT)}: {place}".removeprefix("roles/").replace("/tasks/", "/", 1)


def _texts(file: Path, options: dict[str, Any]) -> dict[str, Row]:
    """Return the rows of one task of ``site.appliance.text_files``, with the module's own defaults."""
    rows: dict[str, Row] = {}
    for key, mode in (("directories", "0755"), ("files", "0644")):
        # A filter makes the list of tokens; its own test has their mode.
        for item in options.get(key) or [] if not isinstance(options.get(key), str) else []:
            rows[_where(file, item["path"])] = (
                item.get("mode", mode),
                item.get("owner", "root"),
                item.get("group", "root"),
            )
    return rows


def test_everything_that_a_role_writes_has_the_mode_and_owner_of_the_table() -> None:
    assert found() == TABLE


def test_nothing_is_written_with_the_mode_that_happens_to_be() -> None:
    assert [place for place, (mode, _, _) in TABLE.items() if not mode] == []
    assert [place for place, (mode, _, _) in TABLE.items() if mode.isdigit() and int(mode, 8) & 0o022] == []


def test_secrets_are_for_their_owner_alone() -> None:
    """Tokens, keys, passwords and what holds them; a group reads where the services' user has to."""
    words = ("token", "_pki", "password", "registries_file", "kubeconfig", "backup_dir", "store.tar", "config_file")
    secret = {place: row for place, row in TABLE.items() if any(word in place for word in words)}
    open_ = [place for place, (mode, _, _) in secret.items() if mode.isdigit() and int(mode, 8) & 0o007]
    assert len(secret) > 8
    assert [place for place in open_ if not place.endswith("| dirname }}")] == []
