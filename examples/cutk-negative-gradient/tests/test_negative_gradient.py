from cutk_negative_gradient import NegativeGradient

from cutk.testing import check_unlearner


def test_it_keeps_to_what_cutk_expects():
    check_unlearner(NegativeGradient)
