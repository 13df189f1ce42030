"""What runs inside a workspace's `build` and `train` pipelines, and their specs. Imports nothing of kaos."""
