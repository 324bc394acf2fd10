"""The child's side of the pipe: how the process of a model limits itself, hears its parent and answers.

`python -m MODULE MEMORY_BYTES CPU_SECONDS THREADS FOLDER` reads frames from its standard input and writes answers to
its standard output until the input ends.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from atoll.errors import EngineFailed
from atoll.graph import rlimits
from atoll.inference.local import pipe

_LOADING_FILES = 32  # descriptors that loading a model may open; none is left to open afterwards


class Station:
    """Standard input and output of a child process: requests come in on a thread, so that a `Stop` is heard at once.

    The process ends when its parent does.
    """

    def __init__(self) -> None:
        self.memory_bytes, self.cpu_seconds, self.threads = (int(argument) for argument in sys.argv[1:4])
        self.folder = sys.argv[4]
        self.stopped = 0
        """The highest number of a request that is to end."""
        self._source: BinaryIO = sys.stdin.buffer
        self._sink = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # whatever a library prints must not end up among the frames
        self._requests: queue.SimpleQueue[pipe.Request] = queue.SimpleQueue()

    def load(self, loader: Callable[[pipe.Load], tuple[Any, int]]) -> Any:
        """Load the model that the parent names, under the limits; tells the parent, and ends the process if it fails.

        `loader` returns the model and how many tokens it reads.
        """
        request = self._next()
        if not isinstance(request, pipe.Load):
            raise EngineFailed("the first request to a model's process is to load it")
        rlimits.lock_down(self.memory_bytes, files=_LOADING_FILES)
        rlimits.allow_cpu(self.cpu_seconds)
        try:
            model, context = loader(request)
        except Exception as error:  # whatever the library raises, the file is no model that it can read
            self.answer(pipe.Failure("model", " ".join(str(error).split())[:500] or type(error).__name__))
            os._exit(0)  # threads of the library may be at work
        threading.Thread(target=self._listen, daemon=True).start()
        self.answer(pipe.Ready(context))
        return model

    def requests(self) -> Iterator[pipe.Request]:
        """Requests one after another, each with its own allowance of CPU time."""
        locked = False
        while True:
            request = self._requests.get()
            if not locked:  # by now the library's threads have closed what they had open for a moment
                rlimits.lock_down(self.memory_bytes)
                locked = True
            rlimits.allow_cpu(self.cpu_seconds)
            yield request

    def answer(self, message: pipe.Answer) -> None:
        """Send one message to the parent."""
        self._sink.write(pipe.encode(message))
        self._sink.flush()

    def _listen(self) -> None:
        try:
            while True:
                request = self._next()
                if isinstance(request, pipe.Stop):
                    self.stopped = max(self.stopped, request.number)
                else:
                    self._requests.put(request)
        finally:
            os._exit(0)  # the parent is gone, or talks nonsense: nobody waits for an answer

    def _next(self) -> pipe.Request:
        prefix = self._source.read(pipe.PREFIX.size)
        if len(prefix) < pipe.PREFIX.size:
            raise EOFError
        return pipe.decode_request(self._source.read(pipe.length(prefix)))
