"""The data models: prompt, sample, verdict, recipe and manifests. They import nothing of the other packages."""
