"""Job tokens: one opens for the very job it was signed for, and nothing that differs from one opens at all."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import json
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import TenantContext
from tenantry.errors import ConfigurationError, InvalidRecord, JobRejected
from tenantry.tokens import MAX_TOKEN_SIZE, JobKey, JobReference, JobSigner, digest
from tenantry.types import tenant_id

KEY = JobKey("k1", b"1" * 32)
SIGNER = JobSigner([KEY])
ACME = TenantContext(tenant_id("acme"), "anna", {"role": "owner"}, "r-1")
JOB = JobReference("celery", "shop.export", "shop", "job-1", digest(("csv",), {"rows": 3}))
TOKEN = SIGNER.sign(ACME, JOB)

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def reason(token: object, job: JobReference = JOB, signer: JobSigner = SIGNER, **options: Any) -> str:
    """Return why the token is refused."""
    with pytest.raises(JobRejected) as refused:
        signer.open(token, job, **options)
    return refused.value.reason


class TestOpening:
    def test_the_very_job_gets_the_very_context(self) -> None:
        opened = SIGNER.open(TOKEN, JOB)
        assert opened == ACME
        assert (opened.request_id, opened.claims_digest) == (ACME.request_id, ACME.claims_digest)

    @given(
        user=st.none() | st.text(),
        claims=st.dictionaries(st.text(), JSON, max_size=3),
        task=st.text(),
        arguments=JSON,
    )
    def test_any_context_and_job_come_back(
        self, user: str | None, claims: dict[str, Any], task: str, arguments: Any
    ) -> None:
        try:
            context = TenantContext(tenant_id("acme"), user, claims)
        except ConfigurationError:
            return  # half of a surrogate pair
        job = msgspec.structs.replace(JOB, task=task, arguments=digest(arguments))
        assert SIGNER.open(SIGNER.sign(context, job), job) == context

    @given(place=st.integers(0, len(TOKEN) - 1), byte=st.characters(max_codepoint=0x2FF))
    def test_a_changed_character_is_refused(self, place: int, byte: str) -> None:
        changed = TOKEN[:place] + byte + TOKEN[place + 1 :]
        if changed != TOKEN:
            assert reason(changed) in {"forged", "malformed", "unknown-key"}

    @given(st.integers(0, len(TOKEN) - 1))
    def test_a_part_of_a_token_is_refused(self, size: int) -> None:
        assert reason(TOKEN[:size]) in {"forged", "malformed"}
        assert reason(TOKEN + TOKEN[:size] if size else TOKEN + ".") in {"forged", "malformed"}

    @given(st.none() | st.booleans() | st.integers() | st.binary() | st.text() | st.lists(st.text()))
    def test_what_is_no_token_is_refused(self, rubbish: object) -> None:
        assert reason(rubbish) in {"malformed", "unknown-key"}

    def test_a_token_of_any_length_is_refused_before_it_is_looked_at(self) -> None:
        assert reason(TOKEN + "A" * MAX_TOKEN_SIZE) == "malformed"

    def test_swapping_the_tenant_is_refused(self) -> None:
        version, kid, payload, mac = TOKEN.split(".")
        decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        swapped = base64.urlsafe_b64encode(decoded.replace(b"acme", b"evil")).rstrip(b"=").decode()
        assert swapped != payload
        assert reason(f"{version}.{kid}.{swapped}.{mac}") == "forged"

    @pytest.mark.parametrize("payload", ["W10", "e30", "IQ", "", "!", "WyJhY21lIl0"])
    def test_a_payload_of_another_release_is_refused(self, payload: str) -> None:
        text = f"t1.k1.{payload}"
        assert reason(f"{text}.{SIGNER._mac(SIGNER._keys['k1'], text)}") == "malformed"

    @pytest.mark.parametrize(
        ("field", "value", "expected"),
        [
            ("runner", "arq", "other-task"),
            ("task", "shop.delete", "other-task"),
            ("queue", "other", "other-queue"),
            ("id", "job-2", "other-job"),
            ("arguments", digest(("pdf",), {"rows": 3}), "other-arguments"),
        ],
    )
    def test_it_opens_no_other_job(self, field: str, value: Any, expected: str) -> None:
        assert reason(TOKEN, msgspec.structs.replace(JOB, **{field: value})) == expected

    def test_a_worker_of_several_queues_takes_jobs_of_each_and_of_no_other(self) -> None:
        assert SIGNER.open(TOKEN, JOB, queues=("other", "shop")) == ACME
        assert reason(TOKEN, JOB, queues=("other",)) == "other-queue"
        assert reason(TOKEN, JOB, queues=()) == "other-queue"


class TestKeys:
    def test_the_newest_signs_and_all_open(self) -> None:
        newer = JobKey.generate()
        both = JobSigner([newer, KEY])
        assert both.open(TOKEN, JOB) == ACME
        assert reason(both.sign(ACME, JOB), signer=SIGNER) == "unknown-key"
        assert JobSigner([newer]).open(both.sign(ACME, JOB), JOB) == ACME

    def test_a_key_that_was_taken_out_opens_nothing(self) -> None:
        assert reason(TOKEN, signer=JobSigner([JobKey.generate()])) == "unknown-key"

    def test_another_secret_under_the_same_name_opens_nothing(self) -> None:
        assert reason(TOKEN, signer=JobSigner([JobKey("k1", b"2" * 32)])) == "forged"

    def test_it_survives_being_written_down(self) -> None:
        keys = [JobKey.generate(), JobKey.generate()]
        assert JobKey.parse(" , ".join(key.export() for key in keys)) == tuple(keys)

    @pytest.mark.parametrize(
        "text", ["k1", "k1:", "k1:!!!", "k1:c2hvcnQ=", "K 1:" + "A" * 44, ":" + "A" * 44]
    )
    def test_what_is_no_key_is_refused_and_not_repeated(self, text: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            JobKey.parse(text)
        assert refused.value.field == "jobs.key"
        assert text not in str(refused.value)
        assert refused.value.__cause__ is None

    def test_its_secret_is_not_shown(self) -> None:
        assert "secret" not in repr(KEY)
        assert "111" not in repr(SIGNER) + repr(KEY)

    def test_none_or_two_of_one_name_are_refused(self) -> None:
        for keys in ([], [KEY, JobKey("k1", b"2" * 32)]):
            with pytest.raises(ConfigurationError):
                JobSigner(keys)


class TestAge:
    def test_it_opens_until_its_time_is_over(self) -> None:
        clock = Clock()
        signer = JobSigner([KEY], ttl=60, clock=clock)
        token = signer.sign(ACME, JOB)
        clock.now += 59.9
        assert signer.open(token, JOB) == ACME
        clock.now += 0.1
        assert reason(token, signer=signer) == "expired"

    def test_a_retry_grows_no_younger(self) -> None:
        clock = Clock()
        signer = JobSigner([KEY], ttl=60, clock=clock)
        first = signer.sign(ACME, JOB)
        clock.now += 40
        again = msgspec.structs.replace(JOB, arguments=digest("changed"))
        second = signer.sign(ACME, again, replaces=first)
        assert signer.open(second, again) == ACME
        clock.now += 40
        assert reason(second, again, signer) == "expired"

    @pytest.mark.parametrize(
        ("context", "job", "replaces"),
        [
            (TenantContext(tenant_id("globex")), JOB, TOKEN),
            (ACME, msgspec.structs.replace(JOB, id="job-2"), TOKEN),
            (ACME, msgspec.structs.replace(JOB, task="other"), TOKEN),
            (ACME, JOB, "nonsense"),
        ],
    )
    def test_the_age_of_another_job_says_nothing(
        self, context: TenantContext, job: JobReference, replaces: str
    ) -> None:
        signer = JobSigner([KEY], ttl=60)
        old = JobSigner([KEY], clock=lambda: 0.0).sign(ACME, JOB) if replaces == TOKEN else replaces
        assert signer.open(signer.sign(context, job, replaces=old), job) == context

    def test_without_a_limit_it_opens_for_ever(self) -> None:
        old = JobSigner([KEY], clock=lambda: 0.0).sign(ACME, JOB)
        assert SIGNER.open(old, JOB) == ACME


class Colour(enum.StrEnum):
    RED = "red"


class TestDigest:
    @given(JSON)
    def test_a_queue_of_json_changes_nothing(self, value: Any) -> None:
        assert digest(value) == digest(json.loads(json.dumps(value)))

    @given(JSON, JSON)
    def test_other_arguments_have_another_digest(self, one: Any, other: Any) -> None:
        same = msgspec.json.encode(_plain(one), order="deterministic") == msgspec.json.encode(
            _plain(other), order="deterministic"
        )
        assert (digest(one) == digest(other)) is same

    @pytest.mark.parametrize(
        ("sent", "received"),
        [
            ((1, 2), [1, 2]),
            (2.0, 2),
            (1e300, 10**300),
            (-0.0, 0),
            ({1: "a"}, {"1": "a"}),
            ({None: 1, True: 2}, {"true": 2, "null": 1}),
            (Colour.RED, "red"),
        ],
    )
    def test_what_queues_do_to_values_changes_nothing(self, sent: Any, received: Any) -> None:
        assert digest(sent) == digest(received)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("1", 1),
            (1, True),
            (0, False),
            (None, "null"),
            (b"x", "x"),
            (["a", "b"], ["ab"]),
            ([["a"], "b"], ["a", ["b"]]),
            ({"a": 1}, [["a", 1]]),
            (["number", "1e0"], 1),
            (dt.date(2026, 1, 1), "2026-01-01"),
            (uuid.UUID(int=1), str(uuid.UUID(int=1))),
            (decimal.Decimal("1.0"), "1.0"),
            (1.5, 1.25),
        ],
    )
    def test_values_that_differ_have_digests_that_differ(self, one: Any, other: Any) -> None:
        assert digest(one) != digest(other)

    def test_what_cannot_be_signed_is_named(self) -> None:
        with pytest.raises(InvalidRecord) as refused:
            digest(("csv",), {"to": [object()]})
        assert refused.value.field == "arguments[1].to[0]"

    def test_depth_is_refused_in_words(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(InvalidRecord, match="nested too deeply"):
            digest(deep)


@pytest.mark.parametrize(
    "value", ["\ud800", {"\ud800": 1}, 10**5000], ids=["half a pair", "half a pair as key", "a huge integer"]
)
def test_what_no_queue_can_carry_is_refused_in_words(value: Any) -> None:
    with pytest.raises(InvalidRecord):
        digest(value)


def test_too_many_claims_are_refused_where_the_job_is_enqueued() -> None:
    with pytest.raises(InvalidRecord) as refused:
        SIGNER.sign(TenantContext(tenant_id("acme"), "anna", {"groups": ["x" * 100] * 200}), JOB)
    assert refused.value.field == "claims"


def _plain(value: Any) -> Any:
    """Return the value as PostgreSQL's jsonb would: numbers have one form."""
    if isinstance(value, float):
        number = decimal.Decimal(repr(value))
        return f"#{number.normalize():f}" if number else "#0"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"#{value}"
    if isinstance(value, str):
        return f"'{value}"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
