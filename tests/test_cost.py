from __future__ import annotations

import cutk


def test_costs_add_up_by_hand():
    prepared = cutk.Cost(1.0, passes=2.0, peak_bytes=50, kept_bytes=30)
    # While unlearning takes 40 at most, the 30 of the prepared state are there as well.
    assert prepared + cutk.Cost(0.5, passes=1.0, peak_bytes=40) == cutk.Cost(1.5, 3.0, 70, 30)
    assert prepared + cutk.Cost(0.5, passes=1.0, peak_bytes=10) == cutk.Cost(1.5, 3.0, 50, 30)
    assert prepared + cutk.Cost(0.5) == cutk.Cost(1.5, None, 50, 30)
    assert cutk.Cost(1.0) + cutk.Cost(1.0) == cutk.Cost(2.0)
