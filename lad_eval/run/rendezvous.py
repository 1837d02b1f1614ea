"""How the processes of a run find each other: within minutes, by name, and not those of an attempt that was killed."""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta
from typing import Any

from lad_eval.errors import UserError

LIMIT = timedelta(minutes=10)
MOST = timedelta(days=2)
VARIABLE = "LAD_EVAL_RENDEZVOUS_SECONDS"
_SECONDS_BETWEEN_LOOKS = 0.05


def limit() -> timedelta:
    """How long processes wait for each other at the start: $LAD_EVAL_RENDEZVOUS_SECONDS, else ten minutes.

    Raises:
        UserError: the variable is not a number of seconds.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return LIMIT
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MOST.total_seconds():
        raise UserError(f"{VARIABLE}={given!r} is not a number of seconds from 1 to {MOST.total_seconds():g}.")
    return timedelta(seconds=seconds)


def meet(rank: int, size: int, patience: timedelta) -> Any:
    """A store that the processes alive now share, and no process of an earlier attempt.

    An agent such as torchrun's, which starts workers again after one was killed, keeps its store, and with it the addresses that
    the dead ones left there: torch would connect to those. So every process says hello with a number of its own, the leading one
    answers to that number with the name of this round, and everything else is kept under that name.

    Raises:
        UserError: not all came in time; says which are missing.
        RuntimeError: the store cannot be reached.
    """
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", rank, size, timeout=patience))
    store.set_timeout(patience)
    if rank:
        own = uuid.uuid4().hex
        store.set(f"lad_eval/hello/{rank}", own)
        reply = f"lad_eval/reply/{rank}/{own}"
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
    """What a process says that did not find the others, without its end."""
    return (
        f"Process {rank} of {size} did not find all others in {patience.total_seconds():g} seconds: one of them ended early or "
        f"started late; start all again, or give them longer with {VARIABLE}"
    )
