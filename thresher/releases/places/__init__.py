"""Where releases go: a repository of the Hub, a directory, or a bucket."""
