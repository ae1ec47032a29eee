"""Files of figures: what stands in them, and the forms that they take."""
