"""The reason why a host gave no report, read from what Ansible, ssh, sudo and the shell say."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.plugin_utils import contact

NO_SUCCESS = "Task failed: Premature end of stream waiting for become success.\n>>> Standard Error\n"
NO_JSON = "Module result deserialization failed: No start of json char found"


def _local(words: str) -> dict[str, Any]:
    """Return a failure as the plugin ``local`` gives it."""
    return {"failed": True, "msg": NO_SUCCESS + words}


def _ssh(words: str) -> dict[str, Any]:
    """Return a failure as the plugin ``ssh`` gives it, with a remark before and after."""
    noise = "sudo: unable to resolve host a: Name or service not known\n"
    return {
        "failed": True,
        "rc": 1,
        "msg": NO_JSON,
        "module_stdout": "",
        "module_stderr": f"{noise}{words}\nShared connection to a closed.\n",
    }


SUDO = [
    ("sudo: sorry, you must have a tty to run sudo", "Take requiretty away"),
    ("sudo: a password is required", "--ask-become-pass"),
    ("sudo: no tty present and no askpass program specified", "--ask-become-pass"),
    ("sudo: a terminal is required to read the password; either use the -S option", "--ask-become-pass"),
    ("sudo: interactive authentication is required", "--ask-become-pass"),
    ("jane is not in the sudoers file.  This incident will be reported.", "by visudo"),
    ("Sorry, user jane is not allowed to execute '/bin/sh -c id' as root on a.", "by visudo"),
    ("Sorry, user jane may not run sudo on a.", "by visudo"),
    ("I'm sorry jane. I'm afraid I can't do that", "by visudo"),
    ("doas: Operation not permitted", "by visudo"),
    ("/bin/sh: 1: sudo: not found", "Install sudo"),
    ("bash: line 1: sudo: command not found", "Install sudo"),
    ("Sorry, try again.", "Give the right password"),
    ("su: Authentication failure", "Give the right password"),
    ('sudo: The "no new privileges" flag is set, which prevents sudo from running as root.', "connect as root"),
    ("sudo: /usr/bin/sudo must be owned by uid 0 and have the setuid bit set", "connect as root"),
    ("sudo: account validation failure, is your account locked?", "sudo -n true"),
    ("sudo: unable to initialize policy plugin", "sudo -n true"),
]


@pytest.mark.parametrize(("words", "advice"), SUDO)
@pytest.mark.parametrize("form", [_local, _ssh])
def test_the_words_of_sudo_are_shown_with_what_to_do(form: Any, words: str, advice: str) -> None:
    found = contact.contact_problem("a", form(words))
    assert found is not None
    assert (found["id"], found["where"]) == ("APL-0732", "a")
    said = " ".join(words.removeprefix("/bin/sh: 1: ").removeprefix("bash: line 1: ").split()).rstrip(".")
    assert found["what"] == f"the user that Ansible connects as does not become root: {said}"
    assert advice in found["fix"]
    assert "json" not in found["what"] and "Python" not in found["fix"]


@pytest.mark.parametrize(
    "words", ["Missing sudo password", "Incorrect sudo password", "Task failed: Missing sudo password"]
)
def test_ansibles_own_words_about_a_password(words: str) -> None:
    found = contact.contact_problem("a", {"failed": True, "msg": words})
    assert found is not None and found["id"] == "APL-0732" and "--ask-become-pass" in found["fix"]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            {
                "failed": True,
                "rc": 127,
                "msg": "The module interpreter '/usr/bin/python9' was not found.",
                "module_stderr": "/bin/sh: 1: /usr/bin/python9: not found\n",
            },
            "/usr/bin/python9 is not there",
        ),
        (
            {
                "failed": True,
                "rc": 127,
                "msg": NO_JSON,
                "module_stderr": "bash: /usr/bin/python3: No such file or directory\n",
            },
            "/usr/bin/python3 is not there",
        ),
        (
            {
                "failed": True,
                "rc": 1,
                "msg": NO_JSON,
                "module_stdout": "ansible-core requires a minimum of Python version 3.8. Current version: 3.6.8 (default)\n",
            },
            "Python on the host is 3.6.8",
        ),
    ],
)
def test_a_python_that_is_missing_or_too_old_has_a_line_of_its_own(result: dict[str, Any], words: str) -> None:
    found = contact.contact_problem("a", result)
    assert found is not None
    assert found["id"] == "APL-0723" and words in found["what"] and "ansible_python_interpreter" in found["fix"]


UNKNOWN = [
    "Failed to connect to the host via ssh: Host key verification failed.",
    "Failed to connect to the host via ssh: No ED25519 host key is known for 192.0.2.11 and you have requested strict checking.\n"
    "Host key verification failed.",
    "Failed to connect to the host via ssh: The authenticity of host '192.0.2.11 (192.0.2.11)' can't be established.\n"
    "ED25519 key fingerprint is SHA256:abc+/1.\nThis key is not known by any other names.\nHost key verification failed.",
]


@pytest.mark.parametrize("message", UNKNOWN)
def test_an_unknown_host_key_is_not_a_changed_one(message: str) -> None:
    found = contact.contact_problem("a", {"unreachable": True, "msg": message}, "192.0.2.11", 2222)
    assert found is not None
    assert found["id"] == "APL-0733" and "192.0.2.11 is not known to this controller yet" in found["what"]
    assert ("SHA256:abc+/1" in found["what"]) is ("SHA256" in message)
    assert "ssh-keygen -R" not in found["fix"]
    assert "ssh-keyscan -p 2222 192.0.2.11 >> ~/.ssh/known_hosts" in found["fix"] and "console" in found["fix"]


def test_the_key_of_a_host_on_the_way_is_named_as_that_hosts() -> None:
    message = "No ED25519 host key is known for [bastion.site.example]:22 and you have requested strict checking. Host key verification failed."
    found = contact.contact_problem("a", {"unreachable": True, "msg": message}, "192.0.2.11")
    assert found is not None and "of bastion.site.example is not known" in found["what"]


@pytest.mark.parametrize(
    "message",
    [
        "@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@ Host key verification failed.",
        "Offending ED25519 key in /root/.ssh/known_hosts:1 Host key verification failed.",
        "@@@ WARNING: REVOKED HOST KEY DETECTED! @@@ Host key verification failed.",
    ],
)
def test_a_changed_host_key_is_compared_before_the_old_one_goes(message: str) -> None:
    found = contact.contact_problem("a", {"unreachable": True, "msg": message}, "192.0.2.11")
    assert found is not None
    assert found["id"] == "APL-0721" and "ssh-keygen -R 192.0.2.11" in found["fix"]


def test_an_error_of_the_module_is_not_taken_for_sudos() -> None:
    trace = "Traceback (most recent call last):\nPermissionError: [Errno 1] Operation not permitted: 'setuid'\n"
    found = contact.contact_problem("a", {"failed": True, "msg": NO_JSON, "module_stderr": trace})
    assert found is not None and found["id"] == "APL-0722" and "PermissionError" in found["what"]


def test_anything_else_is_shown_as_it_was_said() -> None:
    found = contact.contact_problem(
        "a", {"failed": True, "msg": "Failed to create temporary directory.", "module_stderr": ""}
    )
    assert found is not None and found["id"] == "APL-0722" and "ansible_remote_tmp" in found["fix"]
    found = contact.contact_problem("a", {"failed": True})
    assert found is not None and found["what"] == "could not be examined: no answer"
    assert contact.contact_problem("a", {"report": {"uid": 0}}) is None
