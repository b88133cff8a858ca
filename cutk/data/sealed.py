"""Objects that can be handed on without being looked into.

A training set has to carry its trigger, and a log has to reach whoever watches the progress; a method that holds either
must not find these there. So they hold an empty object, and a private table of this module what it stands for.
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar, cast

__all__ = ["Sealed", "unseal"]

T = TypeVar("T")

_CONTENTS: dict[int, Any] = {}


class Sealed(Generic[T]):
    """Stands for a content that can't be reached from it; ``unseal`` returns it.

    The content is dropped together with the object. A copy is the object itself. Weak references to it are impossible,
    because their callbacks would lead to the content.
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


def unseal(sealed: Sealed[T]) -> T:
    """Return what ``sealed`` stands for."""
    return cast(T, _CONTENTS[id(sealed)])
