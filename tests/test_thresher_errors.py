"""The tree of errors."""

import inspect

from thresher import errors


def test_every_error_is_one_of_thresher_and_in_the_tree_of_the_docstring() -> None:
    """The command line explains them all by their message."""
    classes = {name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__}

    assert len(classes) > 5
    for name, kind in classes.items():
        assert issubclass(kind, errors.ThresherError)
        assert name in (errors.__doc__ or "")
        assert kind.__doc__
