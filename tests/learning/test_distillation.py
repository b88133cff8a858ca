from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import nn

import cutk
from cutk.data.batches import Augmentation


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_divergence_equals_scipys(temperature):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, generator=generator)
    p, q = (softmax(logits.double().numpy() / temperature, axis=1) for logits in (teacher, student))
    by_scipy = temperature**2 * np.mean(rel_entr(p, q).sum(1))
    assert float(cutk.kl_divergence(student, teacher, temperature)) == pytest.approx(by_scipy, rel=1e-5)


def test_divergence_has_the_gradient_of_hintons_limit():
    # For large T the gradient tends to (z − v) / (N · B) for logits with zero mean (Hinton et al., equation 4).
    student = torch.tensor([[1.0, -1.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-2.0, 1.0, 1.0]])
    cutk.kl_divergence(student, teacher, temperature=1000.0).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 3, atol=2e-3, rtol=0)


class Counting(nn.Module):
    calls = 0

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        Counting.calls += 1
        return self.drop(self.linear(x.flatten(1)))


def test_a_teacher_is_frozen_and_independent_of_its_student(plain_set, tiny_recipe):
    model = Counting().train()
    samples = plain_set(augmentation=Augmentation(2, True))
    batch = next(samples.batches(None, 4))
    teacher = cutk.Teacher(model, tiny_recipe, samples)
    expected = model.linear(batch.x.flatten(1)).detach()  # without dropout
    nn.init.zeros_(model.linear.weight)
    torch.testing.assert_close(teacher(batch), expected)
    assert not teacher(batch).requires_grad
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_outputs_are_computed_once_where_samples_stay_as_they_are(plain_set, tiny_recipe):
    model, samples = Counting().eval(), plain_set()
    asked = torch.tensor([1, 4, 5])
    teacher = cutk.Teacher(model, tiny_recipe, samples, asked)
    Counting.calls = 0
    batch = next(samples.batches(asked, 3, augment=True))
    torch.testing.assert_close(teacher(batch), model.linear(batch.x.flatten(1)).detach())
    assert Counting.calls == 0
    moving = cutk.Teacher(model, tiny_recipe, plain_set(augmentation=Augmentation(flip=True)), asked)
    moving(batch)
    assert Counting.calls == 1
