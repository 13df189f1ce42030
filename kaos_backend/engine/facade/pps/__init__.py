"""`pps_v2.API`: pipelines, jobs, datums and logs."""
