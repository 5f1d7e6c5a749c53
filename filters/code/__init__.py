"""Keeps programs that pass the tests of a reference: references, tests as cases, extraction of programs, comparison of values."""
