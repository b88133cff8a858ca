import cutk


@cutk.hookimpl
def cutk_unlearners():
    raise RuntimeError("no licence found")
