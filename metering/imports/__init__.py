"""Taking over what another gateway has recorded: its people, limits, keys and past usage."""
