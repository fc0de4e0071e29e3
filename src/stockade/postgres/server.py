"""The supervisor: one PostgreSQL as a child of this process, started, watched and stopped."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self
from urllib.parse import quote

import asyncpg

from stockade.postgres.accounts import Account, database_account
from stockade.postgres.binaries import Binaries, find_binaries, make_reachable
from stockade.postgres.cluster import (
    ADMIN_ROLE,
    check_passable,
    cluster_directory,
    create_cluster,
    create_directory,
    read_password,
    read_version,
)
from stockade.postgres.errors import DISK_FULL_TEXT, PostgresError, disk_full, unusable
from stockade.postgres.locks import DataLock, hold_directory
from stockade.postgres.logs import ServerLog
from stockade.postgres.postmaster import (
    POLL_S,
    describe_end,
    launch_postmaster,
    see_off_earlier,
    stop_postmaster,
)
from stockade.postgres.settings import server_settings
from stockade.postgres.sockets import PORT, prepare_socket_directory

READY_TIMEOUT_S = 60
RECOVERY_TIMEOUT_S = 900
STOP_TIMEOUT_S = 30
FAILURES_MAX = 5
FAILURE_WINDOW_S = 60

_BACK_OFF_S = (0.1, 0.5, 1.0, 2.0)
_SHARED_MEMORY_TIMEOUT_S = 15
_SAY_EVERY_S = 5
_FREE_BYTES_MIN = 1024 * 1024


def _stay_silent(_message: str) -> None:
    """The `say` of callers that do not listen."""


@dataclass(frozen=True)
class _Prepared:
    """Everything that is settled once, before the first process is started."""

    data: Path
    binaries: Binaries
    account: Account
    password: str
    socket_directory: Path


class PostgresServer:
    """A running PostgreSQL that only this machine's user can reach, by `url`.

    `start` takes the exclusive use of the directory and `stop` gives it back. Use it from one event loop, whose
    thread must live as long as the server: the kernel shuts PostgreSQL down when that thread ends.
    """

    def __init__(
        self, lock: DataLock, log: ServerLog, prepared: _Prepared, settings: dict[str, str], say: Callable[[str], None]
    ) -> None:
        self.socket_directory = prepared.socket_directory
        self.binaries = prepared.binaries
        self._lock = lock
        self._log = log
        self._prepared = prepared
        self._settings = settings
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = asyncio.Event()

    @classmethod
    async def start(
        cls,
        directory: Path,
        *,
        durable: bool = True,
        say: Callable[[str], None] = _stay_silent,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Run the cluster of `directory`, creating both where they are missing, and return when it answers.

        `durable=False` trades every promise about crashes for speed: for tests alone. `say` gets a line for a person
        now and then; `settings` are added to the server's. Raises PostgresError: another Stockade has the directory;
        it cannot be used; it is another user's; the disk is full; no binaries fit; the server does not come up.
        """
        account = database_account()
        directory = create_directory(directory, account)
        lock = hold_directory(directory)
        server: Self | None = None
        try:
            prepared = await _finish(asyncio.to_thread(_prepare, directory, account, say))
            wanted = server_settings(durable=durable, socket_directory=prepared.socket_directory, wishes=settings)
            log = ServerLog(directory)
            server = cls(lock, log, prepared, wanted, say)
            await server._see_off_earlier()
            log.rotate()
            await server._bring_up()
        except BaseException as error:
            if server is None:
                lock.release()
            else:
                await server.stop()
            if isinstance(error, OSError):
                raise unusable(directory, error) from error
            raise
        return server

    @property
    def url(self) -> str:
        """The superuser's URL, with the password."""
        return self.url_of("postgres")

    @property
    def process_id(self) -> int | None:
        """The postmaster's process id while there is one."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def url_of(self, database: str) -> str:
        """The superuser's URL of another database. The port is told, lest PGPORT of the environment decide it."""
        password = quote(self._prepared.password, safe="")
        host = quote(str(self.socket_directory), safe="/")
        return f"postgresql://{ADMIN_ROLE}:{password}@/{quote(database, safe='')}?host={host}&port={PORT}"

    async def watch(self) -> None:
        """Keep the server running and its log bounded until `stop`.

        When the server dies it is started again, after a pause that grows. Raises PostgresError, with the server's
        own reason, when it has failed five times without running for a minute in between.
        """
        failures = 0
        while True:
            begun = time.monotonic()
            ended = await self._wait_for_end()
            if time.monotonic() - begun > FAILURE_WINDOW_S:
                failures = 0
            while ended is not None and not self._stopping.is_set():
                failures += 1
                if failures == FAILURES_MAX:
                    raise PostgresError(f"PostgreSQL failed {failures} times, the last time so: {ended}")
                ended = await self._restart(ended, _BACK_OFF_S[failures - 1])
            if self._stopping.is_set():
                return

    async def stop(self) -> None:
        """Shut down: fast, and after 30 s immediately. Gives the directory free. To call it again does nothing."""
        self._stopping.set()
        process, self._process = self._process, None
        try:
            if process is not None:
                await stop_postmaster(process, fast_wait_s=STOP_TIMEOUT_S)
        finally:
            self._lock.release()

    async def _see_off_earlier(self) -> None:
        await see_off_earlier(self._prepared.data, self.socket_directory, self._prepared.account, self._say)

    async def _bring_up(self) -> None:
        """Launch the server and wait until it answers; try again while an earlier one's memory is not yet freed."""
        deadline = time.monotonic() + _SHARED_MEMORY_TIMEOUT_S
        while True:
            self._process = launch_postmaster(
                self._prepared.binaries, self._prepared.account, self._prepared.data, self._settings, self._log
            )
            if await self._answers(self._process):
                return
            if not self._log.blames_shared_memory() or time.monotonic() > deadline:
                raise self._failure(f"PostgreSQL did not start: {self._log.find_reason()}")
            self._say("Waiting for processes of the previous PostgreSQL to end")
            if await self._pause(0.5):
                return

    async def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        """True when a session could be opened, False when the process ended before; PostgresError when neither."""
        begun = time.monotonic()
        told = begun
        while process.poll() is None:
            answer = await self._try_session()
            if answer is None:
                return True
            waited = time.monotonic() - begun
            # A server that recovers says so to whoever calls; to break that off would only begin it anew.
            if waited > (RECOVERY_TIMEOUT_S if _is_starting(answer) else READY_TIMEOUT_S):
                raise self._failure(f"PostgreSQL does not answer after {waited:.0f} s: {answer}")
            if time.monotonic() - told > _SAY_EVERY_S:
                told = time.monotonic()
                self._say(f"Waiting for PostgreSQL for {waited:.0f} s: {answer or 'no answer yet'}")
            # Each call leaves a line in the log of a server that recovers, so a long recovery is asked less often.
            if await self._pause(min(POLL_S / 2 + waited / 20, 1)):
                return True
        return False

    async def _try_session(self) -> Exception | None:
        try:
            connection = await asyncpg.connect(self.url, timeout=10)
            await connection.close(timeout=10)
        except asyncpg.InvalidPasswordError:
            raise PostgresError(
                f"PostgreSQL refuses the password of {ADMIN_ROLE} in {self._prepared.data.parent}/secrets: "
                "put that file back from the backup which the cluster belongs to."
            ) from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return error
        return None

    async def _wait_for_end(self) -> str | None:
        """How the server ended, in words; None when it was stopped."""
        while self._process is not None:
            code = self._process.poll()
            if code is not None:
                return f"PostgreSQL {describe_end(code)} (see {self._log.path})"
            if self._log.is_large():
                await asyncio.to_thread(self._log.truncate)
            await self._pause(POLL_S)
        return None

    async def _restart(self, ended: str, pause_s: float) -> str | None:
        """Start the server again after a pause. Returns None when that went well, else what went wrong."""
        self._say(f"{ended}; starting it again")
        if await self._pause(pause_s):
            return None
        begun = time.monotonic()
        try:
            await self._see_off_earlier()
            if self._stopping.is_set():
                return None
            await self._bring_up()
        except PostgresError as error:
            await self._discard_process()
            return str(error)
        except OSError as error:
            return str(unusable(self._prepared.data, error))
        self._say(f"PostgreSQL runs again after {time.monotonic() - begun:.1f} s")
        return None

    async def _discard_process(self) -> None:
        """End a server that runs and does not answer, so that the next one may have its place."""
        if self._process is not None:
            await stop_postmaster(self._process, fast_wait_s=STOP_TIMEOUT_S)

    async def _pause(self, seconds: float) -> bool:
        """Sleep, but wake up for `stop`. Returns whether that is what happened."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _failure(self, message: str) -> PostgresError:
        directory = self._prepared.data.parent
        # On a full disk the log, too, may have had no room left to say so.
        if DISK_FULL_TEXT in self._log.tail() or shutil.disk_usage(directory).free < _FREE_BYTES_MIN:
            return disk_full(directory)
        return PostgresError(f"{message} (see {self._log.path})")


def _prepare(directory: Path, account: Account, say: Callable[[str], None]) -> _Prepared:
    """Everything up to the first start. Blocks for a second or two where a cluster is to be created."""
    check_passable(directory, account)
    version = read_version(directory, account)
    try:
        binaries = make_reachable(find_binaries(wanted_version=version), account, directory)
    except PostgresError as error:
        of_cluster = "" if version is None else f"{cluster_directory(directory)} is of PostgreSQL {version}. "
        raise PostgresError(f"{of_cluster}{error}") from None
    password = read_password(directory, version=version)
    if version is None:
        create_cluster(directory, binaries, account, password, say)
    return _Prepared(
        cluster_directory(directory), binaries, account, password, prepare_socket_directory(directory, account)
    )


async def _finish(work: Coroutine[None, None, _Prepared]) -> _Prepared:
    """Wait for `work` to its end even when cancelled: initdb must not go on in a directory that is free for others."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _is_starting(answer: Exception) -> bool:
    return isinstance(answer, asyncpg.CannotConnectNowError)
