"""`pfs_v2.API`: projects, repos, branches, commits, files and file sets."""
