"""Limit on the head of an HTTP answer: a peer that sends headers without end is not mistaken for a slow one."""

from __future__ import annotations

import http.client
import io
from typing import BinaryIO, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

HEAD_BYTES = 16 << 10
"""Most bytes before the body, with all answers ``100 Continue``; our own heads have some hundred."""


class _Lines:
    """The lines of a head, up to a number of bytes.

    http.client bounds each line and counts the headers of one head, and reads any number of ``100 Continue``. What comes
    faster than it is parsed never lets gevent's loop run, so that no timer would end it either.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._left = HEAD_BYTES

    def readline(self, limit: int = -1) -> bytes:
        line = self.file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.HTTPException(f"a head of more than {HEAD_BYTES} bytes")
        return line

    def close(self) -> None:
        self.file.close()


class BoundedResponse(http.client.HTTPResponse):
    """An answer whose head has at most :data:`HEAD_BYTES`."""

    def begin(self) -> None:
        """Read the head.

        :raises http.client.HTTPException: when it is longer.
        """
        file = self.fp
        self.fp = cast("io.BufferedReader", _Lines(file))
        try:
            super().begin()
        finally:
            # None where the answer has no body: it is closed then.
            if self.fp is not None:
                self.fp = file


class _Plain(HTTPConnection):
    response_class = BoundedResponse


class _Secure(HTTPSConnection):
    response_class = BoundedResponse


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


class BoundedPools(urllib3.PoolManager):
    """Connections whose answers have bounded heads."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # urllib3 passes them on to its pools
        self.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
