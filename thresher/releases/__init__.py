"""Releases: a run's dataset becomes part of a dataset repository, whole or not at all.

place       what a repository is: a revision, files at it, one commit that moves it on
hub         the Hugging Face Hub
folder      a directory, local or on S3 or wherever fsspec reaches
repository  what it holds: manifest, shards, versions
publishing  a run is appended
indexed     the index of what was released goes along, and is fetched
changing    back to an earlier release; fewer, larger shards; samples taken back
gates       why a run must not be released
validation  rows and types, before they are sent
readme      the card of a repository
"""
