"""llama.cpp called directly, for comparison: `python direct_llama.py FILE REQUESTS` answers a JSON list of requests.

A program of its own, because the library installs signal handlers and threads.
"""

from __future__ import annotations

import json
import sys

import xllamacpp


def main() -> None:
    """One JSON object of llama.cpp for each request, whole answers without a stream."""
    wanted = xllamacpp.CommonParams()
    wanted.model.path, wanted.n_ctx, wanted.n_parallel, wanted.verbosity = sys.argv[1], 1024, 1, -1
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(wanted)
    answers = [server.handle_completions({**request, "cache_prompt": False}) for request in json.loads(sys.argv[2])]
    sys.stdout.write(json.dumps(answers) + "\n")


if __name__ == "__main__":
    main()
