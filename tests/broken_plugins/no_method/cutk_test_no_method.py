import cutk


class Lazy(cutk.Unlearner):
    name = "lazy"


@cutk.hookimpl
def cutk_unlearners():
    return [Lazy]
