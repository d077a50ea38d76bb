"""What a scan found: as data, as Markdown, and each leak as a command that shows it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tenantry.scan.credentials import Credentials
from tenantry.scan.evidence import Clue
from tenantry.scan.kinds import Kind, Severity
from tenantry.scan.messages import Request, Response

_EXCERPT = 240
_ORDER = list(Severity)


@dataclass(frozen=True, slots=True)
class Finding:
    """One leak, seen twice.

    Attributes:
        kind: Which.
        route: The request, with its ids replaced by what they are: ``GET /invoices/{invoice}``.
        detail: What about the request did it: a parameter, a header, an id.
        request: What B sent.
        status: The status that B got.
        leaked: The values of A's in the answer: name and value.
        excerpt: Where the answer shows one of them.
        command: The request as a ``curl`` command, with variables in the place of credentials.
    """

    kind: Kind
    route: str
    detail: str
    request: Request
    status: int
    leaked: tuple[tuple[str, str], ...]
    excerpt: str
    command: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "kind": self.kind.label,
            "severity": self.kind.severity.value,
            "route": self.route,
            "detail": self.detail,
            "status": self.status,
            "leaked": [{"name": name, "value": value} for name, value in self.leaked],
            "excerpt": self.excerpt,
            "command": self.command,
            "why": self.kind.why,
            "fix": self.kind.fix,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What a scan found and what it did not try.

    Attributes:
        findings: The worst first.
        notes: What the reader should know: what was not asked, and why.
        routes: Of how many routes A's requests were tried as B.
        attempts: How many things were tried.
        requests: How many requests that took.
        complete: Whether everything was tried that could be.
    """

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    routes: int = 0
    attempts: int = 0
    requests: int = 0
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "leaks": len(self.findings),
            "complete": self.complete,
            "routes": self.routes,
            "attempts": self.attempts,
            "requests": self.requests,
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
        }

    def to_markdown(self) -> str:
        """Return it as a page for an issue or a pull request."""
        lines = [f"# {self.summary()}", ""]
        for number, finding in enumerate(self.findings, 1):
            kind = finding.kind
            lines += [
                f"## {number}. {kind.label} ({kind.severity.value})",
                "",
                f"`{finding.route}`: {finding.detail}",
                "",
            ]
            lines += [kind.why, "", *_fenced(finding.command), f"Status {finding.status}.", ""]
            lines += [*(_fenced(finding.excerpt) if finding.excerpt else []), f"**Fix:** {kind.fix}", ""]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"

    def summary(self) -> str:
        """Return it in a sentence."""
        found = "No leak found" if not self.findings else f"{_count(len(self.findings), 'leak')} found"
        asked = (
            f"{_count(self.attempts, 'attempt')} on {_count(self.routes, 'route')}, {self.requests} requests"
        )
        return f"{found}: {asked}{'' if self.complete else '; INCOMPLETE'}"


@dataclass(frozen=True, slots=True)
class Writer:
    """Words findings so that they show the leak and no secret.

    Args:
        base: B's base URL.
        credentials: A's and B's.
        show_values: Whether values of A's are shown in full.
    """

    base: str
    credentials: tuple[Credentials, Credentials]
    show_values: bool = False
    _secrets: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = {secret for one in self.credentials for secret in one.secrets if secret}
        object.__setattr__(self, "_secrets", tuple(sorted(found, key=len, reverse=True)))

    def finding(
        self, kind: Kind, route: str, detail: str, request: Request, response: Response, clues: list[Clue]
    ) -> Finding:
        """Return a finding."""
        shown = tuple(dict.fromkeys((clue.name, self._value(clue.text)) for clue in clues[:8]))
        return Finding(
            kind,
            route,
            detail,
            request,
            response.status,
            shown,
            self.excerpt(response, clues),
            self.command(request),
        )

    def excerpt(self, response: Response, clues: list[Clue]) -> str:
        """Return the part of the answer that shows the first clue, with every value of A's shortened."""
        text = (
            response.text
            if b"\0" not in response.body and not response.body.startswith((b"PK", b"%PDF"))
            else ""
        )
        at = max((text.casefold().find(clue.text.casefold()) for clue in clues[:1]), default=0)
        start = max(0, at - _EXCERPT // 3)
        text = text[start : start + _EXCERPT]
        for clue in sorted(clues, key=lambda clue: len(clue.text), reverse=True):
            text = text.replace(clue.text, self._value(clue.text)) if clue.text else text
        return self.without_secrets(" ".join(text.split()))

    def command(self, request: Request) -> str:
        """Return a request as a command of the shell."""
        words = ["curl", "-i" if request.method != "HEAD" else "-I"]
        words += ["-X", request.method] if request.method not in ("GET", "HEAD") else []
        quoted = [shlex.quote(word) for word in words]
        attacked = dict(request.headers)
        for name, value in self._variables(self.credentials[1].headers).items():
            quoted += ["-H", f'"{name}: {value}"'] if name.lower() not in attacked else []
        for name, value in request.headers:
            quoted += ["-H", shlex.quote(f"{name}: {value}")]
        if request.body:
            quoted += ["--data-raw", shlex.quote(request.body.decode("utf-8", "replace"))]
        return self.without_secrets(" ".join([*quoted, shlex.quote(self.base + request.target)]))

    def without_secrets(self, text: str) -> str:
        """Return ``text`` without anyone's credentials."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _variables(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {
            name: "Bearer $TENANT_B_TOKEN"
            if value.lower().startswith("bearer ")
            else f"$TENANT_B_{name.upper().replace('-', '_')}"
            for name, value in headers.items()
        }

    def _value(self, text: str) -> str:
        if self.show_values:
            return self.without_secrets(text)
        return f"{text[:3]}… ({len(text)} characters)" if len(text) > 3 else text


def by_severity(findings: list[Finding]) -> tuple[Finding, ...]:
    """Return findings, the worst first."""
    return tuple(
        sorted(findings, key=lambda found: (_ORDER.index(found.kind.severity), found.kind.label, found.route))
    )


def _fenced(text: str) -> list[str]:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", text)), 0)
    return [fence, text, fence, ""]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
