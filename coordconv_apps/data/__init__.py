"""Data shared by all applications: data module base, resumable loaders, image files, downloads."""
