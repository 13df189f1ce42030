"""What a pipeline asks for: specs, their validation, and the plan of datums that follows from them. Pure."""
