import cutk


@cutk.hookimpl
def cutk_unlearners(registry):
    return []
