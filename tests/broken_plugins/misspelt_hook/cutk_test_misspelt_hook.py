import cutk


@cutk.hookimpl
def cutk_unlearner():
    return []
