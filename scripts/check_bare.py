"""Proves that the built wheel works on the base install: `import tenantry` in an environment without extras."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ".venv-bare"

PROBE = """
import importlib.util, pathlib, sys
import tenantry

extras = (
    "aiomysql arq asyncmy asyncpg celery chdb django fastapi httpx hypothesis joserfc litestar procrastinate psycopg "
    "pymongo pytest redis rich starlette taskiq typer yaml"
).split()
present = [name for name in extras if importlib.util.find_spec(name)]
assert not present, f"not a bare environment: {present}"
lazy = [name for name in ["sqlalchemy", "sqlite3", *extras] if name in sys.modules]
assert not lazy, f"`import tenantry` imports {lazy}"
assert (pathlib.Path(tenantry.__file__).parent / "py.typed").exists(), "py.typed is missing from the wheel"
missing = [name for name in tenantry.__all__ if not hasattr(tenantry, name)]
assert not missing, f"tenantry.__all__ names what is not there: {missing}"
print(f"import tenantry: fine on the base install ({len(tenantry.__all__)} names)")
"""


def main() -> int:
    """Build the wheel and import it in the bare environment; a failed step ends with its status."""
    subprocess.run([sys.executable, "-m", "scripts.venv", FOLDER, "base"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, str(ROOT)]
        subprocess.run([*pip, *wheel], check=True)
        # Beside the environment, not into it: a second run at the same time has its own.
        site = ["install", "--no-deps", "--target", f"{folder}/site", *map(str, Path(folder).glob("*.whl"))]
        subprocess.run([*pip, *site], check=True)
        probe = f"import sys; sys.path.insert(0, {folder + '/site'!r})\n{PROBE}"
        bare = str(ROOT / FOLDER / "bin" / "python")
        return subprocess.run([bare, "-I", "-W", "error", "-c", probe], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
