"""What may happen next: legal moves, the controller's decisions, and who gets which part of the machine."""
