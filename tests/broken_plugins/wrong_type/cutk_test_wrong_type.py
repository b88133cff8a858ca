import cutk


class NotAnUnlearner(cutk.Metric):
    name = "not-an-unlearner"

    def compute(self, evaluation):
        return 1.0


@cutk.hookimpl
def cutk_unlearners():
    return [NotAnUnlearner]
