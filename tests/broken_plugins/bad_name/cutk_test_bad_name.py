import cutk


class BadName(cutk.Unlearner):
    """Returns the original."""

    name = "Bad Name!"

    def unlearn(self, task, state=None):
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [BadName]
