"""The gateway's own files: scripts, styles, the chart library, the browser's runtime of ONNX.

A large file is kept compressed as `NAME.gz` and served under NAME. A link that names the present version of all files
(`?v=...`) may be kept by a browser for a year; other links are checked again each time.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from atoll.wire.hashing import blob_id

FOLDER = Path(__file__).parent / "static"
# Named here since what a system knows of them differs, and a module of the wrong type does not run.
TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_YEAR = "public, max-age=31536000, immutable"
_CHECKED = "no-cache"


def version_of(folder: Path = FOLDER) -> str:
    """A short name for the state of all files: it changes whenever one of them does."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    states = ((path.relative_to(folder).as_posix(), path.stat()) for path in files)
    return blob_id("".join(f"{name} {at.st_size} {at.st_mtime_ns}\n" for name, at in states).encode()).hex()[:12]


class Assets(StaticFiles):
    """Serves `folder`; mount it at /static."""

    def __init__(self, folder: Path = FOLDER) -> None:
        super().__init__(directory=folder)
        self._folder = folder
        self.version = version_of(folder)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, from `path` or from `path`.gz."""
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or path.endswith(".gz"):
                raise
            response = await super().get_response(f"{path}.gz", scope)
            response = self._unpacked(path, response, scope)
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("v", [""])[-1]
        response.headers["Cache-Control"] = _YEAR if asked == self.version else _CHECKED
        kind = TYPES.get(Path(path).suffix)
        if kind and response.status_code in (200, 206):
            response.headers["Content-Type"] = kind
        return response

    def _unpacked(self, path: str, response: Response, scope: Scope) -> Response:
        """The compressed file as it is, or unpacked for the rare client that cannot."""
        response.headers["Vary"] = "Accept-Encoding"
        if "gzip" in Headers(scope=scope).get("accept-encoding", "") or response.status_code == 304:
            response.headers["Content-Encoding"] = "gzip"
            return response
        source, target = self.lookup_path(f"{path}.gz")
        if target is None or scope["method"] == "HEAD":
            return response
        with gzip.open(source) as file:
            return Response(file.read(), headers={"Vary": "Accept-Encoding"})
