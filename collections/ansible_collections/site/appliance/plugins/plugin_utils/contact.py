# SPDX-License-Identifier: Apache-2.0
"""Reasons why a host gave no report: SSH, its host key, sudo, Python. The source is the text of a failed task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils.findings import Problem, problem

_CONSOLE = "Compare the fingerprint at the host's own console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)"
_CHANGED_KEY = re.compile(r"identification has changed|Offending \S+ key in|REVOKED HOST KEY", re.IGNORECASE)
_REFUSED_KEY = re.compile(r"host key verification failed|host identification has changed", re.IGNORECASE)
_ASKED_HOST = re.compile(r"(?:authenticity of host '\[?|host key is known for \[?)([^\s'\]()]+)")

# Words of the programs that give root rights, in the order of how much they say. sudo's own complaint about the host's name
# is a remark: it goes on after it.
_NO_RIGHTS = re.compile(
    r"have a tty|password is required|no tty present|askpass|authentication is required|not in the sudoers|"
    r"not allowed to (?:execute|run)|may not run (?:sudo|doas)|no new privileges|setuid|effective uid is not 0|"
    r"afraid I can't do that|Authentication failure|incorrect password|Sorry, try again|account (?:validation failure|is|has)|"
    r"(?:Missing|Incorrect) \S+ password|^doas: Operation not permitted|"
    r"(?:^|[/\s])(?:sudo|su|doas|pkexec|run0)\S*: .*not found|"
    r"waiting for (?:privilege escalation|become) .*password",
    re.IGNORECASE,
)
_SPEAKER = re.compile(r"^(?:sudo|sudo-rs|su|doas|pkexec|run0|ksu|dzdo)\b.*: ")
_REMARK = re.compile(
    r"unable to resolve host|^Warning: Permanently added|^Shared connection to|^Connection to .* closed"
)
_ADVICE = (
    (r"have a tty", "Take requiretty away for this user: a line 'Defaults:USER !requiretty' by visudo."),
    (
        r"not in the sudoers|not allowed to|may not run|afraid I can't|Operation not permitted",
        "Give this user the rights by visudo, or connect as root (ansible_user: root).",
    ),
    (
        r"not found",
        "Install sudo, connect as root (ansible_user: root), or set ansible_become_method to what is there.",
    ),
    (
        r"Incorrect|incorrect password|try again|Authentication failure",
        "Give the right password with --ask-become-pass (-K), or in ansible_become_password by ansible-vault.",
    ),
    (
        r"password|no tty present|askpass|authentication is required",
        "Give the password with --ask-become-pass (-K), or in ansible_become_password by ansible-vault;"
        " or allow this user NOPASSWD by visudo.",
    ),
    (
        r"no new privileges|setuid|effective uid",
        "sudo cannot give rights on this host: connect as root (ansible_user: root).",
    ),
)
_PYTHON_OLD = re.compile(
    r"(?:minimum of Python version|requires Python) \S+.*?Current version: (\d+\.\d+(?:\.\d+)?)", re.IGNORECASE
)
_PYTHON_ABSENT = re.compile(
    r"The module interpreter '([^']+)' was not found|(?:^|[ :])(\S*python[\d.]*): (?:command )?not found|"
    r"No python interpreters found|(\S*python[\d.]*): No such file",
    re.IGNORECASE,
)


def contact_problem(host: str, result: Mapping[str, Any], address: str = "", port: int | None = None) -> Problem | None:
    """Say why a host gave no report, or return None where it did.

    :param result: the registered result of ``site.appliance.host_report``.
    :param address: what Ansible connects to.
    :param port: the SSH port where it is not 22.
    """
    if result.get("report"):
        return None
    lines = _lines(result)
    message = " ".join(lines) or "no answer"
    if _REFUSED_KEY.search(message):
        return _key_problem(host, message, address or host, port)
    if result.get("unreachable"):
        said = "; ".join(line.rstrip(".") for line in lines) or message
        words = re.sub(r"^(Task failed: )?(Data could not be sent to remote host .*? over ssh: )?", "", said)
        return problem(
            "APL-0720",
            host,
            f"unreachable: {words}",
            f"Check power, cable, address and SSH, then run it again; or leave the host out: --limit '!{host}'.",
        )
    return _python_problem(host, message) or _rights_problem(host, lines) or _other_problem(host, lines)


def _lines(result: Mapping[str, Any]) -> list[str]:
    """Return what Ansible, the shell and sudo said, line by line, without Ansible's own headings."""
    text = "\n".join(str(result.get(key) or "") for key in ("msg", "module_stderr", "module_stdout"))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [line for line in dict.fromkeys(lines) if line and not line.startswith(">>> Standard")]


def _key_problem(host: str, message: str, address: str, port: int | None) -> Problem:
    offered = re.search(r"SHA256:[\w+/=]+", message)
    key = f"the SSH host key{f' {offered[0]}' if offered else ''}"
    if _CHANGED_KEY.search(message):
        listed = re.search(r"Offending \S+ key in (\S+)", message)
        return problem(
            "APL-0721",
            host,
            f"{key} is not the one that known_hosts has for this host" + (f" ({listed[1]})" if listed else ""),
            f"{_CONSOLE}; only if it is right, replace the old entry (ssh-keygen -R {address}).",
        )
    asked = _ASKED_HOST.search(message)
    name = asked[1] if asked else address
    scan = f"ssh-keyscan{f' -p {port}' if port and port != 22 else ''} {name}"
    return problem(
        "APL-0733",
        host,
        f"{key} of {name} is not known to this controller yet: known_hosts has none for it",
        f"{_CONSOLE}; if it is right, accept it: connect once by ssh, or {scan} >> ~/.ssh/known_hosts.",
    )


def _python_problem(host: str, message: str) -> Problem | None:
    """Return the problem of a Python that is missing or too old for Ansible itself."""
    fix = "Install Python 3.9 or newer from the distribution and set ansible_python_interpreter to it."
    if old := _PYTHON_OLD.search(message):
        return problem("APL-0723", host, f"Python on the host is {old[1]}; the modules need 3.9", fix)
    if absent := _PYTHON_ABSENT.search(message):
        path = next((group for group in absent.groups() if group), "Python")
        return problem("APL-0723", host, f"{path} is not there; the modules need Python 3.9", fix)
    return None


def _rights_problem(host: str, lines: list[str]) -> Problem | None:
    """Return the problem of a user who does not become root, in the words of sudo."""
    if any("Traceback (most recent call last)" in line for line in lines):
        return None
    said = [line for line in lines if not _REMARK.search(line)]
    words = next((line for line in said if _NO_RIGHTS.search(line)), "") or next(
        (line for line in said if _SPEAKER.match(line)), ""
    )
    if not words:
        return None
    words = re.sub(r"^(Task failed: |/bin/sh: \d+: |\S*sh: (line \d+: )?)", "", words).rstrip(".")
    advice = next((fix for pattern, fix in _ADVICE if re.search(pattern, words, re.IGNORECASE)), "")
    return problem(
        "APL-0732",
        host,
        f"the user that Ansible connects as does not become root: {words}",
        advice or f"ssh to {host} and try sudo -n true; or connect as root (ansible_user: root).",
    )


def _other_problem(host: str, lines: list[str]) -> Problem:
    said = [line for line in lines if not _REMARK.search(line)] or ["no answer"]
    words = " ".join(said).rstrip(".")
    fix = f"ansible {host} -m ansible.builtin.ping -b -vvv shows the whole conversation."
    if "temporary directory" in words:
        fix = "It needs room and the right to write in ~/.ansible/tmp on the host; ansible_remote_tmp names another place."
    return problem("APL-0722", host, f"could not be examined: {words.removeprefix('Task failed: ')}", fix)
