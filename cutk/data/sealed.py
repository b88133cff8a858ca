"""What travels with an object without being reachable from it.

A trigger that is laid over samples after augmentation has to travel with the training set, and progress has to find
its way to whoever watches. Yet nobody who holds the set or the log may find there what an unlearner must not know. So
they hold an empty ticket, and what belongs to the ticket lies in this module, where no reference from it leads.

This keeps a method from reading what it isn't told, by accident or by walking over all that it holds. It is no
sandbox: Python has none, and a method that imports cutk's private names to cheat can.
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar, cast

__all__ = ["Sealed", "unseal"]

T = TypeVar("T")

_CONTENTS: dict[int, Any] = {}


class Sealed(Generic[T]):
    """An opaque claim on something; that is dropped together with the last claim.

    It can't be referred to weakly, since a weak reference's callback would lead to where the content lies. A copy, deep
    or not, is the ticket itself.
    """

    __slots__ = ()

    def __init__(self, content: T) -> None:
        _CONTENTS[id(self)] = content

    def __del__(self) -> None:
        _CONTENTS.pop(id(self), None)

    def __copy__(self) -> Sealed[T]:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Sealed[T]:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("What is sealed stays in its process: a training set with a trigger can't be pickled.")


def unseal(ticket: Sealed[T]) -> T:
    """Return what ``ticket`` stands for."""
    return cast(T, _CONTENTS[id(ticket)])
