from __future__ import annotations

import copy
import gc
import importlib
import inspect
import io
import logging
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import cutk
from cutk.errors import Caught
from cutk.guard import DRAWS, STATES, watched

KEPT = []
OPTIMISER = importlib.import_module("torch.optim.optimizer")


class Function(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def enter(manager):
    """Enter and never leave; the manager lives on, as it does in a method's attribute."""
    manager.__enter__()
    KEPT.append(manager)


def sum_of_small_numbers():
    return sum([5e-324, 5e-324])


def with_old_words():
    torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32


def with_new_words():
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("not in this version of torch")
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    torch.backends.fp32_precision = "tf32"


def another_locale():
    import locale

    now = locale.setlocale(locale.LC_ALL)
    for name in ("C.UTF-8", "C", "POSIX", "en_US.UTF-8"):
        try:
            if locale.setlocale(locale.LC_ALL, name) != now:
                return
        except locale.Error:
            continue
    pytest.skip("there is one locale alone")


def remove_a_variable():
    os.environ.pop("PATH")


def patch_another_filter():
    warnings.filters.append(("error", None, UserWarning, None, 0))


DEVICE = "the default device or another function mode of torch's"
# What a plugin does, what it is called, and what shows that it was put back.
DISTURBANCES = {
    "set_default_device": (DEVICE, lambda: torch.set_default_device("meta"), torch.get_default_device),
    "with torch.device": (DEVICE, lambda: enter(torch.device("meta")), lambda: torch.zeros(1).device),
    "a function mode": (DEVICE, lambda: enter(Function()), torch._C._len_torch_function_stack),
    "a dispatch mode": ("torch's dispatch modes", lambda: enter(Dispatch()), torch._C._len_torch_dispatch_stack),
    "inference mode": ("the inference mode", lambda: enter(torch.inference_mode()), torch.is_inference_mode_enabled),
    "no_grad": ("the grad mode", lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "anomaly": ("the grad mode", lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "multithreading": (
        "the grad mode",
        lambda: KEPT.append(torch.autograd.set_multithreading_enabled(False)),
        torch._C._is_multithreading_enabled,
    ),
    "saved tensors": (
        "the hooks on tensors saved for backward",
        lambda: enter(torch.autograd.graph.saved_tensors_hooks(lambda x: x * 2, lambda x: x)),
        lambda: torch._C._autograd._top_saved_tensors_default_hooks(True),
    ),
    "autocast": (
        "autocast",
        lambda: enter(torch.autocast("cpu", torch.bfloat16)),
        lambda: torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype,
    ),
    "autocast's dtype": (
        "autocast",
        lambda: torch.set_autocast_dtype("cpu", torch.float16),
        lambda: torch.get_autocast_dtype("cpu"),
    ),
    "forward hook": (
        "the hooks of all modules",
        lambda: nn.modules.module.register_module_forward_hook(lambda *_: torch.zeros(1)),
        lambda: nn.ReLU()(torch.ones(2)).shape,
    ),
    "backward hook": (
        "the hooks of all modules",
        lambda: nn.modules.module.register_module_full_backward_hook(lambda *_: None),
        lambda: nn.modules.module._global_is_full_backward_hook,
    ),
    "step hook": (
        "the hooks of all optimisers",
        lambda: OPTIMISER.register_optimizer_step_post_hook(lambda *_: None),
        lambda: len(OPTIMISER._global_optimizer_post_hooks),
    ),
    "deterministic": (
        "torch's deterministic algorithms",
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        torch.get_deterministic_debug_mode,
    ),
    "fill": (
        "torch's deterministic algorithms",
        lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", False),
        lambda: torch.utils.deterministic.fill_uninitialized_memory,
    ),
    "oneDNN": (
        "oneDNN's settings",
        lambda: torch._C._set_mkldnn_enabled(False),
        torch._C._get_mkldnn_enabled,
    ),
    "cuDNN": (
        "cuDNN's settings",
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
        lambda: torch.backends.cudnn.benchmark,
    ),
    "matmul precision": (
        "the precision of float32 products",
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    "cuDNN's TF32": (
        "the precision of float32 products",
        with_old_words,
        lambda: torch.backends.cudnn.allow_tf32,
    ),
    "fp32_precision": (
        "the precision of float32 products",
        with_new_words,
        lambda: (torch.get_float32_matmul_precision(), torch.backends.mkldnn.matmul.fp32_precision),
    ),
    "bf16 reductions": (
        "the precision of 16-bit products",
        lambda: setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
        lambda: torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
    ),
    "attention": (
        "the choice of algorithms",
        lambda: torch.backends.cuda.enable_math_sdp(False),
        torch.backends.cuda.math_sdp_enabled,
    ),
    "threads": (
        "the number of threads",
        lambda: torch.set_num_threads(torch.get_num_threads() + 2),
        torch.get_num_threads,
    ),
    "denormals": (
        "the treatment of denormal numbers",
        lambda: torch.set_flush_denormal(True) or pytest.skip("not on this processor"),
        sum_of_small_numbers,
    ),
    "default dtype": (
        "the default dtype",
        lambda: torch.set_default_dtype(torch.float64),
        torch.get_default_dtype,
    ),
    "torch.rand": ("torch's random state", lambda: torch.rand(1), torch.initial_seed),
    "manual_seed": ("torch's random state", lambda: torch.manual_seed(3), torch.initial_seed),
    "np.random": ("NumPy's random state", lambda: np.random.rand(), lambda: np.random.get_state()[2]),
    "random": ("Python's random state", random.random, random.getstate),
    "seterr": ("NumPy's errors", lambda: np.seterr(all="raise"), np.geterr),
    "filters": (
        "the filters of warnings",
        lambda: warnings.simplefilter("ignore"),
        lambda: list(warnings.filters),
    ),
    "a filter": ("the filters of warnings", patch_another_filter, lambda: list(warnings.filters)),
    "no filters": ("the filters of warnings", warnings.resetwarnings, lambda: list(warnings.filters)),
    "chdir": ("the working folder", lambda: os.chdir("/"), os.getcwd),
    "a new variable": (
        "the environment variables",
        lambda: os.environ.update(OMP_SCHEDULE="static"),
        lambda: dict(os.environ),
    ),
    "a lost variable": ("the environment variables", remove_a_variable, lambda: dict(os.environ)),
    "a handler": (
        "the handling of signals",
        lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGTERM),
    ),
    "an alarm": (
        "the handling of signals",
        lambda: signal.setitimer(signal.ITIMER_REAL, 10_000),
        lambda: signal.getitimer(signal.ITIMER_REAL),
    ),
    "locale": ("the locale", another_locale, lambda: __import__("locale").setlocale(0)),
    "sys.path": ("the path of imports", lambda: sys.path.insert(0, "/nowhere"), lambda: list(sys.path)),
    "another sys.path": ("the path of imports", lambda: setattr(sys, "path", ["/x"]), lambda: sys.path),
    "stdout": ("the standard streams", lambda: setattr(sys, "stdout", io.StringIO()), lambda: sys.stdout),
    "excepthook": ("the standard streams", lambda: setattr(sys, "excepthook", print), lambda: sys.excepthook),
    "basicConfig": (
        "the log",
        lambda: logging.basicConfig(level=logging.DEBUG, force=True),
        lambda: (logging.getLogger().level, list(logging.getLogger().handlers)),
    ),
    "no log": ("the log", lambda: logging.disable(50), lambda: logging.getLogger("x").isEnabledFor(50)),
    "recursion": ("the limit of recursion", lambda: sys.setrecursionlimit(10_000), sys.getrecursionlimit),
    "gc": ("the garbage collector", gc.disable, gc.isenabled),
    "spawn": (
        "how processes are started",
        lambda: multiprocessing.set_start_method("spawn", force=True),
        lambda: multiprocessing.get_start_method(allow_none=True),
    ),
}
# One can be set once in a process, and the other needs a GPU.
ELSEWHERE = {"the number of threads between operations", "the current CUDA device"}


@pytest.fixture(autouse=True)
def let_go():
    yield
    KEPT.clear()


def test_every_state_is_tried():
    assert {name for name, _, _ in DISTURBANCES.values()} | ELSEWHERE == set(STATES)


@pytest.mark.parametrize("what", DISTURBANCES)
def test_what_is_changed_is_named_and_put_back(what):
    name, disturb, shown = DISTURBANCES[what]
    with watched() as outer:
        before = shown()
        with watched() as changed:
            disturb()
        assert changed == [name]
        assert shown() == before
    assert outer == []


@pytest.mark.parametrize("what", DISTURBANCES)
def test_it_is_put_back_when_the_block_raises(what):
    name, disturb, shown = DISTURBANCES[what]
    before = shown()
    with Caught() as caught, watched() as changed:
        disturb()
        raise ZeroDivisionError
    assert isinstance(caught.error, ZeroDivisionError)
    assert changed == [name]
    assert shown() == before


def test_a_default_device_is_put_back_where_another_was(monkeypatch):
    with watched():
        torch.set_default_device("meta")
        with watched() as changed:
            torch.set_default_device("cpu")
            enter(Function())
        assert changed == [DEVICE]
        assert torch.get_default_device() == torch.device("meta")
        assert torch.zeros(1).is_meta
        with watched() as changed:
            torch.set_default_device(None)
        assert changed == [DEVICE]
        assert torch.zeros(1).is_meta
        torch.set_default_device(None)
    assert not torch.zeros(1).is_meta


def test_autocast_that_was_left_open_keeps_no_weights():
    model, x = nn.Linear(2, 2, bias=False), torch.ones(1, 2)
    with watched():
        enter(torch.autocast("cpu", torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
    with torch.no_grad():
        model.weight.fill_(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert not model(x).any()


def test_drawing_can_be_left_unnamed_and_is_put_back():
    state = torch.get_rng_state()
    with watched(draws=False) as changed:
        torch.rand(1), np.random.rand(), random.shuffle([1, 2])
    assert changed == []
    assert torch.equal(torch.get_rng_state(), state)
    assert len(DRAWS) == 3


# Functions and methods.

PATCHED = {
    "torch.optim.sgd.SGD.step": (torch.optim.SGD, "step"),
    "torch.optim.sgd.sgd": (importlib.import_module("torch.optim.sgd"), "sgd"),
    "torch.optim.optimizer.Optimizer.zero_grad": (torch.optim.Optimizer, "zero_grad"),
    "torch.nn.functional.cross_entropy": (F, "cross_entropy"),
    "torch.randperm": (torch, "randperm"),
    "torch.Tensor.backward": (torch.Tensor, "backward"),
    "torch.nn.modules.module.Module.__call__": (nn.Module, "__call__"),
    "torch.nn.modules.module.Module.load_state_dict": (nn.Module, "load_state_dict"),
    "torch.nn.modules.batchnorm._NormBase.reset_running_stats": (nn.BatchNorm2d.__mro__[2], "reset_running_stats"),
    "torch.nn.modules.conv.Conv2d.forward": (nn.Conv2d, "forward"),
    "torch.nn.init.kaiming_uniform_": (nn.init, "kaiming_uniform_"),
    "torch.utils.data.dataloader.DataLoader.__iter__": (torch.utils.data.DataLoader, "__iter__"),
    "random.shuffle": (random, "shuffle"),
    "random.Random.shuffle": (random.Random, "shuffle"),
    "numpy.random.permutation": (np.random, "permutation"),
    "math.sqrt": (math, "sqrt"),
    "copy.deepcopy": (copy, "deepcopy"),
    "time.perf_counter": (time, "perf_counter"),
    "warnings.warn": (warnings, "warn"),
    "cutk.errors.one_line": (cutk.errors, "one_line"),
    "cutk.components.Unlearner.passes": (cutk.Unlearner, "passes"),
    "cutk.components.Unlearner.grid": (cutk.Unlearner, "grid"),
}


@pytest.mark.parametrize("name", PATCHED)
def test_a_patched_function_is_put_back(name):
    owner, attribute = PATCHED[name]
    before = vars(owner)[attribute]
    with watched() as changed:
        setattr(owner, attribute, lambda *_: 0)
    assert changed == [name]
    assert vars(owner)[attribute] is before


def test_a_method_that_hides_an_inherited_one_goes():
    with watched() as changed:
        nn.Linear.__call__ = lambda *_: 0
        nn.ReLU.train = lambda self, mode=True: self
    assert sorted(changed) == [
        "torch.nn.modules.activation.ReLU.train",
        "torch.nn.modules.linear.Linear.__call__",
    ]
    assert "__call__" not in vars(nn.Linear)
    assert nn.Linear(1, 1)(torch.ones(1, 1)).shape == (1, 1)


def test_a_deleted_function_comes_back():
    with watched() as changed:
        del F.cross_entropy, torch.optim.SGD.step
    assert sorted(changed) == ["torch.nn.functional.cross_entropy", "torch.optim.sgd.SGD.step"]
    assert F.cross_entropy(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)) > 0


def test_a_patch_that_wraps_the_original_is_seen_through():
    import functools

    before = torch.optim.SGD.step
    with watched() as changed:

        @functools.wraps(before)
        def step(self, closure=None):
            return None

        step.hooked = True
        torch.optim.SGD.step = step
    assert changed == ["torch.optim.sgd.SGD.step"]
    assert torch.optim.SGD.step is before


def test_new_names_in_a_module_hide_nothing():
    try:
        with watched() as changed:
            F.of_my_own = torch.of_my_own = len
        assert changed == []
        assert F.of_my_own is len
    finally:
        del F.of_my_own, torch.of_my_own


def train():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    x, y = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 4, shuffle=True)
    for optimiser in (torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop):
        step = optimiser(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(step, 2)
        for inputs, labels in loader:
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(inputs), labels)
            loss.backward()
            step.step()
            step.zero_grad()
            schedule.step()
    with torch.no_grad(), torch.device("cpu"):
        copy.deepcopy(model).eval()(x)
    torch.func.functional_call(model, dict(model.named_parameters()), (x,))
    copy.copy(cutk.Corruption.__new__(cutk.Corruption)), inspect.signature(cutk.Options)  # which remember what they saw


def test_honest_work_changes_nothing():
    with watched() as changed:
        train()
    assert set(changed) <= set(DRAWS)


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_first_training_of_a_process_changes_nothing_and_threads_that_cannot_be_put_back_are_named():
    code = """
        import torch
        from cutk.guard import watched
        with watched() as changed:
            torch.set_num_interop_threads(torch.get_num_interop_threads() + 1)
        print(*changed)
        with watched(draws=False) as changed:
            parameter = torch.zeros(1, requires_grad=True)
            for kind in (torch.optim.SGD, torch.optim.AdamW):
                step = kind([parameter], lr=0.1)
                (parameter * 2).sum().backward()
                step.step()
        print(changed)
    """
    threads, first = run(code).splitlines()
    assert threads == "the number of threads between operations, which cannot be put back"
    assert first == "[]"


def test_nobody_waits_for_torch():
    code = """
        import sys
        from cutk.guard import watched
        with watched() as changed:
            import json
        print(changed, "torch" in sys.modules, "numpy" in sys.modules)
    """
    assert run(code) == "[] False False"


def test_importing_torch_and_the_libraries_changes_nothing():
    code = """
        from cutk.guard import watched
        with watched() as changed:
            import torch, torchvision, numpy, cutk.components, cutk.learning.recipe
        print(changed)
    """
    assert run(code) == "[]"


def test_what_libraries_set_for_themselves_is_nobodys_change(monkeypatch):
    for name in ("KMP_INIT_AT_FORK", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # so that it goes again
        monkeypatch.delenv(name)
        with watched() as changed:
            os.environ[name] = "set"
        assert changed == []


def test_what_a_plugin_does_to_torch_when_it_imports_it_first_is_put_back(tmp_path):
    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
            import numpy, torch
            import torch.nn.functional as F
            from cutk import components

            torch.set_default_dtype(torch.float64)
            torch.manual_seed(5)
            torch.optim.SGD.step = F.cross_entropy = lambda *_, **__: None
            numpy.random.seed(5)
            components.Unlearner.passes = None
        """)
    )
    code = """
        import sys
        from cutk.guard import watched
        with watched() as changed:
            import mine
        finders = [type(finder).__module__ for finder in sys.meta_path]
        print(*sorted(changed), mine.torch.get_default_dtype(), "cutk.guard" in finders, sep="; ")
    """
    assert run(code, PYTHONPATH=str(tmp_path)).split("; ") == [
        "NumPy's random state",
        "cutk.components.Unlearner.passes",
        "the default dtype",
        "torch's random state",
        "torch.nn.functional.cross_entropy",
        "torch.optim.sgd.SGD.step",
        "torch.float32",
        "False",
    ]


def test_it_costs_next_to_nothing():
    with watched():
        pass
    calls = []
    sys.setprofile(lambda _frame, event, _what: calls.append(event))
    try:
        with watched():
            pass
    finally:
        sys.setprofile(None)
    assert len(calls) < 60_000  # of which a processor does some millions in a second


def test_what_copying_leaves_in_a_class_is_no_change(monkeypatch):
    for cls in cutk.Task.__mro__[:-1]:
        if "__slotnames__" in vars(cls):
            monkeypatch.delattr(cls, "__slotnames__")
    with watched() as changed:
        copy.copy(cutk.Task.__new__(cutk.Task))
    assert "__slotnames__" in vars(cutk.Task)
    assert changed == []
