"""Filters that ask a model: a language model as a judge, and reward or classification models."""
