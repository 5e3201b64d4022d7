"""Read .zst files of any number of frames, and notice when the last one is cut short."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

from mixopt.errors import PluginError

_CHUNK = 1 << 12  # bytes read at once: a bomb makes 32,000 times as many of them


def open_zst(path: Path) -> IO[bytes]:
    """Open a .zst file; reading raises OSError where it is damaged or cut short."""
    return io.BufferedReader(_Frames(path), buffer_size=1 << 20)


class _Frames(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise PluginError(f"{path} needs zstandard: pip install 'mixopt[proxies]'") from error
        super().__init__()
        self._damaged = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame: Any = None
        self._stream = path.open("rb")
        self._waiting = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            compressed = (self._frame and self._frame.unused_data) or self._stream.read(_CHUNK)
            if not compressed:
                return self._end()
            self._waiting = memoryview(self._decompress(compressed))
        size = min(len(buffer), len(self._waiting))
        buffer[:size] = self._waiting[:size]
        self._waiting = self._waiting[size:]
        return size

    def _decompress(self, compressed: bytes) -> bytes:
        if self._frame is None or self._frame.eof:
            self._frame = self._decompressor.decompressobj()
        try:
            content: bytes = self._frame.decompress(compressed)
        except self._damaged as error:
            raise OSError(str(error)) from error
        return content

    def _end(self) -> int:
        if self._frame is not None and not self._frame.eof:
            raise OSError("the file ends in the middle of a frame")
        return 0
