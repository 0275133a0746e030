"""The sentence at the end of a run."""

from __future__ import annotations

from ansible_collections.site.appliance.plugins.plugin_utils import ending

PUBLISHING = ending.Outcome(
    stopped="Nothing was published: a serves generation 3 as before.",
    switched="Generation 4 was published before the run stopped. Run it again to prove it.",
    ends="Every node serves generation 4. Next: take the medium out",
    checked="The plan above says what would change.",
)


def test_a_run_that_ended_well_says_what_changed_what_is_served_and_what_comes_next() -> None:
    assert ending.success(PUBLISHING, ["a", "b"], is_check=False) == f"Changed: a, b. {PUBLISHING.ends}"
    assert ending.success(PUBLISHING, [], is_check=False) == f"No node was changed. {PUBLISHING.ends}"


def test_check_mode_says_that_nothing_was_changed() -> None:
    said = ending.success(PUBLISHING, ["a"], is_check=True)
    assert said == "Check mode: nothing was changed. The plan above says what would change."


def test_a_run_that_was_stopped_says_what_is_true() -> None:
    assert ending.interruption(PUBLISHING, [], []) == f"Stopped by you. {PUBLISHING.stopped} Run it again to finish."
    undone = [{"host": "a", "changed": False}]
    assert ending.interruption(PUBLISHING, ["a"], undone) == (
        f"Stopped by you. {PUBLISHING.stopped} Changed so far: a. Run it again to finish."
    )
    done = [{"host": "a", "changed": True}]
    assert ending.interruption(PUBLISHING, [], done) == f"Stopped by you. {PUBLISHING.switched}"
    kept = PUBLISHING.updated({"stopped": "It is kept: run it again and it asks at once."})
    assert ending.interruption(kept, [], []) == f"Stopped by you. {kept.stopped}"


def test_nothing_is_claimed_of_a_node_that_was_lost() -> None:
    said = ending.failure(PUBLISHING, "Publish", ["a"], [], [{"host": "a", "changed": None}])
    assert said.startswith("Stopped at 'Publish' on a. A node was lost while it worked. It ends that work within 5 s,")
    assert said.endswith("Mend what is listed above, then run it again.")
    assert PUBLISHING.stopped not in said


def test_a_failed_run_says_once_that_it_is_to_be_run_again() -> None:
    said = ending.failure(ending.Outcome(stopped="There is no new backup. Run it again."), "Back up", ["a"], [], [])
    assert said == "Stopped at 'Back up' on a. There is no new backup. Mend what is listed above, then run it again."
    said = ending.failure(ending.Outcome(stopped="It follows. Run it again to prove it."), "Prove", ["a"], ["b"], [])
    assert said == (
        "Stopped at 'Prove' on a. It follows. Changed so far: b. Mend what is listed above, then run it again."
    )


def test_where_no_step_stated_anything_the_changes_are_counted() -> None:
    nothing = ending.Outcome()
    assert "Nothing was changed on any host." in ending.failure(nothing, "Gather facts", ["b"], [], [])
    assert "What was done stays done. Changed so far: a." in ending.failure(nothing, "Act", ["b"], ["a"], [])


def test_a_no_is_no_fault_to_mend() -> None:
    said = ending.refusal(ending.Outcome(stopped="Nothing was changed on any host. What was verified is kept."))
    assert said == "The plan was not carried out. Nothing was changed on any host. What was verified is kept."


def test_what_was_stated_holds_until_it_is_stated_anew() -> None:
    outcome = PUBLISHING.updated({"stopped": "Published.", "ends": ""})
    assert (outcome.stopped, outcome.ends) == ("Published.", PUBLISHING.ends)


def test_many_hosts_are_counted() -> None:
    assert ending.hosts_text([f"n{number}" for number in range(10)]).endswith("n7 and 2 more")
