"""The agent of a node: its loops, and its API on a unix socket.

===============================================  =============================================================
route (unix socket, mode 0600)                   answer
===============================================  =============================================================
``GET /v1/fetch/<digest>?size=&beyond=&wait=``   ``{"state","verified","size","partial","reason"}`` once a byte
                                                 at ``beyond`` may be sent, the fetch ended, or ``wait`` s passed;
                                                 with ``&suspect=1`` what lies here is hashed before it counts
``POST /v1/suspect/<digest>``                    204; the blob is hashed, and fetched again where it is damaged
``POST /v1/repair``                              fetches what is missing of every generation that is kept, and then
                                                 says ``{"back": [digest], "missing": {digest: reason}, "lost": [...],
                                                 "damage": [...]}``
``GET /v1/status``                               see :meth:`Agent.status`
``POST /v1/look?without=``                       look for something newer, and answer what :meth:`Agent.look` does
``GET /v1/leaving?stay=``                        what only nodes that do not stay hold; see :mod:`appliance.agent.departure`
``POST /v1/leaving?stay=``                       the same, once that was brought here
``POST /v1/wake``                                204; look for a newer generation now
``POST /v1/clients?service=``                    204; keeps what clients of a listener did, as a web worker counted it
===============================================  =============================================================
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import time
from collections.abc import Collection, Iterator
from typing import Any

import gevent
from flask import Flask, Response, request
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool

from appliance.agent.clients import ClientEvents
from appliance.agent.departure import Leaving
from appliance.agent.fetch import SLOW_BLOBS, Fetcher
from appliance.agent.fetchqueue import AT_ONCE, FetchQueue
from appliance.agent.follow import Follower, Refused
from appliance.agent.mend import Mender
from appliance.agent.monitor import LostBlobs, RoomWatch
from appliance.agent.placement import piece_map, wanted
from appliance.agent.scrub import RateLimiter, Scrubber
from appliance.agent.troubles import Troubles, in_store
from appliance.config import Config, LiveConfig, Peer
from appliance.errors import ApplianceError
from appliance.oci.digests import check_digest
from appliance.oci.manifests import Descriptor
from appliance.oci.pieces import PieceMap
from appliance.peers import wire
from appliance.peers.https import HttpsTransport
from appliance.peers.transport import PeerError
from appliance.store import readiness
from appliance.store.auditlog import note
from appliance.store.catalog import LiveCatalog
from appliance.store.impact import blame
from appliance.store.index import NameIndex, summary
from appliance.store.quarantine import verify_or_quarantine
from appliance.store.reachability import needed, needed_by_pins, needed_by_pushes
from appliance.store.store import Store
from appliance.threads import run_in_thread
from appliance.times import now
from appliance.web.listener import bare_app
from appliance.web.responses import error_response, json_response
from appliance.words import one_line

_LOG = logging.getLogger("appliance.agent")
ASK_EVERY = 30.0
"""Seconds between asking the peers for a newer generation when nobody called."""
_LOOK_EVERY = 0.5
_LOOK_APART = 1.0
"""Seconds between two looks that somebody called for."""
_RETRY_FIRST = 2.0
_LONGEST_WAIT = 10.0
_TIDY_EVERY = 3600.0
_TRACE_APART = 60.0
_STATUS_SECONDS = 1.7
"""For the answers of all peers together. A dead one is noticed after 1.6 s (0.7 s to connect, 0.9 s without a byte), and the
status is promised within 2 s."""


class Agent:
    """Agent of one node: the loops that follow, fetch, place, scrub and heal.

    :param current: this node's configuration.
    """

    def __init__(
        self,
        current: LiveConfig,
        store: Store,
        catalog: LiveCatalog,
    ) -> None:
        self._current = current
        self._store = store
        self._catalog = catalog
        self._peers = HttpsTransport(current)
        troubles = Troubles()
        self._fetcher = Fetcher(store.blobs, self._peers, run_in_thread, troubles=troubles)
        self._fetches = FetchQueue(functools.partial(self._bring, may_give_way=True), self._fetcher.give_way)
        self._follower = Follower(store, self._peers, self._fetcher, run_in_thread, troubles)
        self._lost = LostBlobs(
            self._fetcher.holders, lambda digests: run_in_thread(blame, digests, store), store.blobs.has
        )
        self._room = RoomWatch(store.blobs.space, lambda: store.collector().largest())
        rate = current.get().scrub_rate
        self._scrubber = (
            Scrubber(
                store.blobs,
                RateLimiter(rate, time.monotonic, gevent.sleep),
                run_in_thread,
                time.time,
                self._replicate_soon,
            )
            if rate
            else None
        )
        self._leaving = Leaving(store, self._peers, self._fetcher, self._piece_map, run_in_thread)
        self._mender = Mender(
            store,
            self._peers,
            run_in_thread,
            troubles,
        )
        self._clients = ClientEvents()
        self._looking = BoundedSemaphore(1)
        self._wake = Event()
        self._called = Event()
        self._replicate = Event()
        self._judge = Event()
        self._looked = -_LOOK_APART
        self._told = self._state()
        self._pause = _RETRY_FIRST

    def run(self) -> None:
        """Start the loops; returns at once."""
        loops = [self._follow, self._mend, self._replicating, self._judging, self._watch, self._tidy, self._watch_room]
        for loop in [*loops, self._scrub] if self._scrubber else loops:
            gevent.spawn(_forever, loop)

    def wake(self) -> None:
        """Look for a newer generation now, here and at the peers."""
        self._wake.set()
        self._called.set()

    def look(self, without: Collection[str] = ()) -> dict[str, Any]:
        """Ask every node what it has, follow the newest, and on the publisher make sure that there is nothing newer.

        :param without: ids of nodes that are not waited for: what they alone have is given up.
        :returns: ``settled`` (whether the publisher is sure, see :mod:`appliance.store.readiness`), ``silent`` (ids of the
            nodes that did not answer) and ``refused`` (what was found and is not followed).
        """
        with self._looking:
            config = self._current.get()
            if moved := self._follower.look(as_heir=config.is_publisher):
                with self._on_disk("history"):
                    self._store.generations.prune(config.keep_generations)
                self._replicate.set()
            give_up = {refused.digest for refused in self._follower.refused if refused.peer in without}
            left = [refused for refused in self._refused() if refused.digest not in give_up]
            with self._on_disk("standing"):
                if not config.is_publisher or any(refused.signed for refused in left):
                    readiness.clear(self._store.blobs.root)
                # What came and is none says nothing: its peer may have nothing newer. What did not come may be newer.
                elif all(refused.disproved for refused in left) and set(without).issuperset(self._follower.silent):
                    try:
                        self._take_over(config, moved, give_up)
                    except ApplianceError as error:
                        # An index that nobody could put back: nothing is published before it is.
                        _LOG.error("%s", error)
                        readiness.clear(self._store.blobs.root)
            return self._standing()

    @contextlib.contextmanager
    def _on_disk(self, what: str) -> Iterator[None]:
        """Note that this node's disk is full or cannot be written to, and go on: the look is of use all the same."""
        try:
            yield
        except OSError as error:
            self._follower.troubles.failed("", in_store(what), f"{type(error).__name__}: {error}")
        else:
            self._follower.troubles.ended("", in_store(what))

    def _take_over(self, config: Config, moved: list[NameIndex], give_up: Collection[str]) -> None:
        """Be the publisher: nobody has anything newer. Nodes that come later take only what a listed seed has signed."""
        signed = [index for index in (self._store.generations, self._store.pushes) if run_in_thread(index.sign_anew)]
        with contextlib.suppress(ApplianceError):  # what is wrong with the pins, the next seeding says
            run_in_thread(self._store.pins.sign_anew)
        readiness.mark_ready(self._store.blobs.root, config.node, give_up)
        for index in moved:
            _LOG.warning("this publisher follows number %d (%s), which another node had", index.number, index.digest)
        if moved or signed or give_up:
            line = {"action": "take-over", "time": now(), "node": config.node, "given_up": sorted(give_up)}
            note(self._store.blobs.root, line | {"generation": summary(self._catalog.renew().generation)})

    def _refused(self) -> list[Refused]:
        """Return the newer indexes that the last look did not follow, without those that were given up."""
        gone = readiness.given_up(self._store.blobs.root)
        return [refused for refused in self._follower.refused if refused.digest not in gone]

    def _standing(self) -> dict[str, Any]:
        return {
            "settled": readiness.is_settled(self._store.blobs.root),
            "silent": self._follower.silent,
            "refused": [refused.as_dict() for refused in self._refused()],
        }

    def application(self) -> Flask:
        """The application behind the unix socket."""
        app = bare_app()
        app.add_url_rule("/v1/fetch/<digest>", view_func=self._fetch)
        app.add_url_rule("/v1/suspect/<digest>", view_func=self._suspect, methods=["POST"])
        app.add_url_rule("/v1/repair", view_func=self._repair, methods=["POST"])
        app.add_url_rule("/v1/status", view_func=lambda: json_response(self.status()), endpoint="status")
        app.add_url_rule("/v1/leaving", view_func=self._leave, methods=["GET", "POST"])
        app.add_url_rule("/v1/look", view_func=self._look, methods=["POST"])
        app.add_url_rule("/v1/wake", view_func=self._awake, methods=["POST"])
        app.add_url_rule("/v1/clients", view_func=self._reported, methods=["POST"])
        return app

    def status(self) -> dict[str, Any]:
        """Return the document that ``appliance status --json`` prints.

        ``wanted_missing`` counts the blobs that this node should hold by policy and does not hold yet, and ``wanted_lost``
        those of them that no node holds; ``wanted_missing_bytes`` is the size of the former. ``standing`` is what
        :meth:`look` found when it last looked.
        """
        config, catalog = self._current.get(), self._catalog.get()
        missing, lost = run_in_thread(self._wanted), {item.digest for item in self._lost.all()}
        room = run_in_thread(self._room.look)
        return {
            "node": config.node,
            "publisher": config.publisher,
            "generation": summary(catalog.generation),
            "names": len(catalog.generation.names) if catalog.generation else 0,
            "pushes": summary(catalog.pushed),
            "pushed_names": sum(1 for name in catalog.pushed.names if "@" not in name) if catalog.pushed else 0,
            "registries": catalog.registries(),
            "wanted_missing": len(missing),
            "wanted_missing_bytes": sum(item.size for item in missing),
            "wanted_lost": sum(1 for item in missing if item.digest in lost),
            "blobs_held": sum(1 for _ in self._store.blobs.digests()),
            "room_bytes": room["free_bytes"],
            "room": room,
            "health": self._health(),
            "standing": self._standing(),
            "peers": self._ask_peers(),
            "troubles": [trouble.as_dict() for trouble in self._follower.troubles.all()],
            "clients": self._clients.all(),
        }

    def _fetch(self, digest: str) -> Response:
        try:
            check_digest(digest)
            size = int(request.args["size"])
            beyond = int(request.args.get("beyond", "0"))
            wait = min(_LONGEST_WAIT, float(request.args.get("wait", "1")))
        except (ApplianceError, KeyError, ValueError) as problem:
            return error_response(400, "UNSUPPORTED", str(problem))
        suspect = request.args.get("suspect") == "1"
        progress = self._fetcher.start(digest, size, self._piece_map(digest), suspect=suspect, for_client=True)
        end = time.monotonic() + wait
        while progress.state == "fetching" and progress.verified <= beyond:
            left = end - time.monotonic()
            if left <= 0:
                break
            progress.changed.wait(left)
        return json_response(
            {
                "state": progress.state,
                "verified": progress.verified,
                "size": progress.size,
                "partial": str(self._fetcher.partial(digest)),
                "reason": progress.reason,
            }
        )

    def _suspect(self, digest: str) -> Response:
        try:
            check_digest(digest)
        except ApplianceError as problem:
            return error_response(400, "UNSUPPORTED", str(problem))
        gevent.spawn(self._examine, digest)
        return Response(status=204)

    def _examine(self, digest: str) -> None:
        try:
            if run_in_thread(functools.partial(verify_or_quarantine, suspect=True), self._store.blobs, digest, None):
                _LOG.warning("%s could not be read for a client, and is sound now", digest)
        except ApplianceError as problem:
            _LOG.error("%s", problem)
        self._replicate.set()

    def _repair(self) -> Response:
        # Signatures before indexes, which are put back with them; and indexes first of all: they say what is wanted.
        self._mender.look(anew=True)
        self.look()
        self._mender.look()
        reasons: dict[str, str] = {}
        # What a manifest lists is known once it is here.
        while new := [item for item in run_in_thread(self._wanted, True) if item.digest not in reasons]:
            reasons |= zip((item.digest for item in new), Pool(AT_ONCE).map(self._bring, new), strict=True)
        missing = {item.digest for item in run_in_thread(self._wanted, True)}
        lost = self._lost.judge(sorted(missing))
        self._replicate.set()
        return json_response(
            {
                "back": sorted(set(reasons) - missing),
                "missing": {digest: reasons.get(digest, "") for digest in sorted(missing)},
                "lost": [item.as_dict() for item in lost],
                "damage": self._mender.all(),
            }
        )

    def _health(self) -> dict[str, Any]:
        state = self._scrubber.state if self._scrubber else None
        return {
            "scrubbed": None
            if state is None
            else {
                "blobs": state.blobs,
                "bytes": state.size,
                "damaged": state.damaged,
                "passes": state.passes,
                "running": bool(state.after),
                "finished": _iso(state.finished),
            },
            "quarantined": sorted(
                digest for digest in self._store.blobs.quarantined() if not self._store.blobs.has(digest)
            ),
            "lost": [item.as_dict() for item in self._lost.all()],
            "damage": self._mender.all(),
        }

    def _replicate_soon(self) -> None:
        self._replicate.set()

    def _scrub(self) -> None:
        """Hash everything again, a pass a day at the most."""
        assert self._scrubber is not None
        gevent.sleep(self._scrubber.due_in())
        self._scrubber.run()

    def _mend(self) -> None:
        self._mender.look()
        gevent.sleep(ASK_EVERY)

    def _watch_room(self) -> None:
        run_in_thread(self._room.look)
        gevent.sleep(ASK_EVERY)

    def _look(self) -> Response:
        return json_response(self.look(request.args.getlist("without")))

    def _leave(self) -> Response:
        staying = request.args.getlist("stay")
        act = self._leaving.fetch if request.method == "POST" else self._leaving.report
        return json_response(act(staying))

    def _reported(self) -> Response:
        try:
            self._clients.add(request.args.get("service", ""), request.get_json(force=True, silent=True))
        except ValueError as problem:
            return error_response(400, "UNSUPPORTED", str(problem))
        return Response(status=204)

    def _awake(self) -> Response:
        self.wake()
        return Response(status=204)

    def _follow(self) -> None:
        """Ask at start, when called, and every half-minute; a node that was off catches up by itself."""
        # Whoever calls without a pause gets a look a second: each costs this node and all others.
        gevent.sleep(max(0.0, self._looked + _LOOK_APART - time.monotonic()))
        self._looked = time.monotonic()
        self._wake.clear()
        is_sure = self.look()["settled"] or not self._current.get().is_publisher
        soon = not is_sure or self._follower.behind
        self._wake.wait(_RETRY_FIRST if soon else self._follower.pause(ASK_EVERY))

    def _watch(self) -> None:
        """Notice that an index was replaced (by ``appliance seed`` or ``pin``, or a push here) and tell the others; or that the
        list of nodes was, and look at once at what follows from it.
        """
        while (state := self._state()) == self._told:
            self._called.clear()
            self._called.wait(_LOOK_EVERY)
        listed, self._told = self._told[0], state
        self._pause = _RETRY_FIRST
        self._replicate.set()
        if state[0] != listed:
            self._wake.set()
        if self._current.get().is_publisher:
            for peer in self._peers.others:
                # Not waited for: what is published meanwhile is not told later because one node is silent.
                gevent.spawn(self._call, peer)
        # The others first: what it takes to read 100,000 names is no time that they should wait.
        with contextlib.suppress(ApplianceError):
            run_in_thread(self._catalog.renew)
        if self._catalog.is_damaged:
            self._wake.set()

    def _call(self, peer: Any) -> None:
        try:
            self._peers.wake(peer)
        except PeerError as problem:
            _LOG.info("could not tell %s: %s", peer.id, problem)

    def _state(self) -> tuple[object, ...]:
        """Return a value that changes when the configuration or an index does: peers are then woken."""
        return self._current.get(), *self._store.states()

    def _replicating(self) -> None:
        """Bring what the policy wants here; again when called, and later where something could not be had."""
        self._replicate.clear()
        self._fetches.want(run_in_thread(self._wanted))
        # Not until all have ended: one source that drips would hold up what is published meanwhile, for hours.
        self._fetches.join(self._replicate)
        self._judge.set()
        if self._replicate.is_set():
            return
        if run_in_thread(self._wanted):
            self._replicate.wait(self._pause)
            self._pause = min(ASK_EVERY, self._pause * 2)
        else:
            self._pause = _RETRY_FIRST
            # What gave way and came from another node, or is not needed any more, is kept back by nobody.
            for peer in self._peers.others:
                self._follower.troubles.ended(peer.id, SLOW_BLOBS)
            self._replicate.wait(ASK_EVERY)

    def _judging(self) -> None:
        """Find out which missing blobs no node holds. A loop of its own: a node that answers late delays no fetch."""
        self._judge.wait()
        self._judge.clear()
        missing = [item.digest for item in run_in_thread(self._wanted)]
        self._lost.judge(missing, running=[digest for digest in missing if self._fetches.is_running(digest)])

    def _bring(self, descriptor: Descriptor, *, may_give_way: bool = False) -> str:
        """Fetch a blob; returns why it could not be had, if so.

        :param may_give_way: whether the fetch may end because others wait; see :class:`FetchQueue`.
        """
        # What has the right size and is wanted all the same was found to be wrong.
        suspect = self._store.blobs.size(descriptor.digest) == descriptor.size
        piece_map = self._piece_map(descriptor.digest)
        progress = self._fetcher.fetch(
            descriptor.digest, descriptor.size, piece_map, suspect=suspect, may_give_way=may_give_way
        )
        return progress.reason

    def _wanted(self, older: bool = False) -> list[Descriptor]:
        """Return the blobs that this node should hold and does not.

        :param older: also what the generations before the current one need: every manifest, and on the publisher, which
            keeps them complete, every blob. Without that, of these only what was found damaged here.
        """
        catalog = self._catalog.renew()
        needs = list(needed(catalog.generation, self._store.blobs).values()) if catalog.generation else []
        needs += needed_by_pushes(catalog.pushed, self._store.blobs).values() if catalog.pushed else ()
        config, damaged = self._current.get(), self._store.blobs.quarantined()
        if older or damaged:
            for generation in self._store.generations.complete(config.keep_generations):
                for digest, item in needed(generation, self._store.blobs).items():
                    if digest in damaged or (older and (item.is_manifest or config.is_publisher)):
                        needs.append(item)
            # Of a name that has left, nothing else asks for it.
            pinned = self._store.pins.current()
            for digest, item in needed_by_pins(pinned, self._store.blobs).items() if pinned else ():
                if digest in damaged or (older and config.is_publisher):
                    needs.append(item)
        return wanted(needs, self._store.blobs, config)

    def _piece_map(self, digest: str) -> PieceMap | None:
        def damaged(found: Descriptor) -> None:
            self._fetcher.start(found.digest, found.size, None, suspect=True)

        return piece_map(self._catalog.get().piece_map(digest), self._store.blobs, digest, damaged)

    def _tidy(self) -> None:
        """Drop uploads that nobody goes on with, and damaged blobs that are back."""
        dropped = run_in_thread(self._store.uploads.expire)
        if dropped:
            _LOG.info("dropped %d files of uploads that nobody went on with", dropped)
        run_in_thread(
            self._store.blobs.empty_quarantine,
            [digest for digest in self._store.blobs.quarantined() if self._store.blobs.has(digest)],
        )
        gevent.sleep(_TIDY_EVERY)

    def _ask_peers(self) -> list[dict[str, Any]]:
        """Return the state of each peer. All are asked at once: dead ones cost one time-out together."""

        def ask(peer: Peer) -> dict[str, Any]:
            begun = time.monotonic()
            try:
                status, body = self._peers.ping(peer)
                if status != 200:
                    raise PeerError(f"answered {status}")
                generation = wire.read(body, wire.Ping, peer.id).generation
            except Exception as problem:
                return _answer(peer) | {"state": "down", "reason": one_line(str(problem) or type(problem).__name__)}
            return _answer(peer) | {
                "state": "up",
                "generation": generation.number if generation else None,
                "latency_ms": round((time.monotonic() - begun) * 1000, 1),
            }

        others = self._peers.others
        asked = [gevent.spawn(ask, peer) for peer in others]
        gevent.joinall(asked, timeout=_STATUS_SECONDS)
        late = {"state": "down", "reason": f"no answer in {_STATUS_SECONDS:g} s"}
        answers = [
            greenlet.value if greenlet.ready() and greenlet.value else _answer(peer) | late
            for peer, greenlet in zip(others, asked, strict=True)
        ]
        gevent.killall(asked, block=False)
        return answers


def _answer(peer: Peer) -> dict[str, Any]:
    return {"id": peer.id, "address": peer.address, "generation": None, "latency_ms": None}


def _iso(seconds: float) -> str | None:
    """A time since 1970 in words, None for none."""
    return (
        datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat("T", "seconds") if seconds else None
    )


def _forever(loop: Any) -> None:
    failed, logged, times = "", 0.0, 0
    while True:
        try:
            loop()
        except Exception as error:
            # A loop of the agent never ends for good: the site has nobody there to start it again. Its traceback is of use once.
            kind, times = f"{type(error).__name__}: {error}", times + 1
            if kind != failed and time.monotonic() - logged > _TRACE_APART:
                _LOG.exception(
                    "%s failed; it goes on in a moment, and for the %dth time since the start", loop.__name__, times
                )
                failed, logged = kind, time.monotonic()
            gevent.sleep(_RETRY_FIRST)
