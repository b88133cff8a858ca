print("thank you for importing me")

import cutk


class Method(cutk.Unlearner):
    """Returns the original."""

    name = "chatty"

    def unlearn(self, task, state=None):
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    print("and for asking me")
    return [Method]
