"""Installs a Debian package where that is possible without a question."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

ATTEMPTS = 3
ENVIRONMENT = ("DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")


def install(package: str) -> bool:
    """Install a package as root, or through a sudo that asks for no password; return whether it worked."""
    prefix = _privilege()
    if prefix is None or shutil.which("apt-get") is None:
        return False
    print(f"Installing Debian's package {package} …", flush=True)
    apt = [*prefix, "env", *ENVIRONMENT, "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    for attempt in range(ATTEMPTS):
        time.sleep(5 * attempt)  # another apt-get may hold the lists
        _run([*apt, "update"])
        if _run([*apt, "install", "--yes", "--no-install-recommends", package]):
            return True
    return False


def _privilege() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and _run(["sudo", "-n", "true"]):
        return ["sudo", "-n"]
    return None


def _run(command: list[str]) -> bool:
    quiet = subprocess.DEVNULL
    return subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, check=False).returncode == 0
