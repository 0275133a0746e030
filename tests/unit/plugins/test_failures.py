"""Failures as text: each once, with its hosts, what to do, and the page of the manual."""

from __future__ import annotations

from ansible_collections.site.appliance.plugins.plugin_utils.failures import (
    Failure,
    failure_lines,
    failure_text,
    grouped,
)


def test_an_error_of_the_appliance_stands_alone_with_its_page() -> None:
    text = failure_text(
        {"msg": "Task failed: Action failed: APL-0102: cut off [a.tar]. Copy it again\n", "stdout": "much"}
    )
    assert text == "APL-0102: cut off [a.tar]. Copy it again"
    assert failure_lines(["a"], Failure("a", "Read", text)) == [
        "a: APL-0102: cut off [a.tar]. Copy it again",
        "  Page: docs/runbooks/APL-0102.md",
    ]


def test_a_host_that_the_error_names_is_not_named_again() -> None:
    lines = failure_lines(["a"], Failure("a", "Read", "APL-0771: a: too small"))
    assert lines[0] == "APL-0771: a: too small"


def test_any_other_error_has_its_task_and_what_the_command_wrote() -> None:
    text = failure_text({"msg": "non-zero return code", "stderr": "no such file\n", "stdout": "x"})
    assert failure_lines(["b"], Failure("b", "Copy it", text, where="tasks.yml:3")) == [
        "b: Copy it: non-zero return code",
        "  no such file",
        "  Add -v to see all of it (tasks.yml:3).",
    ]


def test_words_for_an_operator_stand_alone() -> None:
    worded = Failure("a", "Stop", "No other node was touched. Mend a and run it again", is_worded=True)
    assert failure_lines(["a"], worded) == ["No other node was touched. Mend a and run it again"]


def test_a_failure_without_a_word_says_that() -> None:
    assert failure_text({}) == "it failed without a message"


def test_hosts_with_the_same_error_are_named_together() -> None:
    same = [Failure(host, "Copy", "no room") for host in "ab"]
    named = [Failure(host, "Copy", f"APL-0771: {host}: too small") for host in "ab"]
    other = Failure("c", "Copy", "no rights")
    assert [hosts for hosts, _ in grouped([*same, other])] == [["a", "b"], ["c"]]
    ((hosts, first),) = grouped(named)
    assert hosts == ["a", "b"]
    assert failure_lines(hosts, first)[0] == "a, b: APL-0771: a: too small"


def test_a_lost_host_is_an_error_of_ours_with_the_reason() -> None:
    lines = failure_lines(["b"], Failure("b", "Look", "Failed to connect:\nNo route to host", is_lost=True))
    assert lines == [
        "APL-0779: b cannot be reached [Look]: Failed to connect; No route to host.",
        "  See that the node is on and in the network, then run it again.",
        "  Page: docs/runbooks/APL-0779.md",
    ]


def test_hosts_that_cannot_be_reached_for_one_reason_are_named_together() -> None:
    words = 'Data could not be sent to remote host "192.0.2.{0}". Make sure this host can be reached over ssh: ssh: connect to host 192.0.2.{0}'
    lost = [Failure(host, "Look", words.format(number), is_lost=True) for number, host in enumerate("ab", 11)]
    ((hosts, first),) = grouped(lost)
    assert failure_lines(hosts, first)[0] == "APL-0779: a, b cannot be reached [Look]: ssh: connect to host ADDRESS."
    assert failure_lines(["a"], first)[0].endswith("[Look]: ssh: connect to host 192.0.2.11.")


def test_many_pages_are_counted() -> None:
    text = "\n".join(f"APL-07{number}: x" for number in range(20, 28))
    assert failure_lines(["a"], Failure("a", "Check", text))[-1].endswith("APL-0725.md and 2 more")
