"""Tenant ids and pages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.errors import InvalidTenantId
from tenantry.testing.conformance.tenants import HOSTILE_IDS
from tenantry.types import Page, tenant_id


class TestTenantIds:
    @given(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.\-]{0,62}\Z"))
    def test_the_alphabet(self, id: str) -> None:
        assert tenant_id(id) == id

    @given(st.text())
    def test_anything_else_is_refused(self, id: str) -> None:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,62}", id, re.ASCII):
            assert tenant_id(id) == id
        else:
            with pytest.raises(InvalidTenantId):
                tenant_id(id)

    @pytest.mark.parametrize("wrong", HOSTILE_IDS, ids=lambda id: repr(id)[:20])
    def test_hostile_ones(self, wrong: object) -> None:
        with pytest.raises(InvalidTenantId) as refused:
            tenant_id(wrong)
        assert len(str(refused.value)) < 300

    def test_no_two_become_one_where_they_are_joined(self) -> None:
        """Separators that layers below use are no part of an id: `a:b` + `c` never meets `a` + `b:c`."""
        for separator in ":/\\{}|,;$*?[]()<>@#%&=+~^`\"' \t\n\0":
            with pytest.raises(InvalidTenantId):
                tenant_id(f"a{separator}b")

    def test_the_length(self) -> None:
        assert tenant_id("a" * 63)
        with pytest.raises(InvalidTenantId):
            tenant_id("a" * 64)


class TestPages:
    def test_a_page_is_a_sequence(self) -> None:
        page = Page([1, 2, 3], "next")
        assert list(page) == [1, 2, 3]
        assert (page[0], page[-1], page[1:], len(page), 2 in page) == (1, 3, [2, 3], 3, True)
        assert page.has_more
        assert not Page([]).has_more
        assert not Page([])
        assert list(reversed(page)) == [3, 2, 1]

    def test_pages_are_compared_by_what_they_hold(self) -> None:
        assert Page([1]) == Page([1])
        assert Page([1]) != Page([1], "next")
