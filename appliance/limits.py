"""Limits on clients: time for each step, and bytes before the client is known.

containerd waits 30 s for an answer's headers and gives a pull up after five minutes without progress (measured,
containerd 2.3.4); what it does not get here it asks for elsewhere. So whoever holds a connection without using it is
let go long before. Read by name at run time: tests lower them.
"""

from __future__ import annotations

FIRST_HEAD_SECONDS = 5.0
"""On the peers' listener, from the connection to the end of the TLS handshake, and to the last header of the first request.
Both are some 4 KiB: at 9600 bit/s that takes four seconds. Go's clients replace a spare connection that was closed."""
TLS_BYTES = 128 << 10
"""Of TLS records without any data, in a handshake or in a wait for the next data; thirty times what a handshake has."""
HEAD_SECONDS = 15.0
"""From an answer to the last header of the next request: a header sent byte by byte does not begin anew."""
STALL_SECONDS = 60.0
"""The window over which it is judged whether a client takes its answer, or sends its body."""
LEAST_BYTES = 16 << 10
"""Bytes that have to move in each window: 2.2 kbit/s, a quarter of the slowest modem link that anybody runs a site on."""
SWEEP_SECONDS = 1.0
"""How often the connections are looked at."""
CONNECTIONS = 1000
"""Connections of one worker; more wait in the kernel's queue until one is free."""
ADDRESS_CONNECTIONS = 64
"""On the peers' listener, connections of one address that is no listed node's, and of a listed node's those that did not show
a node's certificate. docker, podman and skopeo open up to ten for a push; the people of a site may come through one router."""
ADDRESS_UNASKED = 32
"""Those of them from which no request has come yet: handshakes, and silence."""
STRANGERS = 256
"""Connections of all those addresses together. The rest of CONNECTIONS is for listed nodes, whatever strangers do."""
NODE_CONNECTIONS = 256
"""Connections of one listed node's address; a node that pulls opens some dozens at most."""
YIELD_SECONDS = 5.0
"""At that bound, a connection that has moved nothing for so long makes room for another."""
REQUEST_LINE = 4094
"""Bytes of a request line: a name of 255, a digest of 135 and a query fit more than eight times."""
HEADERS = 64
"""Headers of one request; the clients there are send about fifteen."""
HEADER_BYTES = 4094
"""Bytes of one header; with the number of them this bounds what 1000 connections can make a worker keep."""
UNREAD_BYTES = 64 << 10
"""Of a request's body that no route read, bytes that are dropped so that another request can follow; a longer rest ends the
connection. Clients that push ask for a name and a password with requests that have no body."""
UNREAD_SECONDS = 2.0
"""How long that may take, with the end of the connection."""
LINGER_BYTES = 4 << 20
"""Bytes that are dropped before such an end: what may be on its way on a fast link, so that the client reads its answer."""
DOWNLOAD_GRACE_SECONDS = 3.0
"""How long answers may go on when the service stops. Then they end by FIN, and containerd and the peers resume with a
``Range`` at the process that comes next: new connections wait for it, so a short end serves all best."""
PUSH_GRACE_SECONDS = 20.0
"""The same for requests that bring something: few clients resume those."""
