"""A .env file is changed without touching what is not ours."""

from __future__ import annotations

import multiprocessing
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.cli import envfile
from tenantry.errors import ConfigurationError

BEFORE = """\
# the shop
DEBUG=1
export TENANTRY_DATABASE_URL="old" # ours
NAME='a # b'

TENANTRY_DATABASE_URL=older
PASSWORD = se cret  # not ours
no assignment at all
LAST="x"\
"""


def test_other_lines_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(BEFORE)
    envfile.write(path, {"TENANTRY_DATABASE_URL": "new", "TENANTRY_DATABASE_SEAL_KEY": "k:a+/="})
    assert path.read_text().splitlines() == [
        "# the shop",
        "DEBUG=1",
        "TENANTRY_DATABASE_URL=new",
        "NAME='a # b'",
        "",
        "PASSWORD = se cret  # not ours",
        "no assignment at all",
        'LAST="x"',
        "",
        "# Made by `tenantry init`. Secrets: keep this file out of version control.",
        "TENANTRY_DATABASE_SEAL_KEY=k:a+/=",
    ]
    assert envfile.read(path) == {
        "DEBUG": "1",
        "TENANTRY_DATABASE_URL": "new",
        "NAME": "a # b",
        "PASSWORD": "se cret",
        "LAST": "x",
        "TENANTRY_DATABASE_SEAL_KEY": "k:a+/=",
    }


def test_writing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(BEFORE)
    envfile.write(path, {"A": "1"})
    once = path.read_bytes()
    envfile.write(path, {"A": "1"})
    assert path.read_bytes() == once


@pytest.mark.parametrize("before", [None, 0o644])
def test_only_its_owner_can_read_it(tmp_path: Path, before: int | None) -> None:
    path = tmp_path / ".env"
    if before is not None:
        path.write_text("A=1\n")
        path.chmod(before)
    envfile.write(path, {"B": "2"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "shared.env", tmp_path / ".env"
    target.write_text("A=1\n")
    link.symlink_to(target)
    envfile.write(link, {"B": "2"})
    assert link.is_symlink()
    assert envfile.read(target) == {"A": "1", "B": "2"}


def test_lines_end_as_they_did(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("\ufeffA=1\r\nB='ü'\r\n".encode())
    envfile.write(path, {"C": "3"})
    assert path.read_bytes().startswith(b"A=1\r\nB='\xc3\xbc'\r\n")
    assert envfile.read(path) == {"A": "1", "B": "ü", "C": "3"}


URLS = st.text('abcXYZ019:/@%&?=#$ ;.,+*!()[]{}<>|"`\\~_-', max_size=40)


@given(URLS.filter(lambda text: text == text.strip()))
def test_a_shell_reads_what_was_written(value: str) -> None:
    # a POSIX shell is the strictest reader
    assignment = envfile._assignment("A", value)
    script = f'{assignment}printf %s "$A"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == value


@given(URLS.filter(lambda text: text == text.strip()))
def test_what_was_written_is_read(value: str) -> None:
    match = envfile._LINE.fullmatch(envfile._assignment("A", value))
    assert match is not None
    assert envfile._value(match[2]) == value


@pytest.mark.parametrize("value", ["a\nB=2", "it's"])
def test_a_value_that_could_become_a_second_line_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match="value of A") as caught:
        envfile.write(tmp_path / ".env", {"A": value})
    assert value not in str(caught.value)


def test_a_file_that_cannot_be_written_is_found_out_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Cannot write"):
        envfile.check_writable(tmp_path / "nowhere" / ".env")
    (tmp_path / ".env").mkdir()
    with pytest.raises(ConfigurationError, match="Cannot read"):
        envfile.check_writable(tmp_path / ".env")


def _add(path: Path, name: str) -> None:
    with envfile.locked(path):
        envfile.write(path, {name: envfile.read(path).get(name, "") + "x"})


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(path, f"V{number}")) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert envfile.read(path) == {f"V{number}": "x" for number in range(4)}
