"""Asks whether the tested set of packages has known vulnerabilities.

    python tests/audit.py              asks pip-audit's usual service, over the network
    python tests/audit.py ADVISORIES   asks a local copy of PyPA's advisory database

The exit code is 1 where one is known, or a package could not be looked up: without a network
pip-audit passes over what it cannot ask about. It needs pip-audit and pyyaml, which `make audit`
installs apart.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
COMMAND = [
    *(sys.executable, "-m", "pip_audit", "--strict", "--disable-pip", "--no-deps"),
    *("--progress-spinner", "off", "--requirement", str(ROOT / "constraints.txt")),
]

Advisory = dict[str, Any]
"""In the format of OSV, https://ossf.github.io/osv-schema."""


def read(folder: Path) -> dict[str, list[Advisory]]:
    """The advisories of a copy of the database by the canonical names of packages.

    Raises:
        SystemExit: There are none.
    """
    found: dict[str, list[Advisory]] = {}
    for path in sorted((folder / "vulns").glob("*/*.yaml")):
        advisory = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "withdrawn" not in advisory:
            found.setdefault(canonicalize_name(path.parent.name), []).append(advisory)
    if not found:
        raise SystemExit(f'"{folder}" has no vulns/PACKAGE/ID.yaml: it is no advisory database.')
    return found


def affects(advisory: Advisory, name: str, version: str) -> bool:
    """Whether an advisory is about a version of a package."""
    return any(
        version in map(str, part.get("versions", ()))
        or any(
            _in_range(kind.get("events", ()), version)
            for kind in part.get("ranges", ())
            if kind["type"] == "ECOSYSTEM"
        )
        for part in advisory.get("affected", ())
        if canonicalize_name(part["package"]["name"]) == name
    )


def _in_range(events: Iterable[Mapping[str, Any]], version: str) -> bool:
    """As the schema says: the last event at or before the version decides."""
    asked, inside = Version(version), False
    for event in events:
        [(kind, at)] = event.items()
        try:
            limit = Version("0" if str(at) == "0" else str(at))
        except InvalidVersion:
            continue
        if kind == "introduced":
            inside = inside or asked >= limit
        elif kind == "fixed":
            inside = inside and asked < limit
        elif kind == "last_affected":
            inside = inside and asked <= limit
    return inside


def serve(advisories: Mapping[str, list[Advisory]]) -> http.server.HTTPServer:
    """Answers OSV's queries from a database, on a free port of this machine."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = canonicalize_name(asked["package"]["name"])
            about = [a for a in advisories.get(name, ()) if affects(a, name, asked["version"])]
            content = json.dumps({"vulns": about} if about else {}, default=_as_text).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *said: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _as_text(value: object) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def main(arguments: list[str]) -> int:
    """Runs pip-audit and returns its exit code."""
    if not arguments:
        return subprocess.run(COMMAND, check=False).returncode
    server = serve(read(Path(arguments[0])))
    url = f"http://127.0.0.1:{server.server_port}/v1/query"
    service = ["--vulnerability-service", "osv", "--osv-url", url]
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    try:
        return subprocess.run([*COMMAND, *service], check=False, env=environment).returncode
    finally:
        server.shutdown()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
