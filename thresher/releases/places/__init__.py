"""Targets of a release: a repository of the Hub, a directory, or a bucket."""
