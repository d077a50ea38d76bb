"""Real servers for tests and benchmarks, without Docker: each on a free port, in its own folder, gone at the end.

```python
with PostgresServer.start() as server, PgBouncer.start(server) as pooler:
    admin = server.create_database("shop")
    pooled = pooler.url("shop")

async with FaultProxy.start("127.0.0.1", server.port) as proxy:
    proxy.stall()
```
"""

from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerUnavailable
from tests.servers.proxy import FaultProxy
from tests.servers.valkey import ValkeyServer

__all__ = ["FaultProxy", "PgBouncer", "PostgresServer", "ServerUnavailable", "ValkeyServer"]
