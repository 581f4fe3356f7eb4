"""The process that runs the bundled embedder: texts in by its standard input, vectors out by its standard output.

Frames are msgpack. The first one out says that the model is loaded, or why not; then every
question ``(number, texts)`` gets an ``(number, vectors, tokens, error)``, in any order. One rule: it ends with its
parent, whichever way that ends: at the end of its input.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final

import msgspec
from collegium_children.frames import answers, bodies, put

from collegium_context.embedding.bundled import MiniLm
from collegium_context.embedding.interface import EmbedderUnavailableError

# Below everything that answers requests: whoever waits for a vector waits for little else.
NICENESS: Final = 2

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, list[str]]).decode


class Answering:
    """Answers questions in threads; answers leave one at a time."""

    def __init__(self, engine: MiniLm, out: BinaryIO) -> None:
        self._engine = engine
        self._out = out
        self._writing = threading.Lock()

    def answer(self, number: int, texts: list[str]) -> None:
        """Embeds one run and writes its vectors, or the error's name."""
        try:
            counted = self._engine.encode(texts)
            said = (number, counted.vectors.tobytes(), counted.tokens, "")
        except Exception as error:  # told to the parent, which says so
            said = (number, b"", list[int](), type(error).__name__)
        with self._writing:
            put(self._out, _encode(said))


def main() -> None:
    """Serves until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    out = answers()
    threads = int(sys.argv[1])
    try:
        engine = MiniLm()
        # The first run makes room for the intermediate values.
        engine.encode(["first"])
    except EmbedderUnavailableError as error:
        put(out, _encode((0, b"", [], str(error))))
        return
    put(out, _encode((0, b"", [], "")))
    answering = Answering(engine, out)
    with ThreadPoolExecutor(threads) as pool:
        for body in bodies(sys.stdin.buffer):
            try:
                number, texts = _decode(body)
            except msgspec.DecodeError:
                break
            pool.submit(answering.answer, number, texts)
        # What still runs has nobody to answer to.
        os._exit(0)


if __name__ == "__main__":
    main()
