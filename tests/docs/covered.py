"""Table of the tests that run the commands of the manual; each command is found in it once or more.

The lines of :data:`NODE`, :data:`CONTROLLER` and :data:`ARCHIVE` are run as they stand, with :data:`EXAMPLES` in the places of
what the reader fills in. ``tests/unit/docs/test_commands.py`` fails for a line that nobody runs and for a pattern that fits none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests.docs.commands import Line, manual

EXAMPLES = {
    "<archive>": "docker.tar",
    "<binary>": "/usr/local/bin/k3s",
    "<file>": "/etc/rancher/k3s/k3s.yaml",
    "<first server>": "a",
    "<hex of the config>": "{hex}",
    "<hex>": "{hex}",
    "<host>": "a",
    "<image>": "docker.io/library/nginx:1.27",
    "<module>": "overlay",
    "<name>": "seed_sources",
    "<node>": "a",
    "<path>": "library/nginx",
    "<peer-address>": "10.77.0.12",
    "<peer-id>": "b",
    "<publisher>": "a",
    "<registry>": "docker.io",
    "<tag>": "1.27",
    "<user>": "root",
    "<version>": "{version}",
    "<word>": "today",
    "BYTE": "1",
    "DIRECTORY": "layout",
    "MOUNTPOINT": "/media/stick",
    "NODE": "b",
    "PATH": "/media/stick",
    "SOURCE…": "/media/stick",
}
"""Placeholders of the manual, and the text that is typed in place of each."""

_APPLIANCE = r"(\S*/bin/)?appliance "
NODE = (
    r"PATH=/opt/appliance/current/venv/bin:\$PATH",
    rf"{_APPLIANCE}(status|prove|running|--version)( --json| --sample( --seed .*)?)?( [>|].*)?",
    rf"{_APPLIANCE}(images|history|audit|fsck) --store /var/lib/appliance( --json| --repair)?",
    rf"{_APPLIANCE}plan (--stage )?--store /var/lib/appliance (FILE|SOURCE…|/media/stick)",
    r"/usr/bin/python3 --version; uname -m|python3 --version|uname -r; ls /lib/modules|id -un(; .*)?",
    r"(cat|grep (-A\d|-E|\^)|head|sed -n|tail -3|readlink) ?.*(/etc/appliance|/var/lib/appliance|/sys/fs/cgroup|/opt/appliance).*",
    r"grep -rn ip_forward .*|sysctl .*|lsmod \| grep .*|modinfo -n .*|ip (route; modinfo -n dummy|-br address)",
    r"ls (-\S+ )?(/|<file>).*",
    r"(df|du|findmnt|find|free|dmesg|lsblk|ps|pgrep|uptime)( .*)?|sudo /bin/sh -c .*",
    r"curl .*|openssl (pkey|req|verify|x509 -in /etc).*|ss -ltnp.*|nft list ruleset",
    r"journalctl .*",
    r"systemctl (cat|status|daemon-reload).*",
    r"systemctl (restart|start|stop) appliance-.*",
    r"k3s (--version|kubectl get nodes).*",
    r"sha256sum (/etc|/media).*",
    r"ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
    r"cp -a /var/lib/appliance/journal.jsonl .*",
)
"""Lines that tests/lab/test_tutorial.py types on a node of the installed site."""

CONTROLLER = (
    r"ansible (?!.*appliance running).*",
    r"ansible k3s_cluster -b -a .*appliance running.*",
    r"ansible-inventory .*",
    r"grep -rn (?!ip_forward).* inventory/?\S*",
    r"ssh (NODE|<node>|<first server>|<user>@<host>) .*",
    r"ssh-keygen -lF <host>",
    r"openssl x509 -in inventory/.*",
    r"(ls|head) (-l )?build/.*",
)
"""Lines that tests/lab/test_tutorial.py types on the controller of the installed site, in the checkout."""

ARCHIVE = (
    r"(tar \S+|tail -c \+BYTE) (FILE|<archive>).*",
    r"(cat|head -c 64|ls -l|sha256sum|openssl dgst -sha256|zstd (-t|-lv|-dc)|dd if=\S+ of=/dev/null bs=1M status=progress)( if=)? ?FILE.*|dd if=FILE.*",
    r"cat DIRECTORY/oci-layout|ls -la DIRECTORY",
    r"skopeo inspect --raw oci-archive:FILE.*",
    r"cat images\.tar\.zst\.sha256",
    r"(sha256sum|grep).* ?(k3s|k3s-airgap-images)\S*.*(amd64\.tar\.zst|sha256sum-amd64\.txt)",
    r"skopeo copy --all docker://NAME oci-archive:FILE(:NAME)?",
)
"""Lines that tests/integration/test_typed.py types beside the files of a stick."""

_CLI, _LIFE, _TUTORIAL = "tests/unit/cli", "tests/lab/test_life.py", "tests/lab/test_tutorial.py"
_TYPED = "tests/lab/test_tutorial.py::test_the_pages_as_they_are_typed"
_TOOLS = "tests/integration/test_archives_real_tools.py"
TESTS = {
    # The first hour.
    r"python3 -m venv ~/fetch && \. ~/fetch/bin/activate": _TYPED,
    r"python3 -m venv \.venv|\. \.venv/bin/activate|\.venv/bin/pip install .*|cp -r inventory/example inventory/site": _TYPED,
    r"python3? -m (appliance\.release\.wheelhouse|pip download) .*": _TYPED,
    r"skopeo copy --all docker://docker\.io/.*|zstd --rm nginx\.tar|sha256sum nginx\.tar\.zst > .*": _TYPED,
    r"ssh (root@\S+ true|(-v )?<host>)": _TYPED,
    r"ansible-playbook (site|playbooks/(preflight|verify|update|backup))\.yml( -e verify_\w+=\S+)?": _TYPED,
    # The playbooks' other forms.
    r"ansible-playbook site\.yml (-e confirm=yes|--check)( .*)?": "tests/lab/test_story.py::test_check_mode_works_on_clean_hosts",
    r"ansible-playbook site\.yml -e mirror_remove_anyway=yes": "tests/lab/test_nodes.py::test_the_only_one_that_holds_something_does_not_leave_unseen",
    r"ansible-playbook playbooks/update\.yml (--check|-e .*)": f"{_LIFE}::test_an_update_adds_an_image_of_a_new_registry_and_moves_a_tag",
    r"ansible-playbook playbooks/rollback\.yml .*": f"{_LIFE}::test_a_rollback_takes_it_back_and_the_stick_brings_it_again",
    r"ansible-playbook playbooks/gc\.yml.*": f"{_LIFE}::test_garbage_is_collected_and_what_runs_is_not",
    r"ansible-playbook playbooks/uninstall\.yml.*": f"{_LIFE}::test_it_is_taken_away_and_each_host_is_what_it_was",
    r"ansible-playbook playbooks/restore\.yml.*": f"{_LIFE}::test_a_site_that_burnt_down_comes_back_from_its_backup",
    # The commands that change something, and those that are only named in running text.
    r"appliance (audit|diff|rollback)( .*)?": f"{_CLI}/test_history.py::test_rollback_is_shown_first_and_publishes_exactly_that",
    r"appliance (plan|seed|images|fsck|status|prove|history|running)( --platform \S+ …)?": f"{_CLI}/test_commands.py::test_plan_seed_images_fsck",
    r"appliance fsck --repair": f"{_CLI}/test_gc.py::test_repair_asks_the_agent_and_says_what_came_back_and_what_is_lost",
    r"appliance seed (--store \S+ )?--expect .*": f"{_CLI}/test_commands.py::test_plan_seed_images_fsck",
    r"appliance seed --store \S+ --remove .*": f"{_CLI}/test_history.py::test_names_leave_by_name_without_a_medium",
    rf"{_APPLIANCE}(un)?pin( .*)?": f"{_CLI}/test_commands.py::test_pin_and_what_it_stops",
    rf"{_APPLIANCE}gc( .*)?": f"{_CLI}/test_gc.py::test_plan_then_collect_then_nothing",
    rf"{_APPLIANCE}take-over .*": "tests/integration/test_nodes.py::test_the_heir_of_a_lost_publisher_goes_on_from_the_newest_that_is_left",
    rf"{_APPLIANCE}leaving .*": "tests/integration/test_nodes.py::test_what_only_a_leaving_node_holds",
    r"(python -m )?appliance hash-password.*": f"{_CLI}/test_commands.py::test_hash_password_makes_a_line_and_shows_no_password",
    r"python -m appliance backup .*": "tests/unit/backup/test_site.py::test_packed_shown_and_unpacked",
    r"appliance serve .*": "tests/integration/test_push.py::test_skopeo_pushes_lists_pulls_and_deletes",
    # Clients of the registry.
    r"skopeo (copy --all --preserve-digests|list-tags|delete)( .*)?": "tests/integration/test_push.py::test_skopeo_pushes_lists_pulls_and_deletes",
    r"podman (login|push) .*": "tests/integration/test_push.py::test_podman_pushes_and_pulls",
    r"skopeo inspect oci:.*": "tests/integration/test_typed.py::test_a_store_is_an_oci_layout",
    # Programs that write archives, named where their forms are.
    r"docker (save|tag)( .*)?|docker buildx build .*": f"{_TOOLS}::test_docker_save_of_several_images",
    r"podman (save|manifest \w+)( .*)?": f"{_TOOLS}::test_podman_save",
    r"ctr images export": f"{_TOOLS}::test_ctr_export",
    r"skopeo (copy|…|docker-archive:)( (?!--all (docker://(docker\.io|NAME)|--preserve)).*)?": f"{_TOOLS}::test_skopeo_oci_archive_and_layout_keep_digests",
    r"hauler store save .*": "tests/unit/archives/test_formats.py::test_haul_with_all_its_kinds",
    r"zstd --long=\d+": f"{_TOOLS}::test_skopeo_docker_archive_compressed",
    # Development.
    r"(BENCH_QUICK=1 )?make bench": "tests/integration/test_bench.py::test_the_quick_form_of_make_bench_measures_every_group",
    r"\.venv/bin/python -m tests\.bench .*": "tests/integration/test_typed.py::test_a_group_of_the_bench_alone",
    r"make (docs|clean|help)|python -m tests\.docs\.generate": "tests/integration/test_typed.py::test_small_targets",
    r"make fuzz( .*)?": "tests/integration/test_typed.py::test_fuzzing_for_a_moment",
    r"python -m tests\.fuzz keep": "tests/integration/test_typed.py::test_fuzzing_for_a_moment",
    r"python -m tests\.fuzz\.seeds": "tests/integration/test_typed.py::test_the_corpus_is_made_again",
    r"make story": "tests/lab/test_story.py::test_check_mode_works_on_clean_hosts",
    r"make lab-(up|down).*": "tests/lab/test_lab.py::test_up_and_down_as_make_has_them",
    r"K3S_BINARY=\S+ \.venv/bin/python -m pytest .*": "tests/lab/test_servers.py::test_three_servers_come_one_after_the_other",
}
"""Pattern of a line to the test that runs it, or what it stands for."""

REASONS = {
    r"make (test|test-all|unit|lint)": "they run the tests; .ci/run calls the first, which calls the others",
    r"make demo( .*)?": "tells what tests/lab/test_story.py asserts, by the same functions of tests/lab/story.py, in four minutes",
    r"make lock": "asks the index for newer releases: what it makes would be another one each day",
    r"mkdir -p /media/stick && mount -o ro,.*|mount -o ro,noload( …)?": "a lab host has no USB port; tests/lab/host.py mounts the stick with the same options",
    r"mount -o remount,.*": "a file system that its host has mounted otherwise than it has to be",
    r"export KUBECONFIG=\S+|kubectl (get|create|delete|drain|-n).*|k3s kubectl( (?!get nodes).*)?": (
        "Kubernetes' own client: tests/lab/story.py runs it with a real K3s (K3S_BINARY); the stand-in knows 'get nodes' alone"
    ),
    r"k3s (crictl|ctr|etcd-snapshot|server|token) .*": "K3s's own commands: the lab runs them with a real K3s; the stand-in has no API for pods",
    r"cd /etc/rancher/k3s && umask 077 && .*|rm /etc/rancher/k3s/agent-token .*": "before K3s's own command, or before a run that makes the file anew",
    r"export OCI_\S+.*|\./conformance(\.test)?": "the official suite, which its own project builds; its cases are in tests/unit/registry/test_conformance.py",
    r"appliance (enroll|stage)": "not there yet, and named as that",
    r"ansible-playbook .*--(limit|tags) .*": "Ansible's own options; --limit is run by tests/lab/test_life.py with names of its hosts",
    r"python3 -m venv venv && .*|python3 -m (pip --version|venv /tmp/.*)": "the same as in the tutorial, with an index at hand",
    r"ssh-keygen -R <host>|ssh-keyscan .*|ssh-keygen -lf keys|cat keys .*": "learns the keys of many hosts, or forgets one; tests/lab/test_bad_input.py asserts that a changed one is refused",
    r"firewall-cmd .*": "firewalld's own commands; tests/lab/test_story.py reloads it on the host that has it",
    r"systemctl (disable --now|edit) .*": "what is to be disabled or edited is somebody else's unit, which a lab host does not have",
    r"smartctl .*|fuser .*|file (FILE|<binary>)|.*\| xxd|zstd -t /media/.*|7z .*": "of packages that a node need not have; they only look",
    r"sudo -u appliance .*|sync && mv .*|cd /var/lib/appliance( && rm .*)?|sha256sum generations/\*\.json|chown -R appliance.*": (
        "the repair of an index by hand, for a site of one node; with another one the agent does it: tests/integration/test_damage.py"
    ),
    r"chmod o\+rX|mkdir -p /etc/appliance && touch .*|date -u -s .*|modprobe .*": "one word of a host's administration, for a host that is wrong in just that",
    r"cd /media/stick && sha256sum .*": "the same as the file beside it that seeding checks: tests/unit/archives/test_formats.py",
    r"python3 -m json\.tool < FILE\.sig": "looks at a file that the error names",
    r"fsck --repair|tail (-f .*|-c \+BYTE)|head -c BYTES|cat a\.tar\S* .*|ls -l|zstd -dc|openssl dgst( -sha256)?"
    r"|python3? -m appliance\.release\.wheelhouse|ansible-playbook -K": "named, not typed",
}
"""Pattern of a line that no test runs to the reason."""


def lines_of(patterns: Iterable[str]) -> list[str]:
    """Return the lines of the manual that fit a pattern, each once."""
    found = (line.text for line in manual() if any(re.fullmatch(pattern, line.text) for pattern in patterns))
    return list(dict.fromkeys(found))


def patterns() -> list[str]:
    """Return all patterns of the table."""
    return [*NODE, *CONTROLLER, *ARCHIVE, *TESTS, *REASONS]


def is_covered(line: Line) -> bool:
    """Return whether the table has a line."""
    return any(re.fullmatch(pattern, line.text) for pattern in patterns())


def filled_in(line: str, **known: str) -> str:
    """Return a line with examples in the places of what the reader fills in.

    :param known: further examples: ``FILE``, and what stands in braces in :data:`EXAMPLES`.
    """
    words = {name: value for name, value in known.items() if name.isupper()}
    for placeholder, example in {**words, **EXAMPLES}.items():
        if placeholder.isupper():
            line = re.sub(rf"(?<![\w$]){placeholder}(?![\w=:])", example, line)
        else:
            line = line.replace(placeholder, example)
    for name, value in known.items():
        line = line.replace(f"{{{name}}}", value)
    return line
