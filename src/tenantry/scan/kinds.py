"""The kinds of leak, and what to say of each."""

from __future__ import annotations

from enum import Enum, StrEnum


class Severity(StrEnum):
    """How bad a leak is."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"


class Kind(Enum):
    """A kind of leak: its name, severity, what happened, and how to mend it."""

    FOREIGN_ID_PATH = (
        "foreign-id-in-path",
        Severity.CRITICAL,
        "B named A's id in the path and got what belongs to A.",
        "Look the row up by tenant and id together; the tenant comes from the verified identity.",
    )
    FOREIGN_ID_QUERY = (
        "foreign-id-in-query",
        Severity.CRITICAL,
        "B named A's id in the query and got what belongs to A.",
        "Apply the tenant's filter to every look-up, also where the id comes from a parameter.",
    )
    FOREIGN_ID_BODY = (
        "foreign-id-in-body",
        Severity.CRITICAL,
        "B named A's id in the body and got what belongs to A.",
        "Resolve every id of a body, and every node of GraphQL, within the caller's tenant.",
    )
    UNSCOPED = (
        "unscoped-response",
        Severity.CRITICAL,
        "B asked without naming anything of A's, and A's data is in the answer.",
        "Add the tenant's filter to this query; better, let the database add it to all of them.",
    )
    TENANT_PARAMETER = (
        "tenant-parameter",
        Severity.CRITICAL,
        "A parameter that B may write decides whose data is shown.",
        "Take the tenant from the verified identity; refuse or ignore one that a parameter names.",
    )
    TENANT_HEADER = (
        "tenant-header",
        Severity.CRITICAL,
        "A header that B may write decides whose data is shown.",
        "Let a header only choose among the tenants of the verified identity.",
    )
    TENANT_HOST = (
        "tenant-host",
        Severity.CRITICAL,
        "The host that B names decides whose data is shown.",
        "Check that the user belongs to the tenant of the host; trust X-Forwarded-Host from your proxy alone.",
    )
    SEARCH = (
        "search",
        Severity.CRITICAL,
        "A search, filter or sort as B reaches A's rows.",
        "Search within the tenant: filter the index by tenant, and combine a caller's filter with it by AND.",
    )
    CURSOR = (
        "cursor",
        Severity.CRITICAL,
        "A cursor that was made for A shows A's rows to B.",
        "Sign cursors together with the tenant, and apply the tenant's filter to every page.",
    )
    EXPANSION = (
        "expansion",
        Severity.HIGH,
        "Asked to include related rows, the application includes A's in B's answer.",
        "Load related rows within the tenant, too.",
    )
    EXPORT = (
        "export",
        Severity.CRITICAL,
        "A file that B may download holds A's data.",
        "Make exports from the same tenant-scoped queries as the pages; keep files in a folder per tenant.",
    )
    ERROR_MESSAGE = (
        "error-message",
        Severity.HIGH,
        "The error says something that only A may know.",
        "Answer for another tenant's row exactly as for one that does not exist.",
    )
    EXISTENCE_ORACLE = (
        "existence-oracle",
        Severity.MEDIUM,
        "B can tell that a row of A's exists: for an id that never existed the answer differs.",
        "Answer 404 for both, with the same body: look the row up by tenant and id in one query.",
    )
    SHARED_CACHE = (
        "shared-cache",
        Severity.CRITICAL,
        "Whoever asks first fills a cache, and the other tenant is answered out of it.",
        "Make the tenant a part of the cache's key, or answer with Cache-Control: private and Vary: Authorization.",
    )
    VALIDATOR = (
        "etag",
        Severity.MEDIUM,
        "To A's ETag the application answers B with 304: it compares before it checks whose the row is.",
        "Check access first, and make ETags from the tenant and the row's version.",
    )
    FOREIGN_WRITE = (
        "foreign-write",
        Severity.CRITICAL,
        "B changed or deleted what belongs to A.",
        "Change rows by tenant and id together, and answer 404 where none was changed.",
    )
    TENANT_IN_BODY = (
        "tenant-in-body",
        Severity.CRITICAL,
        "B wrote into A's data by naming A's tenant in the body.",
        "Set the tenant of a new row from the verified identity, whatever the body says.",
    )
    FOREIGN_REFERENCE = (
        "foreign-reference",
        Severity.HIGH,
        "A row of B's may refer to a row of A's.",
        "Check references within the tenant; a foreign key that begins with the tenant does so in the database.",
    )
    UNIQUENESS_ORACLE = (
        "uniqueness-oracle",
        Severity.MEDIUM,
        "A value that A uses is refused to B as taken, so B learns that it exists.",
        "Make the constraint unique per tenant: UNIQUE (tenant_id, value).",
    )

    def __init__(self, label: str, severity: Severity, why: str, fix: str) -> None:
        self.label = label
        self.severity = severity
        self.why = why
        self.fix = fix
