"""Running a job: its datums, their workers, inputs, logs and outputs."""
