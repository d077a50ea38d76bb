"""The servers the other tests stand on: real, apart from each other, and gone when their owner is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import redis

from tests.servers import FaultProxy, PgBouncer, PostgresServer, ServerUnavailable, ValkeyServer
from tests.servers import pgbouncer as pgbouncer_module
from tests.servers.process import Account, can_run

ROOT = Path(__file__).resolve().parent.parent

OWNER = """
import signal, time
from tests.servers import PostgresServer
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would inherit "ignore"
with PostgresServer.start() as server:
    print(server.pid, server.folder, flush=True)
    time.sleep(600)
"""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, then
    return True


def _eventually(happened: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


async def _connect(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(url, statement_cache_size=0, timeout=20)


@asynccontextmanager
async def _echo() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(100):
            writer.write(chunk)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port: int = server.sockets[0].getsockname()[1]
        yield port
    finally:
        server.close()


class TestPostgresServer:
    async def test_it_is_postgresql_18_with_the_roles_and_settings_we_asked_for(
        self, postgres_server: PostgresServer, database_url: str
    ) -> None:
        connection = await _connect(database_url)
        try:
            assert connection.get_server_version().major == 18
            assert await connection.fetchval("SHOW fsync") == "off"
            assert await connection.fetchval("SHOW timezone") == "UTC"
            assert await connection.fetchval("SELECT 'é' < 'z'") is False, "text is ordered by code point"
        finally:
            await connection.close()

    async def test_a_wrong_password_is_refused(self, postgres_server: PostgresServer) -> None:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await _connect(postgres_server.url(user="postgres", password="wrong"))

    async def test_hostile_names_and_passwords_survive_the_address(
        self, postgres_server: PostgresServer, make_database: Callable[[], str]
    ) -> None:
        database = 'a/b "c" ?d=é'
        postgres_server.create_database(database)
        postgres_server.execute("""CREATE ROLE "p@q:r" LOGIN PASSWORD 's/t:u@v'""")
        try:
            connection = await _connect(postgres_server.url(database, user="p@q:r", password="s/t:u@v"))
            assert await connection.fetchval("SELECT current_database()") == database
            await connection.close()
        finally:
            postgres_server.drop_database(database)
            postgres_server.execute('DROP ROLE "p@q:r"')

    def test_a_failed_statement_raises_the_servers_words(self, postgres_server: PostgresServer) -> None:
        with pytest.raises(RuntimeError, match='relation "nowhere" does not exist'):
            postgres_server.execute("SELECT * FROM nowhere")

    def test_two_at_once_are_apart_and_stopping_leaves_nothing(self, postgres_server: PostgresServer) -> None:
        with PostgresServer.start({"max_connections": "20"}) as other:
            assert other.port != postgres_server.port
            other.create_database("only_here")
            assert other.execute("SHOW max_connections") == "20"
            assert postgres_server.execute("SELECT 1 FROM pg_database WHERE datname = 'only_here'") == ""
            pid, folder = other.pid, other.folder
            assert _is_alive(pid)
        assert not _is_alive(pid)
        assert not folder.exists()
        assert postgres_server.execute("SELECT 1") == "1"

    def test_a_bad_setting_is_unavailable_with_the_log_and_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ServerUnavailable, match='unrecognized configuration parameter "nonsense"'):
            PostgresServer.start({"nonsense": "1"})

    def test_as_root_it_runs_as_somebody_else(self, postgres_server: PostgresServer) -> None:
        account = Account.choose()
        owner = postgres_server.folder.stat().st_uid
        assert owner == (os.geteuid() if account is None else account.uid)
        assert owner != 0

    @pytest.mark.skipif(
        os.geteuid() != 0, reason="only root runs servers as somebody who cannot enter a folder"
    )
    def test_it_starts_where_the_other_user_cannot_enter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = Account.choose()
        original = can_run

        def cannot_enter(account: Account | None, *command: str) -> bool:
            return "site-packages" not in command[0] and original(account, *command)

        monkeypatch.setattr("tests.servers.postgres.can_run", cannot_enter)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        with PostgresServer.start() as server:
            programs = server.folder / "programs"
            assert programs.is_dir()
            assert can_run(account, "/bin/sh", "-c", 'cd "$0"', str(programs))
            assert server.execute("SELECT 1") == "1"


class TestOrphans:
    @pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_an_owner_that_dies_leaves_no_server_and_no_folder(self, fate: signal.Signals) -> None:
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert owner.stdout is not None
        with owner:
            try:
                pid_text, folder_text = owner.stdout.readline().split(maxsplit=1)
                pid, folder = int(pid_text), Path(folder_text.strip())
                assert _is_alive(pid)
                assert folder.exists()
                owner.send_signal(fate)
                owner.wait(timeout=20)
            finally:
                owner.kill()
        assert _eventually(lambda: not _is_alive(pid))
        assert _eventually(lambda: not folder.exists())

    @pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="the last resort is Linux's parent death signal"
    )
    def test_a_killed_supervisor_takes_the_server_with_it(self) -> None:
        with PostgresServer.start() as server:
            pid = server.pid
            supervisor = int(
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            )
            os.kill(supervisor, signal.SIGKILL)
            assert _eventually(lambda: not _is_alive(pid))
        assert not server.folder.exists()


class TestPgBouncer:
    async def test_it_multiplexes_so_the_backends_pid_is_not_the_one_announced(self, pooled_url: str) -> None:
        connection = await _connect(pooled_url)
        try:
            assert connection.get_server_pid() != await connection.fetchval("SELECT pg_backend_pid()")
        finally:
            await connection.close()

    async def test_more_clients_than_server_connections_share_them_by_transaction(
        self, postgres_server: PostgresServer, database: str
    ) -> None:
        with PgBouncer.start(postgres_server, pool_size=2) as pooler:
            clients = await asyncio.gather(*(_connect(pooler.url(database)) for _ in range(10)))
            try:
                pids = await asyncio.gather(
                    *(client.fetchval("SELECT pg_backend_pid()") for client in clients)
                )
                assert 1 <= len(set(pids)) <= 2
            finally:
                await asyncio.gather(*(client.close() for client in clients))

    async def test_a_session_setting_reaches_another_client(
        self, postgres_server: PostgresServer, database: str
    ) -> None:
        """The hazard that a tenant bound to a session would meet behind a transaction pooler."""
        with PgBouncer.start(postgres_server, pool_size=1) as pooler:
            first, second = [await _connect(pooler.url(database)) for _ in range(2)]
            try:
                await first.execute("SELECT set_config('app.tenant', 'acme', false)")
                assert await second.fetchval("SELECT current_setting('app.tenant', true)") == "acme"
            finally:
                await first.close()
                await second.close()

    async def test_a_role_created_later_logs_in_with_its_password_only(
        self, postgres_server: PostgresServer, pgbouncer: PgBouncer, database: str
    ) -> None:
        postgres_server.execute("CREATE ROLE latecomer LOGIN PASSWORD 'first'")
        try:
            connection = await _connect(pgbouncer.url(database, user="latecomer", password="first"))
            assert await connection.fetchval("SELECT current_user") == "latecomer"
            await connection.close()
            with pytest.raises(asyncpg.PostgresError, match="authentication failed"):
                await _connect(pgbouncer.url(database, user="latecomer", password="wrong"))
        finally:
            postgres_server.execute("DROP ROLE latecomer")

    def test_stopping_leaves_nothing(self, postgres_server: PostgresServer, pgbouncer: PgBouncer) -> None:
        with PgBouncer.start(postgres_server) as pooler:
            folder = pooler.folder
            assert pooler.port != pgbouncer.port
        assert not folder.exists()

    def test_a_missing_program_names_its_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(pgbouncer_module, "SYSTEM_FOLDERS", ())
        with pytest.raises(ServerUnavailable, match="apt-get install pgbouncer"):
            pgbouncer_module.find_program()


class TestFaultProxy:
    async def test_it_forwards(self, postgres_server: PostgresServer, database_url: str) -> None:
        async with FaultProxy.start(postgres_server.host, postgres_server.port) as proxy:
            connection = await _connect(proxy.url(database_url))
            assert await connection.fetchval("SELECT repeat('x', 1000000)") == "x" * 1_000_000
            assert (proxy.accepted, proxy.open) == (1, 1)
            await connection.close()

    @pytest.mark.parametrize("fault", ["cut", "reset"])
    async def test_a_dropped_connection_fails_at_once_and_a_new_one_works(
        self, postgres_server: PostgresServer, database_url: str, fault: str
    ) -> None:
        async with FaultProxy.start(postgres_server.host, postgres_server.port) as proxy:
            connection = await _connect(proxy.url(database_url))
            waiting = asyncio.create_task(connection.fetchval("SELECT pg_sleep(60)"))
            await asyncio.sleep(0.1)
            await getattr(proxy, fault)()
            with pytest.raises((OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
                await asyncio.wait_for(waiting, timeout=5)
            assert proxy.open == 0
            again = await _connect(proxy.url(database_url))
            assert await again.fetchval("SELECT 1") == 1
            await again.close()

    async def test_a_reset_reaches_the_client_as_such(self) -> None:
        async with _echo() as port, FaultProxy.start("127.0.0.1", port) as proxy:
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            await proxy.reset()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    async def test_stalled_bytes_arrive_once_resumed(
        self, postgres_server: PostgresServer, database_url: str
    ) -> None:
        async with FaultProxy.start(postgres_server.host, postgres_server.port) as proxy:
            connection = await _connect(proxy.url(database_url))
            proxy.stall()
            waiting = asyncio.create_task(connection.fetchval("SELECT 1"))
            done, _ = await asyncio.wait([waiting], timeout=0.3)
            assert not done
            proxy.resume()
            assert await asyncio.wait_for(waiting, timeout=5) == 1
            await connection.close()

    async def test_a_commit_whose_answer_is_lost_has_happened(
        self, postgres_server: PostgresServer, database_url: str
    ) -> None:
        direct = await _connect(database_url)
        await direct.execute("CREATE TABLE t (n int)")
        async with FaultProxy.start(postgres_server.host, postgres_server.port) as proxy:
            connection = await _connect(proxy.url(database_url))
            proxy.stall(to_server=False)
            waiting = asyncio.create_task(connection.execute("INSERT INTO t VALUES (1)"))
            while not await direct.fetchval("SELECT count(*) FROM t"):
                await asyncio.sleep(0.01)
            await proxy.cut()
            with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
                await waiting
        assert await direct.fetchval("SELECT count(*) FROM t") == 1
        await direct.close()

    async def test_refused_until_accepted_again_on_the_same_port(self) -> None:
        async with _echo() as port, FaultProxy.start("127.0.0.1", port) as proxy:
            before = proxy.port
            await proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(proxy.host, proxy.port)
            await proxy.accept()
            assert proxy.port == before
            _, writer = await asyncio.open_connection(proxy.host, proxy.port)
            writer.close()

    async def test_a_target_that_is_away_closes_the_connection(self) -> None:
        async with FaultProxy.start("127.0.0.1", 1) as proxy:
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
            assert await asyncio.wait_for(reader.read(), timeout=5) == b""
            writer.close()


class TestValkeyServer:
    def test_it_answers_who_knows_the_password_and_nobody_else(self, valkey_server: ValkeyServer) -> None:
        with redis.Redis.from_url(valkey_server.url()) as client:
            assert client.ping()
        with redis.Redis(port=valkey_server.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()

    def test_two_at_once_are_apart_and_stopping_leaves_nothing(self, valkey_server: ValkeyServer) -> None:
        with ValkeyServer.start() as other:
            with (
                redis.Redis.from_url(other.url()) as client,
                redis.Redis.from_url(valkey_server.url()) as first,
            ):
                client.set("only", "here")
                assert first.get("only") is None
                pid = int(client.info("server")["process_id"])
            folder = other.folder
            assert _is_alive(pid)
        assert not _is_alive(pid)
        assert not folder.exists()
