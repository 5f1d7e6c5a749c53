"""Releases: a run's dataset becomes part of a dataset repository, in one commit or not at all.

publish        append a run
append         the commit that does it
change         roll back to an earlier release, or revoke samples
compact        merge small shards into large ones
index_sync     the index of released samples in the repository, and in each run
gates          reasons why a run must not be released
validation     checks of rows and types before they are sent
release_files  the files of a dataset as shards
readme         the card of a repository
repository     the content of a repository: manifest, shards, versions
places         the protocol of a repository, the Hugging Face Hub, and folders
"""
