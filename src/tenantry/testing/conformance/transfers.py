"""A tenant renamed, exported, imported and cloned: the same rows elsewhere, or nothing that is served."""

from __future__ import annotations

import datetime as dt
import zipfile
from pathlib import Path

import pytest

from tenantry.errors import ArchiveError, InvalidTenantId, TenantExists, TenantNotFound, TenantSuspended
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.tenants import TenantStatus
from tenantry.testing.conformance.setting import Setting, fresh
from tenantry.testing.models import MODELS, Author, Book, Folder, Note, Review, Ticket


class Transfers(Setting):
    """The life of a tenant beyond its creation."""

    # -- names

    async def test_a_renamed_tenant_keeps_its_id_and_is_found_under_both_slugs(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        id, slug, other = acme.context.tenant_id, fresh("renamed"), globex.context.tenant_id
        await acme.data.create(Note(id="n"))
        renamed = await sdk.tenants.rename(id, slug=slug, name="Acme Two")
        assert (renamed.id, renamed.slug, renamed.name) == (id, slug, "Acme Two")
        assert await sdk.tenants.by_slug(slug) == await sdk.tenants.by_slug(id) == renamed
        assert await acme.data.count(Note) == 1
        for taken in (slug, id):
            with pytest.raises(TenantExists):
                await sdk.tenants.rename(other, slug=taken)
        with pytest.raises(TenantExists):
            await sdk.tenants.create(slug)
        with pytest.raises(InvalidTenantId):
            await sdk.tenants.rename(id, slug="a b")
        again = await sdk.tenants.rename(id, slug=fresh("again"), redirect=dt.timedelta())
        with pytest.raises(TenantNotFound):
            await sdk.tenants.by_slug(slug)
        assert (await sdk.tenants.rename(other, slug=slug)).id == other
        assert (await sdk.tenants.by_slug(slug)).id == other
        assert await sdk.tenants.rename(id, slug=id) == await sdk.tenants.get(again.id)

    # -- copies

    async def test_an_imported_tenant_has_the_same_rows(
        self, sdk: MultiTenantSDK, acme: TenantHandle, tmp_path: Path
    ) -> None:
        id, copy = acme.context.tenant_id, fresh("copy")
        await self._fill(acme)
        await sdk.tenants.update(id, settings={"seats": 7})
        await acme.members.add("u", roles=["owner"])
        secret = await acme.api_keys.create("ci")
        manifest = await sdk.tenants.export(id, tmp_path / "acme.zip")
        assert secret.key.id.encode() not in (tmp_path / "acme.zip").read_bytes()
        assert "tenantry_api_keys" in manifest.left_out
        made = await sdk.tenants.import_(tmp_path / "acme.zip", as_=copy)
        assert made.collections == manifest.collections
        assert (made.tenant.status, made.tenant.settings) == (TenantStatus.ACTIVE, {"seats": 7})
        there = sdk.tenant(copy)
        for model in MODELS:
            if model.__collection__ in manifest.collections:
                mine, theirs = await acme.data.read(model), await there.data.read(model)
                assert [*mine] == [*theirs], model
        assert await there.members.roles_of("u") == {"owner"}
        assert not await there.api_keys.list()
        await acme.data.create(Note(id="later"))
        with pytest.raises(TenantExists):
            await sdk.tenants.import_(tmp_path / "acme.zip", as_=id)
        assert await acme.data.exists(Note, {"id": "later"})

    async def test_rows_that_are_marked_as_deleted_come_along(
        self, sdk: MultiTenantSDK, acme: TenantHandle, tmp_path: Path
    ) -> None:
        gone = await acme.data.create(Ticket(number="1", title="gone"))
        await acme.data.create(Ticket(title="refers to it", parent_id=gone.id))
        await acme.data.delete(gone)
        await acme.data.create(Ticket(number="1", title="has its number"))
        await sdk.tenants.export(acme.context.tenant_id, tmp_path / "acme.zip")
        copies = [fresh("copy"), fresh("clone")]
        await sdk.tenants.import_(tmp_path / "acme.zip", as_=copies[0])
        await sdk.tenants.clone(acme.context.tenant_id, copies[1])
        all_rows = [*await acme.data.read(Ticket, deleted="with")]
        assert len(all_rows) == 3
        for copy in copies:
            there = sdk.tenant(copy).data
            assert [*await there.read(Ticket, deleted="with")] == all_rows
            assert await there.count(Ticket) == 2
            assert [row.title for row in await there.read(Ticket, deleted="only")] == ["gone"]

    async def test_an_imported_tenant_has_the_same_plan(
        self, sdk: MultiTenantSDK, acme: TenantHandle, tmp_path: Path
    ) -> None:
        # It has no row: where plans are declared, one of which nothing is known allows none.
        await sdk.tenants.update(acme.context.tenant_id, plan="pro")
        await sdk.tenants.export(acme.context.tenant_id, tmp_path / "acme.zip")
        made = await sdk.tenants.import_(tmp_path / "acme.zip", as_=fresh("copy"))
        assert made.tenant.plan == "pro"

    async def test_a_damaged_archive_stores_nothing(
        self, sdk: MultiTenantSDK, acme: TenantHandle, tmp_path: Path
    ) -> None:
        await acme.data.create(Note(id="n", text="ours"))
        await sdk.tenants.export(acme.context.tenant_id, tmp_path / "good.zip")
        parts = _parts(tmp_path / "good.zip")
        row = parts["rows/notes.jsonl"]
        damaged = {
            "changed": parts | {"rows/notes.jsonl": row.replace(b"ours", b"hers")},
            "missing": {name: data for name, data in parts.items() if name != "rows/notes.jsonl"},
            "more": parts | {"rows/notes.jsonl": row * 2},
            "newer": parts
            | {"tenantry.json": parts["tenantry.json"].replace(b'"version": 1', b'"version": 2')},
            "unknown": parts | {"tenantry.json": parts["tenantry.json"].replace(b'"notes"', b'"secrets"')},
            "no manifest": {"rows/notes.jsonl": row},
        }
        for what, changed in damaged.items():
            file, copy = tmp_path / f"{what}.zip", fresh("copy")
            _write(file, changed)
            with pytest.raises(ArchiveError):
                await sdk.tenants.import_(file, as_=copy)
            with pytest.raises(TenantNotFound):
                await sdk.tenants.get(copy)
        (tmp_path / "none.zip").write_bytes(b"PK nothing")
        with pytest.raises(ArchiveError):
            await sdk.tenants.import_(tmp_path / "none.zip", as_=fresh("copy"))

    async def test_an_import_that_was_broken_off_is_not_served_and_begins_anew(
        self, sdk: MultiTenantSDK, acme: TenantHandle, tmp_path: Path
    ) -> None:
        await self._fill(acme)
        await sdk.tenants.export(acme.context.tenant_id, tmp_path / "acme.zip")
        copy = fresh("copy")

        def broken(collection: str, done: int) -> None:
            if collection == "books":
                raise RuntimeError("broken off")

        with pytest.raises(RuntimeError):
            await sdk.tenants.import_(tmp_path / "acme.zip", as_=copy, progress=broken)
        assert (await sdk.tenants.get(copy)).status is TenantStatus.IMPORTING
        with pytest.raises(TenantSuspended, match="import"):
            await sdk.tenant(copy).data.count(Note)
        with pytest.raises(TenantSuspended):
            await sdk.tenant(copy).members.add("early")
        made = await sdk.tenants.import_(tmp_path / "acme.zip", as_=copy)
        assert made.tenant.status is TenantStatus.ACTIVE
        assert await sdk.tenant(copy).data.count(Book) == await acme.data.count(Book)

    async def test_a_clone_is_a_tenant_of_its_own(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        await self._fill(acme)
        copy = fresh("clone")
        await sdk.tenants.clone(acme.context.tenant_id, copy, collections=["notes", "folders"])
        clone = sdk.tenant(copy)
        await clone.data.create(Note(id="new"))
        assert await clone.data.count(Note) == await acme.data.count(Note) + 1
        assert await clone.data.count(Folder) == await acme.data.count(Folder)
        assert await clone.data.count(Book) == 0

    @staticmethod
    async def _fill(handle: TenantHandle) -> None:
        author = await handle.data.create(Author(name="Ünï"))
        for number in range(5):
            book = await handle.data.create(Book(title=f"{number}", author_id=author.id))
            await handle.data.create(Review(book_id=book.id))
        # The one that the last refers to comes behind it in the order of ids.
        for id, parent in ((1, None), (2, 1), (3, 3), (9, None), (4, 9)):
            await handle.data.create(Folder(id=id, parent_id=parent))
        await handle.data.create(Note(id="n", text="line\nbreak \u2028 \0x".replace("\0", "")))


def _parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path: Path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
