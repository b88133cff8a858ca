from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest

from cutk.data.sealed import Sealed, unseal


class Secret:
    pass


def test_a_ticket_leads_nowhere_but_through_unseal():
    secret = Secret()
    ticket = Sealed(secret)
    assert unseal(ticket) is secret
    assert not any(value is secret for value in gc.get_referents(ticket))
    assert not hasattr(ticket, "__dict__")
    with pytest.raises(TypeError):
        weakref.ref(ticket)


def test_a_copy_is_the_ticket_itself():
    ticket = Sealed(Secret())
    assert copy.copy(ticket) is copy.deepcopy([ticket])[0] is ticket


def test_what_is_sealed_is_not_pickled():
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(Sealed(Secret()))


def test_what_is_sealed_is_dropped_with_its_last_ticket():
    secret = Secret()
    gone = weakref.ref(secret)
    ticket = Sealed(secret)
    other = copy.copy(ticket)
    del secret, ticket
    gc.collect()
    assert gone() is unseal(other)
    del other
    gc.collect()
    assert gone() is None
