from cutk_healing import Healing, healed

from cutk.testing import check_summary


def test_it_keeps_to_what_cutk_expects():
    check_summary(Healing)


def test_healing_by_hand():
    # (0.3 − 0.1) / 0.8 = 0.25; 0.9 is gold; below the original counts as nothing.
    assert healed({0.1: 0.3, 0.5: 0.05, 1.0: 0.9}, original=0.1, gold=0.9) == (0.25 + 0 + 1) / 3
    assert healed({0.1: 0.9}, original=0.9, gold=0.9) is None
