"""What has to be made anew in a forked child: no thread of the parent's lives on in it.

Locks may be held there by threads that are not there, and worker threads wait for nobody. Servers
compile a net and then fork their workers, so that these share its parameters.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_in_child: weakref.WeakKeyDictionary[object, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def after_fork(owner: T, method: Callable[[T], None]) -> None:
    """Call a method, one for each object, in every forked child in which the object lives on."""
    _in_child[owner] = method


def now_and_after_fork(owner: T, method: Callable[[T], None]) -> None:
    """Call a method, and again in every forked child; see `after_fork`."""
    method(owner)
    after_fork(owner, method)


def _after_fork() -> None:
    with contextlib.ExitStack() as stack:  # each one, whatever another raises
        for owner, method in list(_in_child.items()):
            stack.callback(method, owner)


with contextlib.suppress(AttributeError):  # a system without fork
    os.register_at_fork(after_in_child=_after_fork)
