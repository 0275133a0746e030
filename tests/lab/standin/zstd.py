"""Reading zstd with the library that every Debian host has, since its Python cannot and the command may be missing."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from typing import IO, Any

WINDOW_LOG = 25
"""K3s's importer has 32 MiB for a window: an archive made with a larger one fails there, and here."""
_D_WINDOW_LOG_MAX = 100
_CHUNK = 1 << 17


class ZstdError(ValueError):
    """No zstd, a damaged one, or one with too large a window."""


class _Buffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


def _library() -> Any:
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        raise ZstdError(f"libzstd is not installed: {error}") from error
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
    library.ZSTD_DCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    library.ZSTD_DCtx_setParameter.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(_Buffer),
        ctypes.POINTER(_Buffer),
    ]
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    library.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


def decompressed(source: IO[bytes]) -> Iterator[bytes]:
    """The content of a zstd file, piece by piece.

    :raises ZstdError: where it is damaged, cut short, or made with a window above 32 MiB.
    """
    library = _library()
    stream = library.ZSTD_createDStream()
    library.ZSTD_DCtx_setParameter(stream, _D_WINDOW_LOG_MAX, WINDOW_LOG)
    room = ctypes.create_string_buffer(_CHUNK)
    left = 0
    try:
        while data := source.read(_CHUNK):
            held = ctypes.create_string_buffer(data, len(data))
            read = _Buffer(ctypes.addressof(held), len(data), 0)
            while True:
                written = _Buffer(ctypes.addressof(room), _CHUNK, 0)
                left = library.ZSTD_decompressStream(stream, ctypes.byref(written), ctypes.byref(read))
                if library.ZSTD_isError(left):
                    raise ZstdError(f"zstd: {library.ZSTD_getErrorName(left).decode()}")
                yield room.raw[: written.pos]
                if read.pos == read.size and written.pos < written.size:
                    break
        if left:
            raise ZstdError("zstd: the file ends in the middle of a frame")
    finally:
        library.ZSTD_freeDStream(stream)
