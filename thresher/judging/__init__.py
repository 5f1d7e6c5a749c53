"""Builds a recipe's filters and runs them over the pool."""
