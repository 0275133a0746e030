"""A run that is stopped on real hosts: nothing runs on after it, the medium is free, and what is said is true."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.store.generations import NUMBER
from tests.lab.base import REPOSITORY, wait_for
from tests.lab.host import Host
from tests.lab.images import ImageSpec, docker_archive, make_stick
from tests.lab.scenario import Luggage, inventory, pack
from tests.lab.site import DEFAULT_HOSTS, Site, unique_id
from tests.lab.story import STICK, playbook
from tests.terminal import Terminal

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

SECONDS = 5
"""Seconds after a stop in which everything on the nodes has to end: the promise."""
# By the interpreter: the shell that waits for a command has its words too, and removes the copy of the tools after its end.
READING, SEEDING = (f"^[^ ]*python[^ ]* [^ ]*appliance {word}" for word in ("plan", "seed"))
CARRYING = "sftp-server"
# Big enough that they are still being read when somebody has seen that they are.
BIG = [ImageSpec(f"ksd.test.com/big/data:{number}", page=f"big {number}", payload_mib=240) for number in (1, 2)]
NAMES = 5
"""Those two, the two images of each lab's stick, and the image that K3s needs."""
UP_TO_IMAGES = ("--tags", "host,firewall,mirror,seed")
"""The story's tests bring K3s up; a stop has nothing more to say there."""


@dataclass(frozen=True)
class Stage:
    """Two hosts that know nothing of the appliance, and a stick in the first one."""

    site: Site
    luggage: Luggage
    inventory: Path
    files: Path
    stick: Path

    @property
    def publisher(self) -> Host:
        return self.site.hosts["a"]

    def start(self, *arguments: str) -> Terminal:
        """Run ``site.yml`` at a terminal."""
        enter = ["/usr/bin/nsenter", f"--net=/proc/{self.site.keeper.pid}/ns/net"]
        program = str(Path(sys.executable).parent / "ansible-playbook")
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }
        return Terminal.run(
            [*enter, program, "-i", str(self.inventory), "site.yml", *arguments], REPOSITORY, environment
        )

    def works(self, what: str) -> bool:
        """Return whether a command of the appliance, or what waits for it, runs on the publisher."""
        return self.publisher.inside("pgrep", "-f", what).returncode == 0

    def until_it_works(self, terminal: Terminal, what: str) -> None:
        """Go on reading the terminal until a command runs on the publisher."""

        def begun(shown: str) -> bool:
            assert "PLAY RECAP" not in shown, shown[-4000:]
            return self.works(what)

        terminal.read(begun)

    def assert_free(self, what: str) -> None:
        """Within the time of the promise nothing of the job runs, and the stick can be unmounted by the operator."""
        wait_for(f"{what} to end", lambda: not self.works(what), SECONDS)
        self.publisher.run(["umount", STICK])
        self.publisher.detach_stick(STICK)
        self.publisher.attach_stick(self.stick, STICK)

    def number(self) -> int:
        """Return the number of the generation that the publisher serves; 0 for none."""
        raw = self.publisher.run("cat /var/lib/appliance/index.json", check=False).stdout
        return int(json.loads(raw).get("annotations", {}).get(NUMBER, 0)) if raw else 0

    def leftovers(self) -> str:
        """Return what stopped runs left on the publisher beside the store."""
        return self.publisher.run("ls -d /run/appliance-job.* /opt/.appliance-plan-*", check=False).stdout.strip()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("controller")
    luggage = pack(directory)
    files = directory / "big"
    shutil.copytree(luggage.files, files)
    for number, spec in enumerate(BIG):
        docker_archive(spec, files / f"big-{number}.tar")
    stick = make_stick(files, directory / "big.ext4")
    # Its own: the last test installs what the tests of other modules must not find.
    site = Site(f"{unique_id()}-stop", DEFAULT_HOSTS[:2])
    site.up()
    try:
        stage = Stage(site, luggage, inventory(site, luggage, directory / "inventory"), files, stick)
        stage.publisher.attach_stick(stick, STICK)
        yield stage
    finally:
        site.down()


def ctrl_c(stage: Stage, terminal: Terminal) -> None:
    terminal.type("\x03")
    assert terminal.end() == 99, terminal.shown[-4000:]


def kill(stage: Stage, terminal: Terminal) -> None:
    os.kill(terminal.pid, signal.SIGKILL)
    assert terminal.end() == -signal.SIGKILL


@pytest.mark.parametrize("stop", [ctrl_c, kill])
def test_a_reading_ends_with_the_run(stage: Stage, stop: Callable[[Stage, Terminal], None]) -> None:
    terminal = stage.start()
    stage.until_it_works(terminal, READING)
    stop(stage, terminal)
    stage.assert_free(READING)
    assert stage.number() == 0
    wait_for("what the run left to go", lambda: stage.leftovers() == "", SECONDS)
    if stop is ctrl_c:
        assert "Stopped by you. Nothing was changed on any host." in " ".join(terminal.shown.split()), terminal.shown[
            -4000:
        ]


def test_a_reading_ends_when_the_network_is_cut(stage: Stage) -> None:
    terminal = stage.start()
    stage.until_it_works(terminal, READING)
    stage.publisher.cut_link()
    try:
        wait_for("the reading to end", lambda: not stage.works(READING), SECONDS + 1)
        assert terminal.end() != 0
    finally:
        stage.publisher.restore_link()
    stage.assert_free(READING)
    assert stage.number() == 0
    assert "APL-0779: a cannot be reached" in " ".join(terminal.shown.split()), terminal.shown[-4000:]
    assert "It ends that work within 5 s" in " ".join(terminal.shown.split())


def test_ctrl_c_while_files_are_carried_leaves_no_part_of_one(stage: Stage) -> None:
    sources = json.dumps(
        {"seed_from": "controller", "seed_sources": [str(path) for path in stage.files.glob("big-*.tar")]}
    )
    terminal = stage.start("-e", sources)
    stage.until_it_works(terminal, CARRYING)
    ctrl_c(stage, terminal)
    wait_for("the carrying to end", lambda: not stage.works(CARRYING), SECONDS)
    assert "Stopped by you. Nothing was changed on any host." in " ".join(terminal.shown.split())
    assert stage.publisher.run("find /root/.ansible/tmp -type f", check=False).stdout == ""
    assert stage.number() == 0


def test_what_was_verified_is_not_read_again_after_a_no(
    stage: Stage, sampled: random.Random, whole_series: bool
) -> None:
    first = stage.start()
    others = ["\x03", "maybe\r"]
    for answer in ["no\r", *(others if whole_series else sampled.sample(others, 1))]:
        terminal = first if answer == "no\r" else stage.start()
        shown = terminal.read(lambda shown: "[y/n]: " in shown)
        assert "In short:" in shown, shown[-4000:]
        if terminal is not first:
            assert "verified by an earlier run, not read again" in shown, shown[-4000:]
        wait_for("the question", terminal.reads_keys, 10)
        terminal.type(answer)
        if answer == "maybe\r":
            terminal.read(lambda shown: shown.count("[y/n]: ") == 2)
            wait_for("the question", terminal.reads_keys, 10)
            terminal.type("N\r")
        assert terminal.end() == 2, terminal.shown[-4000:]
        said = " ".join(terminal.shown.split())
        assert (
            "The plan was not carried out. Nothing was changed on any host. What was verified is kept on a until"
            in said
        )
        assert stage.number() == 0
    stage.assert_free(READING)


def test_ctrl_c_while_it_is_published_says_what_is_true_and_the_next_run_finishes(stage: Stage) -> None:
    terminal = stage.start("-e", "confirm=yes", *UP_TO_IMAGES)
    stage.until_it_works(terminal, SEEDING)
    ctrl_c(stage, terminal)
    stage.assert_free(SEEDING)
    at_the_end, said = stage.number(), " ".join(terminal.shown.split())
    assert ("Stopped by you. Nothing was published" in said) == (at_the_end == 0), said[-2000:]
    assert ("was published before the run stopped" in said) == (at_the_end == 1), said[-2000:]
    finished = playbook(stage.site, "site.yml", stage.inventory, "-e", "confirm=yes", *UP_TO_IMAGES)
    ended = " ".join(finished.output.split())
    assert f"Every node serves generation 1 with {NAMES} names. The chosen tags left the proof out." in ended, ended[
        -2000:
    ]


# The story sees a whole run that changes nothing; the sentence is a unit test of its own.
@pytest.mark.whole
def test_the_last_run_changes_nothing_and_says_so(stage: Stage) -> None:
    run = playbook(stage.site, "site.yml", stage.inventory, "-e", "confirm=yes", *UP_TO_IMAGES)
    assert run.changed == 0, run.output[-6000:]
    assert "No node was changed. Every node serves generation 1" in " ".join(run.output.split())
