"""A sound unlearner, and those that break one check each."""

import itertools

import torch
from pydantic import field_validator
from torch import nn

import cutk


class Ascent(cutk.Unlearner):
    """Climbs the loss on S_f for three steps."""

    name = "ascent"

    class Options(cutk.Options):
        """How far."""

        steps: int = cutk.option(3, ge=1, help="steps")
        weight: float = cutk.option(1.0, gt=0, help="weight of the prepared direction")
        halves: bool = cutk.option(False, help="read by prepare")

    grid = ({"steps": 1}, {"steps": 2})
    prepared_by = ("halves",)

    def prepare(self, task):
        return {"mean": task.identified.float().mean() * (0.5 if self.options.halves else 1.0)}

    def unlearn(self, task, state=None):
        steps = self.options.steps
        batches = task.train.batches(task.identified, 4, shuffle=True, augment=True, steps=steps)
        return task.recipe.fit(
            task.original, batches, lambda logits, batch: -cutk.cross_entropy(logits, batch), steps=steps, lr=1e-3
        )


def doing(what):
    """Return a class that does this with task and state before it returns the original."""

    class Doing(Ascent):
        def unlearn(self, task, state=None):
            what(task, state)
            return task.original

    return Doing


def returning(make):
    """Return a class that returns this in place of the original."""

    class Returning(Ascent):
        def unlearn(self, task, state=None):
            return make(task.original)

    return Returning


class BadName(Ascent):
    name = "Bad Name!"


class Undocumented(Ascent):
    __doc__ = "Ascent"


class Unexplained(Ascent):
    class Options(Ascent.Options):
        steps: int = cutk.option(3, help=" ")


class Indescribable(Ascent):
    class Options(Ascent.Options):
        bag: dict[str, int] = cutk.option({}, help="what can't be put into words")


class InvalidDefault(Ascent):
    class Options(Ascent.Options):
        steps: int = cutk.option(0, ge=1, help="steps")


class LosesItsOptions(Ascent):
    class Options(Ascent.Options):
        @field_validator("steps")
        @classmethod
        def more(cls, value):
            return value + 1


class InvalidGrid(Ascent):
    grid = ({"steps": 1}, {"steps": 0})


class WrongPasses(Ascent):
    @classmethod
    def passes(cls, options, sizes):
        return (1.0, float("nan"))


class PassesAsANumber(Ascent):
    @classmethod
    def passes(cls, options, sizes):
        return 1.0


def with_nan(model):
    model[-1].bias.data[0] = float("nan")
    return model


def hooked(model):
    model.register_forward_hook(lambda _module, _inputs, outputs: 2 * outputs)
    return model


def patched(model):
    inner = model[-1].forward
    model[-1].forward = lambda x: 2 * inner(x)
    return model


class ChangesFromTimeToTime(Ascent):
    count = itertools.count(1).__next__

    def unlearn(self, task, state=None):
        task.original[-1].bias.data += self.count()
        return task.original


class WritesIndices(Ascent):
    def prepare(self, task):
        task.identified.zero_()


class WritesItsOptions(Ascent):
    def unlearn(self, task, state=None):
        self.options.__dict__["steps"] = 7
        return task.original


def set_lr(task, _state):
    task.recipe.options = task.recipe.options.model_copy(update={"lr": 0.5})


def patch_fit(task, _state):
    task.recipe.fit = lambda model, *_args, **_kwargs: model


def patch_step(_task, _state):
    torch.optim.SGD.step = lambda _self, closure=None: None


class ReadsMoreInPrepare(Ascent):
    prepared_by = ()


class Surveys(Ascent):
    def survey(self, task):
        return len(task.retained)

    def unlearn(self, task, state=None):
        found = self.survey(task.knowing_nothing()) if task.surveyed is None else task.surveyed
        task.original[-1].bias.data += found
        return task.original


class SurveysByAnOption(Surveys):
    """Finds another number for other steps, and says so."""

    surveyed_by = ("steps",)

    def survey(self, task):
        return len(task.retained) * self.options.steps


class ReadsMoreInSurvey(SurveysByAnOption):
    surveyed_by = ()


class LeavesOthersASurvey(Surveys):
    def unlearn(self, task, state=None):
        task.original[-1].bias.data += task.surveyed or 0
        return task.original


class NeedsTwo(Ascent):
    def unlearn(self, task, state=None):
        task.original[-1].bias.data += task.train.labels[task.identified].float().std()
        return task.original


class NeedsSomeLeft(Ascent):
    def unlearn(self, task, state=None):
        if len(task.identified) == 8:
            raise ZeroDivisionError("all of them")
        return task.original


class NeedsValidation(Ascent):
    def unlearn(self, task, state=None):
        return task.original if len(task.validation) else None


SOUND = [Ascent, Surveys, SurveysByAnOption]
ANY_KIND = {
    "class_is_sound": [BadName],
    "class_is_documented": [Undocumented],
    "options_are_described": [Unexplained, Indescribable],
    "defaults_are_valid": [InvalidDefault],
    "options_survive_json": [LosesItsOptions],
}
BROKEN = {
    **ANY_KIND,
    "grid_points_are_valid": [InvalidGrid],
    "passes_are_two_numbers": [WrongPasses, PassesAsANumber],
    "unlearn_returns_a_model": [
        returning(lambda model: model.state_dict()),
        returning(lambda model: model[:-1]),
        returning(lambda model: nn.Sequential(model, nn.Softmax(1))),
        returning(with_nan),
        returning(hooked),
        returning(patched),
        returning(lambda model: model.fc9),
    ],
    "device_and_dtype_are_kept": [returning(lambda model: model.double())],
    "task_is_untouched": [
        WritesIndices,
        WritesItsOptions,
        doing(lambda task, _state: task.train.labels.add_(1)),
        doing(lambda task, _state: task.validation.labels.zero_()),
        doing(lambda task, _state: task.train._x.__setitem__(0, 0)),
        doing(lambda task, _state: task.train._x.data.zero_()),
        doing(lambda task, _state: task.validation._x.numpy().fill(0)),
        doing(lambda task, _state: task.recipe.options.__dict__.update(lr=0.5)),
        doing(set_lr),
        doing(patch_fit),
    ],
    "seed_is_left_to_cutk": [doing(lambda _task, _state: torch.manual_seed(0))],
    "prepared_state_is_shared": [doing(lambda _task, state: state["mean"].add_(1))],
    "prepared_by_names_what_prepare_reads": [ReadsMoreInPrepare],
    "surveyed_by_names_what_survey_reads": [ReadsMoreInSurvey],
    "survey_decides_nothing": [LeavesOthersASurvey],
    "one_identified_sample_is_enough": [NeedsTwo],
    "all_may_be_identified": [NeedsSomeLeft],
    "validation_may_be_missing": [NeedsValidation],
    "same_seed_gives_the_same": [ChangesFromTimeToTime],
    "nothing_global_is_left": [
        doing(lambda _task, _state: torch.set_grad_enabled(False)),
        doing(lambda _task, _state: nn.modules.module.register_module_forward_hook(lambda *_: None)),
        doing(patch_step),
    ],
}
