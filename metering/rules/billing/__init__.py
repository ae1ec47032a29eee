"""What documents say: their form, their numbers, and what follows from a rated month. Pure."""
