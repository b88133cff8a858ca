import surely_not_there  # noqa: F401
