"""A token is an identity if everything about it is right, and if nothing in it had a say in how that was found out."""

from __future__ import annotations

import json
import logging
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey, RSAKey

from tenantry.errors import ConfigurationError
from tenantry.http import Identity, JWTResolver, Refusal, RequestView, StaticKeys
from tenantry.http.keys import published_keys
from tenantry.http.request import Headers
from tests.http.tokens import (
    AUDIENCE,
    EC,
    ISSUER,
    NOW,
    RSA,
    SECRET,
    b64,
    bearing,
    claims,
    forged,
    key,
    public,
    resolver,
    token,
)


async def refused(text: str, by: JWTResolver | None = None) -> Refusal:
    """Return how the resolver refuses a token, by await and without it."""
    by = by or resolver()
    with pytest.raises(Refusal) as found:
        await by.identify(bearing(text))
    with pytest.raises(Refusal) as again:
        by.identify_sync(bearing(text))
    assert (found.value.status, found.value.code) == (again.value.status, again.value.code)
    assert found.value.status == 401
    assert found.value.headers is not None
    assert found.value.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
    return found.value


# -- what is right


@pytest.mark.parametrize(
    ("signer", "algorithms"),
    [
        (EC, ["ES256"]),
        (RSA, ["RS256"]),
        (EC, ["RS256", "ES256"]),
        (key("Ed25519", "ed"), ["Ed25519"]),
        (key("oct", "hs"), ["HS256"]),
    ],
    ids=lambda value: getattr(value, "kid", None),
)
async def test_a_good_token_is_an_identity(signer: Any, algorithms: list[str]) -> None:
    by = resolver(StaticKeys(public(signer)), algorithms=algorithms)
    for found in (await by.identify(bearing(token(signer))), by.identify_sync(bearing(token(signer)))):
        assert found == Identity("acme", user="anna", claims=claims())


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_the_old_name_of_ed25519_is_known() -> None:
    signer = key("Ed25519", "ed")
    by = resolver(StaticKeys(public(signer)), algorithms=["EdDSA"])
    assert await by.identify(bearing(token(signer, {"alg": "EdDSA"}))) is not None


@pytest.mark.parametrize("tenants", [["acme", "globex"], ["acme"], []])
async def test_a_token_may_hold_several_tenants_or_none(tenants: list[str]) -> None:
    found = await resolver().identify(bearing(token(org=tenants)))
    assert found is not None
    assert found.tenants == set(tenants)


@pytest.mark.parametrize(
    "headers",
    [[], [("Authorization", "Basic YTpi")], [("Authorization", "bearertoken")], [("Authorization", "")]],
)
async def test_a_request_without_a_token_is_nobodys(headers: list[tuple[str, str]]) -> None:
    request = RequestView("GET", "https", "/", headers=Headers(headers))
    assert await resolver().identify(request) is None
    assert resolver().identify_sync(request) is None


async def test_the_scheme_has_no_case() -> None:
    request = RequestView("GET", "https", "/", headers=Headers([("authorization", f"BEARER {token()}")]))
    assert await resolver().identify(request) is not None


async def test_two_tokens_are_refused() -> None:
    twice = [("Authorization", f"Bearer {token()}"), ("authorization", f"Bearer {token(org='globex')}")]
    with pytest.raises(Refusal) as found:
        await resolver().identify(RequestView("GET", "https", "/", headers=Headers(twice)))
    assert found.value.status == 400
    await refused(f"{token()},Bearer {token(org='globex')}")  # as a WSGI server joins them


async def test_a_token_may_be_elsewhere() -> None:
    by = resolver(token=lambda request: request.query.removeprefix("token=") or None)
    assert await by.identify(RequestView("GET", "https", "/", query=f"token={token()}")) is not None
    assert await by.identify(bearing(token())) is None


# -- signatures


@pytest.mark.parametrize(
    "name", ["none", "None", "NONE", "nOnE", "", "HS256", "PS256", "ES384", "RS256 ", "ES256K"]
)
async def test_the_token_does_not_choose_its_algorithm(name: str) -> None:
    await refused(forged({"alg": name, "kid": EC.kid}))
    await refused(forged({"alg": name}))
    _, payload, signature = token().split(".")
    await refused(f"{b64({'alg': name, 'kid': EC.kid})}.{payload}.{signature}")


async def test_an_algorithm_that_is_not_pinned_is_refused_even_if_rightly_signed() -> None:
    good = token(RSA, {"alg": "PS256"})
    assert await resolver(algorithms=["PS256"]).identify(bearing(good)) is not None
    await refused(good, resolver(algorithms=["RS256"]))


async def test_a_public_key_is_never_a_secret() -> None:
    pem = RSA.as_bytes("PEM", private=False) if isinstance(RSA, RSAKey) else b""
    modulus = json.dumps(RSA.as_dict(private=False)).encode()
    for secret in (pem, pem.strip(), modulus):
        await refused(forged({"alg": "HS256", "kid": RSA.kid}, secret=secret))
        await refused(forged({"alg": "HS256"}, secret=secret))
    shared = resolver(StaticKeys(public(RSA, key("oct", "hs"))), algorithms=["HS256"])
    await refused(forged({"alg": "HS256", "kid": RSA.kid}, secret=pem), shared)
    assert await shared.identify(bearing(forged({"alg": "HS256", "kid": "hs"}, secret=SECRET))) is not None


async def test_a_key_checks_its_own_algorithm_only() -> None:
    bound = {"keys": [{**RSA.as_dict(private=False), "alg": "RS512"}]}
    await refused(token(RSA), resolver(StaticKeys(bound)))


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
        {"jwk": key("P-256", "evil").as_dict(private=False)},
        {"x5c": ["MIIB" * 1_000]},
    ],
    ids=["jku", "x5u", "jwk", "x5c"],
)
async def test_keys_that_a_token_brings_along_are_ignored(header: dict[str, Any]) -> None:
    evil = key("P-256", "evil")
    await refused(token(evil, header))
    await refused(token(evil, {**header, "kid": EC.kid}))
    if "jwk" not in header:
        assert await resolver().identify(bearing(token(EC, header))) is not None


@pytest.mark.parametrize(
    "kid",
    [
        "../../etc/passwd",
        "' OR 1=1 --",
        "/dev/null",
        "x" * 400,
        "",
        7,
        None,
        ["ec-1"],
        {"a": 1},
        True,
        "EC-1",
    ],
)
async def test_a_key_id_finds_a_key_or_nothing(kid: Any) -> None:
    await refused(forged({"alg": "ES256", "kid": kid}, secret=b""))
    _, payload, signature = token().split(".")
    await refused(f"{b64({'alg': 'ES256', 'kid': kid})}.{payload}.{signature}")


async def test_without_a_key_id_the_key_must_be_the_only_one() -> None:
    assert await resolver().identify(bearing(token(EC, {"kid": ...}))) is not None  # the only one for ES256
    two = StaticKeys(public(EC, key("P-256", "ec-2")))
    await refused(token(EC, {"kid": ...}), resolver(two))


async def test_extensions_that_must_be_understood_are_refused() -> None:
    await refused(token(EC, {"crit": ["kid"]}))
    await refused(forged({"alg": "ES256", "kid": EC.kid, "crit": ["b64"], "b64": False}))
    await refused(forged({"alg": "ES256", "kid": EC.kid, "crit": []}))


async def test_every_part_of_a_token_is_signed() -> None:
    header, payload, signature = token().split(".")
    for changed in (
        f"{header}.{b64(claims(org='globex'))}.{signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}",
        f"{header}.{payload}.{signature}.",
        f"{header}.{payload}.{signature[:-4]}",
        f"{header}..{signature}",
        f".{payload}.{signature}",
        f"{header}.{payload}.{b64(bytes(64))}",
        f"{header}.{payload}.{signature}.{signature}.{signature}",
    ):
        await refused(changed)


@given(st.integers(0, 2**16), st.integers(0, 255))
def test_a_changed_byte_is_noticed(place: int, value: int) -> None:
    raw = bytearray(token(), "ascii")
    place %= len(raw)
    same = raw[place] == value
    last_of_a_part = place + 1 == len(raw) or raw[place + 1] == ord(".")  # holds bits that mean nothing
    raw[place] = value
    if same or last_of_a_part:
        return
    with pytest.raises(Refusal):
        resolver().identify_sync(bearing(raw.decode("latin-1")))


# -- claims


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": ...},
        {"exp": None},
        {"exp": "2100-01-01"},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": [NOW + 300]},
        {"exp": -1},
        {"nbf": NOW + 31},
        {"nbf": "soon"},
        {"iat": NOW + 31},
        {"iss": ...},
        {"iss": "https://id.example.com"},
        {"iss": "https://id.example.com/evil"},
        {"iss": [ISSUER]},
        {"iss": None},
        {"aud": ...},
        {"aud": "other-api"},
        {"aud": ["other-api"]},
        {"aud": []},
        {"aud": ""},
        {"aud": {AUDIENCE: True}},
        {"aud": [AUDIENCE, 7]},
        {"aud": AUDIENCE + "-2"},
        {"aud": AUDIENCE.upper()},
        {"sub": 17},
    ],
    ids=str,
)
async def test_a_wrong_claim_is_refused(changes: dict[str, Any]) -> None:
    assert (await refused(token(**changes))).code in ("invalid-token", "token-expired")


async def test_times_have_a_leeway_that_ends() -> None:
    by = resolver(leeway=30)
    for good in (token(exp=NOW - 29), token(nbf=NOW + 30), token(iat=NOW + 30)):
        assert await by.identify(bearing(good)) is not None
    assert (await refused(token(exp=NOW - 30), by)).code == "token-expired"
    exact = resolver(leeway=0)
    assert (await refused(token(exp=NOW), exact)).code == "token-expired"
    assert await exact.identify(bearing(token(exp=NOW + 1, nbf=NOW))) is not None


async def test_that_it_is_expired_is_told_to_its_owner_only() -> None:
    header, payload, _ = token(exp=NOW - 3600).split(".")
    assert (await refused(f"{header}.{payload}.{b64(bytes(64))}")).code == "invalid-token"


async def test_one_of_several_audiences_is_enough() -> None:
    by = resolver(audience=["admin-api", AUDIENCE])
    assert await by.identify(bearing(token(aud=["x", "admin-api"]))) is not None
    await refused(token(aud=["x"]), by)


async def test_the_type_of_a_token_can_be_asked_for() -> None:
    by = resolver(token_type="at+jwt")
    for good in ("at+jwt", "application/at+jwt", "AT+JWT"):
        assert await by.identify(bearing(token(EC, {"typ": good}))) is not None
    for wrong in ("JWT", "id+jwt", ...):
        await refused(token(EC, {"typ": wrong}), by)


# -- hostile text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "x" * 20_000,
        "x." * 9_000,
        f"{b64('[' * 9_000)}.{b64('{}')}.",
        f"{b64('[]')}.{b64('{}')}.{b64('x')}",
        f"{b64('null')}.{b64('{}')}.{b64('x')}",
        f"{b64('7')}.{b64('{}')}.{b64('x')}",
        f"{b64({'alg': ['ES256']})}.{b64('{}')}.",
        f"{b64({'alg': {'a': 1}})}.{b64('{}')}.",
        f"{b64({'alg': None})}.{b64('{}')}.",
        f"{b64(b'{' + bytes([255]))}.{b64('{}')}.",
        "é.é.é",
        "\x00",
        "%00.%00.%00",
        "{}",
    ],
    ids=range(18),
)
async def test_no_text_does_more_than_to_be_refused(text: str) -> None:
    assert (await refused(text)).code == "invalid-token"


@given(st.text() | st.tuples(*[st.binary(max_size=40).map(b64)] * 3).map(".".join))
def test_no_generated_text_does_more_than_to_be_refused(text: str) -> None:
    with pytest.raises(Refusal):
        resolver().identify_sync(bearing(f"x{text}"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
        max_leaves=6,
    ),
    st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "jti", "org"]),
)
def test_no_claim_does_more_than_to_be_refused(value: Any, name: str) -> None:
    try:
        found = resolver().identify_sync(bearing(token(**{name: value})))
    except Refusal:
        return
    assert found is not None
    assert set(found.tenants) <= {"acme"} or name == "org"


async def test_a_signed_payload_that_is_no_object_is_refused() -> None:
    for payload in ("[]", "7", '"x"', "{", "", "[" * 9_000, '{"exp": ' + "9" * 5_000 + "}"):
        signed = jws.serialize_compact({"alg": "ES256", "kid": "ec-1"}, payload, EC)
        await refused(signed)


async def test_a_token_of_any_length_is_not_looked_at() -> None:
    long = token(org="x" * 20_000)
    assert len(long) > 16_384
    await refused(long)
    assert await resolver(max_bytes=40_000).identify(bearing(long)) is not None


async def test_nothing_of_a_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    text = token(exp=NOW - 3600, email="anna@example.com")
    with caplog.at_level(logging.DEBUG):
        await refused(text)
        await refused(text[:-8])
        await refused(forged({"alg": "HS256"}, secret=SECRET))
    assert "tenantry.http" in {record.name for record in caplog.records}
    for hidden in (text, text.split(".")[1], "anna@example.com", SECRET.decode()):
        assert hidden not in caplog.text


# -- what is refused at the start


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"algorithms": []}, "algorithms"),
        ({"algorithms": "RS256"}, "algorithms"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": ["RS256", "none"]}, "algorithms"),
        ({"algorithms": ["HS256", "RS256"]}, "algorithms"),
        ({"algorithms": ["RS255"]}, "algorithms"),
        ({"issuer": ""}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"audience": []}, "audience"),
        ({"audience": ["shop-api", ""]}, "audience"),
        ({"tenant": ""}, "tenant"),
        ({"leeway": -1}, "leeway"),
        ({"leeway": 301}, "leeway"),
    ],
)
def test_a_resolver_that_would_believe_too_much_is_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as found:
        resolver(**options)
    assert found.value.field == field


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": b64("short")},
        {"kty": "oct", "k": b64("x" * 31)},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": b64(bytes(range(32)))},
        {"kty": "LMS"},
        {},
        {**EC.as_dict(private=False), "use": "enc"},
        {**EC.as_dict(private=False), "key_ops": ["encrypt"]},
    ],
    ids=range(11),
)
def test_a_key_that_proves_nothing_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as found:
        StaticKeys([entry])
    assert found.value.field == "keys"
    assert published_keys([entry]) == []


def test_keys_come_in_the_usual_forms() -> None:
    assert isinstance(RSA, RSAKey)
    for pem in (RSA.as_bytes("PEM", private=False), RSA.as_bytes("PEM", private=False).decode()):
        by = resolver(StaticKeys.from_pem(pem))
        assert by.identify_sync(bearing(token(RSA))) is not None
    by = resolver(StaticKeys.from_secret(SECRET, kid="hs"), algorithms=["HS256"])
    assert by.identify_sync(bearing(token(key("oct", "hs")))) is not None
    for wrong in (b"", b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----", b"x" * 50):
        with pytest.raises(ConfigurationError):
            StaticKeys.from_pem(wrong)
    with pytest.raises(ConfigurationError):
        StaticKeys.from_secret(b"short")
    with pytest.raises(ConfigurationError):
        StaticKeys({"keys": []})
    with pytest.raises(ConfigurationError):
        StaticKeys.from_secret(RSA.as_bytes("PEM", private=False))


def test_keys_do_not_show_themselves() -> None:
    assert repr(StaticKeys.from_secret(SECRET)) == "StaticKeys(1)"


def test_a_published_secret_is_no_key() -> None:
    entries = [OctKey.import_key(SECRET).as_dict(private=True), EC.as_dict(private=False), "x", None, 7]
    random.Random(1).shuffle(entries)
    assert [item.key_type for item in published_keys(entries)] == ["EC"]
    assert published_keys({"keys": []}) == published_keys(None) == []
