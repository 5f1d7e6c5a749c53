"""Filters that judge the answer in a completion by its text: equal to the reference, of a form, as instructed, or agreed on."""
