"""Flask application of 5443: it identifies a node by its certificate and an operator by a password."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from flask import Flask, request

from appliance.config import Config, LiveConfig
from appliance.countedlog import CountedLog, Report, origin
from appliance.threads import run_in_thread
from appliance.trust import common_name
from appliance.web.acl import Identity, Principal
from appliance.web.auth import Operators, basic
from appliance.web.connection import SOCKET, TRUST
from appliance.web.guesses import Guesses, Turns
from appliance.web.listener import Handler, listener
from appliance.web.responses import RegistryError

_LOG = logging.getLogger("appliance.peers")
_WRONG = "wrong passwords of operators"
_NOT_LISTED = "requests of nodes that are not listed"


def create_app(
    current: LiveConfig, handlers: Mapping[str, Handler], operators: Operators | None, report: Report | None = None
) -> Flask:
    """The application of the peer listener.

    :param current: says who is a node; asked for each request, so that one who was removed is refused at its next,
        whatever connection it comes by.
    :param handlers: of every route that it answers.
    :param operators: who may push; None where pushing is off.
    :param report: takes what strangers do, as data.
    """
    guesses, log = Guesses(), CountedLog(_LOG.warning, report=report)
    turns = Turns(guesses.is_clean)
    offered = frozenset[Principal]({"node"} if operators is None else {"node", "operator"})

    def identify() -> Identity:
        node = _node(current.get(), is_open=operators is None or not request.path.startswith("/v2"))
        if node.refused:
            log.count(_NOT_LISTED, origin(request.remote_addr or ""), node.problem)
        trust = request.environ.get(TRUST, lambda: None)
        if node.roles:
            trust()
        given = request.headers.get("Authorization")
        if operators is None or given is None:
            return node
        operator = operators.remembered(given) or _checked(operators, given, guesses, turns, log)
        if operator is None:
            return Identity(problem="wrong name or password of an operator")
        trust()
        return Identity(node.roles | {"operator"}, operator)

    return listener(handlers, offered, identify)


def _checked(operators: Operators, given: str, guesses: Guesses, turns: Turns, log: CountedLog) -> str | None:
    """Name of the operator with these credentials, None for wrong ones; 429 for an address that has to wait."""
    named = basic(given)
    if named is None:
        return None
    name, address = named[0], origin(request.remote_addr or "")

    def refuse_early() -> None:
        wait = math.ceil(guesses.wait(address, name))
        if wait:
            log.count(_WRONG, address, name)
            why = f"too many wrong passwords for this name from {address}; the next is looked at in {wait} s"
            raise RegistryError(429, "TOOMANYREQUESTS", why, Retry_After=str(wait))

    refuse_early()
    with turns.turn(address):
        # Meanwhile others from there had their turn, with the same password or with wrong ones.
        operator = operators.remembered(given)
        if operator is None:
            refuse_early()
            operator = run_in_thread(operators.check, given)
    if operator is None:
        guesses.wrong(address, name)
        log.count(_WRONG, address, name)
    else:
        guesses.right(address, name)
    return operator


def _node(config: Config, *, is_open: bool) -> Identity:
    """Return the identity that a connection proves.

    :param is_open: whether, in development without a PKI, everybody counts as a node here.
    """
    if config.pki is None:
        return Identity(frozenset({"node"} if is_open else ()))
    sock: Any = request.environ.get(SOCKET)
    name = common_name(sock.getpeercert()) if hasattr(sock, "getpeercert") else None
    if name is None:
        return Identity(problem="no client certificate of this site")
    if name not in config.ids:
        return Identity(problem=f"{name} is not a node of this site", refused=True)
    return Identity(frozenset({"node"}), name)
