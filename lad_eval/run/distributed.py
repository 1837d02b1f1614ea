"""The processes of one run, which `accelerate launch` or `torchrun` starts, each with its rank."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from lad_eval.errors import UserError

T = TypeVar("T")

# A rank waits this long for the slowest one, which may have a long share of the evidence. A rank that dies is noticed at once by
# its broken connection; but until all are connected there is no connection to break, so they must connect within minutes.
PATIENCE = timedelta(days=2)
SECONDS_TO_APPEAR = 3.0


class RankError(UserError):
    """A process of a run of several failed."""


class FollowerError(UserError):
    """The run failed, and the main process reports why; the others exit without a message."""


@dataclass(frozen=True)
class DistributedContext:
    """Rank and size of this process's group: rank 0 is the main process, which writes the results and the log."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> DistributedContext:
        """The context from the launcher's environment variables RANK, WORLD_SIZE and LOCAL_RANK.

        Raises:
            UserError: they do not name a process of a run.
        """
        try:
            rank, size, local = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
        except ValueError:
            rank, size, local = -1, 0, 0
        if not 0 <= rank < size:
            named = ", ".join(f"{name}={os.environ[name]}" for name, _ in _VARIABLES if name in os.environ)
            raise UserError(f"{named} does not name a process of a run; start it with `accelerate launch` or `torchrun`.")
        return cls(rank, size, local)

    @property
    def is_main_process(self) -> bool:
        return self.rank == 0

    @property
    def store_rank(self) -> int | None:
        """The rank that this process's files are named after; None where it is the only process."""
        return None if self.size == 1 else self.rank

    @contextmanager
    def joined(self) -> Iterator[DistributedContext]:
        """Connects the processes while the block runs; does nothing for a single process.

        Raises:
            UserError: a process did not connect in time, see `limit`.
        """
        if self.size == 1:
            yield self
            return
        patience = limit()
        import torch.distributed as dist

        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29500")
        try:
            store = meet(self.rank, self.size, patience)
            dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.size, timeout=patience)
            _set_timeout(dist, PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{not_found(self.rank, self.size, patience)} ({_first_line(error)[:200]}).") from error
        try:
            yield self
        finally:
            dist.destroy_process_group()

    @contextmanager
    def barrier(self, *, fail_fast: bool = False) -> Iterator[None]:
        """A step of all processes: at its end each waits for all, and none continues if one failed.

        Args:
            fail_fast: a process that fails reports its error and exits without waiting for the others; for long steps.

        Raises:
            RankError: another process failed, or is gone.
            FollowerError: this process, or another, failed, and the main process reports it.
        """
        error_here: Exception | None = None
        try:
            yield
        except Exception as error:  # whatever it is, the other processes must not wait for this one
            if self.size > 1 and fail_fast and isinstance(error, UserError) and error.exit_code == UserError.exit_code:
                raise RankError(f"Process {self.rank} of {self.size}: {_first_line(error)}") from error
            if self.size == 1 or fail_fast or not isinstance(error, UserError):
                raise
            error_here = error
        fates = self._gather_fates(None if error_here is None else _first_line(error_here))
        failed = [(rank, fate) for rank, fate in enumerate(fates) if fate is not None]
        if failed and not self.is_main_process:
            raise FollowerError
        if error_here is not None:
            raise error_here
        for rank, fate in failed:
            raise RankError(f"Process {rank} of {self.size} failed: {fate}")

    def check_shared(self, folder: Path) -> None:
        """Checks that all processes see one folder: each must find what the main process writes there.

        Raises:
            RankError, FollowerError: one does not see it, in the main process and in the others.
            UserError: the main process cannot write there.
        """
        if self.size == 1:
            return
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        with self.barrier():
            if self.is_main_process:
                token = _write_token(folder)
        token = self._gather(token if self.is_main_process else "")[0]
        try:
            with self.barrier():
                if not _appears(folder / token):
                    raise UserError(
                        f"{socket.gethostname()} does not see what process 0 writes to {folder.absolute()}; "
                        "pass a folder that all nodes share as --runs."
                    )
        finally:
            if self.is_main_process:
                (folder / token).unlink(missing_ok=True)
                for place in made:
                    with suppress(OSError):
                        place.rmdir()  # only where it is still empty

    def check_same(self, options: Mapping[str, str]) -> None:
        """Checks that all processes were given the same options.

        Args:
            options: their values as text, by name; the same names in every process.

        Raises:
            RankError, FollowerError: one was given another than the main process; in the main process and in the others.
        """
        main = self._gather(dict(options))[0]
        with self.barrier():
            for name, value in options.items():
                if value != main[name]:
                    raise UserError(f"--{name} is {value}, and {main[name]} in process 0; start all with the same options.")

    def once_per_node(self, compute: Callable[[], T]) -> T:
        """The result of `compute`, which runs in one process of every machine.

        Raises:
            UserError: it failed in one of them, see `barrier`.
        """
        result: list[T] = []
        with self.barrier():
            if self.local_rank == 0:
                result.append(compute())
        return next(theirs[0] for node, theirs in self._gather((_node(), result)) if node == _node() and theirs)

    def _gather_fates(self, fate: str | None) -> list[str | None]:
        try:
            return self._gather(fate)
        except RankError:
            if fate is None:
                raise
        return [None] * self.size

    def _gather(self, value: T) -> list[T]:
        """The values of all processes, by rank.

        Raises:
            RankError: a process is gone.
        """
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(values, value)
        except RuntimeError as error:  # its text names a socket
            raise RankError("Another process of the run is gone; its own last line says why, if it was not killed.") from error
        return values


def _write_token(folder: Path) -> str:
    """Writes a file of a random name and returns the name."""
    token = f".lad_eval-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / token).touch()
    except OSError as error:
        raise UserError(f"Cannot write to {folder}: {error.strerror}. Choose another folder with --runs.") from error
    return token


def _appears(path: Path) -> bool:
    """Whether a file is there, or comes soon: network file systems show a new file after some seconds."""
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return True


def _node() -> str:
    """What distinguishes this machine from others, also where containers on several have one host name."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.exists() else ''}"


def _set_timeout(dist: Any, timeout: timedelta) -> None:
    """Sets the timeout of all later operations of the default group; torch 2.6 names the function differently."""
    if hasattr(dist, "set_timeout"):
        dist.set_timeout(timeout)
    else:
        dist.distributed_c10d._set_pg_timeout(timeout, dist.group.WORLD)


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    named = text[0] if text else ""
    return named if isinstance(error, UserError) else f"{type(error).__name__}{': ' if named else ''}{named}"


LIMIT = timedelta(minutes=10)
MOST = timedelta(days=2)
VARIABLE = "LAD_EVAL_RENDEZVOUS_SECONDS"
_SECONDS_BETWEEN_LOOKS = 0.05


def limit() -> timedelta:
    """How long processes wait for each other at the start: $LAD_EVAL_RENDEZVOUS_SECONDS, else ten minutes.

    Raises:
        UserError: the variable is not a number of seconds.
    """
    text = os.environ.get(VARIABLE)
    if text is None:
        return LIMIT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MOST.total_seconds():
        raise UserError(f"{VARIABLE}={text!r} is not a number of seconds from 1 to {MOST.total_seconds():g}.")
    return timedelta(seconds=seconds)


def meet(rank: int, size: int, patience: timedelta) -> Any:
    """A store shared by the processes that are alive now, and by none of an earlier attempt.

    An agent such as torchrun's, which restarts workers after one was killed, keeps its store, and with it the addresses that
    the dead ones left there: torch would connect to those. So every process writes a random token, the main process
    answers each token with the name of this round, and everything else is stored under that name.

    Raises:
        UserError: not all connected in time; the message names the missing ones.
        RuntimeError: the store cannot be reached.
    """
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", rank, size, timeout=patience))
    store.set_timeout(patience)
    if rank:
        token = uuid.uuid4().hex
        store.set(f"lad_eval/hello/{rank}", token)
        reply = f"lad_eval/reply/{rank}/{token}"
        if not _comes(store, reply, patience):
            raise UserError(f"{not_found(rank, size, patience)} (process 0 did not answer: it is gone, or waits for another).")
        name = store.get(reply).decode()
        store.set(f"{name}/here/{rank}", "yes")
        return dist.PrefixStore(name, store)  # type: ignore[attr-defined]
    name = f"lad_eval/round/{uuid.uuid4().hex}"
    absent, deadline = set(range(1, size)), time.monotonic() + patience.total_seconds()
    while absent:
        for other in sorted(absent):
            if store.check([f"lad_eval/hello/{other}"]):
                store.set(f"lad_eval/reply/{other}/{store.get(f'lad_eval/hello/{other}').decode()}", name)
            if store.check([f"{name}/here/{other}"]):
                absent.discard(other)
        if absent and time.monotonic() > deadline:
            named = ", ".join(map(str, sorted(absent)))
            raise UserError(f"{not_found(rank, size, patience)} (missing: {named}).")
        time.sleep(_SECONDS_BETWEEN_LOOKS if absent else 0)
    return dist.PrefixStore(name, store)  # type: ignore[attr-defined]


def _comes(store: Any, key: str, patience: timedelta) -> bool:
    deadline = time.monotonic() + patience.total_seconds()
    while not store.check([key]):
        if time.monotonic() > deadline:
            return False
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return True


def not_found(rank: int, size: int, patience: timedelta) -> str:
    """Message of a process that did not find the others, without its end."""
    return (
        f"Process {rank} of {size} did not find all others in {patience.total_seconds():g} seconds: one of them ended early or "
        f"started late; start all again, or allow more time with {VARIABLE}"
    )
